"""Hold predictions: one row for each sample, with probabilities if the output is of classes or of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from surgeon.errors import counted
from surgeon.interfaces.html_table import html_report, html_table
from surgeon.training.places import DENSE

FEW = 8
"""How many columns a summary has: the first values, or the boxes of a picture."""
SUMMARISED = 20
"""How many samples a notebook shows."""
COLUMNS = ("sample", "part", "class", "label")
"""Columns of the table besides the probabilities."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of one output for samples.

    Attributes:
        output: The name of the output.
        kind: ``class`` (probabilities that add up to 1), ``yes`` (one probability for each question), ``value``,
            ``words`` and ``pixels`` (the share of a sample's words or pixels that is of each class), or ``boxes``.
        names: The names of the columns of ``values``: classes, questions or values.
        values: ``(samples, columns)``.
        samples: The names of the samples: files, or rows of a table.
        labels: The label of each sample, by name; None if a sample has no label, or for all.
        parts: The split of each sample; empty without splits.
        notes: Notes for the reader, about the samples read and left out, for example.
        places: For words and pixels, the class number of each: a tensor ``(words,)`` or ``(height, width)`` per sample.
    """

    output: str
    kind: str
    names: tuple[str, ...]
    values: Tensor
    samples: tuple[str, ...]
    labels: list[Any] | None = None
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    places: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def classes(self) -> list[Any]:
        """The class name of each sample; for questions the names of those answered with yes; for values None.

        For pixels, the classes of the picture, the most frequent first.
        """
        if self.kind == "pixels":
            orders = self.values.argsort(1, descending=True).tolist()
            return [
                [self.names[i] for i in order if row[i] > 0] for order, row in zip(orders, self.values, strict=True)
            ]
        if self.kind == "class":
            return [self.names[best] for best in self.values.argmax(1).tolist()]
        if self.kind == "yes":
            return [[self.names[i] for i, value in enumerate(row) if value > 0.5] for row in self.values.tolist()]
        return [None] * len(self)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each sample: ``sample``, ``part`` if there are parts, ``class`` and ``probabilities`` by name
        (for questions a list of classes), or ``values`` by name, and ``label`` if there are labels."""
        table_rows = []
        for number, (values, chosen) in enumerate(zip(self.values.tolist(), self.classes, strict=True)):
            row: dict[str, Any] = {"sample": self.samples[number]}
            if self.parts:
                row["part"] = self.parts[number]
            by_name = dict(zip(self.names, values, strict=True))
            if self.kind == "value":
                row["values"] = by_name
            else:
                row |= {"class": chosen, "shares" if self.kind in DENSE else "probabilities": by_name}
            if self.labels is not None:
                row["label"] = self.labels[number]
            table_rows.append(row)
        return table_rows

    def to_dict(self) -> dict[str, Any]:
        """Return the predictions as plain values, for JSON."""
        return {
            "output": self.output,
            "kind": self.kind,
            "names": list(self.names),
            "rows": self.rows,
            "notes": list(self.notes),
        }

    def to_table(self) -> list[list[str]]:
        """Return a header, and a row for each sample with a column for each name, as for a CSV file."""
        reserved = COLUMNS
        headings = [f"{name} (value)" if name in reserved else name for name in self.names]
        has_class, has_label = self.kind != "value", self.labels is not None
        header = ["sample", *(["part"] if self.parts else []), *(["class"] if has_class else []), *headings]
        table = [header + (["label"] if has_label else [])]
        for number, (values, chosen) in enumerate(zip(self.values.tolist(), self.classes, strict=True)):
            row = [self.samples[number], *([self.parts[number]] if self.parts else [])]
            row += [shown(chosen)] if has_class else []
            row += [f"{value:.6g}" for value in values]
            table.append(row + ([shown(self.labels[number])] if self.labels is not None else []))
        return table

    def summary(self, samples: int) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows to read: of the first samples, the likeliest classes or the first values."""
        headings = [
            *(["part"] if self.parts else []),
            *self._headings(),
            *(["label"] if self.labels is not None else []),
        ]
        rows = [
            [
                self.samples[number],
                *([self.parts[number]] if self.parts else []),
                *self._cells(number),
                *([shown(self.labels[number])] if self.labels is not None else []),
            ]
            for number in range(min(samples, len(self)))
        ]
        return ["sample", *headings], rows

    def _headings(self) -> Sequence[str]:
        """Return the headings of what a sample's cells show."""
        if self.kind == "class":
            return ("class", "probability", "next")
        return self.names[:FEW]

    def _cells(self, number: int) -> list[str]:
        """Format what is predicted for one sample."""
        values = self.values[number].tolist()
        if self.kind != "class":
            share = self.kind in ("yes", "pixels")
            return [f"{100 * value:.1f} %" if share else f"{value:.4g}" for value in values[:FEW]]
        best, *others = sorted(range(len(values)), key=lambda index: -values[index])
        following = ", ".join(f"{self.names[i]} {100 * values[i]:.1f} %" for i in others[:2])
        return [self.names[best], f"{100 * values[best]:.1f} %", following]

    def _repr_html_(self) -> str:
        """Show the first samples as a table in a notebook."""
        headings, rows = self.summary(SUMMARISED)
        more = [f"the first {len(rows)} are shown; rows has all"] if len(rows) < len(self) else []
        count = counted(len(self), "sample")
        return html_report(f"output {self.output}: {count}", html_table(headings, rows), notes=[*more, *self.notes])


def shown(value: Any) -> str:
    """Format a label or a class as a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
