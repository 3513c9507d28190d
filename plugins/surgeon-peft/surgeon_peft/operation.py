"""peft: attach an adapter of the library peft."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from surgeon import Operation, OperationError, Selector

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

    from surgeon.surgery.context import Surgery

ALL_LINEAR = "all-linear"


class Peft(Operation):
    """Attach an adapter of the library peft: LoRA, DoRA, IA³, VeRA, OFT and most others of its registry.

    peft builds the layers and computes their first values, under the recipe's seed. The network keeps its class and its
    tensors; it is frozen, its norm layers keep their statistics, and the adapter trains. ``surgeon export-adapter``
    writes the folder that peft loads; ``merge_adapters`` merges. One adapter a network: to attach another one, merge
    first.
    """

    method: str = "lora"
    """The method's name in peft's registry, in lower case: lora, ia3, vera, oft, …; also dora and rslora."""
    targets: Selector | None = None
    """The modules that are adapted; of a container, its linear and convolution layers (for ln_tuning, its norms).
    Left out, those that peft knows for the model type; all-linear, every linear layer but the head."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the method's config class in peft, such as r, lora_alpha, use_dora."""
    modules_to_save: Selector | None = None
    """Modules of which a copy trains in full, and is saved with the adapter: a head. New modules of earlier operations
    are always among them."""

    @model_validator(mode="after")
    def _check_config(self) -> Peft:
        from surgeon_peft.config import make_config

        make_config(self.method, {k: v for k, v in self.config.items() if k != "feedforward_modules"})
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Freeze the network, let peft put its layers in, and say where their values come from."""
        from surgeon_peft.config import recorded, restored
        from surgeon_peft.injection import layers_of

        if present := next(layers_of(surgery.model), None):
            raise OperationError(f"{present[0]} is adapted already", hint="merge that adapter first: merge_adapters")
        # every field, as it is today: neither peft's defaults nor the modules that it knows for a model type may change
        # what an artifact loads as
        config = restored(surgery.recall("config", lambda: recorded(self._resolved(surgery))))
        model = surgery.model
        originals = dict(model.named_modules())
        surgery.freeze(surgery.select("."))
        with surgery.bookkeeping():
            changed = self._injected(model, config)
        for site in changed:
            surgery.replace(site, model.get_submodule(site))
        self._set_values(surgery, config, {site: originals[site] for site in changed})
        return model

    def _resolved(self, surgery: Surgery) -> PeftConfig:
        """Make the config, with exact names in place of selectors."""
        from surgeon_peft.config import kind_of, make_config
        from surgeon_peft.targets import adaptable, refuse_ambiguous, saved_modules

        values = dict(self.config)
        feedforward = values.pop("feedforward_modules", None)
        config = make_config(self.method, values)
        norms = kind_of(config) == "LN_TUNING"
        if self.targets == ALL_LINEAR:
            config.target_modules = ALL_LINEAR
        elif self.targets is not None:
            config.target_modules = adaptable(surgery.select(self.targets), norms=norms)
            refuse_ambiguous(surgery.model, config.target_modules, "targets")
        if hasattr(config, "feedforward_modules"):
            if feedforward is not None:
                selector = feedforward if isinstance(feedforward, str) else ", ".join(feedforward)
                names = adaptable(surgery.select(selector), norms=False)
                if outside := sorted(set(names) - set(config.target_modules or ())):
                    raise OperationError(f"config.feedforward_modules: {outside[0]} is not one of the targets")
                config.feedforward_modules = names
            elif self.targets is not None:
                config.feedforward_modules = []
        elif feedforward is not None:
            raise OperationError(f"{self.method} has no feedforward_modules: they are a field of ia3")
        saved = saved_modules(surgery, self.modules_to_save, targets=config.target_modules)
        if saved:
            if not hasattr(config, "modules_to_save"):
                raise OperationError(f"{self.method} cannot save modules in full", hint="leave out modules_to_save")
            config.modules_to_save = saved
            refuse_ambiguous(surgery.model, saved, "modules_to_save")
        if not isinstance(config.target_modules, list):
            self._name_targets(surgery.model, config)
        return config

    def _name_targets(self, model: nn.Module, config: PeftConfig) -> None:
        """Name exactly the modules that peft knows for the model type: let it attach the adapter to a copy."""
        from surgeon.graph.skeleton import skeleton_of
        from surgeon_peft.initial import ends_with_one
        from surgeon_peft.injection import BaseTunerLayer

        trial, copied = skeleton_of(model), copy.deepcopy(config)
        changed = self._injected(trial, copied)
        config.target_modules = [site for site in changed if isinstance(trial.get_submodule(site), BaseTunerLayer)]
        if getattr(copied, "feedforward_modules", None) is not None:
            feedforward = copied.feedforward_modules
            config.feedforward_modules = [site for site in config.target_modules if ends_with_one(site, feedforward)]

    def _injected(self, model: nn.Module, config: PeftConfig) -> list[str]:
        from surgeon_peft.injection import NotInjectedError, inject

        try:
            return inject(model, config)
        except NotInjectedError as error:
            raise OperationError(
                f"peft cannot attach {self.method}: {error}", hint="change targets: or config:"
            ) from error

    def _set_values(self, surgery: Surgery, config: PeftConfig, originals: dict[str, nn.Module]) -> None:
        from functools import partial

        from surgeon_peft.initial import LayerValues, Seed, reads_weights, shared_values
        from surgeon_peft.injection import BaseTunerLayer, ModulesToSaveWrapper, state_of

        model = surgery.model
        adapted = [site for site in originals if isinstance(model.get_submodule(site), BaseTunerLayer)]
        new: dict[str, dict[str, Any]] = {}
        uses: dict[int, list[tuple[str, str]]] = {}
        for site in adapted:
            old = {id(tensor) for tensor in state_of(originals[site]).values()}
            tensors = {n: t for n, t in state_of(model.get_submodule(site)).items() if id(t) not in old}
            new[site] = tensors
            for name, tensor in tensors.items():
                uses.setdefault(id(tensor), []).append((site, name))
        shared = {key for key, places in uses.items() if len({site for site, _ in places}) > 1}
        for site in adapted:
            values = LayerValues(config, site, originals[site], reads=reads_weights(config))
            seed = surgery.new(Seed)
            for name, tensor in new[site].items():
                if id(tensor) not in shared:
                    surgery.derive(
                        tensor, [seed.get_buffer("number"), *values.sources(originals[site])], values.of(name)
                    )
        if shared:
            layers = {site: copy.deepcopy(originals[site]) for site in adapted}
            tensors = {
                f"{site}.{name}": tensor
                for site in adapted
                for name, tensor in new[site].items()
                if id(tensor) in shared
            }
            surgery.draw(tensors, partial(shared_values, config, layers))
        for site in originals:
            wrapper = model.get_submodule(site)
            if isinstance(wrapper, ModulesToSaveWrapper):
                copies = state_of(wrapper.modules_to_save["default"])
                for name, tensor in state_of(wrapper.original_module).items():
                    surgery.copy_origin(copies[name], tensor)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        surgery.note(
            f"{self.method} on {len(adapted)} modules: {count:,} of {total:,} parameters train ({count / total:.2%})"
        )
