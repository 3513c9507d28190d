"""Find attention layers and the entries of their tensors that belong to each head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from surgeon import OperationError
from surgeon_prune.groups import READS, WRITES, Group, Slice, is_conv1d, is_linear
from surgeon_prune.stock import HEAD_WIDTHS, HEADS, KEY_VALUE_HEADS

Unit = Literal["groups", "queries"]

SEPARATE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
    ("to_q", "to_k", "to_v"),
    ("query_proj", "key_proj", "value_proj"),
)
"""Names of the layers for queries, keys and values; each writes one head after the other."""
FUSED = ("qkv", "c_attn", "in_proj", "Wqkv", "qkv_proj")
"""Names of layers that write all queries, then all keys, then all values."""
INTERLEAVED = ("query_key_value",)
"""Names of layers that write query, key and value of one head, then those of the next."""
OUTPUTS = ("o_proj", "out_proj", "out_lin", "o", "proj", "c_proj", "dense", "Wo", "output.dense", "to_out.0")
"""Names of the layers that read all heads; in the module, or beside it."""
WIDTHS = ("all_head_size", "inner_dim", "attn_dim", "split_size", "qkv_dim", "attention_dim")
"""Attributes of attention modules that hold the width of all heads together."""
GROUP_SIZES = ("num_key_value_groups", "n_rep", "num_kv_groups")
"""Attributes that count the query heads that share a key-value head."""


@dataclass(frozen=True)
class Attention:
    """Describe an attention layer.

    Attributes:
        site: The module around its layers.
        holder: The module whose attributes count heads.
        heads: The number of query heads.
        shared: How many query heads share a key-value head.
        width: The width of a head.
        layers: The layers that write heads, each with what: q, k or v; ``parts`` for all queries, then keys, then
            values; ``interleaved`` for query, key and value of one head, then of the next.
        reader: The layer that reads the heads.
    """

    site: str
    holder: str
    heads: int
    shared: int
    width: int
    layers: tuple[tuple[str, str], ...]
    reader: str

    @property
    def key_value_heads(self) -> int:
        """Return the number of key-value heads."""
        return self.heads // self.shared


def attentions(model: nn.Module, sites: Sequence[str]) -> list[Attention]:
    """List the attention layers at and below sites.

    Raises:
        OperationError: One has a layout that is not known.
    """
    modules = dict(model.named_modules())
    layers = []
    for name, module in modules.items():
        if any(f"{name}.".startswith(f"{site}." if site else "") for site in sites):
            described = _described(name, module, modules)
            if described is not None:
                layers.append(described)
    return layers


def _described(name: str, module: nn.Module, modules: dict[str, nn.Module]) -> Attention | None:
    children = module._modules
    layers: list[tuple[str, str]] = []
    for names in SEPARATE:
        if all(is_linear(children.get(child)) for child in names):
            layers = [(_join(name, child), kind) for child, kind in zip(names, ("q", "k", "v"), strict=True)]
    for child in [*FUSED, *INTERLEAVED]:
        if not layers and is_linear(children.get(child)):
            layers = [(_join(name, child), "interleaved" if child in INTERLEAVED else "parts")]
    if not layers:
        return None
    reader = next((path for path in _readers(name) if is_linear(modules.get(path))), None)
    if reader is None:
        return None
    width = next((value for attribute in HEAD_WIDTHS if type(value := getattr(module, attribute, None)) is int), None)
    written = {kind: _written(modules[path]) for path, kind in layers}
    first = next(iter(written.values()))
    heads = _number(module, HEADS)
    if width is None and heads:
        width = _read(modules[reader]) // heads
    if not width:
        return None
    heads = _read(modules[reader]) // width
    if "k" in written:
        shared, rest = divmod(heads * width, written["k"])
        fits = written["q"] == heads * width and written["k"] == written["v"] and not rest
    else:
        rows = first // width
        shared = max(1, (2 * heads) // (rows - heads)) if rows > heads else 1
        fits = rows == heads + 2 * heads // shared and first == rows * width
    if not fits or heads % shared or ("interleaved" in written and shared > 1):
        raise OperationError(
            f"{name} ({type(module).__name__}): heads of width {width} do not explain layers that write "
            f"{', '.join(map(str, written.values()))} entries and one that reads {_read(modules[reader])}",
            hint=f"leave it out: at: '@blocks, !{name}'",
        )
    site = name if reader.startswith(f"{name}.") else name.rpartition(".")[0]
    return Attention(site, name, heads, shared, width, tuple(layers), reader)


def layers_of_attention(model: nn.Module) -> set[str]:
    """Return the linear layers of attention, of any layout."""
    modules = dict(model.named_modules())
    names = {name for names in (*SEPARATE, FUSED, INTERLEAVED) for name in names}
    layers: set[str] = set()
    for name, module in modules.items():
        if isinstance(module, nn.MultiheadAttention):
            layers.add(_join(name, "out_proj"))
        elif inside := [_join(name, child) for child in module._modules if child in names]:
            layers.update(inside)
            layers.update(path for path in _readers(name) if path.startswith(f"{name}.") and path in modules)
    return layers


def group_of(model: nn.Module, attention: Attention, unit: Unit) -> Group:
    """Return the group of an attention layer's heads.

    Args:
        model: The network.
        attention: The layer.
        unit: ``groups``: a key-value head with the query heads that share it; ``queries``: a query head.

    Raises:
        OperationError: The layer has other tensors with entries for each head.
    """
    modules = dict(model.named_modules())
    whole = unit == "groups"
    count = attention.key_value_heads if whole else attention.heads
    many = attention.width * (attention.shared if whole else 1)
    slices: list[Slice] = []
    for path, kind in attention.layers:
        if kind in ("k", "v") and not whole and attention.shared > 1:
            continue
        size, units = (many if kind == "q" else attention.width), None
        if kind == "interleaved":
            size = 3 * attention.width
        elif kind == "parts" and attention.shared > 1:
            units = _units_of_parts(attention, whole)
        slices += _writers(path, modules[path], size, units)
    reader = modules[attention.reader]
    axis = 0 if is_conv1d(reader) else 1
    slices.append(Slice(attention.reader, "weight", axis, many, None, READS))
    _refuse_other_tensors(model, attention, {entry.tensor for entry in slices})
    holder = modules[attention.holder]
    per_unit = attention.shared if whole else 1
    counted = [
        (HEADS, attention.heads, per_unit, 1),
        (WIDTHS, attention.heads * attention.width, attention.width * per_unit, 1),
        *([(KEY_VALUE_HEADS, attention.key_value_heads, 1, 1)] if whole else []),
        *([] if whole else [(GROUP_SIZES, attention.shared, 1, attention.key_value_heads)]),
    ]
    settings = [
        (attention.holder, name, many, divisor)
        for names, value, many, divisor in counted
        for name in names
        if _holds(holder, name, value)
    ]
    return Group(attention.site, count, slices, settings, bins=1 if whole else attention.key_value_heads)


def _units_of_parts(attention: Attention, whole: bool) -> list[int]:
    """Return the unit of each row of a layer that writes all queries, then fewer keys, then fewer values."""
    width, shared = attention.width, attention.shared
    queries = [head // shared if whole else head for head in range(attention.heads) for _ in range(width)]
    keys = [head if whole else -1 for head in range(attention.key_value_heads) for _ in range(width)]
    return [*queries, *keys, *keys]


def _writers(path: str, module: nn.Module, size: int, units: list[int] | None) -> list[Slice]:
    axis = 1 if is_conv1d(module) else 0
    slices = [Slice(path, "weight", axis, size, units, WRITES)]
    if getattr(module, "bias", None) is not None:
        slices.append(Slice(path, "bias", 0, size, units, WRITES))
    return slices


def _refuse_other_tensors(model: nn.Module, attention: Attention, handled: set[str]) -> None:
    """Refuse tensors that may have an entry for each head: position biases, norms over all heads, sinks."""
    module = model.get_submodule(attention.holder)
    layers = {path for path, _ in attention.layers} | {attention.reader}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        path = _join(attention.holder, name)
        many = {attention.heads, attention.heads * attention.width, attention.key_value_heads * attention.width}
        if path in handled or path.rpartition(".")[0] in layers or attention.heads == 1:
            continue
        if many & set(tensor.shape):
            raise OperationError(
                f"{path} {tuple(tensor.shape)} may have an entry for each head of {attention.holder} "
                f"({type(module).__name__}), and is not known to prune_heads",
                hint="leave the layer out with at:, or prune its MLP: prune_mlp",
            )


def _readers(name: str) -> Iterator[str]:
    parent = name.rpartition(".")[0]
    yield from (_join(name, output) for output in OUTPUTS)
    yield from (_join(parent, output) for output in OUTPUTS if "." in output)


def _written(module: Any) -> int:
    return int(module.weight.shape[1 if is_conv1d(module) else 0])


def _read(module: Any) -> int:
    return int(module.weight.shape[0 if is_conv1d(module) else 1])


def _number(module: nn.Module, names: Sequence[str]) -> int | None:
    return next((value for name in names if type(value := getattr(module, name, None)) is int), None)


def _holds(module: nn.Module, name: str, value: int) -> bool:
    return vars(module).get(name) == value and type(vars(module).get(name)) is int


def _join(site: str, name: str) -> str:
    return f"{site}.{name}".strip(".")
