"""Merge adapted layers one by one, by peft itself, when the weights are read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon_peft.injection import AuxiliaryTrainingWrapper, BaseTunerLayer, ModulesToSaveWrapper, set_tensor, state_of

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

REFERENCE = 1e-3
"""How far the outputs of a merged layer may be off, relative to the largest one, in float32."""


def merge_layer(surgery: Surgery, site: str, layer: nn.Module, probed: set[str]) -> None:
    """Replace an adapted layer by its base layer with merged weights, or a wrapper by the module that was trained.

    Args:
        surgery: The surgery.
        site: The layer's site.
        layer: The adapted layer.
        probed: The kinds of layers that were merged on trial; it is added to.

    Raises:
        OperationError: It cannot be merged.
    """
    from surgeon_peft.config import ADAPTER

    if isinstance(layer, ModulesToSaveWrapper):
        if ADAPTER not in layer.modules_to_save:
            raise OperationError(f"{site} has no copy of the adapter {ADAPTER!r}")
        surgery.replace(site, layer.modules_to_save[ADAPTER])
        return
    kind = type(layer).__name__
    if isinstance(layer, AuxiliaryTrainingWrapper) or hasattr(layer, "unload_and_optionally_merge_module"):
        raise OperationError(f"{site} is a {kind} of peft, which cannot be merged tensor by tensor")
    base = layer.get_base_layer()  # type: ignore[operator]
    tensors = _distinct(state_of(layer))
    _refuse_shared_base(surgery.model, site, base)
    merged = _Merged(site, layer, list(tensors))
    signature = f"{type(layer).__module__}.{kind} of {type(base).__name__}"
    if signature not in probed:
        surgery.recall(
            "merges", lambda: _merges(merged, [surgery.weight(t) for t in tensors.values()]), subject=signature
        )
        probed.add(signature)
    for name, old in _distinct(state_of(base)).items():
        new: torch.Tensor = torch.empty_like(old, device="meta")
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        surgery.derive(new, list(tensors.values()), partial(merged.value, name))
        _exchange(base, old, new)
    surgery.replace(site, base)


class _Merged:
    """Compute the merged tensors of one layer together, and hand them out one by one."""

    def __init__(self, site: str, layer: nn.Module, names: Sequence[str]) -> None:
        self.site = site
        self.layer = copy.deepcopy(layer)
        self.names = names
        self._left: dict[str, torch.Tensor] = {}

    def filled(self, values: Sequence[torch.Tensor]) -> nn.Module:
        """Return a copy of the adapted layer with values; a tensor with several names is one again."""
        layer = copy.deepcopy(self.layer)
        tensors = state_of(layer)
        for name, value in zip(self.names, values, strict=True):
            old = tensors[name]
            value = value.to(old.dtype)
            for alias in [alias for alias, tensor in tensors.items() if tensor is old]:
                set_tensor(layer, alias, value)
        return layer.eval()

    def merge(self, layer: nn.Module) -> nn.Module:
        """Merge a filled layer and return its base layer.

        Raises:
            OperationError: peft refuses.
        """
        try:
            with torch.no_grad():
                layer.merge(safe_merge=True)  # type: ignore[operator]
        except Exception as error:  # each method of peft refuses in its own way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OperationError(
                f"{self.site}: peft cannot merge {_method(layer)}: {reason}",
                hint="keep the adapter beside its base: surgeon export-adapter",
            ) from error
        return layer.get_base_layer()  # type: ignore[operator, no-any-return]

    def value(self, name: str, *values: torch.Tensor) -> torch.Tensor:
        """Return the merged tensor ``name`` of the base layer."""
        if name not in self._left:
            base = self.merge(self.filled(values))
            self._left = {key: tensor.detach().clone() for key, tensor in _distinct(state_of(base)).items()}
        return self._left.pop(name)


def _merges(merged: _Merged, values: Sequence[torch.Tensor]) -> bool:
    """Merge a layer on trial, and compare its outputs before and after.

    Raises:
        OperationError: It cannot be merged, or computes something else afterwards.
    """
    layer = merged.filled(values).float()
    inputs = _inputs_for(layer.get_base_layer())  # type: ignore[operator]
    with torch.no_grad():
        expected = layer(inputs) if inputs is not None else None
    base = merged.merge(layer)
    if expected is None:
        return True
    with torch.no_grad():
        actual = base(inputs)
    limit = REFERENCE * max(1.0, float(expected.abs().max()))
    difference = float((actual - expected).abs().max())
    if not difference <= limit:
        raise OperationError(
            f"{merged.site}: merged, {_method(layer)} computes something else than before (by {difference:.2g})",
            hint="keep the adapter beside its base: surgeon export-adapter",
        )
    return True


def _inputs_for(base: nn.Module) -> torch.Tensor | None:
    """Make a small input for a layer; None if the kind of layer is unknown."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(base, nn.Embedding):
        return torch.arange(min(4, base.num_embeddings))[None]
    sizes: dict[type, tuple[int, ...]] = {nn.Conv1d: (12,), nn.Conv2d: (12, 12), nn.Conv3d: (6, 6, 6)}
    for kind, size in sizes.items():
        if isinstance(base, kind):
            channels: Any = base.in_channels
            kernel = max(base.kernel_size)  # type: ignore[arg-type]
            return torch.randn(1, channels, *[n + int(kernel) for n in size], generator=generator)
    if isinstance(base, nn.Linear):
        return torch.randn(2, 3, base.in_features, generator=generator)
    if isinstance(base, nn.LayerNorm):
        return torch.randn(2, 3, *base.normalized_shape, generator=generator)
    if type(base).__name__ == "Conv1D":  # of transformers, a linear layer
        return torch.randn(2, 3, state_of(base)["weight"].shape[0], generator=generator)
    return None


def _distinct(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Leave out further names of the same tensor."""
    first_names: dict[int, str] = {}
    for name, tensor in tensors.items():
        first_names.setdefault(id(tensor), name)
    return {name: tensors[name] for name in first_names.values()}


def _exchange(module: nn.Module, old: torch.Tensor, new: torch.Tensor) -> None:
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for key in [key for key, tensor in table.items() if tensor is old]:
                table[key] = new  # type: ignore[assignment]


def _refuse_shared_base(model: nn.Module, site: str, base: nn.Module) -> None:
    """Refuse a base layer whose weight another module uses too: merged, that one would change as well."""
    base_names = {id(tensor): name for name, tensor in state_of(base).items()}
    for name, tensor in state_of(model).items():
        if id(tensor) in base_names and not name.startswith(f"{site}."):
            raise OperationError(
                f"{site}.{base_names[id(tensor)]} is the same tensor as {name}, which merging would change too",
                hint="keep the adapter beside its base: surgeon export-adapter",
            )


def _method(layer: nn.Module) -> str:
    assert isinstance(layer, BaseTunerLayer)
    return type(layer).__module__.split(".")[-2]
