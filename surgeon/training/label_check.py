"""Check every label before the first step, and describe the data for the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from surgeon.data.labels import present
from surgeon.data.rows import label_values
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.training.calls import Batch
from surgeon.training.losses import classes_second
from surgeon.training.objectives import Target


def check_labels(targets: Sequence[Target], outputs: Mapping[str, Tensor], batch: Batch, splits: Splits) -> None:
    """Refuse labels that a loss cannot use, in any part of the data that lists its labels.

    Raises:
        TrainingError: A class is not an output's, or a target of ``bce`` is outside 0 to 1; the error names the sample.
    """
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    for target in targets:
        label = target.objective.label
        highest = 1  # for yes/no questions, and for soft labels, which are class probabilities
        if target.objective.loss == "cross_entropy" and not batch[label].is_floating_point():
            highest = classes_second(outputs[target.objective.output], batch[label]).shape[1] - 1
        elif target.objective.loss not in ("cross_entropy", "bce"):
            continue
        for part, samples in parts.items():
            values = None if samples is None else label_values(samples, label)
            if values is None or (highest > 1 and values.is_floating_point()):  # soft labels
                continue
            bad = present(values) & ((values < 0) | (values > highest))
            if bad.any():
                sample = int(bad.reshape(len(values), -1).any(1).nonzero()[0])
                value = values[bad][0].item()
                raise TrainingError(
                    f"{part} sample {sample}: {label!r} is {value:g}, and {target.objective.loss} of the output "
                    f"{target.objective.output!r} takes 0 to {highest}",
                    where="train.data",
                    hint="missing labels are -100 among integers and NaN among floats; in a table, na: declares others",
                )


def described(splits: Splits) -> dict[str, Any]:
    """Describe the training data for the report and the record: class names, how parts were made, notes."""
    counts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        "classes": {label: list(names) for label, names in splits.names.items()},
        "split": {
            **splits.split,
            "counts": {name: len(part) for name, part in counts.items() if part is not None},  # type: ignore[arg-type]
        },
        "notes": list(splits.notes),
    }
