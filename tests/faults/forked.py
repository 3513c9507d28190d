"""Run a function in a forked child: everything is imported already, so that a case takes milliseconds."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import ceil
from pathlib import Path

IMPORTS = (
    "torchvision",
    "transformers",
    "torchmetrics",
    "datasets",
    "transformers.trainer",
    "families",
    "surgeon.cli.app",
    "surgeon.cli.render.outcomes",
    "surgeon.cli.render.mistakes",
    "surgeon.cli.render.plans",
    "surgeon.cli.render.progress",
    "surgeon.cli.render.trees",
    "surgeon.cli.render.comparison",
    "surgeon.pipeline.run",
    "surgeon.pipeline.training_run",
    "surgeon.pipeline.trained_artifact",
    "surgeon.pipeline.prediction",
    "surgeon.pipeline.comparison",
    "surgeon.pipeline.exports.exporter",
    "surgeon.training.job",
    "surgeon.data.tables",
    "surgeon.operations",
)


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: Its exit code; minus the number of the signal that ended it.
        out: What it printed.
        err: What it printed to standard error.
        seconds: How long it ran.
        busy: How many seconds of a processor it took.
        megabytes: By how much its memory grew at most.
        hung: It was ended because it took too long.
    """

    status: int
    out: str
    err: str
    seconds: float
    busy: float
    megabytes: int
    hung: bool = False


def warm() -> None:
    """Import what the children need, and keep to one thread: threads do not survive a fork."""
    import torch

    torch.set_num_threads(1)
    for name in IMPORTS:
        import_module(name)
    _keep_command_line()
    _run_once()


def _keep_command_line() -> None:
    """Build the command line once: it is the same in every case, and takes most of the time of one that is refused."""
    import typer.main

    from surgeon.cli import app
    from surgeon.cli.startup import lazy_imports
    from surgeon.interfaces import entry_points

    made = app.make_app(app.Plugins())
    command = typer.main.get_command(made)
    typer.main.get_command = lambda _: command
    app.make_app = lambda *_: made
    entry_points.entry_points = cache(entry_points.entry_points)  # type: ignore[assignment]
    lazy_imports.version = cache(lazy_imports.version)  # type: ignore[assignment]


def _run_once() -> None:
    """What is imported when it is first needed is needed by now."""
    import torch
    from families import vgg

    from surgeon.cli.app import run

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            torch.save(vgg().state_dict(), "net.pt")
            Path("recipe.yaml").write_text("operations: [{op: freeze, sites: features}]\n")
            assert run(["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-o", "out.pt", "-q"]) == 0
        finally:
            os.chdir(here)


def forked(
    function: Callable[[], int],
    *,
    seconds: float = 60,
    stop: tuple[float, int] | None = None,
    folder: Path | None = None,
) -> Ended:
    """Run ``function`` in a child.

    Args:
        function: Returns the exit code.
        seconds: Of a processor's time, after which the child is killed; or after 20 times as long by the clock.
        stop: After how many seconds which signal is sent.
        folder: The child's working directory.
    """
    files = [tempfile.TemporaryFile("w+b") for _ in range(2)]  # noqa: SIM115
    sys.stdout.flush()
    sys.stderr.flush()
    before, started = _resident(), time.monotonic()
    child = os.fork()
    if not child:
        _become(function, [file.fileno() for file in files], folder, seconds)
    sent = hung = False
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        elapsed = time.monotonic() - started
        if stop and not sent and elapsed >= stop[0]:
            os.kill(child, stop[1])
            sent = True
        if elapsed > 20 * seconds:
            os.kill(child, signal.SIGKILL)
            hung = True
        time.sleep(0.001 if stop else 0.004)
    elapsed = time.monotonic() - started
    texts = []
    for file in files:
        file.seek(0)
        texts.append(file.read().decode(errors="replace"))
        file.close()
    hung = hung or os.waitstatus_to_exitcode(status) == -signal.SIGXCPU
    grown = max(0, (used.ru_maxrss >> 10) - before)
    return Ended(os.waitstatus_to_exitcode(status), *texts, elapsed, used.ru_utime + used.ru_stime, grown, hung)


def forked_each(functions: Sequence[Callable[[], int]], *, folder: Path, seconds: float) -> tuple[list[Ended], Ended]:
    """Run functions in one child, one after another, as a fork takes longer than most of them.

    Args:
        functions: Each returns its exit code.
        folder: Where files are made for what they print.
        seconds: Of a processor's time for all of them.

    Returns:
        How each has ended, without those behind one that ended the child; and how the child has.
    """
    report = folder / "report"
    report.write_text("")

    def child() -> int:
        for function in functions:
            files = [(folder / name).open("w+b") for name in ("out", "err")]
            started, used = time.monotonic(), time.process_time()
            for number, file in enumerate(files, start=1):
                os.dup2(file.fileno(), number)
            try:
                code = function()
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            busy, elapsed = time.process_time() - used, time.monotonic() - started
            texts = []
            for file in files:
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
                file.close()
            with report.open("a") as lines:
                lines.write(json.dumps([code, *texts, elapsed, busy]) + "\n")
        return 0

    whole = forked(child, seconds=seconds)
    parts = [Ended(*json.loads(line), megabytes=whole.megabytes) for line in report.read_text().splitlines()]
    return parts, whole


def _become(function: Callable[[], int], descriptors: list[int], folder: Path | None, seconds: float) -> None:
    code = 1
    try:
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)
        sys.stdout = os.fdopen(1, "w", closefd=False, errors="backslashreplace")
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")
        if folder is not None:
            os.chdir(folder)
        faulthandler.dump_traceback_later(19 * seconds, file=sys.stderr)
        resource.setrlimit(resource.RLIMIT_CPU, (ceil(seconds), ceil(seconds) + 1))
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a case may have closed them
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20
