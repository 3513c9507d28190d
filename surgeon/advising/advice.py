"""Turn a network and data into advice: the scores of each site's features, the case, and the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surgeon.advising.cases import Case, Worth, decide
from surgeon.advising.probes import Labels, logme, probe
from surgeon.advising.site_features import collect
from surgeon.data.labels import present
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.html_table import html_report, html_table
from surgeon.interfaces.splits import Splits
from surgeon.pipeline.text_files import refuse_to_replace, write_text
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.data_fit import first_outputs


@dataclass(frozen=True)
class Advice:
    """The scores, the case that they give, and the recipe for it.

    Attributes:
        curve: The scores of each site, in the order of execution.
        case: The case.
        label: The column of labels.
        classes: The number of classes; 0 for values.
        outputs: The number of outputs that a head needs.
        samples: The number of labelled training samples.
        probed: How many of them were used for the scores.
        floor: The score of a prediction that ignores the features.
        recipe: The text of the recipe.
        picture: The scores of each site, as SVG.
    """

    curve: tuple[Worth, ...]
    case: Case
    label: str
    classes: int
    outputs: int
    samples: int
    probed: int
    floor: float
    recipe: str = ""
    picture: str = ""

    def save(self, path: str | Path, *, force: bool = False) -> tuple[Path, Path]:
        """Write the recipe to ``path`` and the picture beside it as ``.svg``; return both paths.

        Raises:
            OutputError: A file exists while ``force`` is not set, or cannot be written to.
        """
        recipe, picture = Path(path), Path(path).with_suffix(".svg")
        refuse_to_replace(recipe, picture, force=force)
        write_text(recipe, self.recipe)
        write_text(picture, self.picture)
        return recipe, picture

    @property
    def measure(self) -> str:
        """The name of the score."""
        return "accuracy" if self.classes else "R²"

    def _repr_html_(self) -> str:
        """Show the scores of each site, the case and its reasons in a notebook."""
        rows = []
        for worth in self.curve:
            score, untrained = f"{worth.score:.3f} ± {worth.error:.3f}", f"{float(np.mean(worth.untrained)):.3f}"
            rows.append((worth.site or ".", worth.width, score, untrained, f"{worth.logme:.3f}"))
        head = ("features of", "width", f"probe {self.measure}", "untrained", "LogME")
        recipe = f"<pre>{escape(self.recipe)}</pre>" if self.recipe else ""
        title = f"the case: {self.case.name}"
        return html_report(title, html_table(head, rows), recipe, notes=self.case.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Convert the advice to JSON-able data."""
        return {
            "case": {
                "size": self.case.size,
                "likeness": self.case.likeness,
                "helps": self.case.helps,
                "best": self.case.best.site,
                "last": self.case.last.site,
                "reasons": list(self.case.reasons),
            },
            "label": self.label,
            "classes": self.classes,
            "samples": self.samples,
            "probed": self.probed,
            "measure": self.measure,
            "floor": self.floor,
            "curve": [
                {
                    **dataclasses.asdict(worth),
                    "score": worth.score,
                    "error": worth.error,
                    "untrained_score": float(np.mean(worth.untrained)),
                }
                for worth in self.curve
            ],
        }


def measure(
    trained: nn.Module,
    untrained: Callable[[], nn.Module],
    sites: Sequence[str],
    splits: Splits,
    settings: TrainSettings,
    *,
    seed: int = 0,
    samples: int = 2000,
    large: int = 100,
) -> Advice:
    """Score the features of ``sites`` for the labels of ``splits``, and decide on the case.

    Args:
        trained: The network with the sites as outputs, made by :class:`surgeon.advising.site_features.Watch`.
        untrained: Makes the same network with initial weights.
        sites: The sites, in the order of the outputs.
        splits: The data.
        settings: The recipe's ``train:`` section; its first objective names the labels.
        seed: The seed for drawing samples and cross-validation folds.
        samples: The most labelled samples to use.
        large: The number of samples per class from which data counts as large.

    Raises:
        TrainingError: The data do not fit the network, or have no usable labels.
    """
    first_outputs(trained, splits)
    size = len(splits.train)  # type: ignore[arg-type]
    label = label_of(splits.train[0], splits, settings)
    labelled = [row for row in range(size) if bool(present(splits.train[row][label]).all())]
    draw = torch.Generator().manual_seed(seed)
    rows = [labelled[i] for i in sorted(torch.randperm(len(labelled), generator=draw)[:samples].tolist())]
    if not rows:
        raise TrainingError(f"no training sample has a label in {label!r}", where="train.data")
    features, columns = collect(trained, splits, rows, len(sites))
    labels = _labels(columns[label], label)
    initial, _ = collect(untrained(), splits, rows, len(sites))
    curve = []
    for site, values, random in zip(sites, features, initial, strict=True):
        if not np.isfinite(values).all():
            raise TrainingError(f"{site} has features that are not finite")
        scores = probe(values, labels, seed), probe(np.nan_to_num(random), labels, seed)
        worth = logme(values, labels.targets)
        curve.append(Worth(site, values.shape[1], worth, *(tuple(map(float, folds)) for folds in scores)))
    classes = max(labels.classes, splits.classes.get(label, 0)) if labels.classes else 0
    outputs = _outputs(columns[label], splits.classes.get(label, 0), labels)
    case = decide(
        curve, samples=len(labelled), classes=classes, large=large, floor=labels.floor, accuracy=bool(labels.classes)
    )
    return Advice(tuple(curve), case, label, labels.classes, outputs, len(labelled), len(rows), labels.floor)


def label_of(sample: Mapping[str, Tensor], splits: Splits, settings: TrainSettings) -> str:
    """Return the label column to score features with: the first objective's, ``labels``, or the only column.

    Raises:
        TrainingError: The column is ambiguous.
    """
    names = [name for name in sample if name not in splits.inputs and not (name == "domain" and splits.domains)]
    name = settings.objectives[0].label if settings.objectives else "labels"
    if name in names:
        return name
    if settings.objectives is None and len(names) == 1:
        return names[0]
    raise TrainingError(
        f"no label {name!r} (available: {', '.join(names)})",
        where="train.objectives",
        hint=suggest(name, names) or "choose one: objectives: [{output: logits, label: NAME}]",
    )


def _labels(column: Tensor, name: str) -> Labels:
    if not column.is_floating_point() and column.ndim == 1:
        values = column.long().numpy()
        return Labels(values, len(np.unique(values)))
    if column.is_floating_point() and column.ndim <= 2:
        return Labels(column.double().numpy().reshape(len(column), -1), 0)
    raise TrainingError(
        f"the labels {name!r} have shape {tuple(column.shape[1:])} per sample; advice needs one class or one vector "
        "of values",
        where="train.data",
    )


def _outputs(column: Tensor, classes: int, labels: Labels) -> int:
    if labels.classes:
        return classes or int(column.max()) + 1
    return column.shape[1] if column.ndim == 2 else 1
