"""What ``torch.save`` wrote, compared tensor by tensor with ``torch.load(weights_only=True)``."""

from __future__ import annotations

import io
import pickle
import random
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from surgeon.checkpoint.formats import Checkpoint, open_checkpoint
from surgeon.errors import CheckpointError

Record = tuple[str, bytes]

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
ZIP_ONLY = {torch.uint16, torch.uint32, torch.uint64} | {d for d in DTYPES if "float8" in str(d)}
"""What ``torch.load`` itself cannot read from its legacy format."""


def values(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    count = int(torch.tensor(shape).prod()) * dtype.itemsize
    bits = torch.randint(256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return (bits % 2 if dtype is torch.bool else bits).view(dtype).reshape(shape)


def views(dtype: torch.dtype) -> dict[str, Tensor]:
    """Every way in which a tensor can lie in a storage, and storages of one size that could be exchanged."""
    base = values(dtype, 6, 8)
    return {
        "base": base,
        "again": base,
        "rows": base[2:4],
        "overlapping": base[3:6],
        "column": base[:, 3],
        "transposed": base.t(),
        "steps": base[::2, ::3],
        "expanded": base[:1, :1].expand(4, 9),
        "scalar": base[2, 3],
        "empty": base[:0],
        "channels_last": values(dtype, 2, 3, 4, 5, seed=1).to(memory_format=torch.channels_last),
        "nothing": torch.empty(0, 3, dtype=dtype),
        **{f"twin{number}": values(dtype, 5, 3, seed=number) for number in range(12)},
    }


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def assert_as_torch(path: Path) -> Checkpoint:
    reference = torch.load(path, weights_only=True)
    checkpoint = open_checkpoint(path)
    assert list(checkpoint.entries) == list(reference)
    for name, tensor in reference.items():
        read = checkpoint.read(name)
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape), name
        assert raw(read) == raw(tensor), name
    return checkpoint


def records_of(path: Path) -> list[Record]:
    with zipfile.ZipFile(path) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(path: Path, records: Iterable[Record], *, zip64: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records:
            with archive.open(name, "w", force_zip64=zip64) as file:
                file.write(data)
    return path


def shuffled(records: list[Record]) -> list[Record]:
    random.Random(3).shuffle(records)
    return records


def padded(records: list[Record]) -> list[Record]:
    """With records of strangers between those of torch, so that no place can be computed."""
    return [item for name, data in records for item in ((name, data), (f"{name}.orig", b"x" * 37))]


def below(folder: str) -> Callable[[list[Record]], list[Record]]:
    return lambda records: [(f"{folder}/{name.partition('/')[2]}", data) for name, data in records]


def without(*names: str) -> Callable[[list[Record]], list[Record]]:
    return lambda records: [(name, data) for name, data in records if name.partition("/")[2] not in names]


ORDERS: dict[str, Callable[[list[Record]], list[Record]]] = {
    "as torch writes it": lambda records: records,
    "reversed": lambda records: records[::-1],
    "shuffled": shuffled,
    "by name": sorted,
    "strangers between": padded,
    "another folder": below("épreuve 1.5/"[:-1]),
    "an old torch": without(".format_version", ".storage_alignment", "byteorder", ".data/serialization_id"),
    "folders of their own": lambda records: [("x/", b""), ("x/data/", b""), *records],
}


@pytest.mark.parametrize("order", ORDERS)
def test_records_in_any_order_are_read_by_their_names(tmp_path: Path, order: str) -> None:
    torch.save(views(torch.float32), tmp_path / "x.pt")
    checkpoint = assert_as_torch(zipped(tmp_path / "y.pt", ORDERS[order](records_of(tmp_path / "x.pt"))))
    assert checkpoint.notes == []  # nothing was loaded whole


@pytest.mark.parametrize("seed", range(6))
def test_a_pickle_may_name_its_storages_in_another_order_than_the_records_lie(tmp_path: Path, seed: int) -> None:
    """torch writes a format version that promises an order; its lazy reader then computes places from it."""
    layers = {f"l{number}": values(torch.float32, 4, 4, seed=number) for number in range(1, 6)}
    torch.save(layers, tmp_path / "x.pt")
    records = dict(records_of(tmp_path / "x.pt"))
    assert "x/.format_version" in records
    assert "x/.storage_alignment" in records
    dice = random.Random(seed)
    keys = [str(number) for number in range(5)]
    others = dice.sample(keys, 5)
    pickled = records["x/data.pkl"]
    for old, new in zip(keys, others, strict=True):
        pickled = pickled.replace(b"X\x01\0\0\0" + old.encode(), b"X\x01\0\0\0<" + new.encode(), 1)
    records["x/data.pkl"] = pickled.replace(b"X\x01\0\0\0<", b"X\x01\0\0\0")
    path = zipped(tmp_path / "y.pt", records.items())
    checkpoint = assert_as_torch(path)
    assert checkpoint.notes == []
    for number, other in enumerate(others, start=1):
        assert torch.equal(checkpoint.read(f"l{number}"), layers[f"l{int(other) + 1}"])


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_view_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype, zip64: bool) -> None:
    torch.save(views(dtype), tmp_path / "x.pt")
    assert_as_torch(tmp_path / "x.pt")
    assert_as_torch(zipped(tmp_path / "y.pt", shuffled(records_of(tmp_path / "x.pt")), zip64=zip64))


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype not in ZIP_ONLY], ids=str)
def test_every_dtype_and_view_of_a_legacy_file_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save(views(dtype), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert_as_torch(tmp_path / "x.pt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.complex64], ids=str)
def test_a_big_endian_archive_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save(views(dtype), tmp_path / "x.pt")
    records = [(name, b"big" if name == "x/byteorder" else data) for name, data in records_of(tmp_path / "x.pt")]
    checkpoint = assert_as_torch(zipped(tmp_path / "y.pt", shuffled(records)))
    assert any("byte order" in note for note in checkpoint.notes)


def test_an_archive_without_check_sums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(views(torch.float32), tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert assert_as_torch(tmp_path / "x.pt").notes == []


@pytest.mark.parametrize("zipfile_format", [True, False])
def test_a_quantized_tensor_is_refused_by_name(tmp_path: Path, zipfile_format: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        torch.save(
            {"a": torch.ones(2), "w": quantized}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipfile_format
        )
    with pytest.raises(CheckpointError, match=r"'w' is quantized \(torch.qint8\)") as caught:
        open_checkpoint(tmp_path / "x.pt")
    assert "dequantize" in str(caught.value.hint)


@pytest.mark.parametrize("change", [lambda data: data[:-4], lambda data: data + b"more"], ids=["shorter", "longer"])
def test_a_record_of_another_length_than_its_pickle_claims_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    records = [(name, change(data) if name == "x/data/0" else data) for name, data in records_of(tmp_path / "x.pt")]
    with pytest.raises(CheckpointError, match=r"x/data/0 has \d+ bytes, not the 12"):
        open_checkpoint(zipped(tmp_path / "y.pt", records))


def patched(path: Path, name: bytes, offset: int, value: bytes) -> Path:
    """Change a field of a record in the archive's directory; the field's place counts from the entry's begin."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(name) - 46
    assert data[entry : entry + 4] == b"PK\1\2"
    data[entry + offset : entry + offset + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(20, b"\x0d", "two lengths"), (38, b"\x10", "marked as a folder")],
    ids=["lengths", "folder"],
)
def test_a_record_of_which_torch_reads_nothing_is_refused(
    tmp_path: Path, offset: int, value: bytes, message: str
) -> None:
    """torch gives out uninitialised memory for it."""
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"x/data/0 .*{message}"):
        open_checkpoint(patched(tmp_path / "x.pt", b"x/data/0", offset, value))


def test_the_byte_order_is_read_whatever_the_case_of_its_name(tmp_path: Path) -> None:
    """torch takes no notice of case: ``BYTEORDER`` says ``big`` to it too."""
    torch.save({"a": torch.arange(5)}, tmp_path / "x.pt")
    records = dict(records_of(tmp_path / "x.pt"))
    del records["x/byteorder"]
    records["x/BYTEORDER"] = b"big"
    checkpoint = assert_as_torch(zipped(tmp_path / "y.pt", records.items()))
    assert checkpoint.read("a")[1] == 1 << 56


def test_an_archive_that_torch_reads_otherwise_than_zipfile_is_refused(tmp_path: Path) -> None:
    """A version that is not a number: torch refuses the archive, so its records mean nothing."""
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    records = dict(records_of(tmp_path / "x.pt")) | {"x/version": b"x"}
    with pytest.raises(CheckpointError, match="version"):
        open_checkpoint(zipped(tmp_path / "y.pt", records.items()))


def legacy(content: object, path: Path) -> bytes:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_a_legacy_file_that_lacks_the_values_of_a_storage_is_refused(tmp_path: Path) -> None:
    """torch gives out uninitialised memory for it."""
    path = tmp_path / "x.pt"
    data = legacy({"a": torch.ones(3), "b": torch.ones(3)}, path)
    at = data.rindex(b"\x80\x02]")  # the list of the storages whose values follow
    keys = sorted(pickle.loads(data[at:]))
    values = data[at + len(pickle.dumps(keys, 2)) :]
    path.write_bytes(data[:at] + pickle.dumps(keys[:1], 2) + values)
    with pytest.raises(CheckpointError, match=f"lacks the values of 1 of its storages: {keys[1]}"):
        open_checkpoint(path)


def test_a_legacy_file_cannot_claim_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    data = legacy({"a": torch.ones(258)}, path)
    assert data.count(b"M\x02\x01") == 2  # the storage's length, and the tensor's
    path.write_bytes(data.replace(b"M\x02\x01", b"J\xff\xff\xff\x7f", 1))
    with pytest.raises(CheckpointError, match="claims 8589934588 bytes"):
        open_checkpoint(path)


def test_a_record_that_the_archive_lacks_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3), "b": torch.ones(3)}, tmp_path / "x.pt")
    records = without("data/1")(records_of(tmp_path / "x.pt"))
    with pytest.raises(CheckpointError, match="x/data/1, which the archive lacks"):
        open_checkpoint(zipped(tmp_path / "y.pt", records))


@pytest.mark.parametrize("which", ["x/data/0", "x/data.pkl"])
def test_a_compressed_record_is_refused(tmp_path: Path, which: str) -> None:
    torch.save({"a": torch.ones(300)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        for name, data in records_of(tmp_path / "x.pt"):
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name == which else zipfile.ZIP_STORED)
    with pytest.raises(CheckpointError, match=f"{which} is compressed") as caught:
        open_checkpoint(tmp_path / "y.pt")
    assert "zip -0 -r" in str(caught.value.hint)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("name", ["x/data/0", "X/DATA/0"])
def test_two_records_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    """torch takes no notice of case, so that ``X/DATA/0`` is another ``x/data/0`` to it."""
    torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    records = [*records_of(tmp_path / "x.pt"), (name, bytes(12))]
    with pytest.raises(CheckpointError, match="same name"):
        open_checkpoint(zipped(tmp_path / "y.pt", records))


@pytest.mark.parametrize("zipfile_format", [True, False])
def test_a_view_that_would_fill_the_memory_is_refused(tmp_path: Path, zipfile_format: bool) -> None:
    torch.save({"a": torch.ones(1).expand(1 << 40)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipfile_format)
    with pytest.raises(CheckpointError, match="'a' would take 4398046511104 bytes"):
        open_checkpoint(tmp_path / "x.pt")


def test_the_first_claim_on_a_storage_holds_as_it_does_for_torch(tmp_path: Path) -> None:
    """A second tensor that claims another dtype of the same record gets the first one's, as torch.load gives it."""
    torch.save({"a": torch.arange(4, dtype=torch.int32), "b": torch.ones(4)}, tmp_path / "x.pt")
    records = dict(records_of(tmp_path / "x.pt"))
    records["x/data.pkl"] = records["x/data.pkl"].replace(b"X\x01\0\0\x001", b"X\x01\0\0\x000")
    checkpoint = assert_as_torch(zipped(tmp_path / "y.pt", records.items()))
    assert checkpoint.entries["b"].dtype is torch.int32


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_sparse_tensors_leave_nothing_behind_for_the_next_load(tmp_path: Path) -> None:
    """torch keeps sparse tensors in a list until it validates them; one on meta would fail a stranger's load."""
    torch.save({"s": torch.eye(3).to_sparse(), "a": torch.ones(2)}, tmp_path / "x.pt")
    open_checkpoint(tmp_path / "x.pt")
    with torch.sparse.check_sparse_tensor_invariants():
        buffer = io.BytesIO()
        torch.save({"s": torch.eye(3).to_sparse()}, buffer)
        buffer.seek(0)
        assert torch.load(buffer, weights_only=True)["s"].is_sparse
