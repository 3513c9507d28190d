"""What is rows of other tensors put together is found, copied as bytes, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from sources import SIZES

from surgeon.architectures.hf_conversion_runs import runs_of
from surgeon.checkpoint.contents import Checkpoint, read_bytes
from surgeon.checkpoint.formats import open_checkpoint
from surgeon.operations import Truncate
from surgeon.pipeline.prepare import prepare

LARGE = {**SIZES, "hidden_size": 128, "intermediate_size": 64}
EXPERTS = {"num_key_value_heads": 1, "moe_intermediate_size": 64}
REARRANGED = {
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**LARGE, num_key_value_heads=1, num_local_experts=12)
    ),
    "qwen2_moe": lambda: transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(**LARGE, **EXPERTS, num_experts=4)
    ),
    "nomic_bert": lambda: transformers.NomicBertModel(transformers.NomicBertConfig(**LARGE)),
}


def parts(folder: Path, **shapes: tuple[int, ...]) -> Checkpoint:
    path = folder / "parts.safetensors"
    save_file({name: torch.rand(shape) for name, shape in shapes.items()}, path)
    return open_checkpoint(path)


MADE = {
    "stacked": lambda read: torch.stack([read("b"), read("a")]),
    "joined": lambda read: torch.cat([read("a"), read("b")], 0),
    "fused": lambda read: torch.cat([torch.stack([read("a"), read("b")]), torch.stack([read("c"), read("a")])], 1),
    "half": lambda read: read("c").chunk(2)[1],
    "every other block of rows": lambda read: read("a").unflatten(0, (4, 8))[::2].flatten(0, 1),
    "halves changed over": lambda read: torch.cat(read("a").chunk(2)[::-1]),
}


@pytest.mark.parametrize("kind", MADE)
def test_rows_put_together_are_found(kind: str, tmp_path: Path) -> None:
    checkpoint = parts(tmp_path, a=(32, 256), b=(32, 256), c=(32, 256))
    expected = MADE[kind](checkpoint.read)
    runs = runs_of(checkpoint.entries, MADE[kind], tuple(expected.shape))
    assert torch.equal(read_bytes(runs).view(torch.float32).reshape(expected.shape), expected)


OTHERS = {
    "more": lambda read: read("a") + 1,
    "scaled": lambda read: 2 * read("a"),
    "the same sum": lambda read: read("a") + read("b") - read("c"),
    "added": lambda read: read("a") + read("b"),
    "turned": lambda read: read("a").T.contiguous(),
    "single rows": lambda read: torch.stack(read("a").unbind()[::-1]),
    "columns turned round": lambda read: read("a").flip(-1),
    "columns moved": lambda read: read("a").roll(1, -1),
    "columns sorted by parity": lambda read: torch.cat([read("a")[:, ::2], read("a")[:, 1::2]], 1),
    "columns picked": lambda read: read("a")[:, torch.arange(255, -1, -1)],
    "columns of heads": lambda read: read("a").unflatten(1, (2, 128)).transpose(1, 2).flatten(1, 2),
    "halves of rows": lambda read: torch.cat([read("a")[:, :128], read("b")[:, :128]], 1),
    "cast": lambda read: read("a").half(),
    "missing": lambda read: read("d"),
    "zero": lambda read: torch.zeros_like(read("a")),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_something_else_is_not_taken_for_rows(kind: str, tmp_path: Path) -> None:
    checkpoint = parts(tmp_path, a=(256, 256), b=(256, 256), c=(256, 256))
    assert runs_of(checkpoint.entries, OTHERS[kind], (256, 256)) == ()


def test_vectors_are_found_too(tmp_path: Path) -> None:
    checkpoint = parts(tmp_path, a=(4096,), b=(4096,))
    runs = runs_of(checkpoint.entries, lambda read: torch.stack([read("b"), read("a")]), (2, 4096))
    expected = torch.cat([checkpoint.read("b"), checkpoint.read("a")])
    assert torch.equal(read_bytes(runs).view(torch.float32), expected)


def test_a_cast_to_whole_numbers_is_not_taken_for_rows(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(64, 256), "b": torch.zeros(64, 256, dtype=torch.int32)}, tmp_path / "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert runs_of(checkpoint.entries, lambda read: torch.cat([read("a"), read("b")]), (128, 256)) == ()


@pytest.mark.parametrize("output", ["out", "out.safetensors", "out.pt"])
@pytest.mark.parametrize("kind", REARRANGED)
def test_what_transformers_rearranges_is_copied_and_never_read(
    kind: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = REARRANGED[kind]().bfloat16()
    model.save_pretrained(tmp_path / "hub", max_shard_size="100KB")
    assert len(list((tmp_path / "hub").glob("*.safetensors"))) > 2
    read: list[str] = []
    whole = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: (read.append(name), whole(self, name))[1])
    prepare(tmp_path / "hub", [Truncate(keep_blocks=1)]).write(tmp_path / output)
    assert read == []
    monkeypatch.undo()
    expected, checkpoint = model.state_dict(), open_checkpoint(tmp_path / output)
    assert len(checkpoint.entries) > len(expected) / 3
    for name in checkpoint.entries:
        assert torch.equal(checkpoint.read(name), expected[name]), name
