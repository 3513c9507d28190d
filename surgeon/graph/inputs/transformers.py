"""What a transformers network takes, by its config, its main input and the signature of its forward."""

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
"""What a network of two towers takes beside its main input."""
OPTIONAL = (
    "bbox", "input_features_mask", "decoder_input_ids", "actions", "rewards", "returns_to_go", "timesteps",
    "attention_mask", "future_values", "future_time_features", "visual_feats", "visual_pos", "encoder_hidden_states",
    "decoder_input_values",
)  # fmt: skip
"""What a signature calls optional and some forwards insist on."""


def from_config(model: nn.Module) -> Inputs:
    """The inputs of a transformers model.

    Raises:
        OperationError: The model takes something that neither its config nor its signature explains.
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
    wanted = [main] if isinstance(main, str) else list(main)  # type: ignore[arg-type]
    wanted = [n for n in wanted if n in names] or [n for n in PAIRED if n in names][:1]
    wanted += [n for n in names if parameters[n].default is inspect.Parameter.empty and n not in wanted]
    beside = [n for n in PAIRED if n in names and n not in wanted]
    if _is_pair(model):
        wanted, beside = [*wanted, *beside], []
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        wanted.append("decoder_input_ids")
    if "decoder_input_ids" in wanted and "input_ids" not in names and "input_ids" in wanted:
        wanted.remove("input_ids")

    batch = _batch(model, config)
    ways = partial(_ways, type(model).__name__, wanted, beside, names, config)
    plain = _first_of(ways(batch))
    if batch > 1:  # some take one sample at a time
        plain = replace(plain, fallback=_first_of(ways(1)))
    images = with_images(model, names, config, batch)
    return replace(_first_of(images), fallback=plain) if images else plain


def _ways(kind: str, wanted: list[str], beside: list[str], names: list[str], config: Any, batch: int) -> list[Inputs]:
    """Everything that may be fed: what is asked for, then with what stands beside it, then with what is optional."""
    choices = {name: _choices(name, config, batch) for name in wanted}
    if not choices:
        raise OperationError(
            f"{kind} says nothing of what it takes",
            hint="operate on one of its parts, or say it: `inputs: {NAME: [2, 8]}` in the recipe, inputs=… in Python",
        )
    if "pixel_values" in choices:
        choices |= patches_in_rows(set(names), config, batch)
    alone = choices
    choices = choices | grouped(set(names), config, batch)
    _complain_of([name for name, specs in choices.items() if not specs], kind)
    found = list(_combined(choices))
    more = {name: specs for name in beside if name not in choices and (specs := _choices(name, config, batch))}
    if more:
        found += _combined({**choices, **more})
    known = {name: _choices(name, config, batch) for name in OPTIONAL if name in names and name not in choices}
    if known := {name: specs for name, specs in known.items() if specs}:
        found += _combined({**choices, **known})
        if more:
            found += _combined({**choices, **more, **known})
    if "pixel_values_videos" in names and "pixel_values_videos" not in choices:
        found += _combined({**choices, "pixel_values_videos": _choices("pixel_values_videos", config, batch)})
    if "input_ids" in alone and choices.keys() > alone.keys() and all(alone.values()):
        found += _combined(alone)  # words among which no image stands
    if "use_cache" in names:  # a trace needs none
        ends = found[:1] if len(found) == 1 else [found[0], found[-1]]
        found += [replace(each, kwargs={**each.kwargs, "use_cache": False}) for each in ends]
    return found


def _complain_of(missing: list[str], kind: str) -> None:
    if sessions := [name for name in missing if name.endswith("session")]:
        raise OperationError(
            f"{kind} takes {sessions[0]!r}, an object that its processor makes of a video: no tensors",
            hint="operate on the network for images that it is made of",
        )
    if missing:
        raise OperationError(
            f"{kind} takes {missing[0]!r}, of which its config does not tell the shape",
            hint=f"say it: `inputs: {{{missing[0]}: [2, 8]}}` in the recipe, inputs=… in Python",
        )


def _first_of(found: list[Inputs]) -> Inputs:
    return replace(found[0], alternatives=tuple(found[1:]))


def _combined(choices: dict[str, list[Spec]]) -> Iterator[Inputs]:
    """The first choice for every argument, then the second, and so on."""
    for i in range(max(len(specs) for specs in choices.values())):
        kwargs = {name: specs[min(i, len(specs) - 1)] for name, specs in choices.items()}
        shapes = ", ".join(f"{name} {list(spec.shape)}" for name, spec in kwargs.items())
        yield Inputs(kwargs=kwargs, origin=f"from its config and signature: {shapes}")


def _is_pair(model: nn.Module) -> bool:
    """Two towers side by side, as in CLIP, where neither feeds the other."""
    parts = set(getattr(model.config, "sub_configs", {}))
    headless = type(model).__name__.endswith("Model")
    return headless and {"text_config"} < parts and hasattr(model.config, "projection_dim")


def _batch(model: nn.Module, config: Any) -> int:
    """One sample where a causal model classifies by its last token and knows no padding."""
    # by its name, not by its head: surgery may have cut that away, and the batch is to stay the same
    single = "ForSequenceClassification" in type(model).__name__ and setting(config, "pad_token_id") is None
    return 1 if single else BATCH
