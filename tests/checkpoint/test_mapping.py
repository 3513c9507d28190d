"""A mapped tensor is the file's until it is written to, and its own from then on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from families import build, example

import surgeon
from surgeon.checkpoint.contents import Checkpoint
from surgeon.checkpoint.formats import open_checkpoint
from surgeon.checkpoint.mapping import mapped
from surgeon.checkpoint.safetensors import DTYPES
from surgeon.errors import CheckpointError
from surgeon.operations import ReplaceHead


def stored(path: Path, tensors: dict[str, torch.Tensor]) -> Checkpoint:
    safetensors.torch.save_file(tensors, path)
    return open_checkpoint(path)


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether its memory belongs to a mapping of a file, as the kernel sees it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split()
        begin, end = (int(place, 16) for place in span.split("-"))
        if begin <= tensor.data_ptr() < end:
            return name.endswith(".safetensors")
    return False


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_is_mapped(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(24).reshape(2, 3, 4).to(dtype)
    tensor = mapped(stored(tmp_path / "x.safetensors", {"a": values})).read("a")
    assert is_mapped(tensor)
    assert tensor.dtype == dtype
    assert tensor.tolist() == values.tolist()


def test_what_is_written_to_a_tensor_stays_out_of_the_file_and_of_the_next_mapping(tmp_path: Path) -> None:
    checkpoint = stored(tmp_path / "x.safetensors", {"a": torch.ones(5000), "b": torch.ones(5000)})
    before = (tmp_path / "x.safetensors").read_bytes()
    one, two = mapped(checkpoint).read("a"), mapped(checkpoint).read("a")
    one.zero_()
    assert torch.equal(two, torch.ones(5000))
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_names_of_the_same_bytes_do_not_share_memory(tmp_path: Path) -> None:
    tied = torch.ones(5000)
    network = torch.nn.Module()
    network.register_buffer("a", tied)
    network.register_buffer("b", tied)
    safetensors.torch.save_model(network, str(tmp_path / "x.safetensors"))
    checkpoint = mapped(open_checkpoint(tmp_path / "x.safetensors"))
    assert checkpoint.aliases
    one, two = checkpoint.read("a"), checkpoint.read("b")
    one.zero_()
    assert torch.equal(two, torch.ones(5000))


def test_a_tensor_that_lies_askew_and_an_empty_one_are_read(tmp_path: Path) -> None:
    checkpoint = stored(tmp_path / "x.safetensors", {"a": torch.ones(3), "none": torch.ones(0, 3)})
    data = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    (tmp_path / "y.safetensors").write_bytes(
        (length + 1).to_bytes(8, "little") + data[8 : 8 + length] + b" " + data[-12:]
    )
    checkpoint = mapped(open_checkpoint(tmp_path / "y.safetensors"))
    tensor = checkpoint.read("a")
    assert tensor.tolist() == [1, 1, 1]
    assert not is_mapped(tensor)
    assert checkpoint.read("none").shape == (0, 3)


def test_a_file_that_has_shrunk_is_noticed_and_not_a_crash(tmp_path: Path) -> None:
    checkpoint = mapped(stored(tmp_path / "x.safetensors", {"a": torch.ones(5000)}))
    with (tmp_path / "x.safetensors").open("r+b") as file:
        file.truncate(10_000)
    with pytest.raises(CheckpointError, match="bytes early"):
        checkpoint.read("a")


def test_what_torch_save_wrote_is_read_and_not_mapped(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(5000)}, tmp_path / "x.pt")
    tensor = mapped(open_checkpoint(tmp_path / "x.pt")).read("a")
    torch.save({"a": torch.zeros(5000)}, tmp_path / "x.pt")  # overwrites the file where it is
    assert torch.equal(tensor, torch.ones(5000))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return surgeon.save(surgeon.apply(build("resnet"), [ReplaceHead(classes=3)]), tmp_path / "one")


def test_a_loaded_network_is_mapped_runs_and_trains(artifact: Path) -> None:
    model, other = surgeon.load(artifact), surgeon.load(artifact)
    assert is_mapped(model.conv1.weight)
    args, _ = example("resnet")
    before = model(*args)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(*args).sum().backward()
    optimizer.step()
    assert not torch.equal(model(*args), before)
    assert torch.equal(other(*args), before)
    assert torch.equal(surgeon.load(artifact)(*args), before)


def test_an_artifact_can_be_replaced_by_the_network_that_is_mapped_from_it(artifact: Path) -> None:
    model = surgeon.load(artifact)
    args, _ = example("resnet")
    with torch.no_grad():
        model.fc.bias.add_(1)
        expected = model(*args)
        surgeon.save(model, artifact, force=True)
        assert torch.equal(model(*args), expected)
        assert torch.equal(surgeon.load(artifact)(*args), expected)
        shutil.rmtree(artifact)
        assert torch.equal(model(*args), expected)
