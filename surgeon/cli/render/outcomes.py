"""What a command came to: the training report, and where the artifact lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.checkpoint.jsonfiles import read_object
from surgeon.cli.render.numbers import count, shape, size

if TYPE_CHECKING:
    from surgeon.pipeline.api import Verification
    from surgeon.pipeline.reload_check import Reload
    from surgeon.training.report import TrainReport


def render_training(report: TrainReport) -> RenderableType:
    """The test accuracy before and after, and beside the same network from scratch."""
    named = [("before training", report.before), ("after training", report.after)]
    if report.baseline is not None:
        named.append(("from scratch", report.baseline))
    metrics = list(dict.fromkeys(name for _, values in named for name in values))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(f"on {report.test_samples} test samples", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.replace("_", " ").removeprefix("logits "), justify="right", no_wrap=True)
    for label, values in named:
        style = "bold" if label == "after training" else ""
        table.add_row(label, *(_value(metric, values.get(metric)) for metric in metrics), style=style)
    line = (
        f"trained {count(report.trainable)} parameters on {report.train_samples} samples "
        f"in {report.seconds:.1f} s ({report.samples_per_second:,.0f} samples/s, {report.device})"
    )
    return Group(Text(), table, Text(line, style="dim"))


def _value(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    if metric.endswith("accuracy"):
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def render_saved(path: Path, found: Reload) -> RenderableType:
    """Where the artifact lies, how to load it again, and what was found when that was tried."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    saved = Text.assemble(
        "\nsaved to ", (str(path), "bold green"), (f"  {size(sum(f.stat().st_size for f in files))}", "dim")
    )
    lines = [saved, Text.assemble(("load it with  ", "dim"), f'surgeon.load("{path}")')]
    if (config := read_object(path / "config.json")) is not None:
        name = (config.get("architectures") or ["AutoModel"])[0]
        lines.append(Text.assemble(("or with       ", "dim"), f'transformers.{name}.from_pretrained("{path}")'))
    lines.append(Text.assemble(("loaded again  ", "dim"), _reloaded(found)))
    return Group(*lines)


def _reloaded(found: Reload) -> str:
    some = f"{found.tensors}" if found.tensors == found.total else f"{found.tensors} of {found.total}"
    told = f"{some} tensors"
    if found.outputs is not None:
        told += f" and {found.outputs} output{'s' if found.outputs != 1 else ''} of a forward"
    return f"{told} are the same to the byte" + (f" ({found.note})" if found.note else "")


def render_verification(artifact: str, found: Verification) -> RenderableType:
    """Show what was checked of an artifact, and how it came out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("tensors", f"{found.tensors}, every one accounted for")
    many = f"{found.digests} file{'s' if found.digests != 1 else ''}"
    recorded = f"{many} as written, by digest" if found.digests else "no digests recorded: made by surgeon 0.1.0"
    grid.add_row("bytes", recorded)
    if found.kept is None:
        grid.add_row("kept", "not compared; --source MODEL compares them")
    else:
        grid.add_row("kept", f"{found.kept} equal the source's to the byte")
    if found.changed:
        few = ", ".join(found.changed[:3]) + (", …" if len(found.changed) > 3 else "")
        grid.add_row("trained", f"{len(found.changed)} differ from the source's, none of them frozen: {few}")
    if found.outputs:
        grid.add_row("outputs", ", ".join(f"{name} ({shape(sizes)})" for name, sizes in found.outputs.items()))
    return Group(Text.assemble((artifact, "bold"), (" is what its manifest says", "green")), grid)
