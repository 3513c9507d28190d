"""Show the trainings that an artifact records: measures, each class, the confusion matrix, settings and the curve."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from surgeon.interfaces.html_table import html_table
from surgeon.interfaces.record import Record
from surgeon.pages.document import Section
from surgeon.training.measure_tables import BY_NAME, figure

STAGES = {"before": "before training", "after": "after training", "baseline": "from scratch"}


def training_sections(record: Record, artifact: Path) -> list[Section]:
    """Make a section for each training, the last one first.

    Args:
        record: How the artifact was made.
        artifact: Where it is; the curve of its last training lies beside it.
    """
    sections = []
    for number, training in reversed(list(enumerate(record.training))):
        title = "Training" if len(record.training) == 1 else f"Training {number + 1} of {len(record.training)}"
        parts = list(_measures(training.get("report") or {}))
        if number == len(record.training) - 1:
            parts = [*_curve(artifact), *parts]
        settings = json.dumps(training.get("settings") or {}, indent=2, ensure_ascii=False)
        parts.append(f"<details><summary>settings</summary><pre>{escape(settings)}</pre></details>")
        sections.append(Section(title, "".join(parts)))
    return sections


def _curve(artifact: Path) -> Iterator[str]:
    picture = artifact.with_name(f"{artifact.name}.svg")
    try:
        drawn = picture.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if drawn.startswith("<svg ") and "<script" not in drawn:  # as an image it could run no script either
        yield f'<img class="chart" alt="losses over the epochs" src="data:image/svg+xml,{_quoted(drawn)}">'


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _measures(report: Mapping[str, Any]) -> Iterator[str]:
    columns = {heading: report[key] for key, heading in STAGES.items() if report.get(key)}
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    rows = [(name.replace("_", " "), *(figure(values.get(name)) for values in columns.values())) for name in names]
    samples = ", ".join(
        f"{report[key]:,} {key.removesuffix('_samples')} samples"
        for key in ("train_samples", "validation_samples", "test_samples")
        if report.get(key)
    )
    rate = f", learning rate {report['learning_rate']:g}" if report.get("learning_rate") else ""
    yield f"<p>{escape(samples + rate)}</p>" + _scroll(html_table(("measure", *columns), rows))
    for output, domains in (report.get("tasks") or {}).items():
        for domain, values in domains.items():
            title = output if domain == "all" else f"{output}, {domain}"
            yield from _domain(title, values)


def _domain(title: str, values: Mapping[str, Any]) -> Iterator[str]:
    single = [(name.replace("_", " "), figure(value)) for name, value in values.items() if _is_number(value)]
    yield f"<h3>{escape(title)}</h3>" + _scroll(html_table(("measure", "after training"), single))
    for key, heading in BY_NAME.items():
        rows: Mapping[str, Mapping[str, Any]] = values.get(key) or {}
        if rows:
            columns = list(next(iter(rows.values())))
            cells = [(name, *(figure(row.get(column)) for column in columns)) for name, row in rows.items()]
            yield _scroll(html_table((heading, *columns), cells))
    if matrix := values.get("confusion"):
        names = list(values.get("per_class") or range(len(matrix)))
        yield _scroll(_confusion(matrix, [str(name) for name in names]))


def _confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Make the confusion matrix: a row for each true class, tinted by its share of the row."""
    head = "".join(f'<th class="cell">{escape(name)}</th>' for name in names)
    rows = []
    for name, row in zip(names, matrix, strict=True):
        total = sum(row) or 1
        cells = "".join(
            f'<td class="cell" style="background:rgba(var(--heat),{0.75 * value / total:.2f})">{value}</td>'
            for value in row
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return f"<table><thead><tr><th>true \\ predicted</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _scroll(table: str) -> str:
    return f'<div class="scroll">{table}</div>'


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
