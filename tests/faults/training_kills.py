"""Kill ``train`` at every moment that matters, and go on with ``--resume``.

Moments are those of ``kills``, and the beginning of every step. Whatever the moment, the output is absent or complete,
the input is unchanged, and the run goes on as surgeon says: with ``--resume``, or from its start where there is nothing
to resume. The trained network then has the bytes of a run that nobody interrupted, and nothing else is left.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

from faults.forked import forked
from faults.kills import SIGNALS, Moments, contents, facts, surgeon
from faults.tally import Tally

RECIPE = """
seed: 3
operations:
  - {op: replace_head, classes: [zero, one, two]}
train:
  data: {source: digits, classes: [0, 1, 2], per_class: 4, canvas: 8, size: 32, test_fraction: 0.1}
  epochs: 3
  batch_size: 6
  average: {kind: ema}
"""
COMMAND = ["train", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-o", "out", "-q"]
INPUTS = {"net.pt", "recipe.yaml"}
RESULT = {"out", "out.svg"}


def run(tally: Tally) -> None:
    """Kill at all moments, or at a few."""
    dice = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="surgeon-kills-") as root:
        scene = Path(root) / "scene"
        _make(scene)
        ended = forked(lambda: surgeon(COMMAND), folder=scene)
        assert ended.status == 0, ended.err
        wanted, seconds = contents(scene / "out"), ended.seconds
        count = _kill(tally, scene, wanted, signal.SIGKILL, 0, None)
        moments: list[tuple[int, int, float | None]] = [
            (number, moment, None)
            for number in SIGNALS
            for moment in range(1, count + 1, 1 if number == signal.SIGKILL else 3)
        ]
        moments += [(number, 0, dice.uniform(0, seconds)) for number in SIGNALS for _ in range(10)]
        for number, moment, delay in tally.chosen(moments, 3):
            _kill(tally, scene, wanted, number, moment, delay)


def _make(folder: Path) -> None:
    import torch
    from families import vgg

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(vgg().state_dict(), folder / "net.pt")
    (folder / "recipe.yaml").write_text(RECIPE)


def _kill(tally: Tally, scene: Path, wanted: object, number: int, moment: int, delay: float | None) -> int:
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=scene.parent))
    for name in INPUTS:
        shutil.copy2(scene / name, folder / name)
    before, counter = facts(folder / "net.pt"), folder.with_name(f"{folder.name}.count")
    moments = Moments(folder, moment, lambda: os.kill(os.getpid(), number))

    def child() -> int:
        from surgeon.training.callbacks import ProgressCallback

        begin = ProgressCallback.on_step_begin

        def counted(*arguments: object, **options: object) -> object:
            moments.moment()
            return begin(*arguments, **options)  # type: ignore[arg-type]

        ProgressCallback.on_step_begin = counted  # type: ignore[assignment,method-assign]
        code = surgeon(COMMAND, moments)
        counter.write_text(str(moments.count))
        return code

    where = f"moment {moment}" if delay is None else f"{delay:.3f} s"
    case = f"train, {signal.Signals(number).name} at {where}"
    ended = forked(child, folder=folder, stop=None if delay is None else (delay, number))
    try:
        if facts(folder / "net.pt") != before:
            tally.fault(case, "the input has changed")
        elif ended.hung or "Traceback" in ended.err or "bug in" in ended.err:
            tally.fault(case, "hangs" if ended.hung else ended.err)
        elif ended.status not in (0, -number, 128 + number):
            tally.fault(case, f"ends with {ended.status}: {ended.err}")
        else:
            tally.add(case, *_went_on(folder, wanted))
        return int(counter.read_text()) if counter.exists() else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        counter.unlink(missing_ok=True)


def _went_on(folder: Path, wanted: object) -> tuple[str, str | None]:
    """Go on with the run, and say what is wrong with its result."""
    left = contents(folder / "out")
    if left is not None and left != wanted:
        return "", "the output is not complete"
    kept = sorted(path.name for path in folder.glob("out.checkpoints/*"))
    outcome = "complete" if left is not None else "resumed"
    again = forked(lambda: surgeon([*COMMAND, "--resume"]), folder=folder)
    if again.status == 9 and "no interrupted training to resume" in again.err:
        if left is None:
            outcome = "started again"
            again = forked(lambda: surgeon(COMMAND), folder=folder)
        elif not (folder / "out.checkpoints").exists():
            again = replace(again, status=0)  # nothing is left to be done
    if again.status:
        return "", f"--resume ends with {again.status}, {outcome}, {kept}: {again.err}"
    if contents(folder / "out") != wanted:
        return "", f"other bytes after it was {outcome}"
    if odd := {path.name for path in folder.iterdir()} ^ (INPUTS | RESULT):
        return "", f"left or missing after it was {outcome}: {odd}"
    return outcome, None
