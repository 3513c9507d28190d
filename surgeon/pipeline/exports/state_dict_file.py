"""Write a network's tensors as a plain state dict."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from surgeon.errors import ExportError
from surgeon.pipeline.exports.call import Call


def write_state_dict_file(call: Call, path: Path) -> None:
    """Write tensors by name, for ``torch.load(path, weights_only=True)`` or ``safetensors.torch.load_file(path)``.

    The file of torch stores tied tensors once; safetensors has no ties, and stores each of them.
    """
    tensors = dict(call.network.model.state_dict())
    if path.suffix == ".safetensors":
        save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)


def digests(call: Call) -> dict[str, list[object]]:
    """Compute dtype, shape and SHA-256 of every tensor, as the consumer does.

    Raises:
        ExportError: The state dict holds something that is not a tensor.
    """
    result: dict[str, list[object]] = {}
    for name, tensor in call.network.model.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            raise ExportError(
                f"the state dict holds a {type(tensor).__name__}, not a tensor",
                where=name,
                hint="use --to torch-export",
            )
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        result[name] = [str(tensor.dtype), list(tensor.shape), hashlib.sha256(data).hexdigest()]
    return result
