"""Find inputs with which a network runs: shapes and kinds of values, from the network or from the user."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import nn

from surgeon.errors import OperationError, suggest
from surgeon.families.inputs import BATCH, Inputs, Spec
from surgeon.families.registry import families_of
from surgeon.graph.inputs.declared import declared_inputs
from surgeon.interfaces.composite import Entry, composite_of, has_part
from surgeon.interfaces.inputs import TensorSettings

if TYPE_CHECKING:
    from surgeon.interfaces.family import Family

WRITTEN_OUT = 4096
"""The most integers for which an input is recorded by its values instead of its shape."""
IMAGE_SIDES = (64, 224, 32, 28, 16, 8, 128, 96, 256, 299, 384, 512)
"""Sides of square images to try on a network for which no family declares shapes."""


def find_inputs(model: nn.Module, override: Any = None, *, families: Sequence[Family] = ()) -> Inputs:
    """Find inputs for ``model``.

    Sources, in this order: a recipe's override; for a composite, the parts that its inputs enter; the declared facts
    of its family; a transformers config; the first layer with weights.

    Args:
        model: The network.
        override: A list of shapes, ``[[2, 3, 64, 64]]``, or a mapping from argument to a shape or to
            ``{shape: [2, 8], dtype: int64, low: 0, high: 100}`` or ``{values: [[1, 8, 8]]}``; tensors like those
            to feed; :class:`Inputs` as they are.
        families: Declared facts of plugins.

    Raises:
        OperationError: The override is malformed, or no source gives inputs.
    """
    if isinstance(override, Inputs):
        return override
    if override is not None:
        return _from_override(override)
    entries = [entry for entry in composite_of(model).entries if has_part(model, entry.site)]
    if entries:
        return _from_entries(model, entries, families)
    for family in families_of(model, families):
        if family.inputs:
            return declared_inputs(model, family, families)
        if family.shapes:
            return _from_family(model, family)
    if hasattr(getattr(model, "config", None), "to_dict") and hasattr(model, "main_input_name"):
        from surgeon.graph.inputs.transformers import from_config

        return from_config(model)
    return _from_first_layer(model)


def _from_entries(model: nn.Module, entries: Sequence[Entry], families: Sequence[Family]) -> Inputs:
    """Combine the inputs of a composite's parts; parts that share all arguments get the inputs of the first."""
    shared = [entry for entry in entries if entry.arguments is None]
    settings: dict[str, Any] = {}
    for entry in shared:
        settings |= _settings(model.get_submodule(entry.site), entry.site, families)
    ways: list[list[Inputs]] = []
    if shared:
        first = find_inputs(model.get_submodule(shared[0].site), families=families)
        if len(shared) == len(entries):
            return _with_settings(first, settings)
        ways.append(list(first.candidates()))
    for entry in entries:
        if entry.arguments is not None:
            ways.append(_renamed(model, entry, entry.arguments, families))
            settings |= ways[-1][0].settings
    combined = [
        _merged([way[min(i, len(way) - 1)] for way in ways], settings) for i in range(max(len(way) for way in ways))
    ]
    return replace(combined[0], alternatives=tuple(combined[1:]))


def _with_settings(inputs: Inputs, settings: dict[str, Any]) -> Inputs:
    """Replace the settings of inputs and of their alternatives."""
    return replace(
        inputs,
        settings=settings,
        alternatives=tuple(_with_settings(way, settings) for way in inputs.alternatives),
        fallback=inputs.fallback and _with_settings(inputs.fallback, settings),
    )


def _settings(part: nn.Module, site: str, families: Sequence[Family]) -> dict[str, Any]:
    """Collect the attributes to set while a part runs, by their paths in the whole network."""
    inside: dict[str, Any] = {}
    for entry in composite_of(part).entries:
        if has_part(part, entry.site):
            inside |= _settings(part.get_submodule(entry.site), entry.site, families)
    declared = next((family for family in families_of(part, families) if family.shapes), None)
    if declared is not None:
        inside |= dict(declared.settings)
    return {f"{site}.{path}": value for path, value in inside.items()}


def _renamed(model: nn.Module, entry: Entry, arguments: Mapping[str, str], families: Sequence[Family]) -> list[Inputs]:
    """Rename a part's inputs to the arguments of the composite's forward.

    Raises:
        OperationError: No input could be derived for one of the arguments.
    """
    part = model.get_submodule(entry.site)
    order = list(inspect.signature(part.forward).parameters)
    settings = _settings(part, entry.site, families)
    ways = []
    for way in find_inputs(part, families=families).candidates():
        values = {**dict(zip(order, way.args, strict=False)), **way.kwargs}
        kwargs = {
            argument: values[part_argument] for argument, part_argument in arguments.items() if part_argument in values
        }
        origin = f"{entry.site}: {way.origin}"
        ways.append(replace(way, args=(), kwargs=kwargs, training=(), settings=settings, origin=origin))
    complete = [way for way in ways if len(way.kwargs) == len(arguments)]
    if complete:
        return complete
    missing = next(argument for argument in arguments if argument not in ways[0].kwargs)
    parameter = inspect.signature(model.forward).parameters.get(missing)
    if parameter is not None and parameter.default is not parameter.empty:
        return ways
    raise OperationError(
        f"nothing says what to feed {type(model).__name__} as {missing!r}: for {entry.site} "
        f"({type(part).__name__}) no {arguments[missing]!r} was derived",
        hint=suggest(arguments[missing], order) or f"say it: `inputs: {{{missing}: [2, 8]}}` in the recipe",
    )


def _merged(ways: Sequence[Inputs], settings: dict[str, Any]) -> Inputs:
    """Merge the inputs of several parts into those of one forward."""
    return Inputs(
        args=tuple(spec for way in ways for spec in way.args),
        kwargs={name: spec for way in ways for name, spec in way.kwargs.items()},
        origin="; ".join(way.origin for way in ways),
        settings=settings,
        values=any(way.values for way in ways),
        placeholders=max(way.placeholders for way in ways),
    )


def described(override: Any) -> Any:
    """Write an override as a recipe would: integer tensors by their values, other tensors by their shape."""
    if isinstance(override, torch.Tensor):
        return [_described(override)]
    if isinstance(override, Mapping):
        return {name: _described(value) for name, value in override.items()}
    return [_described(value) for value in override] if isinstance(override, (list, tuple)) else override


def _described(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    shape, dtype = list(value.shape), str(value.dtype).removeprefix("torch.")
    if value.is_floating_point():
        return {"shape": shape}
    if value.is_complex() or value.is_meta:
        return {"shape": shape, "dtype": dtype}
    if value.numel() <= WRITTEN_OUT:
        return {"values": value.tolist(), "dtype": dtype}
    return {"shape": shape, "dtype": dtype, "low": int(value.min()), "high": int(value.max()) + 1}


def _from_override(override: Any) -> Inputs:
    override = described(override)
    if isinstance(override, Mapping):
        return Inputs(kwargs={str(name): _spec(value, name) for name, value in override.items()})
    if isinstance(override, Sequence) and not isinstance(override, str):
        # a single shape is the same as a list with one shape
        shapes = [override] if override and all(isinstance(n, int) for n in override) else override
        return Inputs(args=tuple(_spec(value, i) for i, value in enumerate(shapes)))
    raise OperationError("inputs must be a list of shapes or a mapping from argument to shape", where="inputs")


def _spec(value: Any, name: Any) -> Spec:
    shape_alone = not isinstance(value, (Mapping, TensorSettings))
    try:
        settings = TensorSettings.model_validate({"shape": value} if shape_alone else value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("inputs", name, *first["loc"]))
        choices = str(first.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
        raise OperationError(
            str(first["msg"]),
            where=where,
            hint=suggest(str(first["input"]), choices)
            or "like [2, 3, 64, 64] or {shape: [2, 8], dtype: int64, high: 100}",
        ) from None
    dtype = getattr(torch, settings.dtype) if settings.dtype else None
    if settings.values is not None:
        tensor = torch.tensor(settings.values)
        dtype = dtype or (None if tensor.is_floating_point() else tensor.dtype)
        return Spec(tuple(tensor.shape), dtype, values=settings.values)
    return Spec(tuple(settings.shape or ()), dtype, settings.low, max(settings.high, settings.low + 1))


def _from_family(model: nn.Module, family: Family) -> Inputs:
    shapes = [(BATCH, *shape) for shape in family.shapes]
    if sides := _sides(model, family):
        shapes = [(*shape[:-2], *sides) for shape in shapes]
    first = next((m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)), None)
    if first is not None:  # surgery may have adapted it to other channels
        shapes = [(shape[0], first.in_channels, *shape[2:]) if len(shape) > 3 else shape for shape in shapes]
    origin = f"declared for {family.name}"
    settings = dict(family.settings)
    if not family.listed:
        return Inputs(tuple(Spec(shape) for shape in shapes), origin=origin, settings=settings)
    images = [Spec(shape[1:]) for shape in shapes for _ in range(BATCH)]
    targets = ([_target(model)] * BATCH,)
    return Inputs((images,), origin=origin, settings=settings, training=targets, values=True)


def _sides(model: nn.Module, family: Family) -> tuple[int, ...]:
    """Return height and width of the images that a network insists on, from the first of ``family.size`` that says."""
    for path in (family.size,) if isinstance(family.size, str) else family.size or ():
        value: Any = model
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if isinstance(value, int):
            return value, value
        if isinstance(value, (list, tuple)) and len(value) > 1:
            return tuple(value[-2:])
    return ()


def _target(model: nn.Module) -> dict[str, Any]:
    """Make one box for a detector to learn, with a mask and keypoints; a detector ignores what it does not use."""
    target: dict[str, Any] = {
        "boxes": torch.tensor([[8.0, 8.0, 100.0, 100.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 128, 128, dtype=torch.uint8),
    }
    for module in model.modules():
        points = getattr(module, "kps_score_lowres", None)
        if points is not None:
            target["keypoints"] = torch.full((1, points.out_channels, 3), 50.0)
    return target


def _from_first_layer(model: nn.Module) -> Inputs:
    """Make inputs from the channels, features or vocabulary size of the first layer with weights."""
    for name, module in model.named_modules():
        for kind, shapes in _FIRST_LAYERS.items():
            if isinstance(module, kind):
                origin = f"the first layer is {name or '.'}, {type(module).__name__}"
                ways = [Inputs((spec,), origin=f"{origin}: {list(spec.shape)}") for spec in shapes(module)]
                return replace(ways[0], alternatives=tuple(ways[1:]))
    raise OperationError(
        f"the inputs of {type(model).__name__} cannot be derived from its config or layers",
        hint="give them: `inputs: [[2, 3, 64, 64]]` in the recipe, inputs=… in Python",
    )


def _vectors(module: Any) -> list[Spec]:
    return [Spec((BATCH, module.in_features)), Spec((BATCH, 8, module.in_features))]


def _sequences(module: Any) -> list[Spec]:
    return [Spec((BATCH, module.in_channels, length)) for length in (64, 256, 1024, 16, 16000)]


def _images(module: Any) -> list[Spec]:
    return [Spec((BATCH, module.in_channels, side, side)) for side in IMAGE_SIDES]


def _volumes(module: Any) -> list[Spec]:
    return [Spec((BATCH, module.in_channels, depth, side, side)) for depth, side in ((8, 64), (16, 112), (32, 32))]


def _tokens(module: Any) -> list[Spec]:
    return [Spec((BATCH, 8), torch.int64, high=module.num_embeddings)]


def _steps(module: Any) -> list[Spec]:
    return [Spec((BATCH, 8, module.input_size))]


_FIRST_LAYERS: dict[type[nn.Module], Callable[[Any], list[Spec]]] = {
    nn.Conv1d: _sequences,
    nn.Conv2d: _images,
    nn.Conv3d: _volumes,
    nn.Embedding: _tokens,
    nn.Linear: _vectors,
    nn.RNNBase: _steps,
}
