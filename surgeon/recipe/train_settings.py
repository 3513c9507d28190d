"""Define the settings of a recipe's ``train:`` section. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from surgeon.data.sources import Digits, Sources, as_sources, beside, check_domains
from surgeon.interfaces.selector import Selector
from surgeon.interfaces.training import Objective

__all__ = [
    "AverageSettings",
    "BaselineSettings",
    "CallbackSettings",
    "Digits",
    "MixSettings",
    "OptimizerSettings",
    "TrainSettings",
]


class OptimizerSettings(BaseModel):
    """Set learning rates by parameter. The optimizer itself is ``arguments: {optim: …}``. Default: AdamW."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """The learning rate of each block as a fraction of the next block's; the stem's is the lowest (discriminative
    fine-tuning, Howard & Ruder 2018: 1/2.6). Layers after the last block have the full rate."""
    head_rate: PositiveFloat = 1.0
    """The factor of the learning rate of the head and the heads of branches."""
    rates: dict[Selector, PositiveFloat] = Field(default_factory=dict)
    """Further factors of the learning rate, by selector: ``{@stem: 0.1}``. Factors multiply."""
    decay_norms: bool = False
    """Whether to apply weight decay to biases and norm layers too."""


class CallbackSettings(BaseModel):
    """Name a callback of the Trainer; the other keys are its settings."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    callback: str = Field(min_length=1)
    """early_stopping, or one of a plugin's (hook surgeon_callbacks)."""

    @property
    def options(self) -> dict[str, Any]:
        """Return the callback's settings."""
        return dict(self.model_extra or {})


class AverageSettings(BaseModel):
    """Replace the weights at the end of training by their average (torch.optim.swa_utils)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["ema", "swa"] = "ema"
    """ema: an exponential average over all steps, also used for evaluation during training; swa: the mean over the
    ends of the last epochs, with the statistics of norm layers recomputed afterwards (Izmailov et al. 2018)."""
    decay: float = Field(default=0.999, gt=0, lt=1)
    """ema: the share of the average that is kept in each step; smaller in the first steps."""
    start: float = Field(default=0.75, ge=0, lt=1)
    """swa: the share of training after which epochs are averaged."""


class MixSettings(BaseModel):
    """Mix the pictures of a training batch, and their labels (torchvision.transforms.v2)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    mixup: float = Field(default=0.0, ge=0)
    """α of mixup (Zhang et al. 2018), as in 0.2; 0 leaves it out. With cutmix, one of the two is drawn for each
    batch."""
    cutmix: float = Field(default=0.0, ge=0)
    """α of CutMix (Yun et al. 2019), as in 1.0; 0 leaves it out."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if not (self.mixup or self.cutmix):
            raise ValueError("give mixup: 0.2, cutmix: 1.0, or both")
        return self


class BaselineSettings(BaseModel):
    """Train the same network from initial weights on the same samples, with these settings.

    Settings for a trained network do not apply: rates by depth and by part, penalties, stages of unfreezing, cached
    features. All other settings are those of fine-tuning unless they are given here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    start: Literal["scratch"] = "scratch"
    """Its initial weights: as its builder initialises them."""
    epochs: PositiveFloat | None = None
    """Passes over the training samples."""
    batch_size: PositiveInt | None = None
    """Training samples in a step, on each device."""
    learning_rate: PositiveFloat | Literal["auto", "find"] | None = None
    """Its peak learning rate."""
    warmup: float | None = Field(default=None, ge=0, lt=1)
    """The share of its steps in which the learning rate rises."""
    optimizer: OptimizerSettings | None = None
    """Learning rates by parameter. Default: one rate for all."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """TrainingArguments that differ."""


class TrainSettings(BaseModel):
    """Set how the edited network is fine-tuned, on the transformers Trainer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: Sources | None = None
    """The data to train on: a source, or a list of sources. In Python, datasets may be given to ``train`` instead."""
    evaluate: Sources | None = None
    """The source of the test samples. Default: ``data``."""
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    """The share of the training samples to hold out for validation, if it is needed (for early stopping, the best
    weights, eval_strategy) and the data have no validation split; test samples are never used for this."""
    objectives: list[Objective] | None = Field(default=None, min_length=1)
    """The losses. Default: cross-entropy of the output ``logits`` against the column ``labels``.
    The losses of operations (a domain branch, task heads) are added to them."""
    task_weights: Literal["fixed", "uncertainty"] = "fixed"
    """fixed: losses are added up by their weights; uncertainty: also by the inverse of each task's variance,
    learnt beside the network (Kendall, Gal & Cipolla 2018)."""
    domain_bn: Literal["mixed", "separate"] = "mixed"
    """separate: in training, each domain passes through BatchNorm in a batch of its own, as domain-adversarial
    training needs it; mixed: as the batch comes."""
    domain_statistics: str | None = Field(default=None, min_length=1)
    """With ``domain_bn: separate``, the domain whose running statistics BatchNorm keeps, so that the network is used
    on it as it was trained on it; they follow all domains, one after the other, if left out."""
    features: Literal["none", "cache"] = "none"
    """cache: run what is frozen below all that trains once over the training samples, keep what it hands on on disk
    ($SURGEON_CACHE or ~/.cache/surgeon; up to $SURGEON_CACHE_GB, 20 if left out, then what was used the longest ago
    goes) and train the rest on that; refused where it would not be the same."""
    epochs: PositiveFloat = 10
    """Passes over the training samples."""
    batch_size: PositiveInt = 32
    """Training samples in a step, on each device."""
    learning_rate: PositiveFloat | Literal["auto", "find"] = "auto"
    """The peak learning rate of AdamW; ``arguments`` may set ``lr_scheduler_type``, ``optim`` and others. auto: 5e-5
    where attention layers that came with trained weights go on training, which a higher one would harm, else 1e-3.
    find: a range test on training samples (Smith 2017), from weights that are put back afterwards."""
    warmup: float | None = Field(default=None, ge=0, lt=1)
    """The share of the steps in which the learning rate rises to its peak; if left out, 0.1 where attention layers
    train, else 0."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Which parameters learn at what rate."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Anything else that transformers.TrainingArguments takes: ``bf16: true``, ``weight_decay: 0.01``, …"""
    callbacks: list[Annotated[str, Field(min_length=1)] | CallbackSettings] = Field(default_factory=list)
    """What else happens beside the steps: a name, or ``{callback: early_stopping, patience: 3, metric: loss}``, which
    ends training when what is measured after each epoch has not become better for so long, at the best weights."""
    class_weights: Literal["balanced"] | list[float] | dict[str | int, float] | None = None
    """How much each class counts in the loss: balanced (the inverse of how often it is a label in training), a list, or
    a mapping of names, 1 for what it leaves out. Of yes/no questions, how much a yes counts."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The share of every label of classes and yes/no questions that is spread over all of them, as in 0.1."""
    sampling: Literal["uniform", "balanced", "domains"] = "uniform"
    """balanced: each class is drawn as often as any other; domains: each domain is."""
    mix: MixSettings | None = None
    """Mixup and CutMix of training pictures: ``{mixup: 0.2, cutmix: 1.0}``."""
    average: AverageSettings | None = None
    """An average of the weights over training: ``{kind: ema, decay: 0.999}`` or ``{kind: swa, start: 0.75}``."""
    test_views: list[Literal["plain", "flip", "crops"]] = Field(default_factory=list)
    """What is measured averages the predictions over these views of each picture (test-time augmentation): as it is,
    mirrored, four corners and the centre."""
    baseline: Literal["none", "scratch"] | BaselineSettings = "none"
    """scratch: also train the same network from fresh weights on the same samples, to compare, with one learning rate
    for all of it; a section gives it settings of its own: ``{epochs: 30, learning_rate: 0.001}``."""

    @model_validator(mode="after")
    def _no_leak(self) -> Self:
        if self.domain_statistics is not None and self.domain_bn != "separate":
            raise ValueError("domain_statistics needs domain_bn: separate")
        if self.warmup is not None and "warmup_steps" in self.arguments:
            raise ValueError("warmup and arguments.warmup_steps say the same; leave one out")
        given = [as_sources(each) for each in (self.data, self.evaluate) if each is not None]
        for sources in given:
            check_domains(sources)
        digits = [source.test_fraction for sources in given for source in sources if isinstance(source, Digits)]
        if len(set(digits)) > 1:
            raise ValueError("test_fraction differs among the sources: test samples would be trained on")
        return self

    @property
    def compared(self) -> BaselineSettings | None:
        """The settings of the baseline; None where there is none."""
        if isinstance(self.baseline, BaselineSettings):
            return self.baseline
        return BaselineSettings() if self.baseline == "scratch" else None

    def beside(self, folder: Path) -> Self:
        """The settings with the paths of files that lie in ``folder``, where the recipe is."""
        given = {name: getattr(self, name) for name in ("data", "evaluate")}
        return self.model_copy(update={name: beside(each, folder) for name, each in given.items() if each is not None})
