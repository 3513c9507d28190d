"""Kill ``apply`` at every moment that matters, and look at what is left.

A moment is a call that touches files: the N-th event of Python's audit hooks (open, rename, mkdir, remove, …) or the
N-th write, sync or truncation. The process ends itself there, which hits the same moment each time; a write is also
torn in two. Some more are hit from outside after a delay. Whatever the moment:

- the output is absent (or as it was, where it was there before) or complete, byte for byte;
- the input is unchanged, also in its times;
- the same command, once more, succeeds, gives the same bytes and leaves nothing else.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.forked import Ended, forked
from faults.tally import Tally

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FORMS = ("out", "out.safetensors", "out.pt")
AUDITED = ("open", "os.", "shutil.", "tempfile.", "fcntl.")
WRAPPED = ("pwrite", "write", "fsync", "ftruncate", "copy_file_range", "preadv")
RECIPE = "seed: {seed}\noperations:\n  - {{op: replace_head, classes: 3}}\n  - {{op: freeze, sites: features}}\n"


class Moments:
    """Count the calls that touch files, and do something at the one that is chosen.

    Args:
        folder: Only files below it are opened, for the count.
        chosen: Which call; 0 for none.
        act: What happens at that call.
    """

    def __init__(self, folder: Path, chosen: int, act: Callable[[], None]) -> None:
        self.folder = str(folder)
        self.chosen = chosen
        self.act = act
        self.count = 0
        self.begun = False

    def begin(self) -> None:
        """Start to count; a child's audit hook stays until it ends."""
        for name in WRAPPED:
            if hasattr(os, name):
                setattr(os, name, self._wrapped(name, getattr(os, name)))
        sys.addaudithook(self._audit)
        self.begun = True

    def moment(self) -> None:
        """Count one call."""
        self.count += 1
        if self.count == self.chosen:
            self.begun = False
            self.act()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.begun or not event.startswith(AUDITED) or event in ("os.listdir", "os.scandir", "os.putenv"):
            return
        if event == "open" and self.folder not in os.fsdecode(arguments[0] if _is_path(arguments[0]) else ""):
            return
        self.moment()

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if not self.begun or (name == "write" and arguments[0] < 3):
                return function(*arguments)
            self.moment()
            if name == "pwrite" and self.count + 1 == self.chosen and len(arguments[1]) > 1:
                function(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])  # torn in two
                self.moment()
            result = function(*arguments)
            if name == "pwrite":
                self.count += 1
            return result

        return call


def _is_path(value: object) -> bool:
    return isinstance(value, (str, bytes, os.PathLike))


def surgeon(arguments: list[str], moments: Moments | None = None) -> int:
    """Run the command line as ``main`` does, in this process."""
    from surgeon.cli import interrupts
    from surgeon.cli.app import run

    for number in SIGNALS[1:]:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    interrupts.listen()
    if moments is not None:
        moments.begin()
    return run(arguments)


class Scene:
    """A folder with a checkpoint and a recipe, and what ``apply`` makes of them."""

    def __init__(self, folder: Path) -> None:
        import torch
        from families import vgg

        self.folder = folder
        folder.mkdir(parents=True)
        torch.manual_seed(0)
        torch.save(vgg().state_dict(), folder / "net.pt")
        (folder / "recipe.yaml").write_text(RECIPE.format(seed=1))
        (folder / "earlier.yaml").write_text(RECIPE.format(seed=2))
        self.wanted: dict[str, Any] = {}
        self.earlier: dict[str, Any] = {}
        for form in FORMS:
            for recipe, made in (("recipe.yaml", self.wanted), ("earlier.yaml", self.earlier)):
                ended = forked(lambda: surgeon(self.command(form, recipe)), folder=folder)  # noqa: B023
                assert ended.status == 0, ended.err
                made[form] = contents(folder / form)
                if recipe == "recipe.yaml":
                    shutil.rmtree(folder / form) if (folder / form).is_dir() else (folder / form).unlink()
                else:
                    (folder / form).rename(folder / f"earlier-{form}")
        assert self.wanted != self.earlier

    def command(self, form: str, recipe: str = "recipe.yaml", *more: str) -> list[str]:
        """The command that makes ``form``."""
        return ["apply", recipe, "net.pt", "--arch", "python:families:vgg", "-o", form, "-q", *more]

    def copy(self, form: str, force: bool) -> Path:
        """A fresh folder for a case; with ``force`` an earlier output is there."""
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=self.folder.parent))
        for name in ("net.pt", "recipe.yaml"):
            shutil.copy2(self.folder / name, folder / name)
        if force:
            earlier = self.folder / f"earlier-{form}"
            shutil.copytree(earlier, folder / form) if earlier.is_dir() else shutil.copy2(earlier, folder / form)
        return folder


def contents(path: Path) -> Any:
    """The bytes of a file, or of all files below a folder by name; None where nothing is."""
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    return path.read_bytes() if path.exists() else None


def facts(path: Path) -> tuple[int, int, bytes]:
    """What must not change in an input."""
    return path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()


def kill(tally: Tally, scene: Scene, form: str, force: bool, number: int, moment: int, delay: float | None) -> int:
    """Try one moment.

    Returns:
        How many moments the run has; 0 where it was killed before its end.
    """
    folder = scene.copy(form, force)
    case = f"apply {form}{' --force' if force else ''}, {signal.Signals(number).name} at " + (
        f"moment {moment}" if delay is None else f"{delay:.3f} s"
    )
    before = facts(folder / "net.pt")
    counter = folder.with_name(f"{folder.name}.count")
    moments = Moments(folder, moment, lambda: os.kill(os.getpid(), number))

    def child() -> int:
        code = surgeon(scene.command(form, "recipe.yaml", *(["--force"] if force else [])), moments)
        counter.write_text(str(moments.count))
        return code

    ended = forked(child, folder=folder, stop=None if delay is None else (delay, number))
    try:
        outcome, wrong = _left(scene, folder, form, force, number, ended, before)
        tally.add(case, outcome, wrong)
        return int(counter.read_text()) if counter.exists() else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        counter.unlink(missing_ok=True)


def _left(
    scene: Scene, folder: Path, form: str, force: bool, number: int, ended: Ended, before: Any
) -> tuple[str, str | None]:
    """What is wrong with what is left."""
    if ended.hung:
        return "", "hangs"
    if "Traceback" in ended.err or "bug in" in ended.err:
        return "", ended.err
    if ended.status not in (0, -number, 128 + number):
        return "", f"ends with {ended.status}: {ended.err}"
    if facts(folder / "net.pt") != before:
        return "", "the input has changed"
    wanted, earlier = scene.wanted[form], scene.earlier[form] if force else None
    left = contents(folder / form)
    if left != wanted and left != earlier:
        return "", "the output is gone" if left is None else "the output is neither the old one nor the new one"
    if ended.status == 0 and left != wanted:
        return "", "it succeeded, and the output is not the new one"
    odd = {path.name for path in folder.iterdir()} - {"net.pt", "recipe.yaml", form}
    if any(not name.startswith(".surgeon-") for name in odd):
        return "", f"it left {odd}"
    # the removal itself may be what was interrupted
    tidied = " (not all tidied)" if odd and number != signal.SIGKILL else ""
    again = forked(
        lambda: surgeon(scene.command(form, "recipe.yaml", *(["--force"] if left is not None else []))), folder=folder
    )
    if again.status:
        return "", f"the next run ends with {again.status}: {again.err}"
    if contents(folder / form) != wanted:
        return "", "the next run gives other bytes"
    if odd := {path.name for path in folder.iterdir()} - {"net.pt", "recipe.yaml", form}:
        return "", f"the next run leaves {odd}"
    kind = "output complete" if left == wanted else "output as it was" if force else "output absent"
    return kind + tidied, None


def run(tally: Tally) -> None:
    """Kill at all moments, or at a few."""
    dice = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="surgeon-kills-") as root:
        scene = Scene(Path(root) / "scene")
        for form in FORMS:
            for force in (False, True):
                started = forked(lambda: 0).seconds
                moments = kill(tally, scene, form, force, signal.SIGKILL, 0, None)
                chosen: list[tuple[int, int, float | None]] = [
                    (number, moment, None)
                    for number in SIGNALS
                    for moment in range(1, moments + 1, 1 if number == signal.SIGKILL else 3)
                ]
                chosen += [(number, 0, started + dice.uniform(0, 0.6)) for number in SIGNALS for _ in range(4)]
                for number, moment, delay in tally.chosen(chosen, 1):
                    kill(tally, scene, form, force, number, moment, delay)
                if not tally.share:  # the moments around the renames matter most, and they come last
                    kill(tally, scene, form, force, signal.SIGKILL, moments - dice.randrange(12), None)
