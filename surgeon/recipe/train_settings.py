"""Define the settings of a recipe's ``train:`` section. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from surgeon.data.sources import Digits, Sources, as_sources, beside, check_domains
from surgeon.interfaces.selector import BesideRecipe, Selector, files_beside
from surgeon.interfaces.training import Objective

__all__ = [
    "AverageSettings",
    "BaselineSettings",
    "CallbackSettings",
    "Digits",
    "DistillSettings",
    "MetricSettings",
    "MixSettings",
    "OptimizerSettings",
    "TrainSettings",
]


SOURCE = "source"
"""As teacher: the network that a recipe's operations are applied to."""


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
    """early_stopping, or a plugin's callback (hook surgeon_callbacks)."""

    @property
    def options(self) -> dict[str, Any]:
        """The callback's settings."""
        return dict(self.model_extra or {})


class MetricSettings(BaseModel):
    """Name a metric; the other keys are its options."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    metric: str = Field(min_length=1)
    """calibration_error, or a plugin's metric (hook surgeon_metrics)."""
    output: str | None = Field(default=None, min_length=1)
    """The output that it measures. Default: every output with labels."""

    @property
    def options(self) -> dict[str, Any]:
        """The metric's options."""
        return dict(self.model_extra or {})


class AverageSettings(BaseModel):
    """Replace the weights at the end of training by their average (torch.optim.swa_utils)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["ema", "swa"] = "ema"
    """ema: an exponential average over all steps, also used for evaluation during training; swa: the mean over the
    ends of the last epochs, with the statistics of norm layers recomputed afterwards (Izmailov et al. 2018)."""
    decay: float = Field(default=0.999, gt=0, lt=1)
    """ema: the weight of the average in each step; smaller in the first steps."""
    start: float = Field(default=0.75, ge=0, lt=1)
    """swa: the share of training after which epochs are averaged."""


class MixSettings(BaseModel):
    """Mix the pictures of a training batch, and their labels (torchvision.transforms.v2)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    mixup: float = Field(default=0.0, ge=0)
    """α of mixup (Zhang et al. 2018), such as 0.2; 0 disables it. With cutmix, each batch uses one of the two at
    random."""
    cutmix: float = Field(default=0.0, ge=0)
    """α of CutMix (Yun et al. 2019), such as 1.0; 0 disables it."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if not (self.mixup or self.cutmix):
            raise ValueError("give mixup: 0.2, cutmix: 1.0, or both")
        return self


class DistillSettings(BaseModel):
    """Learn from a teacher what it predicts for each sample, beside the labels (Hinton, Vinyals & Dean 2015).

    The loss is ``(1 - weight) · L + weight · T² · KL(p ‖ q)``: L that of the labels, p and q the teacher's and the
    network's distributions over the classes, of logits divided by the temperature T. The teacher gets the same inputs
    as the network, in eval mode. Its classes, or its vocabulary, must be the network's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    teacher: Annotated[str, Field(min_length=1), BesideRecipe()] = SOURCE
    """source: the network that the recipe's operations are applied to, as it was before; or another one: a file, a
    folder, torchvision/NAME@WEIGHTS, hf:ORG/NAME, an artifact. A file is looked for next to the recipe first."""
    output: str | None = Field(default=None, min_length=1)
    """The output to learn. Default: the network's own prediction, ``logits`` or ``out``."""
    temperature: PositiveFloat = 2.0
    """T: the higher, the more the smaller probabilities tell."""
    weight: float = Field(default=0.5, ge=0, le=1)
    """The share of what the teacher predicts; the labels have the rest. 1 uses no labels, 0 learns features only."""
    features: dict[Selector, Selector] = Field(default_factory=dict)
    """Sites of the network, each with the teacher's site whose features it learns: ``{"@blocks[0]": "@blocks[1]"}``
    (hints, Romero et al. 2015). Where their widths differ, a linear map is learnt, which is not in the result."""
    feature_weight: PositiveFloat = 1.0
    """The factor of the distance between features, relative to the size of the teacher's."""
    top: PositiveInt | None = None
    """Run the teacher once over the training samples, and keep so many of its largest predictions of each on disk,
    beside cached features; all others count as one class. Default: the teacher runs in every step. Refused where
    samples differ in every epoch; needed with ``features: cache``."""

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not self.weight and not self.features:
            raise ValueError("nothing is learnt from the teacher: give weight, features, or both")
        if self.top is not None and not self.weight:
            raise ValueError("top keeps predictions, and weight: 0 learns none")
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
    """Training samples per step and device."""
    learning_rate: PositiveFloat | Literal["auto", "find"] | None = None
    """Its peak learning rate."""
    warmup: float | None = Field(default=None, ge=0, lt=1)
    """The share of its steps in which the learning rate rises to the peak."""
    optimizer: OptimizerSettings | None = None
    """Learning rates by parameter. Default: one rate for all."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """TrainingArguments that differ from those of fine-tuning."""


class TrainSettings(BaseModel):
    """Set how the edited network is fine-tuned, on the transformers Trainer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: Sources | None = None
    """The data to train on: a source, or a list of sources. In Python, ``train`` also takes datasets."""
    evaluate: Sources | None = None
    """The source of the test samples. Default: ``data``."""
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    """The share of the training samples to hold out for validation, if it is needed (for early stopping, the best
    weights, eval_strategy) and the data have no validation split; test samples are never used for this."""
    objectives: list[Objective] | None = Field(default=None, min_length=1)
    """The losses. Default: cross-entropy of the output ``logits`` against the column ``labels``. The losses of
    operations (a domain branch, task heads) are added to them."""
    task_weights: Literal["fixed", "uncertainty"] = "fixed"
    """fixed: losses are added up by their weights; uncertainty: also by the inverse of each task's variance,
    learnt beside the network (Kendall, Gal & Cipolla 2018)."""
    domain_bn: Literal["mixed", "separate"] = "mixed"
    """separate: in training, BatchNorm normalises each domain in a separate batch, as domain-adversarial training
    needs; mixed: it normalises mixed batches."""
    domain_statistics: str | None = Field(default=None, min_length=1)
    """With ``domain_bn: separate``, the domain whose running statistics BatchNorm keeps, for use of the network on that
    domain. Default: the statistics follow all domains, one after the other."""
    features: Literal["none", "cache"] = "none"
    """cache: run the frozen layers below all trained ones once over the training samples, keep their outputs on disk
    ($SURGEON_CACHE or ~/.cache/surgeon; up to $SURGEON_CACHE_GB, default 20, dropping the least recently used) and
    train the other layers on them. Dropout inside a frozen part is off; otherwise refused if the result would differ.
    A warning says so if most of the frozen layers lie above trained ones and run in every step."""
    epochs: PositiveFloat = 10
    """Passes over the training samples."""
    batch_size: PositiveInt = 32
    """Training samples per step and device."""
    learning_rate: PositiveFloat | Literal["auto", "find"] = "auto"
    """The peak learning rate of AdamW; ``arguments`` may set ``lr_scheduler_type``, ``optim`` and others. auto: 5e-5 if
    pretrained attention layers are trained, which a higher rate would damage, else 1e-3. find: a range test on training
    samples (Smith 2017); the weights are restored afterwards."""
    warmup: float | None = Field(default=None, ge=0, lt=1)
    """The share of the steps in which the learning rate rises to its peak. Default: 0.1 if attention layers are
    trained and the schedule is not ``constant``, which has no warm-up; else 0."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Learning rates by parameter."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Other transformers.TrainingArguments: ``bf16: true``, ``weight_decay: 0.01``, …"""
    callbacks: list[Annotated[str, Field(min_length=1)] | CallbackSettings] = Field(default_factory=list)
    """Callbacks of the Trainer: a name, or ``{callback: early_stopping, patience: 3, metric: loss}``, which ends
    training when the metric has not improved for that many epochs, and restores the best weights."""
    metrics: list[Annotated[str, Field(min_length=1)] | MetricSettings] = Field(default_factory=list)
    """Metrics of the test samples to add to those of the task: a name, or ``{metric: calibration_error, bins: 10}``."""
    class_weights: Literal["balanced"] | list[float] | dict[str | int, float] | None = None
    """The weight of each class in the loss: balanced (the inverse of its frequency in training), a list, or a mapping
    from names, with 1 for names left out. For yes/no questions, the weight of a yes."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The share of every label of classes and yes/no questions that is spread over all classes, such as 0.1."""
    sampling: Literal["uniform", "balanced", "domains"] = "uniform"
    """balanced: draw all classes equally often; domains: draw all domains equally often."""
    mix: MixSettings | None = None
    """Mixup and CutMix of training pictures: ``{mixup: 0.2, cutmix: 1.0}``."""
    average: AverageSettings | None = None
    """Average the weights over training: ``{kind: ema, decay: 0.999}`` or ``{kind: swa, start: 0.75}``."""
    test_views: list[Literal["plain", "flip", "crops"]] = Field(default_factory=list)
    """Average predictions in evaluation over these views of each picture (test-time augmentation): unchanged, mirrored,
    four corners and the centre."""
    distill: DistillSettings | None = None
    """Learn from a teacher beside the labels: ``{temperature: 2, weight: 0.5}`` learns from the network as it was
    before the recipe's operations, so that a cut one gets back what it lost."""
    baseline: Literal["none", "scratch"] | BaselineSettings = "none"
    """scratch: also train the same network from initial weights on the same samples, for comparison, with one learning
    rate for all layers; a mapping changes its settings: ``{epochs: 30, learning_rate: 0.001}``."""

    @model_validator(mode="after")
    def _no_leak(self) -> Self:
        if self.domain_statistics is not None and self.domain_bn != "separate":
            raise ValueError("domain_statistics needs domain_bn: separate")
        if self.warmup is not None and "warmup_steps" in self.arguments:
            raise ValueError("warmup and arguments.warmup_steps set the same value; leave one out")
        if self.distill is not None and self.distill.features and self.features == "cache":
            raise ValueError("distill.features and features: cache: cached layers do not run, and learn nothing")
        settings = [as_sources(data) for data in (self.data, self.evaluate) if data is not None]
        for sources in settings:
            check_domains(sources)
        digits = [source.test_fraction for sources in settings for source in sources if isinstance(source, Digits)]
        if len(set(digits)) > 1:
            raise ValueError("test_fraction differs among the sources: test samples would be trained on")
        return self

    @property
    def compared(self) -> BaselineSettings | None:
        """The settings of the baseline; None if there is none."""
        if isinstance(self.baseline, BaselineSettings):
            return self.baseline
        return BaselineSettings() if self.baseline == "scratch" else None

    def beside(self, folder: Path) -> Self:
        """Return the settings with file paths resolved relative to ``folder``, where the recipe is."""
        settings = {name: getattr(self, name) for name in ("data", "evaluate")}
        changes = {name: beside(data, folder) for name, data in settings.items() if data is not None}
        if self.distill is not None and self.distill.teacher != SOURCE:
            changes["distill"] = self.distill.model_copy(update=files_beside(self.distill, folder))
        return self.model_copy(update=changes)
