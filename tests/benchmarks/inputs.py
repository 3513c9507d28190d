"""What the benchmarks work on: networks of real classes with synthetic weights, streamed to disk.

python tests/benchmarks/inputs.py llama FOLDER GIGABYTES
python tests/benchmarks/inputs.py mixtral FOLDER GIGABYTES
python tests/benchmarks/inputs.py torchvision FILE NAME
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HIDDEN, INNER, HEADS, KEY_VALUE_HEADS, VOCABULARY, EXPERTS = 2048, 8192, 16, 4, 32000, 8
SHARD_BYTES = 2 * 10**9
ITEM = 2  # bfloat16
_MLP = [INNER, HIDDEN], [INNER, HIDDEN], [HIDDEN, INNER]


def make_decoder(kind: str, folder: Path, gigabytes: float) -> None:
    """A sharded bfloat16 Llama or Mixtral of about ``gigabytes``, as on the hub, with an even number of layers."""
    shapes = _ends()
    per_layer = _size(_layer(kind, 0))
    layers = max(2, round((gigabytes * 1e9 - _size(shapes)) / per_layer / 2) * 2)
    for number in range(layers):
        shapes |= _layer(kind, number)
    folder.mkdir(parents=True)
    config = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        **({"num_local_experts": EXPERTS} if kind == "mixtral" else {}),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    _write_shards(folder, shapes)


def make_torchvision(path: Path, name: str) -> None:
    """The state dict of a torchvision network, as torch.save writes it."""
    import torch
    import torchvision

    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.normal_(std=0.02).abs_() if tensor.is_floating_point() else tensor.zero_()
    torch.save(model.state_dict(), path)


def _ends() -> dict[str, list[int]]:
    return {
        "lm_head.weight": [VOCABULARY, HIDDEN],
        "model.embed_tokens.weight": [VOCABULARY, HIDDEN],
        "model.norm.weight": [HIDDEN],
    }


def _layer(kind: str, number: int) -> dict[str, list[int]]:
    narrow = HIDDEN // HEADS * KEY_VALUE_HEADS
    shapes = {
        "input_layernorm": [HIDDEN],
        "post_attention_layernorm": [HIDDEN],
        "self_attn.q_proj": [HIDDEN, HIDDEN],
        "self_attn.k_proj": [narrow, HIDDEN],
        "self_attn.v_proj": [narrow, HIDDEN],
        "self_attn.o_proj": [HIDDEN, HIDDEN],
    }
    if kind == "llama":
        shapes |= {f"mlp.{name}_proj": shape for name, shape in zip(("gate", "up", "down"), _MLP, strict=True)}
    else:
        shapes["block_sparse_moe.gate"] = [EXPERTS, HIDDEN]
        for expert in range(EXPERTS):
            named = zip(("w1", "w3", "w2"), _MLP, strict=True)
            shapes |= {f"block_sparse_moe.experts.{expert}.{name}": shape for name, shape in named}
    return {f"model.layers.{number}.{name}.weight": shape for name, shape in shapes.items()}


def _bytes(shape: list[int]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1) * ITEM


def _size(shapes: dict[str, list[int]]) -> int:
    return sum(_bytes(shape) for shape in shapes.values())


def _write_shards(folder: Path, shapes: dict[str, list[int]]) -> None:
    """In the order of names, as the safetensors library writes them."""
    shards: list[list[str]] = [[]]
    for name in sorted(shapes):
        if shards[-1] and _size({n: shapes[n] for n in [*shards[-1], name]}) > SHARD_BYTES:
            shards.append([])
        shards[-1].append(name)
    weight_map = {}
    values = _normal_values()
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for name in names:
            size = _bytes(shapes[name])
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [offset, offset + size]}
            offset += size
            weight_map[name] = file
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for written in range(0, offset, len(values)):
                stream.write(values[: offset - written])
    index = {"metadata": {"total_size": _size(shapes)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _normal_values() -> bytes:
    """64 MB of bfloat16 numbers from a normal distribution."""
    import numpy as np

    numbers = np.random.default_rng(0).standard_normal(2**25, dtype=np.float32) * np.float32(0.02)
    return (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()


if __name__ == "__main__":
    kind, place, what = sys.argv[1:]
    if kind == "torchvision":
        make_torchvision(Path(place), what)
    else:
        make_decoder(kind, Path(place), float(what))
