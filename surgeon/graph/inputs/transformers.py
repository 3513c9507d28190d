"""Make inputs for a transformers network from its config, its main input and the signature of its forward."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from surgeon.errors import OperationError
from surgeon.families.inputs import BATCH, Inputs, Spec
from surgeon.families.transformers.argument_groups import grouped, patches_in_rows
from surgeon.families.transformers.arguments import choices as _choices
from surgeon.families.transformers.quantities import setting
from surgeon.graph.inputs.multimodal import with_images

PAIRED = ("input_ids", "pixel_values", "input_features", "input_values")
"""Inputs that a network with two towers takes in addition to its main input."""
OPTIONAL = (
    "bbox", "input_features_mask", "decoder_input_ids", "actions", "rewards", "returns_to_go", "timesteps",
    "attention_mask", "future_values", "future_time_features", "visual_feats", "visual_pos", "encoder_hidden_states",
    "decoder_input_values",
)  # fmt: skip
"""Arguments with a default of None that some forwards need."""


def from_config(model: nn.Module) -> Inputs:
    """Make the inputs of a transformers model.

    Raises:
        OperationError: The shape of an argument follows neither from the config nor from the signature.
    """
    config: Any = model.config
    if type(model).forward is nn.Module.forward:
        parts = ", ".join(name for name, _ in model.named_children())
        raise OperationError(
            f"{type(model).__name__} has no forward of its own", hint=f"operate on one of its parts: {parts}"
        )
    parameters = inspect.signature(model.forward).parameters
    names = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    main = model.main_input_name
    required = [main] if isinstance(main, str) else list(main)  # type: ignore[arg-type]
    required = [n for n in required if n in names] or [n for n in PAIRED if n in names][:1]
    required += [n for n in names if parameters[n].default is inspect.Parameter.empty and n not in required]
    beside = [n for n in PAIRED if n in names and n not in required]
    if _is_pair(model):
        required, beside = [*required, *beside], []
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        required.append("decoder_input_ids")
    if "decoder_input_ids" in required and "input_ids" not in names and "input_ids" in required:
        required.remove("input_ids")

    batch = _batch(model, config)
    ways = partial(_ways, type(model).__name__, required, beside, names, config)
    plain = _first_of(ways(batch))
    if batch > 1:  # some networks take one sample at a time
        plain = replace(plain, fallback=_first_of(ways(1)))
    images = with_images(model, names, config, batch)
    return replace(_first_of(images), fallback=plain) if images else plain


def _ways(kind: str, required: list[str], beside: list[str], names: list[str], config: Any, batch: int) -> list[Inputs]:
    """List all candidate inputs: the required arguments, then also the second tower's, then also the optional ones."""
    choices = {name: _choices(name, config, batch) for name in required}
    if not choices:
        raise OperationError(
            f"the forward of {kind} has no argument whose shape can be derived",
            hint="operate on one of its parts, or give the inputs: `inputs: {NAME: [2, 8]}` in the recipe, inputs=… in "
            "Python",
        )
    if "pixel_values" in choices:
        choices |= patches_in_rows(set(names), config, batch)
    alone = choices
    choices = choices | grouped(set(names), config, batch)
    _refuse_missing([name for name, specs in choices.items() if not specs], kind)
    ways = list(_combined(choices))
    more = {name: specs for name in beside if name not in choices and (specs := _choices(name, config, batch))}
    if more:
        ways += _combined({**choices, **more})
    optional = {name: _choices(name, config, batch) for name in OPTIONAL if name in names and name not in choices}
    if optional := {name: specs for name, specs in optional.items() if specs}:
        ways += _combined({**choices, **optional})
        if more:
            ways += _combined({**choices, **more, **optional})
    if "pixel_values_videos" in names and "pixel_values_videos" not in choices:
        ways += _combined({**choices, "pixel_values_videos": _choices("pixel_values_videos", config, batch)})
    if "input_ids" in alone and choices.keys() > alone.keys() and all(alone.values()):
        ways += _combined(alone)  # text without images
    if "use_cache" in names:  # a trace needs no cache
        ends = ways[:1] if len(ways) == 1 else [ways[0], ways[-1]]
        ways += [replace(way, kwargs={**way.kwargs, "use_cache": False}) for way in ends]
    return ways


def _refuse_missing(missing: list[str], kind: str) -> None:
    if sessions := [name for name in missing if name.endswith("session")]:
        raise OperationError(
            f"{kind} takes {sessions[0]!r}, an object that its processor makes of a video instead of tensors",
            hint="operate on the image network that it contains",
        )
    if missing:
        raise OperationError(
            f"{kind} takes {missing[0]!r}, and its config does not give the shape of that",
            hint=f"give it: `inputs: {{{missing[0]}: [2, 8]}}` in the recipe, inputs=… in Python",
        )


def _first_of(ways: list[Inputs]) -> Inputs:
    return replace(ways[0], alternatives=tuple(ways[1:]))


def _combined(choices: dict[str, list[Spec]]) -> Iterator[Inputs]:
    """Yield the first choice for every argument, then the second, and so on."""
    for i in range(max(len(specs) for specs in choices.values())):
        kwargs = {name: specs[min(i, len(specs) - 1)] for name, specs in choices.items()}
        shapes = ", ".join(f"{name} {list(spec.shape)}" for name, spec in kwargs.items())
        yield Inputs(kwargs=kwargs, origin=f"from its config and signature: {shapes}")


def _is_pair(model: nn.Module) -> bool:
    """Return whether the network has two independent towers, as CLIP has."""
    parts = set(getattr(model.config, "sub_configs", {}))
    headless = type(model).__name__.endswith("Model")
    return headless and {"text_config"} < parts and hasattr(model.config, "projection_dim")


def _batch(model: nn.Module, config: Any) -> int:
    """Choose the batch size: 1 for a causal model that classifies by its last token and has no padding token."""
    # decide by the class name, not by the head: surgery may have removed that, and the batch must stay the same
    single = "ForSequenceClassification" in type(model).__name__ and setting(config, "pad_token_id") is None
    return 1 if single else BATCH
