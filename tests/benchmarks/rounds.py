"""Whole processes against each other: interleaved rounds, medians, spread, ratios and peak memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

BLOCK = 2**24


@dataclass
class Contender:
    """A command that does a job, run as a process of its own."""

    name: str
    command: list[str]
    reads: list[Path] = field(default_factory=list)
    """Files and folders that it reads: in the page cache before each run, or out of it."""
    writes: Path | None = None
    """What it writes: removed before each run and after the last."""
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    """Seconds of processor time, which a busy machine changes least."""
    megabytes: list[float] = field(default_factory=list)
    fetched: list[float] = field(default_factory=list)
    """Bytes that came from the disk, not from the page cache: of a cold input, all that is read of it."""


def python(code: str, *arguments: object) -> list[str]:
    """A command that runs ``code``."""
    return [sys.executable, "-c", code, *map(str, arguments)]


def run_rounds(contenders: list[Contender], rounds: int, *, cold: bool, tell: Callable[[str], None]) -> None:
    """Run every contender once in each round, in an order that turns with the rounds."""
    for number in range(rounds):
        turn = number % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            seconds, processor, megabytes, fetched = _run(contender, cold)
            contender.seconds.append(seconds)
            contender.processor.append(processor)
            contender.megabytes.append(megabytes)
            contender.fetched.append(fetched)
            tell(f"round {number + 1}: {contender.name}: {seconds:.2f} s, {processor:.2f} s CPU, {megabytes:.0f} MB")
    for contender in contenders:
        _remove(contender.writes)


def table(contenders: list[Contender], against: str, baseline: str | None = None) -> str:
    """Medians as a Markdown table.

    Args:
        contenders: Those that ran.
        against: The name of the one whose median the others are divided by.
        baseline: The name of the one whose memory is taken off the others'.
    """
    by_name = {contender.name: contender for contender in contenders}
    unit = median(by_name[against].seconds)
    ground = median(by_name[baseline].megabytes) if baseline else 0.0
    memory = f"peak MB beyond `{baseline}`" if baseline else "peak MB"
    lines = [f"| | median s | min – max s | × {against} | CPU s | {memory} |", "| --- |" + " ---: |" * 5]
    for rival in contenders:
        spread = f"{min(rival.seconds):.2f} – {max(rival.seconds):.2f}"
        ratio = median(rival.seconds) / unit
        processor, peak = median(rival.processor), median(rival.megabytes) - ground
        lines.append(
            f"| {rival.name} | {median(rival.seconds):.2f} | {spread} | {ratio:.2f} | {processor:.2f} | {peak:,.0f} |"
        )
    return "\n".join(lines)


def files_of(path: Path) -> list[Path]:
    """The files in a folder, or the file."""
    return sorted(path_inside for path_inside in path.rglob("*") if path_inside.is_file()) if path.is_dir() else [path]


def _run(contender: Contender, cold: bool) -> tuple[float, float, float, float]:
    _remove(contender.writes)
    for path in contender.reads:
        for file in files_of(path):
            _drop(file) if cold else _warm(file)
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(contender.command, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{contender.name} failed:\n{output.read().decode(errors='replace')[-3000:]}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, usage.ru_inblock * 512.0


def _warm(file: Path) -> None:
    with file.open("rb", buffering=0) as stream:
        while stream.read(BLOCK):
            pass


def _drop(file: Path) -> None:
    """Out of the page cache, without disturbing anybody else's files in it."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _remove(path: Path | None) -> None:
    if path is not None and path.is_dir():
        shutil.rmtree(path)
    elif path is not None:
        path.unlink(missing_ok=True)
