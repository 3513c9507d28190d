"""What is written holds the source's bytes, and is what safetensors and torch.load take."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from families import build
from safetensors import safe_open
from torch import Tensor, nn

import surgeon
from surgeon.checkpoint import artifact, safetensors_writer
from surgeon.checkpoint.contents import Checkpoint
from surgeon.checkpoint.formats import open_checkpoint
from surgeon.checkpoint.pages import PAGE
from surgeon.checkpoint.pieces import Contents, Piece, in_file_order
from surgeon.checkpoint.safetensors import DTYPES
from surgeon.errors import OutputError, SurgeonError
from surgeon.pipeline.prepare import prepare
from surgeon.surgery.context import Surgery

OUTPUTS = ["out", "out.safetensors", "out.pt"]
SOURCES = ["source.safetensors", "source.pt"]


def some(dtype: torch.dtype, *shape: int) -> Tensor:
    """A tensor of any bytes, NaNs of every kind among them."""
    if dtype is torch.bool:
        return torch.randint(0, 2, shape).bool()
    count = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(0, 256, (count,), dtype=torch.uint8).view(dtype).reshape(shape)


def pieces_of(checkpoint: Checkpoint, new_tensors: dict[str, Tensor] | None = None) -> list[Piece]:
    pieces = [
        Piece(
            entry.name, entry.dtype, entry.shape, entry.nbytes, entry.stored(), lambda n=entry.name: checkpoint.read(n)
        )
        for entry in checkpoint.entries.values()
        if entry.name not in checkpoint.aliases
    ]
    for name, tensor in (new_tensors or {}).items():
        pieces.append(Piece(name, tensor.dtype, tuple(tensor.shape), tensor.nbytes, (), lambda t=tensor: t))
    return pieces


def write(path: Path, pieces: list[Piece], **manifest: Any) -> Path:
    artifact.write(path, Contents(pieces, {"format": 1, **manifest}, "operations: []\n"))
    return path


def saved(path: Path, tensors: dict[str, Tensor]) -> Checkpoint:
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        safetensors.torch.save_file(tensors, path)
    return open_checkpoint(path)


def loaded(path: Path) -> dict[str, Tensor]:
    """With the library that a user would take."""
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    tensors: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        tensors.update(safetensors.torch.load_file(file))
    return tensors


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert actual[name].shape == tensor.shape, name
        assert raw(actual[name]) == raw(tensor), name


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_is_kept_to_the_byte(tmp_path: Path, source: str, output: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    stored = {"odd": some(dtype, 3, 5, 7), "scalar": some(dtype), "none": some(dtype, 0, 4), "big": some(dtype, 5001)}
    new_tensors = {"made": some(dtype, 3, 3), "turned": some(dtype, 2, 9).t()}
    checkpoint = saved(tmp_path / source, stored)
    assert all(entry.bytes is not None for entry in checkpoint.entries.values())
    path = write(tmp_path / output, pieces_of(checkpoint, new_tensors))
    assert_equal(loaded(path), stored | new_tensors)
    again = open_checkpoint(path)
    assert_equal({name: again.read(name) for name in again.entries}, stored | new_tensors)


@pytest.mark.parametrize("output", OUTPUTS)
def test_tensors_of_all_dtypes_side_by_side_lie_at_multiples_of_their_size(tmp_path: Path, output: str) -> None:
    torch.manual_seed(0)
    tensors = {f"{kind}.{size}": some(dtype, size) for size in (3, 1, 17) for kind, dtype in DTYPES.items()}
    checkpoint = saved(tmp_path / "source.pt", tensors)
    path = write(tmp_path / output, pieces_of(checkpoint, {"made": some(torch.float64, 3)}))
    for entry in open_checkpoint(path).entries.values():
        assert entry.bytes is not None
        assert entry.bytes.offset % entry.dtype.itemsize == 0


def odd_header(path: Path, tensors: dict[str, Tensor], padding: int, start: bytes = b"") -> Checkpoint:
    """A safetensors file whose header is of any length: its values lie anywhere in their pages."""
    header: dict[str, Any] = {"__metadata__": {"note": "x" * padding}}
    data = start
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": {v: k for k, v in DTYPES.items()}[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + tensor.nbytes],
        }
        data += raw(tensor)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return open_checkpoint(path)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("padding", [0, 1, 7, 8, 4095, 50_000])
def test_a_header_of_any_length_is_followed(tmp_path: Path, padding: int, output: str) -> None:
    torch.manual_seed(0)
    tensors = {"a": some(torch.uint8, 20_001), "b": some(torch.bfloat16, 30_000), "c": some(torch.float8_e5m2, 9_999)}
    checkpoint = odd_header(tmp_path / "source.safetensors", tensors, padding)
    assert_equal(loaded(write(tmp_path / output, pieces_of(checkpoint))), tensors)


def test_most_bytes_lie_in_their_page_as_they_did_in_their_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {"dropped": some(torch.float32, 7), "kept": some(torch.float32, 160_000), "small": some(torch.int8, 9)}
    in_place = 0
    for padding in range(16):
        checkpoint = odd_header(tmp_path / "source.safetensors", tensors, padding)
        pieces = [piece for piece in pieces_of(checkpoint) if piece.name != "dropped"]
        path = write(tmp_path / f"{padding}.safetensors", pieces)
        old, new = checkpoint.entries["kept"].bytes, open_checkpoint(path).entries["kept"].bytes
        assert old is not None
        assert new is not None
        in_place += (new.offset - old.offset) % PAGE == 0
        assert new.offset % 16 == 0  # whatever the source's, or a mapped tensor would have to be copied
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
        with safe_open(path, "pt") as file:
            assert sorted(file.keys()) == ["kept", "small"]
    assert in_place == 1


def test_an_odd_tensor_does_not_push_the_others_out_of_line(tmp_path: Path) -> None:
    sizes = {f"w{n}": 64 * n for n in range(1, 9)} | {f"b{n}": n for n in range(1, 9)}
    tensors = {name: some(torch.float32, size) for name, size in sizes.items()}
    tensors |= {f"counter{n}": torch.tensor(n) for n in range(3)}
    checkpoint = odd_header(tmp_path / "source.safetensors", tensors, 0)
    for entry in open_checkpoint(write(tmp_path / "out", pieces_of(checkpoint))).entries.values():
        assert entry.bytes is not None
        assert entry.bytes.offset % (16 if entry.nbytes % 64 == 0 else entry.dtype.itemsize) == 0, entry.name


def test_neighbours_stay_neighbours_whatever_their_order_in_the_network(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "source.safetensors", {f"t{n}": some(torch.float32, 10) for n in range(30)})
    pieces = pieces_of(checkpoint)[::-1]
    order = in_file_order(pieces)
    places = [piece.stored[0].offset for piece in order if piece.stored]
    assert places == sorted(places)
    assert {piece.name for piece in order} == {piece.name for piece in pieces}


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_bytes_do_not_depend_on_where_the_source_lies(tmp_path: Path, output: str) -> None:
    torch.manual_seed(0)
    parts = [{f"{name}{number}": some(torch.float32, 1000) for name in "bca"} for number in range(6)]
    written = []
    for folder in ("x", "a much longer name"):
        (tmp_path / folder).mkdir()
        places = [tmp_path / folder / f"{folder[-1]}{'ebfadc'[n]}.safetensors" for n in range(len(parts))]
        if folder != "x":
            places.reverse()
        checkpoints = [saved(place, tensors) for place, tensors in zip(places, parts, strict=True)]
        pieces = [piece for checkpoint in checkpoints for piece in pieces_of(checkpoint)]
        path = write(tmp_path / folder / output, pieces)
        files = [path] if path.is_file() else sorted(path.iterdir())
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


@pytest.mark.parametrize("source", SOURCES)
def test_shards_become_other_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    torch.manual_seed(0)
    halves = [{f"{part}{n}": some(torch.bfloat16, 5000 + n) for n in range(5)} for part in "ab"]
    checkpoints = [saved(tmp_path / f"{n}{source}", half) for n, half in enumerate(halves)]
    monkeypatch.setattr(artifact, "SHARD_BYTES", 35_000)
    path = write(tmp_path / "out", [piece for c in checkpoints for piece in pieces_of(c)])
    index = json.loads((path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == len(list(path.glob("*.safetensors"))) == 4
    assert index["metadata"]["total_size"] == sum(t.nbytes for half in halves for t in half.values())
    assert_equal(loaded(path), halves[0] | halves[1])


def test_a_header_of_ten_thousand_tensors_is_written_and_read(tmp_path: Path) -> None:
    tensors = {f"layer.{n}.weight": torch.full((n % 5,), n, dtype=torch.int16) for n in range(10_000)}
    path = write(tmp_path / "out.safetensors", pieces_of(saved(tmp_path / "source.safetensors", tensors)))
    assert_equal(loaded(path), tensors)


def test_a_header_past_the_formats_limit_is_refused_before_anything_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_writer, "HEADER_LIMIT", 10_000)
    with pytest.raises(OutputError, match="header would have"):
        write(tmp_path / "out.safetensors", pieces_of(saved(tmp_path / "s.pt", {"a": torch.ones(3)})), text="x" * 9999)
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]


def test_a_dtype_that_safetensors_lacks_can_go_into_a_pt_file(tmp_path: Path) -> None:
    tensors = {"a": some(torch.complex128, 3)}
    checkpoint = saved(tmp_path / "source.pt", tensors)
    with pytest.raises(OutputError, match=r"cannot hold torch\.complex128"):
        write(tmp_path / "out", pieces_of(checkpoint))
    assert_equal(loaded(write(tmp_path / "out.pt", pieces_of(checkpoint))), tensors)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_sparse_tensor_is_refused_by_name(tmp_path: Path, output: str) -> None:
    piece = Piece("mask", torch.float32, (2, 2), 16, (), lambda: torch.eye(2).to_sparse())
    with pytest.raises(OutputError, match="mask is a sparse tensor"):
        write(tmp_path / output, [piece])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", OUTPUTS)
def test_views_and_conjugates_are_written_as_their_values(tmp_path: Path, output: str) -> None:
    number = torch.randn(4, 3, dtype=torch.complex64)
    views = {"conjugate": number.conj(), "row": number[1], "last": torch.randn(2, 3, 4, 5).permute(0, 3, 1, 2)}
    path = write(tmp_path / output, pieces_of(saved(tmp_path / "s.pt", {"a": torch.ones(1)}), views))
    tensors = loaded(path)
    assert all(torch.equal(tensors[name], tensor.resolve_conj()) for name, tensor in views.items())


class Recast(surgeon.Operation):
    """Give the tensors another dtype, or the first of them another shape behind the journal."""

    shape: bool = False

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        if self.shape:
            parameter = next(model.parameters())
            parameter.data = parameter.data.flatten()
        else:
            surgery.convert(torch.float16, torch.Tensor.half)
        return model


class Offer:
    @staticmethod
    @surgeon.hookimpl
    def surgeon_operations() -> list[type[surgeon.Operation]]:
        return [Recast]


def offering() -> surgeon.Plugins:
    plugins = surgeon.load_plugins()
    plugins.register(Offer(), "recasting")
    return plugins


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_cast_is_streamed_too(tmp_path: Path, source: str, output: str) -> None:
    state = build("resnet").state_dict()
    saved(tmp_path / source, state)
    prepare(tmp_path / source, [Recast()], arch="python:families:resnet", plugins=offering()).write(tmp_path / output)
    tensors = loaded(tmp_path / output)
    assert tensors["conv1.weight"].dtype == torch.float16
    assert torch.equal(tensors["conv1.weight"], state["conv1.weight"].half())
    assert torch.equal(tensors["bn1.num_batches_tracked"], state["bn1.num_batches_tracked"])


def test_a_kept_tensor_of_another_shape_is_never_written(tmp_path: Path) -> None:
    saved(tmp_path / "net.pt", build("resnet").state_dict())
    with pytest.raises(SurgeonError, match="conv1"):
        prepare(
            tmp_path / "net.pt", [Recast(shape=True)], plugins=offering(), arch="python:families:resnet", outputs=False
        ).write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


class TestTorchFiles:
    """``-o out.pt``."""

    def test_it_is_a_sound_archive_with_the_names_in_order_and_ties_kept(self, tmp_path: Path) -> None:
        tensors = {"b": some(torch.int64, 5), "a": some(torch.float32, 70_000), "c": some(torch.float16, 3)}
        pieces = pieces_of(saved(tmp_path / "source.safetensors", tensors))
        pieces.sort(key=lambda piece: "bac".index(piece.name))
        path = write(tmp_path / "out.pt", pieces, aliases={"tied": "a"})
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None  # every checksum is right
            assert {record.date_time for record in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        state = torch.load(path, weights_only=True)
        assert list(state) == ["b", "a", "c", "tied"]
        assert state["tied"] is state["a"]
        assert json.loads(state._metadata["surgeon"]["manifest"])["aliases"] == {"tied": "a"}
        again = open_checkpoint(path)
        assert again.aliases == {"tied": "a"}
        assert again.manifest is not None

    @pytest.mark.parametrize("mmap", [True, False])
    @pytest.mark.parametrize("calculate", [True, False])
    def test_torch_loads_it_in_each_of_its_ways(self, tmp_path: Path, mmap: bool, calculate: bool) -> None:
        tensors = {f"{n}": some(dtype, 1000 + n) for n, dtype in enumerate(DTYPES.values())}
        path = write(tmp_path / "out.pt", pieces_of(saved(tmp_path / "source.pt", tensors)))
        with torch.utils.serialization.config.patch({"load.calculate_storage_offsets": calculate}):
            state = torch.load(path, weights_only=True, mmap=mmap)
        assert_equal(state, tensors)
        assert all(tensor.data_ptr() % 64 == 0 for tensor in state.values())

    def test_records_past_two_gigabytes_have_the_wide_headers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 3000)
        tensors = {"a": some(torch.int8, 2999), "b": some(torch.int8, 3001), "c": some(torch.float32, 5000)}
        path = write(tmp_path / "out.pt", pieces_of(saved(tmp_path / "source.safetensors", tensors)))
        monkeypatch.undo()
        assert_equal(torch.load(path, weights_only=True), tensors)
        state = torch.load(path, weights_only=True, mmap=True)
        assert_equal(state, tensors)
        assert all(tensor.data_ptr() % 64 == 0 for tensor in state.values())
        assert all(entry.bytes is not None for entry in open_checkpoint(path).entries.values())
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None

    def test_its_values_train(self, tmp_path: Path) -> None:
        path = write(tmp_path / "out.pt", pieces_of(saved(tmp_path / "s.pt", {"w": torch.ones(2, 2)})))
        weight = torch.load(path, weights_only=True)["w"].requires_grad_()
        weight.square().sum().backward()
        assert torch.equal(weight.grad, 2 * torch.ones(2, 2))


PEAK = """
import resource, sys
from pathlib import Path
import torch
from surgeon.checkpoint import artifact
from surgeon.checkpoint.formats import open_checkpoint
from surgeon.checkpoint.pieces import Contents, Piece

checkpoint = open_checkpoint(sys.argv[1])
pieces = [Piece(e.name, e.dtype, e.shape, e.nbytes, e.stored(), None) for e in checkpoint.entries.values()]
for n in range(int(sys.argv[3])):
    pieces.append(Piece(f"new{n}", torch.float32, (1_000_000,), 4_000_000, (), lambda: torch.ones(1_000_000)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
artifact.write(Path(sys.argv[2]), Contents(pieces, {}, ""))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("output", OUTPUTS)
def test_memory_does_not_grow_with_what_is_written(tmp_path: Path, output: str) -> None:
    count = 150
    header = {
        f"t{n}": {"dtype": "F32", "shape": [500_000], "data_offsets": [n * 2_000_000, (n + 1) * 2_000_000]}
        for n in range(count)
    }
    text = json.dumps(header).encode()
    with (tmp_path / "source.safetensors").open("wb") as file:  # 300 MB that take no room on the disk
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + count * 2_000_000)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "source.safetensors"), str(tmp_path / output), "25"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(process.stdout) < 100  # megabytes, while 400 were written
