"""A file that changes while it is read is refused: what was read is neither its old nor its new state."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import vgg
from safetensors.torch import save_file

import surgeon
from surgeon.checkpoint.formats import open_checkpoint
from surgeon.checkpoint.unchanged import unchanged
from surgeon.errors import CheckpointError, VerificationError
from surgeon.pipeline.prepare import prepare


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\1\2\3\4")


def replaced(path: Path) -> None:
    path.with_suffix(".new").write_bytes(path.read_bytes())
    path.with_suffix(".new").replace(path)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES = [overwritten, replaced, grown]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.pt"
    torch.save(vgg().state_dict(), path)
    os.utime(path, ns=(1, 1))  # a change within the clock's tick would pass for none
    return path


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_written_of_a_file_that_changes_meanwhile(
    source: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    prepared = prepare(source, [surgeon.ReplaceHead(classes=2)], arch="python:families:vgg")
    with pytest.raises(CheckpointError, match=r"net\.pt: changed while it was read"):
        prepared.write(tmp_path / "out", check=lambda _: change(source))
    assert not (tmp_path / "out").exists()


def test_the_change_is_named_and_not_what_comes_of_it(source: Path, tmp_path: Path) -> None:
    def check(_: Path) -> None:
        overwritten(source)
        raise VerificationError("holds other values")

    prepared = prepare(source, [surgeon.ReplaceHead(classes=2)], arch="python:families:vgg")
    with pytest.raises(CheckpointError, match="changed while it was read"):
        prepared.write(tmp_path / "out", check=check)


def test_a_network_in_memory_is_refused_too(source: Path) -> None:
    prepared = prepare(source, [surgeon.ReplaceHead(classes=2)], arch="python:families:vgg")
    with pytest.raises(CheckpointError, match="changed while it was read"):
        prepared.materialise(lambda _: overwritten(source))


def test_every_shard_is_looked_at_and_a_deleted_one_is_the_one_that_was_read(tmp_path: Path) -> None:
    files = [tmp_path / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, file in enumerate(files):
        save_file({f"t{number}": torch.ones(2)}, file)
        os.utime(file, ns=(1, 1))
    index = {"weight_map": {f"t{number}": file.name for number, file in enumerate(files)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = open_checkpoint(tmp_path)
    with unchanged([checkpoint]):
        files[0].unlink()
    with pytest.raises(CheckpointError, match=files[1].name), unchanged([checkpoint]):
        overwritten(files[1])
