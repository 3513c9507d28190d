"""Nothing that a file names is run, damage is noticed, sizes are bounded, configs of strangers are at fault (15)."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cases.harness import Outcome, case, either, equal, expect, refuses, right, succeed, surgeon_command
from cases.material import Material, resnet, save_bert, save_vit
from cases.names import head

MARK = "SURGEON_CASES_RAN"


def small_artifact(material: Material) -> Path:
    """A small artifact of a BERT."""
    folder = material.folder / "model"
    save_bert(folder, "BertForSequenceClassification")
    succeed("apply", material.recipe([head(["no", "yes"])]), folder, "-o", material.folder / "art", "--quiet")
    return material.folder / "art"


CODE = {
    "os.system": "python:os:system",
    "torch.load": "python:torch:load",
    "torch.hub": "python:torch.hub:load",
    "a builtin": "python:builtins:exec",
    "subprocess": "python:subprocess:run",
    "a module beside": "python:evil:build",
}


@case("15.1", of=CODE)
def a_recipe_that_names_code(material: Material, name: str) -> Outcome:
    (material.folder / "evil.py").write_text(
        f"import os\nos.environ[{MARK!r}] = '1'\ndef build():\n    raise SystemExit(9)\n"
    )
    import os

    os.environ.pop(MARK, None)
    path = material.folder / "r.pth"
    torch.save(resnet().state_dict(), path)
    recipe = material.recipe([{"op": "progressive", "arch": name, "classes": 3}])
    ran = surgeon_command("apply", recipe, path, "-o", material.folder / "out", folder=material.folder)
    expect(MARK not in os.environ, "the code was imported")
    return refuses(ran)


@case("15.1", of=CODE, quick=["os.system"])
def an_artifact_that_names_code(material: Material, name: str) -> Outcome:
    """The architecture of a manifest is a stranger's callable; its digests are recomputed."""
    artifact = small_artifact(material)
    manifest = json.loads((artifact / "surgeon.json").read_text())
    text = json.dumps(manifest)
    stated = json.dumps(manifest.get("record", manifest).get("architecture") or manifest["architecture"])
    (artifact / "surgeon.json").write_text(
        text.replace(
            stated,
            json.dumps({"name": name, "provider": "python"}) if stated.startswith("{") else json.dumps(name),
        )
    )
    for command in (
        ("inspect", artifact),
        ("check", artifact),
        ("plan", material.recipe([{"op": "freeze", "sites": "bert"}]), artifact),
    ):
        ran = surgeon_command(*command)
        outcome = refuses(ran)
    return outcome


class Evil:
    """A pickle that runs a command."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return exec, (f"import os; os.environ[{MARK!r}] = '1'",)


@case("15.1", of=("inspect", "plan", "apply", "predict", "export", "diff", "evaluate"))
def a_pickle_that_runs_code(material: Material, command: str) -> Outcome:
    import os

    os.environ.pop(MARK, None)
    path, recipe = material.folder / "evil.pt", material.recipe([{"op": "freeze", "sites": "layer1"}])
    torch.save({"state_dict": resnet().state_dict(), "extra": Evil()}, path)
    arguments: dict[str, tuple[object, ...]] = {
        "inspect": (path,),
        "plan": (recipe, path),
        "apply": (recipe, path, "-o", material.folder / "out"),
        "predict": (path, material.pictures(("a", "b"), per=1)),
        "evaluate": (path, material.folder / "pictures"),
        "export": (path, "--to", "state-dict", "-o", material.folder / "x.pt"),
        "diff": (path, path),
    }
    ran = surgeon_command(command, *arguments[command])
    expect(MARK not in os.environ, "the pickle was run")
    return refuses(ran)


def reordered(source: Path, target: Path, *, extra: bool) -> None:
    """The same archive, its records in another order than the pickle names them, with the records of newer torch."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        names = old.namelist()
        data = [name for name in names if "/data/" in name]
        rest = [name for name in names if "/data/" not in name]
        random.Random(0).shuffle(data)
        root = names[0].split("/")[0]
        if extra:
            new.writestr(f"{root}/.format_version", "1")
            new.writestr(f"{root}/.storage_alignment", "64")
        for name in (*data, *rest):
            if not name.endswith((".format_version", ".storage_alignment")):
                new.writestr(name, old.read(name))


@case("15.2", of={"as old torch": False, "as new torch": True})
def records_in_another_order(material: Material, extra: bool) -> Outcome:
    """Every tensor as torch.load(weights_only=True) has it."""
    import surgeon

    plain, path = material.folder / "plain.pt", material.folder / "mixed.pt"
    model = resnet()
    tensors = dict(reversed(list(model.state_dict().items())))
    torch.save(tensors, plain)
    reordered(plain, path, extra=extra)
    expected = torch.load(path, weights_only=True)

    def attempt() -> Outcome:
        mine = surgeon.apply(path, [surgeon.Freeze(sites="layer1")]).state_dict()
        differing = [name for name, value in expected.items() if not torch.equal(mine[name], value)]
        expect(not differing, f"{len(differing)} tensors are exchanged: {differing[:3]}")
        return right(f"{len(expected)} tensors as torch.load has them")

    return either(attempt)


@case("15.2")
def views_of_one_storage(material: Material) -> Outcome:
    """Transposed, overlapping and offset views."""
    import surgeon

    path = material.folder / "v.pt"
    values = resnet().state_dict()
    base = torch.randn(512, 5)
    values["fc.weight"] = base.t()
    flat = torch.arange(64.0)
    values["bn1.weight"], values["bn1.bias"] = flat, flat.flip(0)[:64]
    values["layer1.0.bn1.weight"] = torch.arange(128.0)[32:96]
    torch.save(values, path)
    mine = surgeon.apply(path, [surgeon.Freeze(sites="layer1")]).state_dict()
    expected = torch.load(path, weights_only=True)
    differing = [name for name, value in expected.items() if not torch.equal(mine[name], value)]
    equal(differing, [], "tensors that differ from torch.load's")
    return right("as torch.load has them")


@case(
    "15.3",
    of=("model.safetensors", "surgeon.json", "recipe.yaml", "config.json", "tokenizer.json"),
    quick=["surgeon.json"],
)
def bits_that_were_turned_over(material: Material, name: str) -> Outcome:
    artifact = small_artifact(material)
    file = artifact / name
    original, draw, passed = file.read_bytes(), random.Random(0), 0
    for _ in range(12):
        changed = bytearray(original)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        passed += surgeon_command("check", artifact).code == 0
    file.write_bytes(original)
    equal(passed, 0, "of 12 turned bits unnoticed")
    succeed("check", artifact)
    return right("12 of 12 noticed")


@case("15.5", slow=True)
def a_failed_write_keeps_the_old_output(material: Material) -> Outcome:
    """--force with a recipe whose result does not run: what was there stays, to the byte."""
    path = material.folder / "r.pth"
    torch.save(resnet().state_dict(), path)
    out = material.folder / "out"
    succeed("apply", material.recipe([head(3)]), path, "-o", out, "--quiet")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    bad = material.recipe([{"op": "insert", "at": "layer1", "layer": "linear", "features": 7}], name="bad.yaml")
    ran = surgeon_command("apply", bad, path, "-o", out, "--force")
    equal({file.name: file.read_bytes() for file in out.iterdir()}, before, "the old output")
    leftovers = [file.name for file in material.folder.iterdir() if file.name.startswith(".")]
    equal(leftovers, [], "leftovers")
    return refuses(ran)


@case("15.4", slow=True)
def nothing_is_left_behind(material: Material) -> Outcome:
    path = material.folder / "r.pth"
    torch.save(resnet().state_dict(), path)
    for name in ("out", "out.pt", "out.safetensors"):
        succeed("apply", material.recipe([head(3)]), path, "-o", material.folder / name, "--quiet")
    names = sorted(file.name for file in material.folder.iterdir())
    equal(names, ["out", "out.pt", "out.safetensors", "r.pth", "recipe.yaml"], "files")
    return right("three outputs, nothing else")


def edited(**changes: Any) -> Callable[[Material], Path]:
    """A folder whose config was edited."""

    def make(material: Material) -> Path:
        folder = material.folder / "model"
        save_vit(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    return make


BOMBS = {
    "a million layers": edited(num_hidden_layers=1_000_000),
    "a huge width": edited(hidden_size=2**24),
    "a huge number of labels": edited(num_labels=10**9),
    "a huge picture": edited(image_size=2**20),
    "a negative count": edited(num_hidden_layers=-3),
}


@case("15.6", of=BOMBS)
def sizes_that_no_file_holds(material: Material, make: Callable[[Material], Path]) -> Outcome:
    import resource
    import time

    folder = make(material)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    ran = surgeon_command("inspect", folder)
    seconds = time.process_time() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    expect(seconds < 4 and grown < 400, f"{seconds:.1f} s of computing, {grown:.0f} MB more")
    return refuses(ran)


@case("15.6")
def inputs_that_no_memory_holds(material: Material) -> Outcome:
    path = material.folder / "r.pth"
    torch.save(resnet().state_dict(), path)
    recipe = material.recipe([head(3)], inputs=[[1_000_000, 3, 10_000, 10_000]])
    return refuses(surgeon_command("plan", recipe, path))


STRANGE: dict[str, dict[str, Any]] = {
    "zero heads": {"num_attention_heads": 0},
    "a list for a number": {"hidden_size": [32]},
    "text for a number": {"num_hidden_layers": "two"},
    "a number for an activation": {"hidden_act": 7},
    "an activation by no name": {"hidden_act": "wavy"},
    "null for a size": {"image_size": None},
    "a list for labels": {"id2label": ["a", "b"]},
    "a number for labels": {"id2label": 3},
    "text for architectures": {"architectures": "ViTForImageClassification"},
    "a number for architectures": {"architectures": 7},
    "a model type by no name": {"model_type": "mystery"},
    "a number for a model type": {"model_type": 7},
    "dropout of 7": {"hidden_dropout_prob": 7},
    "a dtype by no name": {"dtype": "float13"},
    "labels that do not count": {"id2label": {"a": "x", "b": "y"}},
    "a fraction of heads": {"num_attention_heads": 1.5},
}


@case("15.7", of=STRANGE)
def configs_of_strangers(material: Material, changes: dict[str, Any]) -> Outcome:
    """The config's fault, or read as transformers reads it; never a bug of surgeon's."""
    ran = surgeon_command("inspect", edited(**changes)(material))
    if ran.code:
        return refuses(ran)
    return right("read")


TEXTS = {"not JSON": "{", "a list": "[]", "null": "null", "empty": "", "not UTF-8": b"\xff\xfe\x00"}


@case("15.7", of=TEXTS)
def configs_that_are_none(material: Material, text: str | bytes) -> Outcome:
    folder = edited()(material)
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "config.json").write_bytes(content)
    return refuses(surgeon_command("inspect", folder), "config.json")


FILES: dict[str, Callable[[], bytes]] = {
    "a header of 2**60 bytes": lambda: struct.pack("<Q", 2**60) + b"{}",
    "a header that is not JSON": lambda: struct.pack("<Q", 5) + b"nope!",
    "offsets beyond the end": lambda: tensor_file(
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 4
    ),
    "a shape of 2**60": lambda: tensor_file(
        {"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 16]}}, b"\0" * 16
    ),
    "overlapping tensors": lambda: tensor_file(
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        },
        b"\0" * 24,
    ),
    "empty": lambda: b"",
    "a pickle of 4 bytes": lambda: b"\x80\x02N.",
    "a zip without data": lambda: zipped({"archive/data.pkl": pickle.dumps({})}),
}


def tensor_file(header: dict[str, Any], data: bytes) -> bytes:
    """A safetensors file."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def zipped(records: dict[str, bytes]) -> bytes:
    """A zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in records.items():
            file.writestr(name, content)
    return out.getvalue()


@case("15.7", of=FILES)
def damaged_files(material: Material, make: Callable[[], bytes]) -> Outcome:
    content = make()
    path = material.folder / ("x.pt" if content[:2] in (b"PK", b"\x80\x02") else "x.safetensors")
    path.write_bytes(content)
    return refuses(surgeon_command("inspect", path))


@case("15.8")
def a_resume_with_other_classes(material: Material) -> Outcome:
    """An interrupted training is not gone on with by a recipe with other classes."""
    pictures = material.pictures(("a", "b"), per=6)
    data = {"source": "images", "path": str(pictures)}
    recipe = material.recipe([head(["a", "b"])], train={"data": data, "epochs": 4, "batch_size": 4})

    out = material.folder / "out"
    interrupted(material.vit(), recipe, out, steps=6)
    other = material.recipe([head(["b", "a"])], name="recipe.yaml", train={"data": data, "epochs": 4, "batch_size": 4})
    ran = surgeon_command("train", other, material.vit(), "-o", out, "--resume")
    return refuses(ran)


def interrupted(model: Path, recipe: Path, out: Path, steps: int) -> None:
    """Train, and press Ctrl-C after so many steps."""
    from unittest import mock

    from transformers import Trainer

    original, done = Trainer.training_step, []

    def step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        done.append(1)
        if len(done) > steps:
            raise KeyboardInterrupt
        return original(trainer, *args, **kwargs)

    with mock.patch.object(Trainer, "training_step", step):
        ran = surgeon_command("train", recipe, model, "-o", out, "--quiet")
    expect(ran.code, f"not interrupted: {ran.said[-200:]}")
