"""Set the widths in a network's config, so that its class stays stock: ``from_pretrained`` alone loads the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from surgeon.families.registry import configs_in
from surgeon.graph.skeleton import build_skeleton
from surgeon.graph.tensors import tensors_of
from surgeon.pipeline.stock_reload import stock_difference

if TYPE_CHECKING:
    from torch import nn

    from surgeon.families.config import NetworkConfig
    from surgeon.surgery.context import Surgery

MLP_WIDTHS = (
    "intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner", "hidden_dim",
    "ffn_hidden_size", "d_inner", "inner_dim", "mlp_dim", "hidden_features", "feed_forward_size",
)  # fmt: skip
"""Fields of configs, and attributes of modules, that hold the width of an MLP."""
HEADS = (
    "num_attention_heads", "num_heads", "n_heads", "n_head", "encoder_attention_heads", "decoder_attention_heads",
)  # fmt: skip
"""Fields of configs, and attributes of modules, that count query heads."""
KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "num_kv")
"""Fields of configs, and attributes of modules, that count key-value heads."""
HEAD_WIDTHS = ("head_dim", "d_kv", "attention_head_size", "key_value_proj_dim", "dim_per_head", "head_size")
"""Fields of configs, and attributes of modules, that hold the width of a head."""

Change = tuple[str, Any, Any]
"""The name of a field with its old and new value."""


def follow_config(surgery: Surgery, attempts: Callable[[], Sequence[Sequence[Change]]], units: str) -> None:
    """Set fields of the configs in a transformers network to what its modules are now, if its class can be built so.

    Args:
        surgery: The surgery, after the edit.
        attempts: Lists sets of changes, of which the first that builds the network counts.
        units: What was pruned, for notes.
    """
    cls: Any = type(surgery.model)
    if not cls.__module__.startswith("transformers."):
        return
    answer = surgery.recall("stock", lambda: _first_that_builds(surgery, cls, attempts()))
    changes = [(field, old, new) for field, old, new in answer["changes"]]
    with surgery.bookkeeping():
        list(_set(surgery, changes))
    if answer["reason"]:
        surgery.note(
            f"no config of {cls.__name__} builds this, so only surgeon.load opens the result: {answer['reason']}"
        )
    elif changes:
        field_changes = ", ".join(f"{field} {old} → {new}" for field, old, new in changes)
        surgery.note(f"stays a stock {cls.__name__}: {field_changes}")
    else:
        surgery.note(f"{units}: the config of {cls.__name__} stays as it is")


def _first_that_builds(surgery: Surgery, cls: Any, attempts: Sequence[Sequence[Change]]) -> dict[str, Any]:
    """Try sets of changes, and put the configs back."""
    reason = ""
    for attempt in attempts:
        undo: list[tuple[NetworkConfig, str, bool, Any]] = []
        try:
            changed = list(_set(surgery, attempt, undo))
            problem = _difference(surgery.model, cls)
        except Exception as error:  # a config may check its fields in any way
            problem = " ".join(str(error).split())[:200] or type(error).__name__
            changed = []
        finally:
            for config, field, present, old in reversed(undo):
                _restore(config, field, present, old)
        if not problem:
            return {"changes": changed, "reason": ""}
        reason = reason or problem
    return {"changes": [], "reason": reason or "its config has no field for this width"}


def _set(
    surgery: Surgery, changes: Sequence[Change], undo: list[tuple[NetworkConfig, str, bool, Any]] | None = None
) -> Iterator[Change]:
    """Set fields in every config whose value is the old one; a field that is absent counts as None."""
    for config, _ in configs_in(surgery.model, surgery.families):
        for part in config.with_parts():
            for field, old, new in changes:
                present = field in part.settings()
                if (part.get(field) if present else None) == old:
                    if undo is not None:
                        undo.append((part, field, present, old))
                    part.set(field, new)
    yield from changes


def _restore(config: NetworkConfig, field: str, present: bool, old: Any) -> None:
    if present or isinstance(config.config, Mapping):
        vars(config.config)[field] = old
    else:
        vars(config.config).pop(field, None)


def _difference(model: nn.Module, cls: Any) -> str:
    """Say how the network differs from the one that its config builds; empty if it does not."""
    config = cast("Any", model).config
    rebuilt = build_skeleton(lambda: cls(type(config).from_dict(config.to_dict())))
    shapes, rebuilt_shapes = (
        {name: tuple(tensor.shape) for name, tensor in tensors_of(net)} for net in (model, rebuilt)
    )
    for name, shape in shapes.items():
        if rebuilt_shapes.get(name) != shape:
            return f"{name} is {shape}, and {rebuilt_shapes.get(name, 'missing')} if built from the config"
    if extra := rebuilt_shapes.keys() - shapes.keys():
        return f"{sorted(extra)[0]} is missing"
    return stock_difference(model, rebuilt)


def fields_with(surgery: Surgery, names: Sequence[str], value: int | None) -> list[str]:
    """List the fields of these names that hold a value in some config of the network."""
    configs = [part for config, _ in configs_in(surgery.model, surgery.families) for part in config.with_parts()]
    return [
        name for name in names if any(name in part.settings() and part.settings()[name] == value for part in configs)
    ]


def values_of(surgery: Surgery, name: str) -> list[Any]:
    """List the values of a field in the configs of the network."""
    configs = [part for config, _ in configs_in(surgery.model, surgery.families) for part in config.with_parts()]
    return list(dict.fromkeys(part.settings()[name] for part in configs if name in part.settings()))
