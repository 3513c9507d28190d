"""Report a training run as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from surgeon.interfaces.html_table import html_report, html_table
from surgeon.training.measure_tables import domain_table, figure, single_numbers

Metrics = Mapping[str, float]
"""``OUTPUT_loss`` and, for classes and yes/no questions, ``OUTPUT_accuracy`` (0…1), on the test samples."""


@dataclass(frozen=True)
class TrainReport:
    """The metrics of one training run; accuracies are shares (0…1) of the held-out test samples."""

    before: Metrics
    """The metrics before training."""
    after: Metrics
    """The metrics after training."""
    baseline: Metrics | None
    """The metrics of the same network trained from initial weights on the same samples; None without a baseline."""
    history: tuple[Mapping[str, float], ...]
    """The log of training: ``step``, ``epoch``, ``loss``, ``learning_rate``, …"""
    seconds: float
    """Wall-clock time of training, without evaluation before and after it and without the baseline."""
    samples_per_second: float
    trainable: int
    """The number of trainable parameters."""
    train_samples: int
    test_samples: int
    device: str
    seed: int
    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """The metrics after training by output and domain (``all``, then each by its name): ``samples``, ``loss``, and by
    kind of task (:mod:`surgeon.training.measures`) ``accuracy``, ``balanced_accuracy``, ``f1``, ``per_class`` and
    ``confusion`` for classes, ``auroc`` and ``ap`` for yes/no questions, ``perplexity`` for tokens, ``mae``, ``rmse``
    and ``r2`` for values."""
    learning_rate: float = 0.0
    """The peak learning rate, given by the recipe or chosen by surgeon."""
    validation_samples: int = 0
    """The number of held-out validation samples; 0 if nothing needed them."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The training data: ``classes`` (names by label column), ``split`` (rule, seed, counts and a digest of the
    held-out samples) and ``notes``."""

    @property
    def accuracy_before(self) -> float | None:
        """The accuracy of the first objective that has one, before training."""
        return _accuracy(self.before)

    @property
    def accuracy_after(self) -> float | None:
        """The accuracy of the first objective that has one, after training."""
        return _accuracy(self.after)

    @property
    def accuracy_baseline(self) -> float | None:
        """The accuracy of the baseline's first objective that has one."""
        return None if self.baseline is None else _accuracy(self.baseline)

    def measure_names(self, output: str) -> list[str]:
        """Return the names of an output's metrics that are single numbers, in any domain."""
        return single_numbers(self.tasks[output])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data, with its accuracies."""
        names = ("accuracy_before", "accuracy_after", "accuracy_baseline")
        return {**dataclasses.asdict(self), **{name: getattr(self, name) for name in names}}

    def reproducible(self) -> dict[str, Any]:
        """Select the part that is the same in every run: an artifact must not depend on the clock."""
        left_out = {"seconds", "samples_per_second", "history", "device", "data"}
        return {name: value for name, value in self.to_dict().items() if name not in left_out}

    def _repr_html_(self) -> str:
        """Show the metrics before and after training, and those of each output and domain, in a notebook."""
        metrics = list(dict.fromkeys([*self.before, *self.after, *(self.baseline or {})]))
        head, columns = ["measure", "before training", "after training"], [self.before, self.after]
        if self.baseline is not None:
            head, columns = [*head, "from scratch"], [*columns, self.baseline]
        rows = [(name.replace("_", " "), *(figure(column.get(name)) for column in columns)) for name in metrics]
        parts = [html_table(head, rows)]
        parts += [domain_table(output, domains) for output, domains in self.tasks.items()]
        line = f"{self.trainable:,} parameters trained on {self.train_samples:,} samples in {self.seconds:.1f} s"
        return html_report(f"training, measured on {self.test_samples:,} test samples", *parts, notes=[line])


def _accuracy(metrics: Metrics) -> float | None:
    return next((value for name, value in metrics.items() if name.endswith("_accuracy")), None)
