"""Provide timm's builders: ``timm/resnet50``, ``timm/resnet50.a1_in1k`` with its weights, ``timm/resnet50@DEFAULT``."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon import Architecture, ArchitectureError, ArchitectureProvider, Match
from surgeon_timm.fingerprints import as_tuple

if TYPE_CHECKING:
    from torch import nn

    from surgeon.checkpoint.formats import Checkpoint

LOADING = frozenset({"pretrained", "checkpoint_path", "cache_dir", "pretrained_model_args", "features_only"})
"""Arguments of ``create_model`` that an architecture's options may not have: they read files or wrap the network."""
CONFIG = "pretrained_cfg"


class Timm(ArchitectureProvider):
    """Build any network of ``timm.list_models()``; only tags that are named are downloaded."""

    scheme = "timm"

    def names(self) -> list[str]:
        """Return the names of all builders, without tags of weights."""
        import timm

        names: list[str] = timm.list_models()
        return names

    def build(self, architecture: Architecture) -> nn.Module:
        """Call ``timm.create_model`` without weights."""
        import timm

        self.require(architecture.name)
        options = dict(architecture.options)
        if loading := sorted(LOADING & options.keys()):
            raise ArchitectureError(f"{', '.join(loading)}: not an option here", where=str(architecture))
        try:
            model: nn.Module = timm.create_model(architecture.name, pretrained=False, **options)
        except (TypeError, ValueError, KeyError, AttributeError, AssertionError, IndexError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ArchitectureError(f"timm cannot build it: {reason}", where=f"{architecture} {options}") from error
        return model

    def locate(self, name: str, *, weights: bool = True) -> tuple[Architecture, Path | None]:
        """Return the builder and, for ``NAME.TAG`` or ``NAME@TAG``, the file of weights in the cache."""
        from timm.models import get_pretrained_cfg, split_model_name_tag

        name, _, tag = name.partition("@")
        if not tag:
            name, tag = split_model_name_tag(name)
        self.require(name)
        if not tag:
            return Architecture(scheme=self.scheme, name=name), None
        from surgeon_timm.weights import cached, require_tag

        tag = require_tag(name, tag)
        path = cached(get_pretrained_cfg(f"{name}.{tag}" if tag else name)) if weights else None
        return Architecture(scheme=self.scheme, name=name, options={CONFIG: tag} if tag else {}), path

    def of_module(self, module: nn.Module) -> Architecture | None:
        """Build what timm says it built, and compare the structure with the module's."""
        config = getattr(module, CONFIG, None)
        if not type(module).__module__.startswith("timm.") or not isinstance(config, Mapping):
            return None
        from surgeon import build_skeleton
        from surgeon_timm.structure import structure

        options = {**getattr(module, "_model_args", {}), CONFIG: {k: v for k, v in config.items() if k != "state_dict"}}
        try:
            options = json.loads(json.dumps(options))
            form = Architecture(scheme=self.scheme, name=config["architecture"], options=options)
            rebuilt = build_skeleton(lambda: self.build(form))
        except (TypeError, ValueError, KeyError, RuntimeError, ArchitectureError):
            return None  # an option that is not a plain value, or a class that its author changed
        return form if structure(rebuilt) == structure(module) else None

    def identify(self, checkpoint: Checkpoint) -> Match | None:
        """Identify a folder by timm's ``config.json``, and a bare state dict by its keys and shapes."""
        from surgeon_timm import identify

        if checkpoint.config is None:
            return identify.by_tensors(self, checkpoint)
        if "architecture" not in checkpoint.config or "model_type" in checkpoint.config:
            return None
        return identify.by_config(self, checkpoint)

    def complete(self, architecture: Architecture, checkpoint: Checkpoint) -> list[Architecture]:
        """Return the builder with the classes, channels and image size of the tensors; given options stay."""
        from surgeon_timm.identify import completed

        return completed(self, architecture, checkpoint)

    def pictures(self, architecture: Architecture) -> dict[str, Any] | None:
        """Return the evaluation transform that timm makes for the network's ``pretrained_cfg``."""
        from surgeon_timm.pictures import of_config

        return of_config(self.pretrained_cfg(architecture))

    def pretrained_cfg(self, architecture: Architecture) -> dict[str, Any]:
        """Return the ``pretrained_cfg`` of an architecture, with the channels and image size of its options."""
        from timm.models import get_pretrained_cfg

        options = architecture.options
        config = options.get(CONFIG)
        if not isinstance(config, Mapping):
            weights = get_pretrained_cfg(f"{architecture.name}.{config}" if config else architecture.name)
            config = weights.to_dict() if weights is not None else {}
        config = dict(config)
        channels, *size = config.get("input_size") or (3, 224, 224)
        image_size = options.get("img_size")
        if image_size is not None and options.get("img_size") != size:
            size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        config["input_size"] = (options.get("in_chans") or channels, *size)
        return config

    def stock(self, architecture: Architecture, model: nn.Module) -> Iterator[Architecture]:
        """Yield the builder with the classes and channels of an edited network, then with its numbers of blocks."""
        if not type(model).__module__.startswith("timm."):
            return
        options = {**architecture.options, **_sizes(model)}
        if isinstance(config := options.get(CONFIG), Mapping):
            options[CONFIG] = {**config, "num_classes": options.get("num_classes", config.get("num_classes"))}
        yield architecture.model_copy(update={"options": options})
        for name, count in _depths(model).items():
            yield architecture.model_copy(update={"options": {**options, name: count}})

    def config(self, rebuilt: nn.Module, pictures: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return the ``config.json`` that timm's own ``save_for_hf`` writes for the network."""
        from surgeon_timm.folder import config_of

        return config_of(copy.copy(rebuilt), pictures)

    def load_stock(self, folder: Path) -> nn.Module:
        """Load an artifact as timm's users do."""
        import timm

        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
        return model


def _sizes(model: nn.Module) -> dict[str, Any]:
    """Return the options for the classes and channels that the tensors of an edited network have."""
    config: Any = getattr(model, CONFIG, {})
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    heads = {shapes[f"{head}.weight"][0] for head in as_tuple(config.get("classifier")) if f"{head}.weight" in shapes}
    sizes: dict[str, Any] = {}
    if len(heads) == 1:
        sizes["num_classes"] = heads.pop()
    elif not heads and config.get("classifier"):
        sizes["num_classes"] = 0
    for stem in as_tuple(config.get("first_conv"))[:1]:
        weight = shapes.get(f"{stem}.weight", ())
        if len(weight) == 4 and weight[1] != (config.get("input_size") or (3,))[0]:
            sizes["in_chans"] = weight[1]
    return sizes


def _depths(model: nn.Module) -> dict[str, Any]:
    """Return numbers of blocks under the arguments with which timm's classes take them."""
    depths: dict[str, Any] = {}
    blocks = getattr(model, "blocks", None)
    if blocks is not None and hasattr(blocks, "__len__"):
        depths["depth"] = len(blocks)
    for container in ("stages", "layers"):
        stages = [getattr(stage, "blocks", None) for stage in getattr(model, container, None) or ()]
        if stages and all(hasattr(stage, "__len__") for stage in stages):
            depths["depths"] = [len(stage) for stage in stages]  # type: ignore[arg-type]
    layers = [getattr(model, f"layer{number}", None) for number in range(1, 5)]
    if all(hasattr(layer, "__len__") for layer in layers):
        depths["layers"] = [len(layer) for layer in layers]  # type: ignore[arg-type]
    return depths
