"""The cases: a small network with values from a formula, and the operations it goes through."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import Any

import families
import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One recipe over one network.

    Attributes:
        network: A name in ``families.FAMILIES``.
        operations: As in a recipe.
        file: Write the network into a file of this name first (a folder where it has no suffix), and use the
            command line; otherwise the network in memory goes through the Python functions.
        shape: The shape of the image that the result takes, where surgery changed it.
        donor: The network that ``donor.pt`` beside the recipe holds, for ``transfer``.
    """

    network: str
    operations: list[dict[str, Any]]
    file: str | None = None
    shape: tuple[int, ...] | None = None
    donor: str | None = None

    def inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of a forward of the result."""
        args, kwargs = families.example(self.network)
        if self.shape is None:
            return args, kwargs
        image = torch.from_numpy(_uniform("image", prod(self.shape)).reshape(self.shape).copy())
        return ((image,), {}) if args else ((), {"pixel_values": image})


CASES: dict[str, Case] = {
    "resnet": Case(
        "resnet",
        [
            {"op": "truncate", "after": "layer3"},
            {"op": "replace_head", "classes": ["cat", "dog", "rabbit"]},
            {"op": "freeze", "up_to": "layer2"},
        ],
        file="resnet.pt",
    ),
    "densenet": Case(
        "densenet",
        [
            {"op": "truncate", "after": "features.denseblock2"},
            {"op": "replace_head", "classes": 3, "kind": "mlp"},
            {"op": "freeze", "all_but": "@head", "norms": "train"},
        ],
    ),
    "swin": Case(
        "swin",
        [
            {"op": "truncate", "keep_blocks": [0], "stack": "features.3"},
            {"op": "reinit", "sites": "features.3.0.mlp"},
            {"op": "replace_head", "classes": 4, "kind": "cosine"},
            {"op": "freeze", "sites": ["@stem", "features.1.*.attn"]},
        ],
    ),
    "fasterrcnn": Case(
        "fasterrcnn",
        [{"op": "replace_head", "classes": 3}, {"op": "freeze", "up_to": "backbone.body.3"}],
    ),
    "bert": Case(
        "bert",
        [
            {"op": "truncate", "keep_blocks": 2},
            {"op": "replace_head", "classes": ["a", "b", "c"], "init": "rows", "rows": {"a": 3, "c": 0}},
            {"op": "freeze", "up_to": "bert.encoder.layer.0"},
        ],
        file="bert",
    ),
    "llama": Case(
        "llama",
        [
            {"op": "truncate", "keep_blocks": [0, 1, 3]},
            {"op": "insert", "at": "@blocks", "kind": "adapter", "hidden": 4},
            {"op": "freeze", "sites": "@stem"},
        ],
    ),
    "t5": Case(
        "t5",
        [
            {"op": "truncate", "keep_blocks": 2, "stack": "encoder.block"},
            {"op": "freeze", "sites": "encoder"},
            {"op": "reinit", "sites": "decoder.block.1"},
        ],
    ),
    "whisper": Case(
        "whisper",
        [
            {"op": "truncate", "keep_blocks": [0, 2], "stack": "model.encoder.layers"},
            {"op": "freeze", "sites": "model.encoder.layers.0"},
            {"op": "gradient_reversal", "at": "model.encoder", "domains": 3},
        ],
    ),
    "progressive": Case(
        "vgg",
        [
            {"op": "progressive", "task": "second"},
            {"op": "progressive", "task": "third", "column": "reinit", "adapter": "mlp", "classes": ["a", "b"]},
        ],
    ),
    "multitask": Case(
        "vit",
        [
            {
                "op": "multitask",
                "tasks": {
                    "species": {"classes": ["cat", "dog", "owl"]},
                    "age": {"kind": "regression", "classes": 1, "hidden": [8], "at": "encoder.layers.encoder_layer_1"},
                },
            },
            {"op": "freeze", "up_to": "encoder.layers.encoder_layer_0"},
        ],
    ),
    "gradient_reversal": Case(
        "mobilenet",
        [
            {"op": "replace_head", "classes": 3},
            {"op": "gradient_reversal", "at": "features.8", "schedule": "dann", "strength": 0.5},
        ],
    ),
    "transfer": Case(
        "vgg",
        [
            {"op": "transfer", "donor": "donor.pt", "up_to": "features.3", "frozen": True, "rest": "reinit"},
            {"op": "replace_head", "classes": 4},
        ],
        donor="vgg",
    ),
    "input": Case(
        "hf_vit",
        [
            {"op": "adapt_input", "channels": 4, "init": "mean", "image_size": 48},
            {"op": "replace_head", "classes": 3, "kind": "mlp"},
        ],
        shape=(2, 4, 48, 48),
    ),
}
"""Every case, by the name of its record."""


def build(network: str, *, salt: str = "source") -> nn.Module:
    """Build a network in eval mode whose values depend on their names and ``salt`` alone.

    Neither torch's generator nor the number of threads has a say in them.
    """
    model = families.build(network)
    filled: set[int] = set()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.data_ptr() not in filled:
                filled.add(tensor.data_ptr())
                tensor.copy_(_values(name, tensor, salt))
    return model


def write_source(case: Case, path: Path) -> None:
    """Write the network of a case into its file: a bare state dict, or a folder of transformers."""
    model = build(case.network)
    if path.suffix:
        torch.save(model.state_dict(), path)
    else:
        model.save_pretrained(path)  # type: ignore[operator]


def write_donor(case: Case, folder: Path) -> None:
    """Write the network that the recipe takes layers from, if it takes any."""
    if case.donor:
        torch.save(build(case.donor, salt="donor").state_dict(), folder / "donor.pt")


def _values(name: str, tensor: Tensor, salt: str) -> Tensor:
    """Values with which activations neither vanish nor explode."""
    unit = _uniform(f"{salt}:{name}", tensor.numel()).reshape(tuple(tensor.shape))
    if tensor.dim() > 1:
        values = (2 * unit - 1) * np.float32(sqrt(3 / max(1, tensor[0].numel())))
    elif name.endswith("running_var"):
        values = unit / 2 + np.float32(0.75)
    elif name.endswith("weight"):
        values = unit / 4 + np.float32(0.875)
    else:
        values = unit / 4 - np.float32(0.125)
    return torch.from_numpy(np.ascontiguousarray(values)).to(tensor.dtype)


def _uniform(name: str, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Numbers in [0, 1), the same on every machine: 24 bits of a raw stream, which numpy promises not to change."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    raw = np.random.PCG64(seed).random_raw(count)
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
