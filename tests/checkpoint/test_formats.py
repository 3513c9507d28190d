"""Opening files of every format lazily, and reading exactly one tensor's bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import resnet18

from surgeon.checkpoint.formats import Checkpoint, memory_checkpoint, open_checkpoint
from surgeon.checkpoint.safetensors import DTYPES
from surgeon.errors import CheckpointError

TORCH_DTYPES = [*DTYPES.values(), torch.complex128, torch.float4_e2m1fn_x2]


def values(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Deterministic bits of ``dtype``, valid for a bool too."""
    count = int(torch.tensor(shape).prod()) if shape else 1
    bits = torch.arange(count * dtype.itemsize, dtype=torch.int64).mul(37).remainder(251).to(torch.uint8)
    return (bits % 2 if dtype is torch.bool else bits).view(dtype).reshape(shape)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def range_of(checkpoint: Checkpoint, name: str) -> bytes:
    span = checkpoint.entries[name].bytes
    assert span is not None
    with span.path.open("rb") as file:
        file.seek(span.offset)
        return file.read(span.length)


def save(tensors: object, path: Path, form: str) -> Path:
    if form == "safetensors":
        safetensors.torch.save_file(tensors, path)  # type: ignore[arg-type]
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    return path


def assert_same(checkpoint: Checkpoint, tensors: dict[str, torch.Tensor]) -> None:
    assert checkpoint.entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        entry = checkpoint.entries[name]
        assert (entry.shape, entry.dtype) == (tuple(tensor.shape), tensor.dtype)
        assert entry.nbytes == tensor.numel() * tensor.dtype.itemsize
        assert raw(checkpoint.read(name)) == raw(tensor), name


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_every_dtype_is_read_back_bit_for_bit(tmp_path: Path, form: str, dtype: torch.dtype) -> None:
    if form == "safetensors" and dtype not in DTYPES.values():
        pytest.skip("the reference writer cannot write it")
    # Odd sizes, so that no tensor but the first begins at a round offset.
    tensors = {
        "odd": values(torch.uint8, 3),
        "matrix": values(dtype, 3, 5),
        "scalar": values(dtype),
        "empty": values(dtype, 0, 4),
        "last": values(dtype, 7),
    }
    if form == "legacy" and str(dtype).startswith(
        ("torch.uint16", "torch.uint32", "torch.uint64", "torch.float8", "torch.float4")
    ):
        pytest.skip("torch.load itself cannot read it from its legacy format")
    checkpoint = open_checkpoint(save(tensors, tmp_path / "x", form))
    assert_same(checkpoint, tensors)
    if form != "legacy":
        assert all(range_of(checkpoint, name) == raw(tensor) for name, tensor in tensors.items())


def test_views_are_read_through_their_storage(tmp_path: Path) -> None:
    base = values(torch.float32, 6, 8)
    tensors = {
        "base": base,
        "rows": base[2:4],
        "column": base[:, 3],
        "transposed": base.t(),
        "window": base[1:3, 2:5],
        "steps": base[::2, ::3],
        "expanded": base[:1, :1].expand(4, 9),
        "channels_last": values(torch.float32, 2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": nn.Parameter(base[4:].clone()),
    }
    path = save(tensors, tmp_path / "x.pt", "zip")
    checkpoint = open_checkpoint(path)
    assert_same(checkpoint, tensors)
    assert range_of(checkpoint, "rows") == raw(base[2:4])
    strided = {name for name, entry in checkpoint.entries.items() if entry.bytes is None}
    assert strided == {"column", "transposed", "window", "steps", "expanded", "channels_last"}
    assert not checkpoint.notes  # nothing was loaded whole
    assert not checkpoint.aliases


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("conjugate", torch.view_as_complex(torch.arange(6.0).reshape(3, 2)).conj()),
        ("negative", torch.view_as_complex(torch.arange(6.0).reshape(3, 2)).conj().imag),
        ("sparse", torch.eye(3).to_sparse()),
    ],
)
def test_tensors_that_are_more_than_their_bytes_are_loaded_whole_and_noted(
    tmp_path: Path, name: str, tensor: torch.Tensor
) -> None:
    checkpoint = open_checkpoint(save({name: tensor, "plain": torch.ones(2)}, tmp_path / "x.pt", "zip"))
    assert "loaded whole" in checkpoint.notes[0]
    read = checkpoint.read(name)
    assert torch.equal(read.to_dense(), tensor.to_dense())
    assert not read.is_conj()
    assert not read.is_neg()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tied_tensors_are_aliases_of_the_first_name(tmp_path: Path, form: str) -> None:
    weight = torch.randn(4, 3)
    tied = {"embedding.weight": weight, "norm": torch.ones(3), "head.weight": weight, "half": weight[:2]}
    checkpoint = open_checkpoint(save(tied, tmp_path / "x.pt", form))
    assert checkpoint.aliases == {"head.weight": "embedding.weight"}
    assert_same(checkpoint, tied)
    assert checkpoint.without_prefix("head.").aliases == {}


def test_names_that_save_model_left_out_are_aliases_again(tmp_path: Path) -> None:
    model = nn.ModuleDict({"one": nn.Linear(2, 2), "two": nn.Linear(2, 2)})
    model["two"].weight = model["one"].weight
    safetensors.torch.save_model(model, str(tmp_path / "x.safetensors"))
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert len(checkpoint.aliases) == 1
    assert_same(checkpoint, {name: tensor.detach() for name, tensor in model.state_dict().items()} | {})


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy", "memory"])
def test_a_tensor_that_was_read_has_memory_of_its_own(tmp_path: Path, form: str) -> None:
    tensors = {"a": torch.zeros(4), "b": torch.zeros(2, 2).t()}
    if form == "memory":
        checkpoint = memory_checkpoint(tensors)
    else:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        checkpoint = open_checkpoint(save(contiguous, tmp_path / "x", form))
    for name in tensors:
        checkpoint.read(name).add_(1)
        assert not checkpoint.read(name).any()
        assert not tensors[name].any()
        assert checkpoint.read(name).is_contiguous()


def test_a_memory_checkpoint_knows_its_ties_and_meta_tensors() -> None:
    weight = torch.randn(3)
    checkpoint = memory_checkpoint({"a": weight, "b": weight, "meta": torch.empty(2, device="meta")})
    assert checkpoint.aliases == {"b": "a"}
    with pytest.raises(CheckpointError, match="without values"):
        checkpoint.read("meta")


def test_a_file_saved_on_a_gpu_opens_where_there_is_none(tmp_path: Path) -> None:
    tensors = {"weight": torch.randn(3, 2)}
    path = save(tensors, tmp_path / "cpu.pt", "zip")
    moved = tmp_path / "gpu.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(moved, "w") as target:
        for record in source.infolist():
            data = source.read(record)
            if record.filename.endswith("data.pkl"):
                data = data.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
                assert b"cuda:0" in data
            target.writestr(record.filename, data)
    assert_same(open_checkpoint(moved), tensors)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_real_network_is_read_whole(tmp_path: Path, form: str) -> None:
    state = resnet18().state_dict()
    checkpoint = open_checkpoint(save(state, tmp_path / "resnet.pth", form))
    assert list(checkpoint.entries) == list(state)
    assert_same(checkpoint, dict(state))
    assert checkpoint.format == f"pytorch {form}"


def test_records_in_another_order_are_never_mixed_up(tmp_path: Path) -> None:
    """torch computes where a record lies from its number: records of one size that changed places would swap."""
    path = save({str(i): torch.full((16,), float(i)) for i in range(4)}, tmp_path / "x.pt", "zip")
    data = path.read_bytes()
    for old, new in ((b"data/1", b"data/X"), (b"data/2", b"data/1"), (b"data/X", b"data/2")):
        assert data.count(old) == 2  # in the record's own header and in the archive's directory
        data = data.replace(old, new)
    path.write_bytes(data)
    checkpoint = open_checkpoint(path)
    assert_same(checkpoint, torch.load(path, weights_only=True))
    assert checkpoint.read("1")[0] == 2


def test_records_that_were_zipped_again_are_found(tmp_path: Path) -> None:
    tensors = {str(i): torch.full((i,), float(i)) for i in range(12)}
    path = save(tensors, tmp_path / "x.pt", "zip")
    again = tmp_path / "again.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(again, "w") as target:
        for record in sorted(source.infolist(), key=lambda record: record.filename):
            target.writestr(record.filename, source.read(record))
    assert_same(open_checkpoint(again), tensors)


def test_the_other_byte_order_is_swapped(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(5, dtype=torch.int32)}
    path = save(tensors, tmp_path / "x.pt", "zip")
    swapped = tmp_path / "big.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(swapped, "w") as target:
        for record in source.infolist():
            data = source.read(record)
            if record.filename.endswith("/byteorder"):
                data = b"big"
            elif record.filename.endswith("/data/0"):
                data = tensors["a"].numpy().byteswap().tobytes()
            target.writestr(record.filename, data)
    checkpoint = open_checkpoint(swapped)
    assert "byte order" in checkpoint.notes[0]
    assert_same(checkpoint, tensors)


LAZY = """
import resource, sys
import torch
from surgeon.checkpoint.formats import open_checkpoint
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
torch.ones(1).view(torch.uint8)
open_checkpoint(sys.argv[2]).read("small")  # imports what it takes
before = peak()
read = lambda: int(next(l for l in open("/proc/self/io") if l.startswith("rchar")).split()[1])
at = read()
checkpoint = open_checkpoint(sys.argv[1])
value = checkpoint.read("small")
print(value.tolist(), (peak() - before) // 1024, read() - at)
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes with Linux's /proc")
@pytest.mark.parametrize("form", ["safetensors", "zip"])
def test_a_file_of_gigabytes_costs_its_header_and_one_tensor(tmp_path: Path, form: str) -> None:
    path = tmp_path / "big"
    gigabytes = 6 << 30
    if form == "safetensors":
        header = json.dumps(
            {
                "small": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "big": {"dtype": "BF16", "shape": [gigabytes // 2], "data_offsets": [8, 8 + gigabytes]},
            }
        ).encode()
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header + torch.tensor([1.0, 2.0]).numpy().tobytes())
            file.truncate(8 + len(header) + 8 + gigabytes)
    else:
        gigabytes = 1 << 28  # torch.save writes every byte of it
        torch.save({"big": torch.zeros(gigabytes // 4), "small": torch.tensor([1.0, 2.0])}, path)
    warm = save({"small": torch.ones(1)}, tmp_path / "warm", form)
    run = subprocess.run(
        [sys.executable, "-c", LAZY, str(path), str(warm)], capture_output=True, text=True, check=True, env=os.environ
    )
    values_read, megabytes, read = run.stdout.rsplit(maxsplit=2)
    assert values_read == "[1.0, 2.0]"
    assert int(megabytes) < 20
    assert int(read) < 64 << 10


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files with Linux's /proc")
def test_reading_one_tensor_leaves_no_file_open(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save({"a": torch.ones(3)}, tmp_path / "x.pt", "zip"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        checkpoint.read("a")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_fingerprint_tells_names_shapes_and_dtypes_but_not_values_or_order() -> None:
    one = memory_checkpoint({"a": torch.zeros(2), "b": torch.zeros(3)})
    assert one.fingerprint() == memory_checkpoint({"b": torch.ones(3), "a": torch.ones(2)}).fingerprint()
    others = (
        {"a": torch.zeros(2)},
        {"a": torch.zeros(2), "b": torch.zeros(4)},
        {"a": torch.zeros(2), "b": torch.zeros(3).half()},
        {"a": torch.zeros(2), "c": torch.zeros(3)},
    )
    assert one.fingerprint() not in {memory_checkpoint(other).fingerprint() for other in others}


def test_an_unknown_tensor_names_the_nearest() -> None:
    with pytest.raises(CheckpointError, match=r"no tensor 'fc\.wieght'") as caught:
        memory_checkpoint({"fc.weight": torch.ones(1)}).read("fc.wieght")
    assert "fc.weight" in str(caught.value.hint)


def test_a_manifest_inside_a_single_file_is_found(tmp_path: Path) -> None:
    manifest = {"format": 1, "surgeries": []}
    safetensors.torch.save_file(
        {"module.a": torch.ones(1)}, tmp_path / "x.safetensors", {"surgeon": json.dumps(manifest)}
    )
    state: OrderedDict[str, torch.Tensor] = OrderedDict({"module.a": torch.ones(1)})
    state._metadata = {"surgeon": {"manifest": json.dumps(manifest), "recipe": ""}}  # type: ignore[attr-defined]
    torch.save(state, tmp_path / "x.pt")
    for name in ("x.safetensors", "x.pt"):
        checkpoint = open_checkpoint(tmp_path / name)
        assert checkpoint.manifest == manifest
        assert list(checkpoint.entries) == ["module.a"]  # an artifact's names are its network's own
