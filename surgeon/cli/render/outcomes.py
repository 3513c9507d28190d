"""Draw the results of commands: the report of a training, where the artifact is, the result of a check."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from surgeon.checkpoint.artifact_files import CONFIG, MANIFEST
from surgeon.checkpoint.jsonfiles import read_object
from surgeon.errors import counted
from surgeon.pages.numbers import count, size
from surgeon.pipeline.nonfinite import describe_nonfinite

if TYPE_CHECKING:
    from surgeon.pipeline.exports.exporter import Export
    from surgeon.pipeline.publishing.hub import Pushed
    from surgeon.pipeline.reload_check import Reload
    from surgeon.pipeline.signature import SignedBy
    from surgeon.pipeline.verification import Verification
    from surgeon.training.report import TrainReport

WIDEST = 100_000
"""The width limit in characters while a table is measured."""


def render_training(report: TrainReport) -> RenderableType:
    """Draw the metrics before and after training, beside those of the same network from scratch."""
    table = stages_table(report.test_samples, report.before, report.after, report.baseline)
    line = (
        f"trained {count(report.trainable)} parameters on {report.train_samples} samples "
        f"in {report.seconds:.1f} s ({report.samples_per_second:,.0f} samples/s, {report.device})"
    )
    return Group(Text(), table, *_by_task(report), Text(line, style="dim"))


def stages_table(
    samples: int, before: Mapping[str, float], after: Mapping[str, float], baseline: Mapping[str, float] | None
) -> Measures:
    """Make the table of the measures before and after training and, where there is one, of the baseline."""
    named = [("before training", before), ("after training", after)]
    if baseline is not None:
        named.append(("from scratch", baseline))
    metrics = list(dict.fromkeys(name for _, values in named for name in values))
    rows = [(label, [_value(metric, values.get(metric)) for metric in metrics]) for label, values in named]
    headings = [metric.replace("_", " ").removeprefix("logits ") for metric in metrics]
    return Measures(f"on {samples} test samples", headings, rows, bold="after training")


def _by_task(report: TrainReport) -> Iterator[RenderableType]:
    """Yield tables of the metrics after training by output and domain, if there are several of either."""
    if len(report.tasks) < 2 and all(len(domains) < 2 for domains in report.tasks.values()):
        return
    for output, domains in report.tasks.items():
        names = report.measure_names(output)
        rows = [(domain, [_value(name, values.get(name)) for name in names]) for domain, values in domains.items()]
        yield Text()
        yield Measures(f"{output}, after training", [name.replace("_", " ") for name in names], rows)


@dataclass(frozen=True)
class Measures:
    """A table of metrics with one row per network or domain; if it is too wide, one row per metric.

    Attributes:
        title: What the rows are about.
        headings: The metrics.
        rows: The label and the values of each row.
        bold: The label of the row to highlight.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    bold: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        labels = [label for label, _ in self.rows]
        wide = self._table(self.headings, self.rows, {self.bold})
        if Measurement.get(console, options.update(max_width=WIDEST), wide).maximum <= options.max_width:
            yield wide
            return
        columns = list(zip(*(values for _, values in self.rows), strict=True))
        yield self._table(labels, list(zip(self.headings, columns, strict=True)), set())

    def _table(self, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], bold: set[str]) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column(self.title, overflow="fold")
        for heading in headings:
            table.add_column(heading, justify="right", overflow="fold")
        for label, values in rows:
            table.add_row(label, *values, style="bold" if label in bold else "")
        return table


def _value(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if metric.endswith("accuracy"):
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def render_saved(path: Path, reload: Reload | None) -> RenderableType:
    """Draw where the artifact is, how to load it, and how the reloaded network compares with the written one."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    saved = Text.assemble(
        "\nsaved to ", (str(path), "bold green"), (f"  {size(sum(f.stat().st_size for f in files))}", "dim")
    )
    needed = _plugin_files(path)
    others = f", plugins={json.dumps(needed)}" if needed else ""
    lines = [saved, Text.assemble(("load it with  ", "dim"), f'surgeon.load("{path}"{others})')]
    if (config := read_object(path / CONFIG)) is not None:
        name = (config.get("architectures") or ["AutoModel"])[0]
        lines.append(Text.assemble(("or with       ", "dim"), f'transformers.{name}.from_pretrained("{path}")'))
    if reload is not None:
        lines.append(Text.assemble(("reloaded      ", "dim"), str(reload)))
        if reload.nonfinite:
            lines.append(Text.assemble(("warning       ", "yellow"), describe_nonfinite(reload.nonfinite)))
    return Group(*lines)


def _plugin_files(path: Path) -> list[str]:
    """List the plugins that loading an artifact needs and that are files, not installed packages."""
    manifest = read_object(path / MANIFEST) or {}
    surgeries = manifest.get("record", {}).get("surgeries", [])
    origins = [origin for surgery in surgeries for origin in surgery.get("plugins", {}).values()]
    return [origin for origin in dict.fromkeys(origins) if origin.endswith(".py")]


def render_verification(artifact: str, verified: Verification, signer: SignedBy | None = None) -> RenderableType:
    """Draw what was checked of an artifact, with the results."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in verified.facts("use --source MODEL"):
        grid.add_row(name, Text(text, style="yellow" if name == "warning" else ""))
        if name == "tensors" and signer is not None:
            grid.add_row("signature", f"all {verified.signed} files are as {signer} signed them")
    return Group(Text.assemble((artifact, "bold"), (" matches its manifest", "green")), grid)


LOADERS = {
    "torch-export": 'torch.export.load("{path}").module()',
    "onnx": 'onnxruntime.InferenceSession("{path}")',
    "state-dict": 'torch.load("{path}", weights_only=True)',
    "safetensors": 'safetensors.torch.load_file("{path}")',
    "hf": 'transformers.{name}.from_pretrained("{path}")',
    "hf with code": 'transformers.AutoModel.from_pretrained("{path}", trust_remote_code=True)',
}
"""How to load each format of an export."""


def render_export(exported: Export) -> RenderableType:
    """Draw where an export is, how to load it, and what was compared."""
    path = exported.path
    config = read_object(path / CONFIG) or {} if exported.form == "hf" else {}
    name = (config.get("architectures") or ["AutoModel"])[0]
    form = "hf with code" if "auto_map" in config else exported.form
    form = "safetensors" if form == "state-dict" and path.suffix == ".safetensors" else form
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("load it with", LOADERS[form].format(path=path, name=name))
    if exported.form in ("torch-export", "onnx"):
        shapes = [f"{name} ({' × '.join(map(str, shape))})" for name, shape in exported.shapes.items()]
        sizes = f"any {' and '.join(exported.dynamic)}" if exported.dynamic else "fixed sizes"
        grid.add_row("inputs", f"{', '.join(shapes)}: {sizes}")
    if exported.outputs:
        few = ", ".join(exported.outputs[:4]) + (", …" if len(exported.outputs) > 4 else "")
        cases = counted(exported.cases, "input")
        largest = f"largest difference {exported.difference:.1g}" if exported.difference else "bit-identical"
        grid.add_row("outputs", f"{few}: compared without surgeon on {cases}, {largest}")
    else:
        grid.add_row("tensors", "compared without surgeon, byte-identical")
    for note in exported.notes:
        grid.add_row("note", note)
    return Group(Text.assemble("\nexported to ", (str(path), "bold green")), grid)


def render_pushed(pushed: Pushed) -> RenderableType:
    """Say where an artifact was pushed, with which files, and what stayed behind."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("load it with", f'surgeon.load("hf:{pushed.repository}")')
    grid.add_row("commit", pushed.commit)
    grid.add_row("files", ", ".join(pushed.files))
    card = "made from the manifest: look it over" if pushed.card == "made" else "the README.md of the artifact"
    grid.add_row("card", card)
    if pushed.removed:
        grid.add_row("removed", f"{', '.join(pushed.removed)}: of an earlier push, not of this artifact")
    if pushed.left_out:
        grid.add_row("left out", f"{', '.join(pushed.left_out)}: no part of the artifact")
    return Group(Text.assemble("\npushed to ", (pushed.url, "bold green")), grid)
