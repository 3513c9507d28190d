"""What a recipe's ``train:`` section says. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from surgeon.data.sources import Digits, Sources, as_sources, beside, check_domains
from surgeon.interfaces.selector import Selector
from surgeon.interfaces.training import Objective

__all__ = ["CallbackSettings", "Digits", "OptimizerSettings", "TrainSettings"]


class OptimizerSettings(BaseModel):
    """Which parameters learn at what rate. The optimizer itself is ``arguments: {optim: …}``, AdamW if left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each block learns at this share of the rate of the block behind it, the stem slowest (discriminative
    fine-tuning, Howard & Ruder 2018: 1/2.6); what lies behind the last block learns at the full rate."""
    head_rate: PositiveFloat = 1.0
    """The head, and the heads of branches, learn at this many times the rate."""
    rates: dict[Selector, PositiveFloat] = Field(default_factory=dict)
    """Further factors of the learning rate, by selector: ``{@stem: 0.1}``. Factors multiply."""
    decay_norms: bool = False
    """Whether biases and norms are subject to weight decay too."""


class CallbackSettings(BaseModel):
    """A callback of the Trainer by its name; the other keys are its own settings."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    callback: str = Field(min_length=1)
    """early_stopping, or one of a plugin's (hook surgeon_callbacks)."""

    @property
    def options(self) -> dict[str, Any]:
        """The callback's own settings."""
        return dict(self.model_extra or {})


class TrainSettings(BaseModel):
    """How the edited network is fine-tuned, on the transformers Trainer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: Sources | None = None
    """What to train on: a source, or several together. Python callers may hand datasets to ``train`` instead."""
    evaluate: Sources | None = None
    """Whose test samples to evaluate on; those of ``data`` if left out."""
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    """The share of the training samples that is held out where something chooses by samples that are not trained on
    (early stopping, the best weights, eval_strategy) and the data name none for it; test samples are never used so."""
    objectives: list[Objective] | None = Field(default=None, min_length=1)
    """The losses; cross-entropy of the output ``logits`` against the column ``labels`` if left out.
    What operations ask for (a domain branch, task heads) is added to them."""
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
    learning_rate: PositiveFloat = 1e-3
    """The peak learning rate of AdamW; ``arguments`` may set ``lr_scheduler_type``, ``optim`` and others."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Which parameters learn at what rate."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Anything else that transformers.TrainingArguments takes: ``bf16: true``, ``weight_decay: 0.01``, …"""
    callbacks: list[Annotated[str, Field(min_length=1)] | CallbackSettings] = Field(default_factory=list)
    """What else happens beside the steps: a name, or ``{callback: early_stopping, patience: 3, metric: loss}``, which
    ends training when what is measured after each epoch has not become better for so long, at the best weights."""
    baseline: Literal["none", "scratch"] = "none"
    """scratch: also train the same network from fresh weights on the same samples, to compare."""

    @model_validator(mode="after")
    def _no_leak(self) -> Self:
        if self.domain_statistics is not None and self.domain_bn != "separate":
            raise ValueError("domain_statistics needs domain_bn: separate")
        given = [as_sources(each) for each in (self.data, self.evaluate) if each is not None]
        for sources in given:
            check_domains(sources)
        digits = [source.test_fraction for sources in given for source in sources if isinstance(source, Digits)]
        if len(set(digits)) > 1:
            raise ValueError("test_fraction differs among the sources: test samples would be trained on")
        return self

    def beside(self, folder: Path) -> Self:
        """The settings with the paths of files that lie in ``folder``, where the recipe is."""
        given = {name: getattr(self, name) for name in ("data", "evaluate")}
        return self.model_copy(update={name: beside(each, folder) for name, each in given.items() if each is not None})
