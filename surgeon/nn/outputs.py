"""Return several named outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from torch.utils import _pytree


class Outputs(OrderedDict[str, Any]):
    """Map the names of a network's outputs to tensors.

    As in transformers' ``ModelOutput``, ``outputs["domain"]``, ``outputs.domain`` and ``outputs[0]`` all
    work; unlike it, the names are not fixed by a class.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no output {name!r}; there are: {', '.join(self)}") from None

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values in order."""
        return tuple(self.values())


def _flatten(outputs: Outputs) -> tuple[list[Any], list[str]]:
    return list(outputs.values()), list(outputs)


def _unflatten(values: Iterable[Any], names: list[str]) -> Outputs:
    return Outputs(zip(names, values, strict=True))


def _flatten_with_keys(outputs: Outputs) -> tuple[list[tuple[Any, Any]], list[str]]:
    return [(_pytree.MappingKey(name), value) for name, value in outputs.items()], list(outputs)


# Registered where the class is defined: otherwise DDP, compile and export would treat an Outputs as a leaf.
_pytree.register_pytree_node(
    Outputs,
    _flatten,
    _unflatten,
    serialized_type_name="surgeon.nn.Outputs",
    flatten_with_keys_fn=_flatten_with_keys,
)
