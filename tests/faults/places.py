"""Run ``apply`` where places fail: full disks, limits, folders and inputs that change while they are used.

Whatever happens, a run ends with a result that is complete and made of one state of its input, or with one clear
error; what was at the output stays, the input is not touched, and nothing is left beside it.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults.forked import Ended, forked
from faults.kills import FORMS, Moments, Scene, contents, surgeon
from faults.tally import Tally

NOBODY = 65534


def unclear(ended: Ended) -> str | None:
    """What is wrong with how a run has ended, by what it has said."""
    if ended.hung:
        return f"hangs: {ended.err}"
    if ended.status < 0:
        return f"killed by {signal.Signals(-ended.status).name}: {ended.err}"
    if any(word in ended.err for word in ("Traceback", "bug in", "Exception ignored", "Error in sys")):
        return ended.err
    if ended.status not in (0, 20) and not ended.err.strip():  # 20: diff has found differences
        return f"ends with {ended.status} and says nothing"
    return None


def outcome(
    scene: Scene, folder: Path, form: str, force: bool, ended: Ended, wanted: tuple[Any, ...] = ()
) -> tuple[str, str | None]:
    """How a run has ended, and what is wrong with that."""
    if wrong := unclear(ended):
        return "", wrong
    left = contents(folder / form)
    if ended.status:
        if left != (scene.earlier[form] if force else None):
            return "", f"refused, and the output is not what it was: {ended.err}"
    elif left not in (wanted or (scene.wanted[form],)):
        return "", "it succeeded, and the output is not what it should be"
    if odd := sorted(path.name for path in folder.iterdir() if path.name.startswith(".surgeon")):
        return "", f"it left {odd}: {ended.err}"
    return "refused" if ended.status else "complete", None


def arguments(scene: Scene, form: str, force: bool) -> list[str]:
    return scene.command(form, "recipe.yaml", *(["--force"] if force else []))


@contextmanager
def case(scene: Scene, form: str, force: bool) -> Iterator[Path]:
    folder = scene.copy(form, force)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def limits(tally: Tally, scene: Scene) -> None:
    """Files may not grow beyond a size, and memory not beyond another."""
    dice = random.Random(1)
    for form in FORMS if tally.share else dice.sample(FORMS, 1):
        size = sum(map(len, scene.wanted[form].values())) if form == "out" else len(scene.wanted[form])
        for force in (False, True):
            for _ in range(tally.repeats(20)):
                most = dice.randrange(size)
                with case(scene, form, force) as folder:
                    ended = forked(_limited(resource.RLIMIT_FSIZE, most, arguments(scene, form, force)), folder=folder)
                    tally.add(
                        f"{form} {force} RLIMIT_FSIZE {most}",
                        *_prefixed("file size", outcome(scene, folder, form, force, ended)),
                    )
            for _ in range(tally.repeats(20)):
                more = dice.choice([0, 1, 2, 4, 8, 12, 16, 24, 32, 64])
                with case(scene, form, force) as folder:
                    ended = forked(
                        _limited(resource.RLIMIT_AS, more << 20, arguments(scene, form, force), True), folder=folder
                    )
                    tally.add(
                        f"{form} {force} RLIMIT_AS +{more}",
                        *_prefixed("memory", outcome(scene, folder, form, force, ended)),
                    )


def _prefixed(what: str, result: tuple[str, str | None]) -> tuple[str, str | None]:
    return f"{what}: {result[0]}", result[1]


def _limited(kind: int, most: int, command: list[str], beyond: bool = False) -> Callable[[], int]:
    def child() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if beyond else 0
        resource.setrlimit(kind, (most + pages, resource.RLIM_INFINITY))
        try:
            return surgeon(command)
        finally:
            resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    return child


def full_disks(tally: Tally, scene: Scene) -> None:
    """The output lies on a file system that is too small."""
    dice = random.Random(2)
    for form in FORMS if tally.share else dice.sample(FORMS, 1):
        for _ in range(tally.repeats(12)):
            pages = dice.randrange(1, 56)
            with case(scene, form, False) as folder, small_disk(folder / "disk", pages * 4096) as disk:
                if disk is None:
                    tally.count("full disk: not tried, mounting is not permitted")
                    return
                command = scene.command(f"disk/{form}")
                ended = forked(lambda: surgeon(command), folder=folder)  # noqa: B023
                tally.add(
                    f"{form} on a disk of {pages} pages",
                    *_prefixed("full disk", outcome(scene, disk, form, False, ended)),
                )


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path | None]:
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def unwritable(tally: Tally, scene: Scene) -> None:
    """The folder, the file system or the earlier output may not be written to, or the input not be read."""
    if os.getuid():
        tally.count("rights: not tried, only root can give them up")
        return
    dice = random.Random(6)
    for form in FORMS if tally.share else dice.sample(FORMS, 1):
        for kind in ("folder", "input", "earlier", "recipe"):
            with case(scene, form, kind == "earlier") as folder:
                folder.chmod(0o755)
                folder.parent.chmod(0o755)
                if kind != "folder":
                    os.chown(folder, NOBODY, NOBODY)
                if kind == "input":
                    (folder / "net.pt").chmod(0)
                if kind == "recipe":
                    (folder / "recipe.yaml").chmod(0)

                def child() -> int:
                    os.setuid(NOBODY)
                    return surgeon(arguments(scene, form, kind == "earlier"))  # noqa: B023

                ended = forked(child, folder=folder)
                tally.add(
                    f"{form}, {kind} of another user",
                    *_prefixed("rights", outcome(scene, folder, form, kind == "earlier", ended)),
                )
        with case(scene, form, False) as folder, small_disk(folder / "disk", 1 << 20) as disk:
            if disk is not None:
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
                ended = forked(lambda: surgeon(scene.command(f"disk/{form}")), folder=folder)  # noqa: B023
                tally.add(f"{form} on a read-only disk", *_prefixed("rights", outcome(scene, disk, form, False, ended)))


def changing(tally: Tally, scene: Scene) -> None:
    """At a moment of the run the input or a folder changes."""
    import torch
    from families import vgg

    torch.manual_seed(5)
    other = scene.folder / "other"
    other.mkdir(exist_ok=True)
    torch.save(vgg().state_dict(), other / "net.pt")
    shutil.copy2(scene.folder / "recipe.yaml", other)
    new: dict[str, Any] = {}
    dice = random.Random(3)
    for form in FORMS if tally.share else dice.sample(FORMS, 1):
        assert forked(lambda: surgeon(scene.command(form)), folder=other).status == 0  # noqa: B023
        new[form] = contents(other / form)
        with case(scene, form, False) as folder:
            probe, counter = Moments(folder, 0, lambda: None), folder / "count"

            def count() -> int:
                code = surgeon(scene.command(form), probe)  # noqa: B023
                counter.write_text(str(probe.count))  # noqa: B023
                return code

            forked(count, folder=folder)
            moments = int(counter.read_text())
        for name, change in CHANGES.items():
            chosen = tally.chosen(range(1, moments + 1), 1)
            for moment in chosen:
                with case(scene, form, False) as folder:
                    act = lambda: change(folder, other / "net.pt")  # noqa: E731, B023
                    ended = forked(lambda: surgeon(scene.command(form), Moments(folder, moment, act)), folder=folder)  # noqa: B023
                    if not folder.exists() and not unclear(ended):
                        tally.count(f"{name}: {'refused' if ended.status else 'complete before'}")
                        continue
                    result = outcome(scene, folder, form, False, ended, (scene.wanted[form], new[form]))
                    tally.add(f"{form}: {name} at moment {moment}", *_prefixed(name, result))


def _deleted(folder: Path, other: Path) -> None:
    (folder / "net.pt").unlink()


def _truncated(folder: Path, other: Path) -> None:
    os.truncate(folder / "net.pt", (folder / "net.pt").stat().st_size // 2)


def _overwritten(folder: Path, other: Path) -> None:
    with (folder / "net.pt").open("r+b") as file:
        file.write(other.read_bytes())


def _replaced(folder: Path, other: Path) -> None:
    shutil.copy2(other, folder / "new.pt")
    (folder / "new.pt").replace(folder / "net.pt")


def _vanished(folder: Path, other: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _emptied(folder: Path, other: Path) -> None:
    for scratch in folder.glob(".surgeon-*"):
        shutil.rmtree(scratch, ignore_errors=True)


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "input deleted": _deleted,
    "input truncated": _truncated,
    "input overwritten": _overwritten,
    "input replaced": _replaced,
    "folder vanished": _vanished,
    "scratch folder vanished": _emptied,
}


def two_writers(tally: Tally, scene: Scene) -> None:
    """Two runs write to one output at the same time."""
    dice = random.Random(4)
    for form in FORMS if tally.share else dice.sample(FORMS, 1):
        for force in (False, True):
            for _ in range(tally.repeats(10)):
                with case(scene, form, force) as folder:
                    statuses, wrong = _race(scene, folder, form, force, dice.uniform(0, 0.05))
                    left = contents(folder / form)
                    shutil.rmtree(folder / "errors", ignore_errors=True)
                    rest = {path.name for path in folder.iterdir()} - {"net.pt", "recipe.yaml", "earlier.yaml", form}
                    if not wrong and left not in (scene.wanted[form], scene.earlier[form]):
                        wrong = "the output is neither the one nor the other"
                    if not wrong and not force and sorted(statuses) != [0, 8]:
                        wrong = f"without --force they ended with {statuses}"
                    tally.add(
                        f"{form} {force} two writers",
                        f"two writers: {sorted(statuses)}",
                        wrong or (f"left {rest}" if rest else None),
                    )


def _race(scene: Scene, folder: Path, form: str, force: bool, delay: float) -> tuple[list[int], str | None]:
    """Run both in children of one child: what they say goes to a file each."""
    shutil.copy2(scene.folder / "earlier.yaml", folder)
    (folder / "errors").mkdir()

    def both() -> int:
        import time

        children = []
        for number, recipe in enumerate(("recipe.yaml", "earlier.yaml")):
            child = os.fork()
            if not child:
                code = 1
                try:
                    os.dup2(os.open(folder / "errors" / str(number), os.O_WRONLY | os.O_CREAT), 2)
                    time.sleep(delay * number)
                    code = surgeon(scene.command(form, recipe, *(["--force"] if force else [])))
                finally:
                    os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(*codes)
        return 0

    ended = forked(both, folder=folder)
    messages = "".join(path.read_text() for path in sorted((folder / "errors").iterdir())) + ended.err
    statuses = [int(code) for code in ended.out.split()]
    return statuses, messages if "Traceback" in messages or "bug in" in messages or any(
        code not in (0, 8) for code in statuses
    ) else None


def run(tally: Tally) -> None:
    """Try all of it."""
    with tempfile.TemporaryDirectory(prefix="surgeon-places-") as root:
        scene = Scene(Path(root) / "scene")
        Path(root).chmod(0o755)
        for part in (limits, full_disks, unwritable, changing, two_writers):
            part(tally, scene)
