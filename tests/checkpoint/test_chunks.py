"""Tensors that are read in pieces give the same values as when they are read whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from surgeon.checkpoint.chunks import read_chunks, split
from surgeon.checkpoint.contents import ByteRange, Checkpoint, Entry
from surgeon.checkpoint.formats import memory_checkpoint, open_checkpoint
from surgeon.errors import CheckpointError

VALUES = torch.arange(35.0).reshape(5, 7)


@pytest.mark.parametrize("elements", [1, 6, 34, 35, 100])
@pytest.mark.parametrize("form", ["safetensors", "pt", "view", "memory"])
def test_the_pieces_are_the_tensor_in_row_major_order(form: str, elements: int, tmp_path: Path) -> None:
    path = tmp_path / f"net.{form}"
    if form == "safetensors":
        save_file({"first": torch.ones(3), "x": VALUES}, path)
    elif form == "pt":
        torch.save({"x": VALUES}, path)
    elif form == "view":
        torch.save({"x": VALUES.T.contiguous().T}, path)
    checkpoint = memory_checkpoint({"x": VALUES}) if form == "memory" else open_checkpoint(path)
    pieces = list(read_chunks(checkpoint, "x", elements))
    assert [len(piece) for piece in pieces] == [min(elements, 35 - at) for at in range(0, 35, elements)]
    assert torch.equal(torch.cat(pieces), VALUES.flatten())


@pytest.mark.parametrize("elements", [1, 3, 4, 10])
def test_a_tensor_that_is_stored_in_several_runs_is_read_across_them(elements: int, tmp_path: Path) -> None:
    path = tmp_path / "values"
    path.write_bytes(torch.arange(12, dtype=torch.int16).numpy().tobytes())
    runs = (ByteRange(path, 16, 8), ByteRange(path, 0, 4), ByteRange(path, 8, 4))
    entry = Entry("x", (8,), torch.int16, find_runs=lambda: runs)
    pieces = list(read_chunks(Checkpoint("net", "test", {"x": entry}), "x", elements))
    assert torch.cat(pieces).tolist() == [8, 9, 10, 11, 0, 1, 4, 5]


def test_sparse_tensors_and_parameters_are_split_by_their_values() -> None:
    dense = torch.eye(3)
    assert torch.equal(torch.cat(list(split(dense.to_sparse(), 4))), dense.flatten())
    assert not next(split(torch.nn.Parameter(dense), 4)).requires_grad


def test_a_tensor_that_does_not_exist_is_named() -> None:
    with pytest.raises(CheckpointError, match="missing"):
        list(read_chunks(memory_checkpoint({"x": VALUES}), "missing", 4))
