"""Try the builders of the installed timm without weights, and write a table: ``python -m surgeon_timm.sweep``.

For each builder: its head is compared with what timm's ``pretrained_cfg`` says, its tensors are identified, and three
operations are planned: ``replace_head``, ``truncate`` after the middle block, ``truncate`` to half of the blocks.
``alone`` says whether timm alone loads the result: its skeleton equals the one that the written ``config.json`` builds.

    python -m surgeon_timm.sweep                  # every builder, some hours
    python -m surgeon_timm.sweep --sample 1       # the smallest of each of timm's files
    python -m surgeon_timm.sweep --only 'vit_*'
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import timm
from torch import nn

import surgeon
from surgeon.pipeline.manifest import library_config
from surgeon.pipeline.prepare import prepare
from surgeon_timm.fingerprints import as_tuple, candidates

CLASSES = 7
GOOD = frozenset({"yes", "alone"})


@dataclass
class Result:
    """What was found out about a builder; a reason where something failed.

    Attributes:
        name: The builder.
        file: The module of timm that it is in.
        head: Whether the head is the one that timm names.
        blocks: The number of blocks.
        identified: How many builders have tensors of these keys and shapes, as ``1 of 3`` structures.
        replace_head: ``alone`` if timm alone loads the result, ``yes`` if surgeon does, else the reason.
        cut: The same, after the middle block.
        thin: The same, with half of the blocks.
        seconds: How long it took.
    """

    name: str
    file: str
    head: str = ""
    blocks: str = ""
    identified: str = ""
    replace_head: str = ""
    cut: str = ""
    thin: str = ""
    seconds: float = 0.0


def try_builder(name: str, plugins: surgeon.Plugins) -> Result:
    """Try one builder."""
    started = time.monotonic()
    result = Result(name, timm.models.model_entrypoint(name).__module__.rpartition(".")[2])
    reference = f"timm/{name}"
    try:
        skeleton = surgeon.build_skeleton(lambda: timm.create_model(name))
        result.identified = _identified(name, skeleton)
        view = surgeon.inspect(reference, plugins=plugins)
        heads = [site.site for site in _select(view, "@head")]
        result.head = _compared(heads, skeleton)
        blocks = [site.site for site in _select(view, "@blocks")]
        result.blocks = str(len(blocks))
    except Exception as error:  # anything that a library raises is a result here
        result.head = _reason(error)
        return result
    if heads:
        result.replace_head = _operate(reference, surgeon.ReplaceHead(classes=CLASSES), plugins)
    else:
        result.replace_head = "no head"
    if len(blocks) > 1:
        result.cut = _operate(reference, surgeon.Truncate(after=blocks[len(blocks) // 2 - 1]), plugins)
        result.thin = _operate(reference, surgeon.Truncate(keep_blocks=0.5), plugins)
    else:
        result.cut = result.thin = "no blocks"
    result.seconds = round(time.monotonic() - started, 1)
    return result


def _identified(name: str, skeleton: nn.Module) -> str:
    rows = candidates({key: tuple(tensor.shape) for key, tensor in skeleton.state_dict().items()})
    names = {row.name for row in rows}
    return f"{len({row.structure for row in rows})} of {len(names)}" if name in names else "no"


def _select(view: surgeon.NetworkView, role: str) -> Sequence[Any]:
    try:
        return view.select(role)
    except surgeon.SiteError:
        return ()


def _compared(heads: Sequence[str], skeleton: nn.Module) -> str:
    """Return whether the heads are timm's, which are none where the network has no classes."""
    config: Any = skeleton.pretrained_cfg
    modules = dict(skeleton.named_modules())
    named = [
        head for head in as_tuple(config.get("classifier")) if not isinstance(modules.get(head), nn.Identity | None)
    ]
    return (
        "yes" if sorted(named) == sorted(heads) else f"{', '.join(heads) or 'none'}, not {', '.join(named) or 'none'}"
    )


def _operate(reference: str, operation: surgeon.Operation, plugins: surgeon.Plugins) -> str:
    try:
        prepared = prepare(reference, [operation], plugins=plugins)
        config = library_config(prepared.model, prepared.record, plugins.architectures())
    except Exception as error:
        return _reason(error)
    return "alone" if config is not None else "yes"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())[:120] or type(error).__name__


def choose(pattern: str, sample: int | None) -> list[str]:
    """Return the builders to try: all, or the smallest ones and random ones of each of timm's files."""
    names = timm.list_models(pattern)
    if sample is None:
        return names
    files: dict[str, list[str]] = {}
    for name in names:
        files.setdefault(timm.models.model_entrypoint(name).__module__, []).append(name)
    generator = random.Random(0)
    return [name for file in files.values() for name in _few(file, sample, generator)]


def _few(names: list[str], count: int, generator: random.Random) -> list[str]:
    small = ("tiny", "atto", "femto", "pico", "nano", "_xxs", "_xs", "_s", "_t", "small", "18", "10", "0", "mini")
    ranked = sorted(names, key=lambda name: next((i for i, part in enumerate(small) if part in name), len(small)))
    return [ranked[0], *generator.sample(ranked[1:], min(count - 1, len(ranked) - 1))]


class LateError(BaseException):
    """A builder took too long. Not an Exception, so that nothing on the way takes it for an error of its own."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise LateError in the block after so many seconds."""

    def stop(*_: object) -> None:
        raise LateError(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def table(results: Sequence[Result]) -> str:
    """Return a Markdown page: counts, then a row for each builder that is not right in everything."""
    lines = ["| | right | refused or different |", "| --- | --- | --- |"]
    checks: dict[str, Callable[[Result], bool]] = {
        "the head is timm's": lambda result: result.head == "yes",
        "its own tensors are identified, as one network": lambda result: result.identified.startswith("1 of"),
        "`replace_head` is planned": lambda result: result.replace_head in GOOD,
        "its result loads in timm alone": lambda result: result.replace_head == "alone",
        "`truncate` after the middle block is planned": lambda result: result.cut in GOOD,
        "`truncate` to half of the blocks is planned": lambda result: result.thin in GOOD,
        "its result loads in timm alone ": lambda result: result.thin == "alone",
    }
    for aspect, check in checks.items():
        right = sum(map(check, results))
        lines.append(f"| {aspect} | {right} | {len(results) - right} |")
    columns = [field.name for field in fields(Result)]
    lines += ["", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for result in sorted(results, key=lambda result: (result.file, result.name)):
        lines.append("| " + " | ".join(str(value).replace("|", "/") for value in asdict(result).values()) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sweep and write its table."""
    parser = argparse.ArgumentParser(description="Try timm's builders without weights, and write a table.")
    parser.add_argument("--only", default="", help="a pattern of builders")
    parser.add_argument("--sample", type=int, help="how many builders of each of timm's files")
    parser.add_argument("--limit", type=int, default=180, help="seconds for each builder")
    parser.add_argument("-o", "--output", type=Path, default=Path("RESULTS.md"))
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    plugins = surgeon.load_plugins()
    if "timm" not in plugins.architectures():
        plugins = surgeon.load_plugins(["surgeon_timm"])
    names = choose(options.only, options.sample)
    raw = options.output.with_suffix(".jsonl")
    results = [Result(**json.loads(line)) for line in raw.read_text().splitlines()] if raw.exists() else []
    finished = {result.name for result in results}
    with raw.open("a") as lines:
        for number, name in enumerate(names):
            if name in finished:
                continue
            try:
                with limited(options.limit):
                    result = try_builder(name, plugins)
            except LateError as error:
                result = Result(name, timm.models.model_entrypoint(name).__module__.rpartition(".")[2], str(error))
            results.append(result)
            lines.write(json.dumps(asdict(result)) + "\n")
            lines.flush()
            print(f"{number + 1}/{len(names)} {result}", flush=True)
    command = f"python -m surgeon_timm.sweep{f' --only {options.only!r}' if options.only else ''}"
    command += f" --sample {options.sample}" if options.sample else ""
    files = Counter(result.file for result in results)
    head = f"timm {timm.__version__}: {len(results)} builders of {len(files)} files. Made by `{command}`."
    options.output.write_text(f"# What works on which builder\n\n{head}\n\n{table(results)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
