"""Sketch tensors: a few rounded numbers that show whether a tensor is, up to rounding, the one of then.

Results of arithmetic differ in their last bits between machines, numbers of threads and versions of PyTorch, so that
no hash of them can be compared. A sketch is the sum of all elements under random signs, in 16 parts: the distance of
two sketches estimates the distance of the tensors, wherever they differ. It is rounded so coarsely that noise in the
last bits changes it hardly ever.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xxhash

PARTS = 16
"""How many sums a sketch has: it estimates a distance to about a third."""
DECIMALS = 3
"""Decimals of each sum, in units of the tensor's norm."""
TOLERANCE = 5e-3
"""The distance, in units of the norm, up to which two tensors count as equal: above the error by rounding, 2e-3."""
ROUNDINGS = 8
"""The same in half precision, in units of the distance between neighbouring numbers."""
LARGEST = 2**22
"""Elements that are looked at; of larger tensors some, evenly spaced."""

Sketch = dict[str, Any]
"""``shape`` and ``dtype``; of a floating-point tensor also ``norm``, ``parts`` and, if there are any, how many elements
are not ``finite``; of an integer one a ``digest``."""


def sketch_of(tensor: torch.Tensor, *, exact: bool = True) -> Sketch:
    """Sketch a tensor.

    Args:
        tensor: Any tensor with values.
        exact: Take a digest of integers; False leaves them out: a class may change by rounding.
    """
    facts: Sketch = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    values = tensor.detach().reshape(-1)[:: max(1, tensor.numel() // LARGEST)].cpu().resolve_conj()
    if not (values.is_floating_point() or values.is_complex()):
        return facts | ({"digest": xxhash.xxh3_64(values.contiguous().numpy().tobytes()).hexdigest()} if exact else {})
    norm, parts, not_finite = _sums(values)
    norm = float(f"{norm:.5g}")
    rounded = [round(float(part) / norm, DECIMALS) + 0.0 for part in parts] if norm else []
    return facts | {"norm": norm, "parts": rounded} | ({"not finite": not_finite} if not_finite else {})


def distance(recorded: Sketch, tensor: torch.Tensor) -> float:
    """Estimate how far a tensor is from the sketched one, in units of the larger norm; infinite for another kind.

    Args:
        recorded: A sketch.
        tensor: The tensor of today.
    """
    today = sketch_of(tensor, exact="digest" in recorded)
    if any(today.get(key) != recorded.get(key) for key in ("shape", "dtype", "digest", "not finite")):
        return float("inf")
    if "norm" not in recorded:
        return 0.0
    norm, parts, _ = _sums(tensor.detach().reshape(-1)[:: max(1, tensor.numel() // LARGEST)].cpu().resolve_conj())
    then = np.array(recorded["parts"] or [0.0] * PARTS) * recorded["norm"]
    largest = max(norm, recorded["norm"])
    return float(np.linalg.norm(parts - then)) / largest if largest else 0.0


def tolerance_of(*dtypes: torch.dtype) -> float:
    """Return the distance up to which results of arithmetic in these dtypes count as equal."""
    return max((TOLERANCE, *(ROUNDINGS * torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)))


def _sums(values: torch.Tensor) -> tuple[float, np.ndarray[Any, np.dtype[np.float64]], int]:
    """Return the norm of a flat tensor, its sums under random signs, and how many elements are not finite."""
    if values.is_complex():
        values = torch.view_as_real(values).reshape(-1)
    array = values.to(torch.float64).numpy()
    finite = np.isfinite(array)
    array = np.where(finite, array, 0.0)
    bits = np.unpackbits(np.random.PCG64(0).random_raw(-(-len(array) // 64)).view(np.uint8))[: len(array)]
    signed = np.zeros(-(-len(array) // PARTS) * PARTS)
    signed[: len(array)] = array * (1.0 - 2.0 * bits)
    return float(np.linalg.norm(array)), signed.reshape(-1, PARTS).sum(axis=0), int((~finite).sum())
