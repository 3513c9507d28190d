"""Odd names, links, pipes where files are expected, and readers that go away."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from faults.forked import forked
from faults.kills import FORMS, Scene, contents, facts, surgeon
from faults.places import unclear
from faults.tally import Tally

NAMES = (
    "line\nbreak",
    "[bold]rich[/bold]",
    "[/]",
    "[red",
    "[link=file:///etc/passwd]x[/link]",
    ":smile:",
    "a b",
    "-dash",
    "--force",
    "*?[a-z]",
    "{braces}",
    "%s%n",
    "$(touch ran)",
    "`touch ran`",
    "tab\ttab",
    "\x1b[31mred",
    "\x07bell",
    "quote'\"",
    "back\\slash",
    "ünïcødé-名前-🩺",
    "e\u0301",
    "\u202egnp.exe",
    "trailing.",
    "..dots",
    "#hash",
    "a:b@c",
    "n" * 200,
    os.fsdecode(b"not-utf8-\xff\xfe"),
    os.fsdecode(b"\x80"),
)
COMMANDS = ("apply", "apply --json", "apply missing", "plan", "inspect", "check", "diff", "train", "export", "evaluate")


def _command(kind: str, name: str, form: str) -> list[list[str]]:
    """The commands of a case: all paths bear the name."""
    model, recipe, out = f"./{name}.pt", f"./{name}.yaml", f"./{name}-{form}"
    arch = ["--arch", "python:families:vgg"]
    apply = ["apply", recipe, model, *arch, "-o", out]
    trust = ["--trust-code", "families"]
    return {
        "apply": [apply],
        "apply --json": [[*apply, "--json"]],
        "apply missing": [["apply", recipe, f"./{name}-missing.pt"], ["apply", f"./{name}-missing.yaml", model]],
        "plan": [["plan", recipe, model, *arch]],
        "inspect": [["inspect", model, *arch], [*apply, "-q"], ["inspect", out, *trust]],
        "check": [[*apply, "-q"], ["check", out, *trust]],
        "diff": [[*apply, "-q"], ["diff", model, out, *trust]],
        "train": [["train", recipe, model, *arch, "-o", out]],
        "export": [[*apply, "-q"], ["export", out, "--to", "state-dict", "-o", f"./{name}.export.pt", *trust]],
        "evaluate": [["evaluate", model, *arch, "--data", f"{{source: images, path: './{name}'}}"]],
    }[kind]


def named(tally: Tally, scene: Scene) -> None:
    """Every name, in every command."""
    dice = random.Random(0)
    cases = [(name, kind) for name in NAMES for kind in COMMANDS]
    for name, kind in tally.chosen(cases, 10):
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=scene.folder.parent))
        try:
            (folder / f"{name}.pt").parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(scene.folder / "net.pt", folder / f"{name}.pt")
            shutil.copy2(scene.folder / "recipe.yaml", folder / f"{name}.yaml")
            form = dice.choice(FORMS)
            wrong, statuses = None, []
            for command in _command(kind, name, form):
                ended = forked(lambda: surgeon(command), folder=folder)  # noqa: B023
                statuses.append(ended.status)
                wrong = wrong or unclear(ended)
                if "\x1b[31m" in ended.out + ended.err or "\x07" in ended.out + ended.err:
                    wrong = wrong or f"control characters reach the terminal: {ended.out + ended.err!r}"
            worked = not any(status for status in statuses if status != 20)  # 20: diff has found differences
            if not wrong and worked != (kind not in ("apply missing", "train", "evaluate")):
                wrong = f"{statuses}: {ended.err}"
            if (folder / "ran").exists():
                wrong = "a name was run"
            if not wrong and kind.startswith("apply") and worked and contents(folder / f"{name}-{form}") is None:
                wrong = f"no output: {sorted(map(str, folder.iterdir()))}"
            tally.add(f"{kind} {name!r}", f"names: {'worked' if worked else 'refused'}", wrong)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _loop(folder: Path) -> list[str]:
    (folder / "loop.pt").symlink_to("loop.pt")
    return ["apply", "recipe.yaml", "loop.pt", "-o", "out"]


def _dangling(folder: Path) -> list[str]:
    (folder / "gone.pt").symlink_to("nowhere.pt")
    return ["apply", "recipe.yaml", "gone.pt", "-o", "out"]


def _links_to_input(folder: Path, form: str) -> list[str]:
    (folder / form).symlink_to("net.pt")
    return [form, "--force"]


def _hard_linked(folder: Path, form: str) -> list[str]:
    (folder / form).hardlink_to(folder / "net.pt")
    return [form, "--force"]


def _linked_elsewhere(folder: Path, form: str) -> list[str]:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "notes").write_text("mine")
    (folder / form).symlink_to("elsewhere")
    return [form, "--force"]


def _dangling_output(folder: Path, form: str) -> list[str]:
    (folder / form).symlink_to("nowhere")
    return [form]


def _below_a_link(folder: Path, form: str) -> list[str]:
    (folder / "elsewhere").mkdir()
    (folder / "link").symlink_to("elsewhere")
    return [f"link/{form}"]


def _parent_loop(folder: Path, form: str) -> list[str]:
    (folder / "loop").symlink_to("loop")
    return [f"loop/{form}"]


def _here(folder: Path, form: str) -> list[str]:
    return [".", "--force"]


def _dots(folder: Path, form: str) -> list[str]:
    return ["sub/../" + form]


def _root(folder: Path, form: str) -> list[str]:
    return ["/", "--force"]


OUTPUTS: dict[str, Callable[[Path, str], list[str]]] = {
    "a link to the input": _links_to_input,
    "a hard link to the input": _hard_linked,
    "a link to a folder of others": _linked_elsewhere,
    "a dangling link": _dangling_output,
    "below a link": _below_a_link,
    "below a loop": _parent_loop,
    "this folder": _here,
    "dots": _dots,
    "the root": _root,
}


def links(tally: Tally, scene: Scene) -> None:
    """Links as inputs and outputs: the input and what belongs to others stay as they are."""
    for name, make in {"a loop": _loop, "a dangling link": _dangling}.items():
        folder = scene.copy("out", False)
        ended = forked(lambda: surgeon(make(folder)), folder=folder)  # noqa: B023
        tally.add(
            f"the input is {name}", "links: refused", unclear(ended) or (None if ended.status == 4 else ended.err)
        )
        shutil.rmtree(folder)
    for form, (name, place) in tally.chosen([(form, item) for form in FORMS for item in OUTPUTS.items()], 5):
        folder = scene.copy(form, False)
        more = place(folder, form)
        before, notes = facts(folder / "net.pt"), folder / "elsewhere" / "notes"
        command = ["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-q", "-o", *more]
        ended = forked(lambda: surgeon(command), folder=folder)  # noqa: B023
        wrong = unclear(ended)
        if facts(folder / "net.pt") != before:
            wrong = "the input has changed"
        if name == "a link to a folder of others" and (not notes.exists() or notes.read_text() != "mine"):
            wrong = "what belongs to others has changed"
        if any(path.name.startswith(".surgeon") for path in folder.rglob("*")):
            wrong = wrong or "it left something"
        tally.add(f"{form} is {name}", f"links: {'complete' if not ended.status else 'refused'}", wrong)
        shutil.rmtree(folder)


def pipes(tally: Tally, scene: Scene) -> None:
    """A pipe, a device or a folder stands where a file is expected: nothing waits for it or reads without end."""
    from safetensors.torch import save_file

    for kind in ("pipe", "/dev/zero", "/dev/null", "folder"):
        for place in (
            "model",
            "recipe",
            "config.json",
            "surgeon.json",
            "model.safetensors",
            "index",
            "shard",
            "donor",
            "table",
        ):
            folder = scene.copy("out", False)
            target = {"model": "x.pt", "recipe": "x.yaml", "index": "hf/model.safetensors.index.json", "donor": "x.pt",
                      "shard": "hf/shard.safetensors", "table": "x.csv"}.get(place, f"hf/{place}")  # fmt: skip
            (folder / "hf").mkdir()
            if place not in ("model.safetensors", "index", "shard"):
                import torch

                save_file({"a": torch.ones(1)}, folder / "hf" / "model.safetensors")
            if place == "shard":
                (folder / "hf/model.safetensors.index.json").write_text('{"weight_map": {"a": "shard.safetensors"}}')
            _stand_in(folder / target, kind)
            command = {
                "model": ["inspect", "x.pt"],
                "recipe": ["apply", "x.yaml", "net.pt"],
                "donor": ["plan", "donor.yaml", "net.pt", "--arch", "python:families:vgg"],
                "table": [
                    "evaluate",
                    "net.pt",
                    "--arch",
                    "python:families:vgg",
                    "--data",
                    "{source: table, path: x.csv}",
                ],
            }.get(place, ["inspect", "hf"])
            (folder / "donor.yaml").write_text("operations: [{op: transfer, donor: x.pt}]\n")
            ended = forked(lambda: surgeon(command), folder=folder, seconds=10)  # noqa: B023
            wrong = unclear(ended) or ("read it" if not ended.status else None)
            if ended.megabytes > 300:
                wrong = f"took {ended.megabytes} MB"
            tally.add(f"{kind} as {place}", "pipes and devices: refused", wrong)
            shutil.rmtree(folder)


def _stand_in(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)


def readers(tally: Tally, scene: Scene) -> None:
    """What is printed is not read, or cannot be written."""
    for command in ("plan", "apply", "inspect", "apply --json", "schema"):
        for sink in ("closed pipe", "/dev/full", "closed"):
            folder = scene.copy("out", False)
            arch = ["--arch", "python:families:vgg"]
            arguments = {
                "plan": ["plan", "recipe.yaml", "net.pt", *arch],
                "apply": ["apply", "recipe.yaml", "net.pt", *arch, "-o", "out"],
                "inspect": ["inspect", "net.pt", *arch],
                "apply --json": ["apply", "recipe.yaml", "net.pt", *arch, "-o", "out", "--json"],
                "schema": ["schema"],
            }[command]

            def child() -> int:
                import sys

                if sink == "closed":  # noqa: B023
                    os.close(1)
                else:
                    reader, writer = os.pipe()
                    os.close(reader)
                    os.dup2(writer if sink == "closed pipe" else os.open("/dev/full", os.O_WRONLY), 1)  # noqa: B023
                sys.stdout = os.fdopen(1, "w", closefd=False) if sink != "closed" else None  # type: ignore[assignment]  # noqa: B023
                return surgeon(arguments)  # noqa: B023

            ended = forked(child, folder=folder)
            wrong = unclear(ended) if ended.status != 1 or ended.err else None
            left = contents(folder / "out")
            if not wrong and left not in (None, scene.wanted["out"]):
                wrong = "the output is not complete"
            tally.add(f"{command} into {sink}", f"{sink}: ended with {ended.status}", wrong)
            shutil.rmtree(folder)


def run(tally: Tally) -> None:
    """Try all of it."""
    with tempfile.TemporaryDirectory(prefix="surgeon-names-") as root:
        scene = Scene(Path(root) / "scene")
        named(tally, scene)
        links(tally, scene)
        pipes(tally, scene)
        readers(tally, scene)
