"""Make the parts of a training run from its settings: objectives, BatchNorm by domain, cached features, penalties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surgeon.data.combine import DOMAIN, load_source
from surgeon.data.network import ANY, MASKED, NEXT_TOKEN, Network
from surgeon.errors import SurgeonError, TrainingError, suggest
from surgeon.interfaces.returned import is_ours, raised_in, refuse_return
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective, Penalty, Stage, Term
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.anatomy import Anatomy
from surgeon.training.calls import Batch
from surgeon.training.class_names import default_loss
from surgeon.training.detection import DETECTIONS, default_objective
from surgeon.training.domains import SeparateNorms
from surgeon.training.features import FeatureCache
from surgeon.training.language import language_of
from surgeon.training.load_splits import prepared_as
from surgeon.training.losses import surgeon_losses
from surgeon.training.objectives import Target, call_of, default_objectives, prepare
from surgeon.training.options import LossOptions
from surgeon.training.penalties import Run

if TYPE_CHECKING:
    from surgeon.plugins import Plugins
    from surgeon.training.trainer import ObjectiveTrainer


def make_targets(
    model: nn.Module,
    settings: TrainSettings,
    splits: Splits,
    objectives: Sequence[Objective],
    penalties: Sequence[Penalty],
    plugins: Plugins | None,
    outputs: dict[str, Tensor],
    batch: Batch,
) -> list[Target]:
    """Return the objectives with their losses, checked against the outputs for a small batch.

    Raises:
        TrainingError: Settings, data and model do not match, or nothing would be trained.
    """
    trained = list(objectives)
    if settings.objectives is None:
        conserved = {name for penalty in penalties for name in penalty.conserved()}
        free = {name: output for name, output in outputs.items() if name not in conserved}
        if not (free or trained):
            raise TrainingError(
                f"all outputs of the model are conserved ({', '.join(conserved)}), so nothing is learned",
                where="train.objectives",
                hint="add a new head beside the old one: multitask with original: keep",
            )
        if DETECTIONS in outputs:
            default = [] if any(objective.output == DETECTIONS for objective in trained) else [default_objective()]
        else:
            default = default_objectives(free, trained, default_loss(model)) if free else []
        language = language_of(model)
        if language in (NEXT_TOKEN, MASKED) and splits.inputs[:1] == ("input_ids",):
            # labels beside tokens are tokens: the next ones, which the loss shifts, or the masked ones
            of_tokens = {"loss": language}
            default = [
                o.model_copy(update=of_tokens) if batch[o.label].shape == batch["input_ids"].shape else o
                for o in default
                if o.label in batch
            ] or default
        trained = [*default, *trained]
    losses = plugins.losses() if plugins else surgeon_losses()
    options = LossOptions(settings, splits, model, outputs)
    targets = prepare(trained, losses, outputs, batch, splits.classes, options)
    options.refuse_unused()
    return targets


def make_cache(
    model: nn.Module, settings: TrainSettings, splits: Splits, stages: Sequence[Stage], device: torch.device
) -> FeatureCache | None:
    """Return the feature cache if the settings ask for it; None otherwise.

    Raises:
        TrainingError: Cached features would differ from the network's.
    """
    if settings.features == "none":
        return None
    if stages:
        raise TrainingError(
            "features cannot be cached: layers that are unfrozen later could not be trained on them",
            where="train.features",
            hint="keep these layers frozen, or use features: none",
        )
    if settings.mix is not None:
        raise TrainingError(
            "features cannot be cached: mixed pictures differ between steps",
            where="train.features",
            hint="leave mix out, or features: none",
        )
    for name in ("torch_compile", "bf16", "fp16", "fsdp", "deepspeed"):
        if settings.arguments.get(name):
            raise TrainingError(
                f"features cannot be cached: {name} changes the outputs of the network",
                where="train.features",
                hint=f"leave {name} out, or features: none",
            )
    return FeatureCache(model.to(device), splits)


def make_norms(model: nn.Module, settings: TrainSettings, splits: Splits) -> SeparateNorms | None:
    """Return BatchNorm by domain, if the settings ask for it.

    Raises:
        TrainingError: The data have no domains, or not the named one.
    """
    if settings.domain_bn == "mixed":
        return None
    if DOMAIN not in splits.train[0]:
        raise TrainingError(
            "domain_bn: separate needs domains, and the data have none",
            where="train.domain_bn",
            hint="give every source its domain: data: [{…, domain: photos}, {…, domain: sketches}]",
        )
    keep = settings.domain_statistics
    if keep is not None and keep not in splits.domains:
        raise TrainingError(
            f"no source has the domain {keep!r}",
            where="train.domain_statistics",
            hint=suggest(keep, splits.domains),
        )
    return SeparateNorms(model, None if keep is None else splits.domains.index(keep))


def make_terms(
    penalties: Sequence[Penalty],
    model: nn.Module,
    splits: Splits,
    anatomy: Anatomy,
    targets: Sequence[Target],
    outputs: dict[str, bool],
    trainer: ObjectiveTrainer,
    ending: ExitStack,
    seed: int,
    network: Network = ANY,
    *,
    example: Batch | None = None,
    plugins: Plugins | None = None,
    teacher: nn.Module | None = None,
) -> list[Term]:
    """Return the terms that penalties add to the loss, relative to the network's current values.

    Raises:
        TrainingError: A penalty does not fit the network, or how it is trained.
    """
    if not penalties:
        return []
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise TrainingError(
            "penalties need whole parameters, which FSDP and DeepSpeed split",
            where="train.arguments",
            hint="train on one device or with DDP, or leave conserve and distill out",
        )
    run = Run(
        model=model,
        call=call_of(model, splits.inputs),
        anatomy=anatomy,
        outputs=outputs,
        trained={target.objective.output for target in targets if target.objective.weight},
        load=lambda source: load_source(source, seed, prepared_as(replace(network, heads={}), model, [source])),
        seed=seed,
        targets=targets,
        splits=splits,
        example=example,
        plugins=plugins,
        teacher=teacher,
        learnt=trainer.learnt,
        ending=ending,
        progress=lambda: trainer.state.global_step / max(1, trainer.state.max_steps),
    )
    return [_term(penalty, run) for penalty in penalties]


def _term(penalty: Penalty, run: Run) -> Term:
    """Begin a penalty; its term must return one number, a tensor, in every step."""
    name = type(penalty).__name__
    term: Any = raised_in(penalty, f"{name}.begin(run)", lambda: penalty.begin(run), (SurgeonError,))
    if not callable(term):
        expected = "a function of the outputs and the batch that returns a scalar tensor"
        raise refuse_return(penalty, f"{name}.begin(run)", expected, term)
    if is_ours(penalty):
        return term  # type: ignore[no-any-return]

    def checked(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        value = raised_in(penalty, f"the term of {name}", lambda: term(outputs, batch), (SurgeonError,))
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            hint = "add its entries up, or take their mean: .sum(), .mean()" if isinstance(value, Tensor) else None
            expected = "a tensor of shape (): one number, with a gradient"
            raise refuse_return(penalty, f"the term of {name}", expected, value, hint)
        return value.reshape(())

    return checked
