"""One forked process for each job, some at a time, each with a time limit.

The parent has the libraries imported, so that a child starts in no time; it never runs a tensor operation
itself, since threads do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

Report = Callable[[Any], None]
Work = Callable[[str, Path, Report], None]
"""Takes a job's name, a folder for it to write in, and what sends a result to the parent."""


@dataclass
class Ended:
    """A job that ended: its name, what it reported, and why it ended early, if it did."""

    name: str
    reports: list[Any]
    trouble: str
    seconds: float


@dataclass
class _Running:
    name: str
    process: BaseProcess
    pipe: Connection
    folder: Path
    started: float
    reports: list[Any] = field(default_factory=list)


def run(
    work: Work, names: Iterable[str], *, jobs: int, seconds: float, gigabytes: float, scratch: Path | None
) -> Iterator[Ended]:
    """Do ``work`` for each name, and yield each as it ends."""
    context = multiprocessing.get_context("fork")
    waiting, running = deque(names), []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(context, work, waiting.popleft(), gigabytes, scratch))
            wait([job.pipe for job in running], timeout=0.5)
            for job in list(running):
                trouble = _listen(job)
                if trouble is None and time.monotonic() - job.started > seconds:
                    trouble = f"took more than {seconds:.0f} seconds"
                if trouble is not None:
                    running.remove(job)
                    _stop(job)
                    yield Ended(job.name, job.reports, trouble, time.monotonic() - job.started)
    finally:
        for job in running:
            _stop(job)


def _start(context: Any, work: Work, name: str, gigabytes: float, scratch: Path | None) -> _Running:
    reader, writer = context.Pipe(duplex=False)
    folder = Path(tempfile.mkdtemp(prefix="zoo-", dir=scratch))
    process = context.Process(target=_child, args=(work, name, folder, writer, gigabytes), daemon=True)
    process.start()
    writer.close()
    return _Running(name, process, reader, folder, time.monotonic())


def _child(work: Work, name: str, folder: Path, writer: Connection, gigabytes: float) -> None:
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    work(name, folder, writer.send)
    writer.close()


def _listen(job: _Running) -> str | None:
    """Take in what a job has reported; why it ended, ``""`` for a good end, None while it runs."""
    try:
        while job.pipe.poll():
            job.reports.append(job.pipe.recv())
    except EOFError:
        job.process.join()
        code = job.process.exitcode
        return "" if code == 0 else f"the process ended with code {code}"
    return None


def _stop(job: _Running) -> None:
    job.process.kill()
    job.process.join()
    job.pipe.close()
    shutil.rmtree(job.folder, ignore_errors=True)
