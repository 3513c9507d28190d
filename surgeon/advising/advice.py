"""From a network and data to advice: the worth of each layer's features, the case, and the recipe that follows."""

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
from surgeon.training.fitting import first_outputs


@dataclass(frozen=True)
class Advice:
    """The measurement, the case that it makes, and the recipe that follows.

    Attributes:
        curve: The worth of each site's features, in the order in which they run.
        case: Which of the four cases it is.
        label: The column of labels.
        classes: The number of classes; 0 for values.
        outputs: The number of outputs that a head needs.
        samples: The labelled training samples.
        probed: How many of them were looked at.
        floor: The score of a guess that ignores the features.
        recipe: The text of the recipe that follows.
        picture: The worth of each site's features, as SVG.
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
        """Write the recipe to ``path``, and the picture beside it as ``.svg``; return both places.

        Raises:
            OutputError: One exists while ``force`` is not set, or cannot be written to.
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
        """Show the worth of each site's features, the case and its reasons in a notebook."""
        rows = []
        for worth in self.curve:
            score, untrained = f"{worth.score:.3f} ± {worth.error:.3f}", f"{float(np.mean(worth.untrained)):.3f}"
            rows.append((worth.site or ".", worth.width, score, untrained, f"{worth.logme:.3f}"))
        head = ("features of", "width", f"probe {self.measure}", "fresh weights", "LogME")
        recipe = f"<pre>{escape(self.recipe)}</pre>" if self.recipe else ""
        title = f"the case: {self.case.name}"
        return html_report(title, html_table(head, rows), recipe, notes=self.case.reasons)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able data."""
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
    """Measure what the features of ``sites`` are worth for the labels of ``splits``, and decide on the case.

    Args:
        trained: The network, each site given as an output by :class:`surgeon.advising.site_features.Watch`.
        untrained: Makes the same with fresh weights.
        sites: Their addresses, in the order of the outputs.
        splits: The data.
        settings: The recipe's ``train:`` section; its first objective says which labels count.
        seed: Draws the samples that are looked at, and the parts that are held out in turn.
        samples: How many labelled samples are looked at, at most.
        large: From how many samples a class on the data are large.

    Raises:
        TrainingError: The data and the network do not go together, or there are no labels to judge by.
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
    fresh, _ = collect(untrained(), splits, rows, len(sites))
    curve = []
    for site, values, random in zip(sites, features, fresh, strict=True):
        if not np.isfinite(values).all():
            raise TrainingError(f"{site} produces features that are not finite numbers")
        scores = probe(values, labels, seed), probe(np.nan_to_num(random), labels, seed)
        worth = logme(values, labels.targets)
        curve.append(Worth(site, values.shape[1], worth, *(tuple(map(float, each)) for each in scores)))
    classes = max(labels.classes, splits.classes.get(label, 0)) if labels.classes else 0
    outputs = _outputs(columns[label], splits.classes.get(label, 0), labels)
    case = decide(
        curve, samples=len(labelled), classes=classes, large=large, floor=labels.floor, accuracy=bool(labels.classes)
    )
    return Advice(tuple(curve), case, label, labels.classes, outputs, len(labelled), len(rows), labels.floor)


def label_of(sample: Mapping[str, Tensor], splits: Splits, settings: TrainSettings) -> str:
    """The column that features are judged by: the first objective's, or ``labels``, or the only one there is.

    Raises:
        TrainingError: Which is meant is not clear.
    """
    names = [name for name in sample if name not in splits.inputs and not (name == "domain" and splits.domains)]
    wanted = settings.objectives[0].label if settings.objectives else "labels"
    if wanted in names:
        return wanted
    if settings.objectives is None and len(names) == 1:
        return names[0]
    raise TrainingError(
        f"no label {wanted!r} (there are: {', '.join(names)})",
        where="train.objectives",
        hint=suggest(wanted, names) or "say which: objectives: [{output: logits, label: NAME}]",
    )


def _labels(column: Tensor, name: str) -> Labels:
    if not column.is_floating_point() and column.ndim == 1:
        values = column.long().numpy()
        return Labels(values, len(np.unique(values)))
    if column.is_floating_point() and column.ndim <= 2:
        return Labels(column.double().numpy().reshape(len(column), -1), 0)
    raise TrainingError(
        f"the labels {name!r} have shape {tuple(column.shape[1:])} for each sample, and features are judged by one "
        "class or one vector of values",
        where="train.data",
    )


def _outputs(column: Tensor, known: int, labels: Labels) -> int:
    if labels.classes:
        return known or int(column.max()) + 1
    return column.shape[1] if column.ndim == 2 else 1
