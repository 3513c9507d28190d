"""A comparison as people see it: whole at any width, quiet about what stayed, clear about what moved."""

from __future__ import annotations

import io

import pytest
import torch
from families import build
from rich.console import Console

import surgeon
from surgeon.cli.render.comparison import render_diff


def shown(result: surgeon.Diff, width: int = 80, by: str = "block") -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(render_diff(result, by))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(scope="module")
def result() -> surgeon.Diff:
    """BERT with one block and its head moved, and one frozen tensor that should have stayed."""
    before, after = build("bert"), build("bert")
    after.bert.requires_grad_(False)
    after.bert.encoder.layer[1].requires_grad_(True)
    with torch.no_grad():
        after.bert.encoder.layer[1].output.dense.weight.mul_(1.5)
        after.classifier.weight.mul_(2)
        after.bert.pooler.dense.bias.add_(1)
    return surgeon.diff(before, after)


@pytest.mark.parametrize("by", ["block", "site", "tensor"])
@pytest.mark.parametrize("width", [80, 200])
def test_nothing_is_cut(result: surgeon.Diff, width: int, by: str) -> None:
    text = shown(result, width, by)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    joined = "".join(text.split())
    groups = {"block": result.blocks, "site": result.sites, "tensor": result.tensors}[by]
    moved = [group.name for group in groups if group.moved]
    assert moved
    if width == 200:
        assert [name for name in moved if name not in joined] == []


def test_a_block_that_moved_has_its_numbers_in_one_line(result: surgeon.Diff) -> None:
    line = next(line for line in shown(result).splitlines() if line.startswith("bert.encoder.layer.1"))
    assert line.split()[1:4] == ["1", "of", "16"]


def test_frozen_tensors_that_moved_are_named(result: surgeon.Diff) -> None:
    assert "1 of 55 moved: bert.pooler.dense.bias" in shown(result, 200)


def test_blocks_that_stayed_are_one_line() -> None:
    text = shown(surgeon.diff(build("resnet"), build("resnet")))
    assert "layer1–4.0–1  0 of 114" in text
    assert "result  equal" in text


def test_what_came_is_named_with_the_operation_that_made_it(tmp_path) -> None:
    torch.save(build("resnet").state_dict(), tmp_path / "net.pt")
    edited = surgeon.apply(tmp_path / "net.pt", [surgeon.ReplaceHead(classes=3)])
    text = shown(surgeon.diff(tmp_path / "net.pt", surgeon.save(edited, tmp_path / "out")), 200)
    assert "fc.weight 5 × 512 → 3 × 512, made by replace_head" in text


def test_a_cosine_just_below_one_does_not_read_as_one() -> None:
    before, after = build("resnet"), build("resnet")
    with torch.no_grad():
        after.conv1.weight.add_(1e-5 * torch.randn_like(after.conv1.weight))
    line = next(line for line in shown(surgeon.diff(before, after)).splitlines() if line.startswith("conv1"))
    assert "1 − " in line
