"""README's table of refusals: each message comes from a mistake that is made here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import models

from surgeon.cli.app import run

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## When something is refused")[2].partition("\n## ")[0]
MESSAGES = [line.split("`")[1] for line in SECTION.splitlines() if line.startswith("| `")]

HEAD = "- op: replace_head\n    classes: [cat, dog]"
TRAIN = "train:\n  data: {{source: {}, path: pictures}}\n  epochs: 1\n"


def recipe(*operations: str, train: str = "") -> str:
    Path("recipe.yaml").write_text("operations:\n" + "".join(f"  {text}\n" for text in operations) + train)
    return "recipe.yaml"


def state_dict() -> str:
    torch.save(models.resnet18().state_dict(), "resnet18.pth")
    return "resnet18.pth"


def plan_of(*operations: str) -> list[str]:
    return ["plan", recipe(*operations), state_dict()]


def tensors() -> list[str]:
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 7)).state_dict(), "mine.pt")
    return ["inspect", "mine.pt"]


def pickled() -> list[str]:
    torch.save(models.resnet18(), "whole.pth")
    return ["inspect", "whole.pth"]


def truncated() -> list[str]:
    Path("cut.pth").write_bytes(Path(state_dict()).read_bytes()[:100_000])
    return ["inspect", "cut.pth"]


def converted() -> list[str]:
    Path("model.gguf").write_bytes(b"GGUF" + bytes(60))
    return ["inspect", "model.gguf"]


def artifact() -> str:
    Path("ok.yaml").write_text(f"operations:\n  {HEAD}\n")
    assert run(["apply", "ok.yaml", state_dict(), "-q"]) == 0
    return "out/ok"


def twice() -> list[str]:
    artifact()
    return ["apply", "ok.yaml", "resnet18.pth"]


def flipped() -> list[str]:
    weights = Path(artifact(), "model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    return ["check", "out/ok"]


def pictures(*, broken: bool = False) -> None:
    for name in ("cat", "hen"):
        Path("pictures", name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (32, 32), (number * 20, 50, 90)).save(f"pictures/{name}/{number}.png")
    if broken:
        Path("pictures/hen/page.jpg").write_text("<html>")


def other_classes() -> list[str]:
    pictures()
    return ["apply", recipe(HEAD, train=TRAIN.format("images")), state_dict()]


def web_page() -> list[str]:
    pictures(broken=True)
    return ["apply", recipe("- op: replace_head\n    classes: 2", train=TRAIN.format("images")), state_dict()]


MISTAKES: dict[str, Callable[[], list[str]]] = {
    "operations.0.aftr: unknown key": lambda: plan_of("- op: truncate\n    aftr: layer3"),
    "unknown operation 'lora'": lambda: plan_of("- op: lora\n    rank: 4"),
    "no module matches 'layr3' in ResNet": lambda: plan_of("- op: freeze\n    up_to: layr3"),
    "ResNet has no module in the role @embeddings": lambda: plan_of("- op: freeze\n    sites: '@embeddings'"),
    "the architecture of these 2 tensors is unknown": tensors,
    "does not fit torchvision/vgg11: 0 of 22 tensors match": lambda: [*plan_of(HEAD), "--arch", "torchvision/vgg11"],
    "the checkpoint lacks 96 tensors that the network needs": lambda: [
        *plan_of(HEAD), "--arch", "torchvision/resnet34"
    ],
    "loading it would run code from its pickle": pickled,
    "uses code of the module mymodels, which needs your consent": lambda: plan_of(
        "- op: progressive\n    task: b\n    classes: 3\n    arch: python:mymodels:build"
    ),
    "a truncated or damaged zip archive": truncated,
    "a GGUF model (llama.cpp)": converted,
    "out/ok exists": twice,
    "has changed since it was written": flipped,
    "no model is given": lambda: ["plan", recipe(HEAD)],
    "the classes of the head and those of 'labels' differ": other_classes,
    "is a web page, not a picture": web_page,
    "unknown source 'imgs'": lambda: ["plan", recipe(HEAD, train=TRAIN.format("imgs")), state_dict()],
    "VGG has no repeated blocks to thin": lambda: [
        "plan", recipe("- op: truncate\n    keep_blocks: 0.5"), "torchvision/vgg11"
    ],
    "the recipe has no train: section": lambda: ["train", artifact()],
    "cannot be loaded from the Hugging Face hub": lambda: ["inspect", "hf:nobody/nothing"],
}  # fmt: skip


def test_the_table_and_the_mistakes_are_the_same() -> None:
    assert list(MISTAKES) == MESSAGES


@pytest.mark.parametrize("message", MISTAKES)
def test_the_message_comes_as_it_is_written(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = MISTAKES[message]()
    capsys.readouterr()
    assert run(command) != 0
    said = capsys.readouterr().err
    assert message in said
    assert "bug in surgeon" not in said
    assert len(re.findall(r"^\S.*", said, re.MULTILINE)) == 1
