"""What is not a checkpoint, or no longer one: each a line that says so, and never a traceback."""

from __future__ import annotations

import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from surgeon.checkpoint.formats import open_checkpoint
from surgeon.errors import CheckpointError

RAN: list[str] = []


class Rogue:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return run_rogue_code, ("ran",)


def run_rogue_code(text: str) -> str:
    RAN.append(text)
    return text


def refused(path: Path, **options: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, **options)
    error = caught.value
    assert error.where
    assert error.hint
    assert "\n" not in error.message + error.hint + error.where
    assert "Traceback" not in str(error)
    return error


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path / "resnet50.pth", b"x")
    assert "resnet50.pth" in str(refused(tmp_path / "resnet5O.pth").hint)
    assert "nowhere does not exist" in str(refused(tmp_path / "nowhere" / "x.pt").hint)
    assert "empty" in str(refused_in_empty(tmp_path / "bare").hint)


def refused_in_empty(folder: Path) -> CheckpointError:
    folder.mkdir()
    return refused(folder / "x.pt")


def test_a_url_and_a_broken_link_are_distinguished_from_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="an address"):
        open_checkpoint("https://example.org/x.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "gone.pt")
    assert "link to" in refused(tmp_path / "link.pt").message


def test_a_directory_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    assert "without a model" in refused(tmp_path).message
    written(tmp_path / "notes.txt", b"x")
    assert "notes.txt" in str(refused(tmp_path).hint)
    written(tmp_path / "resnet.pth", b"x")
    assert "name one of its files" in str(refused(tmp_path).hint)
    written(tmp_path / "adapter_model.safetensors", b"x")
    assert "PEFT" in refused(tmp_path).message


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\n  <html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\x1f\x8b\x08\0\0\0", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GGUF\3\0\0\0", "GGUF"),
        (b"\0" * 4096, "zeros"),
        (b'{"a": 1}', "JSON"),
        (b"PK\3\4", "zip archive"),
        (b"\x80\x02", "damaged"),
        (b"hello world, this is not a checkpoint", "not a checkpoint"),
        (b"x", "not a checkpoint"),
    ],
)
def test_a_file_is_known_by_its_content_whatever_its_name(
    tmp_path: Path, data: bytes, message: str, suffix: str
) -> None:
    assert message in refused(written(tmp_path / f"x{suffix}", data)).message


def test_a_checkpoint_with_the_wrong_extension_is_opened_all_the_same(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        assert torch.equal(open_checkpoint(tmp_path / name).read("a"), torch.ones(2))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refused(tmp_path / "pipe").message


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "x.pt"))
    error = refused(tmp_path / "x.pt", trust_pickle=True)
    assert "TorchScript" in error.message
    assert "torch.jit.load" in str(error.hint)


def test_an_exported_program_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "x.pt2")
    error = refused(tmp_path / "x.pt2")
    assert "torch.export" in error.message
    assert "torch.export.load" in str(error.hint)


def test_another_zip_archive_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("holiday.jpg", b"x")
    assert "holiday.jpg" in refused(tmp_path / "x.pt").message


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_an_archive_with_two_records_of_a_name_is_refused(tmp_path: Path) -> None:
    """torch reads the one and zipfile the other; over a second byte order torch would crash the process."""
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        archive.writestr("x/byteorder", b"big")
    assert "same name" in refused(tmp_path / "x.pt").message


def test_a_compressed_archive_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as source, zipfile.ZipFile(tmp_path / "x.pt", "w", 8) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    assert "compressed" in refused(tmp_path / "x.pt").message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_refused_by_name_unless_trusted(tmp_path: Path, zipped: bool) -> None:
    model = resnet18()
    torch.save({"model": model, "epoch": 1}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    error = refused(tmp_path / "x.pt")
    assert "torchvision.models.resnet.ResNet" in error.message
    assert "--trust-pickle" in str(error.hint)
    checkpoint = open_checkpoint(tmp_path / "x.pt", trust_pickle=True)
    assert list(checkpoint.entries) == list(model.state_dict())
    assert torch.equal(checkpoint.read("fc.weight"), model.fc.weight)
    assert any("pickle trusted" in note for note in checkpoint.notes)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_rogue_pickle_never_runs_unless_trusted(tmp_path: Path, zipped: bool) -> None:
    RAN.clear()
    torch.save({"a": torch.ones(1), "b": Rogue()}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert "run_rogue_code" in refused(tmp_path / "x.pt").message
    assert RAN == []
    open_checkpoint(tmp_path / "x.pt", trust_pickle=True)
    assert RAN == ["ran"]


def test_trust_does_not_give_up_laziness_where_it_is_not_needed(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt", trust_pickle=True)
    assert checkpoint.entries["a"].bytes is not None
    assert checkpoint.notes == []


def fact(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": fact("F32", [2], 0, 8), "b": fact("F32", [2], 4, 12)}, "overlaps"),
        ({"a": fact("F32", [2], 4, 12)}, "gap"),
        ({"a": fact("F32", [1], 0, 4)}, "describes"),
        ({"a": fact("F32", [4], 0, 16)}, "describes"),
        ({"a": fact("F32", [3], 0, 8)}, "does not fit"),
        ({"a": fact("F32", [1 << 62, 1 << 62], 0, 8)}, "does not fit"),
        ({"a": fact("F32", [-1, -2], 0, 8)}, "not described"),
        ({"a": fact("F32", [2], 8, 0)}, "does not fit"),
        ({"a": fact("F4", [24], 0, 12)}, "dtype F4"),
        ({"a": {"dtype": "F32", "shape": [3]}}, "not described"),
        ({"a": fact("F32", [True, 3], 0, 12)}, "not described"),  # type: ignore[list-item]
        ({"a": None}, "not described"),
        ({"__metadata__": [1], "a": fact("F32", [3], 0, 12)}, "__metadata__"),
        ({"__metadata__": [], "a": fact("F32", [3], 0, 12)}, "__metadata__"),
        ({"__metadata__": {"a": 1}, "a": fact("F32", [3], 0, 12)}, "__metadata__"),
        ({"a": fact("F32", [3], 0, 12), "__metadata__": {"surgeon": "nonsense"}}, "damaged"),
    ],
)
def test_a_safetensors_header_must_account_for_every_byte(tmp_path: Path, header: Any, message: str) -> None:
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(12)
    assert message in refused(written(tmp_path / "x.safetensors", data)).message


def test_a_header_may_not_be_a_bomb(tmp_path: Path) -> None:
    huge = written(tmp_path / "huge", (1 << 40).to_bytes(8, "little") + b'{"a"')
    assert "more than the format allows" in refused(huge).message
    nested = b'{"a":' * 100_000
    deep = written(tmp_path / "deep", len(nested).to_bytes(8, "little") + nested)
    assert "damaged" in refused(deep).message
    twice = b'{"a":1,"a":2}'
    assert "twice" in refused(written(tmp_path / "twice", len(twice).to_bytes(8, "little") + twice)).message


def test_shards_must_be_there_and_beside_their_index(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")

    def message(weight_map: object) -> str:
        index.write_text(json.dumps({"weight_map": weight_map}))
        return refused(tmp_path).message

    assert "1 of its 2 shards are missing: two.safetensors" in message({"a": "one.safetensors", "b": "two.safetensors"})
    assert "are missing: b" in message({"a": "one.safetensors", "b": "one.safetensors"})
    for elsewhere in ("../secret.safetensors", "/etc/passwd", "..", "", 3):
        assert "not a file name" in message({"a": elsewhere})
    for wrong in ({}, [], None):
        assert "no 'weight_map'" in message(wrong)
    index.write_text("{")
    assert "damaged" in refused(tmp_path).message


@pytest.mark.parametrize("name", ["config.json", "surgeon.json"])
def test_a_damaged_config_or_manifest_is_named(tmp_path: Path, name: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    written(tmp_path / name, b"[1, 2")
    assert str(refused(tmp_path).where).endswith(name)


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(tmp_path: Path) -> None:
    save_file({"a": torch.ones(100)}, tmp_path / "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    os.truncate(tmp_path / "x.safetensors", 200)
    with pytest.raises(CheckpointError, match="bytes early"):
        checkpoint.read("a")
    (tmp_path / "x.safetensors").unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoint.read("a")


def test_a_tensor_may_not_reach_beyond_its_storage(tmp_path: Path) -> None:
    """A pickle that claims 258 values for a storage of 3 would read its neighbours, or uninitialised memory."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(3)}, path)
    data = bytearray(path.read_bytes())
    # The tensor's size is BININT1 3, then TUPLE1; make it 200.
    at = data.index(b"K\x03\x85")
    data[at + 1] = 200
    assert "beyond its storage" in refused(written(path, bytes(data))).message


FORMS: dict[str, Callable[[Any, Path], object]] = {
    "safetensors": lambda tensors, path: save_file(tensors, path),
    "zip": lambda tensors, path: torch.save(tensors, path),
    "legacy": lambda tensors, path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_is_refused(tmp_path: Path, form: str) -> None:
    tensors = {"layer.weight": torch.arange(12.0).reshape(3, 4), "layer.bias": torch.ones(3).half()}
    FORMS[form](tensors, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for length in {*range(0, len(data), 7), len(data) - 1, len(data) - 2, 8, 9, 30}:
        assert refused(written(tmp_path / "cut", data[:length])).message


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_byte_is_refused_or_read_as_described(tmp_path: Path, form: str) -> None:
    """Values have no checksum that is checked; everything else must hold together or be refused."""
    tensors = {"layer.weight": torch.arange(12.0).reshape(3, 4), "layer.bias": torch.ones(3).half()}
    FORMS[form](tensors, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    dice = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(700):
        damaged = bytearray(data)
        for _ in range(dice.choice([1, 1, 3])):
            damaged[dice.randrange(len(data))] = dice.choice([0, 1, 0xFF, 0x80, dice.randrange(256)])
        path = written(tmp_path / "flipped", bytes(damaged))
        try:
            checkpoint = open_checkpoint(path)
            for name, entry in checkpoint.entries.items():
                value = checkpoint.read(name)
                assert (tuple(value.shape), value.dtype) == (entry.shape, entry.dtype)
            outcomes["read"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_a_name_that_is_not_text_is_opened_all_the_same(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0)}
    for form, save in FORMS.items():
        path = tmp_path / os.fsdecode(b"\xff" + form.encode())
        with path.open("wb"):
            pass
        save(tensors, tmp_path / form)
        (tmp_path / form).replace(path)
        assert torch.equal(open_checkpoint(path).read("a"), tensors["a"])


@pytest.mark.parametrize("name", ["config.json", "surgeon.json", "model.safetensors.index.json"])
def test_half_a_character_in_a_file_is_its_damage(tmp_path: Path, name: str) -> None:
    weights = "shard.safetensors" if name.endswith("index.json") else "model.safetensors"
    save_file({"a": torch.zeros(1)}, tmp_path / weights)
    (tmp_path / "config.json").write_text("{}")
    whole = {"model_type": "\U0001f600", "weight_map": {"a": weights}}
    (tmp_path / name).write_text(json.dumps(whole))
    assert set(open_checkpoint(tmp_path).entries) == {"a"}
    (tmp_path / name).write_text(json.dumps({**whole, "notes": ["\ud800"]}))
    assert r"its JSON has \ud800, which is half of a character" in refused(tmp_path).message
