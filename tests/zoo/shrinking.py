"""transformers' classes at a small size: the same code and the same parts, fewer and narrower.

A config is made smaller setting by setting, by the names of its settings. What does not fit together then (or
does not run) is tried again with wider layers, and at last as the library has it by default.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import Any

from torch import nn

from surgeon.graph.backends import meta_size
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.graph.skeleton import build_skeleton
from zoo.settings import BESIDE_THE_RULES, LEFT_OUT

LARGEST = 2**30
"""The bytes of weights up to which a network is built for real."""
WORDS = 512
"""The words of every vocabulary; special tokens that lie beyond get numbers from :data:`SPECIAL` on."""
SPECIAL = 400

COUNT = re.compile(
    r"^(num_hidden_layers|num_layers|n_layers?|depth|(num_)?(encoder|decoder)_layers|(num_)?\w*hidden_layers"
    r"|num_self_attends_per_block|\w*num_layers|num_\w+_layers|\w+_num_hidden_layers|\w+_depth|num_blocks|n_blocks|layers)$"
)
KEPT_COUNT = re.compile(r"feat_extract|conv|upsampl|downsampl|stage|predict|dense|kv_shared|adapter|lora|extra|heads?$")
DEPTHS = re.compile(r"depths|layers_per|num_blocks$|blocks_per|^layers$|block_repeats")
FEATURE_LAYERS = re.compile(r"vision_feature_layer|spatial_target_layers|backbone_out_indices|intermediate_hook_ids")
PATCHES = 16
"""The sides of images over those of patches, as a rule."""
SIDE = re.compile(r"^(image_size|img_size)$")
EXPERTS = re.compile(r"^(num_|n_)(\w+_)?experts$|^moe_num_experts$")
WIDTH = re.compile(
    r"hidden_size|hidden_dim|d_model|width|ffn|intermediate|embed|(^|_)dims?$|channels|d_kv|d_ff|inner"
    r"|adapter_input_size|projection_size|mlp_size|bottleneck|^n_embd$|^n_inner$|lora_rank|filter|head_size|rank$|^dim_|_dim_|units"
)
NO_WIDTH = re.compile(
    r"^num_(?!.*(dim|hidden))|image|patch|vocab|max_|kernel|stride|window|length|_id$|ids$|rate|position|layers|ratio"
    r"|multiplier|scale|drop|type|in_channels|input_channels|out_channels_list|codebook_size|n_mels|bins|factor|sampl"
    r"|base_channels"  # in groups of 32, for their norms
)
WIDEST = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim")
MOST_HEADS = ("num_attention_heads", "num_heads", "n_head", "encoder_attention_heads")
HEADS = re.compile(r"(num|n)_(\w+_)?heads?$|(encoder|decoder)_attention_heads$|multi_query_group_num")
HEAD_SIZE = re.compile(r"head_dim|head_size|d_head|d_kv|d_state|state_size|conv_dim|rotary|rope|rank$")
TOKEN = re.compile(r"(_token_id|_token_ids|_token_index|_token|^\w+_id|_idx)$")


@dataclass(frozen=True)
class Level:
    """How much smaller.

    Attributes:
        depth: The most blocks of a stack; 0 leaves them.
        width: What the hidden size comes near to; 0 leaves all widths.
        words: Make the vocabulary smaller.
        side: The side of larger images; 0 leaves it.
        heads: Widths shrink by fewer heads of the same size, which rotary embeddings insist on.
    """

    depth: int
    width: int = 0
    words: bool = True
    side: int = 224
    heads: bool = False


LEVELS = (
    Level(4, 64, heads=True),
    Level(4, 64),
    Level(4, 256),
    Level(4),
    Level(4, side=0),
    Level(4, words=False, side=0),
    Level(0, words=False, side=0),
)
MOST_TIMES = 32
"""What widths are divided by at most: heads of one dimension would be left otherwise."""


def transformers_module(model_type: str, cls: str) -> tuple[nn.Module, str]:
    """A network of class ``cls`` with its own initial values, in eval mode; and how it was made smaller.

    Raises:
        Exception: It cannot be built here.
    """
    problem: Exception | None = None
    spare: tuple[nn.Module, str] | None = None
    for level in LEVELS:
        try:
            module = _build(model_type, cls, level)
        except Exception as error:
            problem = error
            continue
        note = f"{level}"
        if runs(module):
            return module, note
        spare = spare or (module, f"{note}; does not run")
    if spare is not None:
        return spare
    assert problem is not None
    raise problem


def _build(model_type: str, cls: str, level: Level) -> nn.Module:
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = getattr(transformers, cls)
    config = _own_config(CONFIG_MAPPING[model_type](), kind.config_class)
    for part in list(_configs(config, set())):
        for path, value in LEFT_OUT.get(part.model_type, {}).items():
            _put(part, path, value)
    shrink(config, level)
    config = type(config).from_dict(_with_stages(config.to_dict()))
    for path, value in BESIDE_THE_RULES.get(model_type, {}).items() if level.depth else ():
        _put(config, path, value)
    size = meta_size(build_skeleton(lambda: kind._from_config(copy.deepcopy(config))))
    if size > LARGEST:
        raise MemoryError(f"{size / 2**30:.1f} GB at this size")
    torch.manual_seed(0)
    module: nn.Module = kind._from_config(config).eval()
    for name, parameter in module.named_parameters():
        if name.endswith("logit_scale"):  # of which some start at 0, so that nothing comes out
            torch.nn.init.ones_(parameter)
    return module


def _own_config(config: Any, kind: type) -> Any:
    """The part of a config that a class takes: the decoder's, for one that is a decoder alone."""
    return next((part for part in _configs(config, set()) if isinstance(part, kind)), config)


def _put(config: Any, path: str, value: Any) -> None:
    owner, _, name = path.rpartition(".")
    for part in filter(None, owner.split(".")):
        config = getattr(config, part)
    _set(config, name, value(config) if callable(value) else copy.deepcopy(value))


def runs(module: nn.Module) -> bool:
    """Whether a real forward on the inputs that surgeon finds goes through."""
    import torch

    try:
        inputs = find_inputs(module)
    except Exception:
        return False
    for candidate in inputs.candidates():
        args, kwargs = candidate.tensors()
        try:
            with torch.no_grad():
                module(*args, **kwargs)
        except Exception:
            continue
        return True
    return False


def shrink(config: Any, level: Level) -> None:
    """Make a config, and those in it, smaller, in place."""
    numbers: dict[int, int] = {}
    parts = [(part, _without_layers(part)) for part in _configs(config, set())]
    divisor = _divisor(config, level)
    for part, of_layers in parts:
        lengths = {}
        depth = vars(part).get("num_hidden_layers", 0)
        for name, value in list(vars(part).items()):
            if name.startswith("_"):
                continue
            new = _smaller(name, value, level, divisor)
            if level.words:
                new = _fewer_words(name, new, numbers)
            if new is not value and new != value:
                if COUNT.search(name) and isinstance(value, int):
                    lengths[value] = new
                _set(part, name, new)
        kept = {length: _of_every_kind(part, length, count) for length, count in lengths.items()}
        for name, value in list(vars(part).items()):  # lists with one entry for each layer
            if isinstance(value, (list, tuple)) and len(value) in lengths and len(value) > level.depth > 0:
                _set(part, name, type(value)(value[i] for i in kept[len(value)]))
        if of_layers:
            left = kept.get(depth, range(depth))
            part.per_layer_config = {
                i: {name: _smaller(name, value, level, divisor) for name, value in of_layers[old].items()}
                for i, old in enumerate(left)
                if old in of_layers
            }


def _without_layers(part: Any) -> dict[int, dict[str, Any]]:
    """Take from a config what it says of single layers, and give that back."""
    spec = vars(part).get("_heterogeneity_spec")
    if spec is None:
        return {}
    part.per_layer_config = None
    return dict(spec.per_layer_overrides)


def _of_every_kind(part: Any, length: int, count: int) -> list[int]:
    """The layers that stay: one of every kind that a config's list of ``layer_types`` tells apart, then the first."""
    kinds = getattr(part, "layer_types", None) or getattr(part, "layers_block_type", None) or []
    if not isinstance(kinds, (list, tuple)) or len(kinds) != length:
        return list(range(count))
    first = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    return sorted(list(dict.fromkeys([*first, *range(length)]))[:count])


def _with_stages(values: dict[str, Any]) -> dict[str, Any]:
    """A config's values whose names of stages, which backbones keep, follow from its depth again."""
    values = {key: _with_stages(value) if isinstance(value, dict) else value for key, value in values.items()}
    stages, indices = values.pop("stage_names", None), values.get("out_indices")
    if stages is None:
        return values
    depth = next((values[n] for n in ("num_hidden_layers", "depth") if isinstance(values.get(n), int)), len(stages) - 1)
    values.pop("out_features", None)
    if _whole_numbers(indices) and depth + 1 < len(stages):
        values["out_indices"] = list(range(depth + 1))[-len(indices) :]
    return values


def _divisor(config: Any, level: Level) -> int:
    """One for all parts, so that what one part makes still fits the next."""
    sizes = [(part, getattr(part, name, None)) for part in _configs(config, set()) for name in WIDEST]
    part, widest = max([(p, n) for p, n in sizes if type(n) is int], key=lambda pair: pair[1], default=(config, 768))
    widest_parts = [part for part, n in sizes if n == widest] or [part]
    heads = gcd(*[next((n for m in MOST_HEADS if type(n := getattr(p, m, None)) is int), 0) for p in widest_parts]) or 1
    divisor = 1
    while level.width and widest // (2 * divisor) >= level.width and divisor < MOST_TIMES:
        if level.heads and heads % (2 * divisor):
            break
        divisor *= 2
    return divisor


def _configs(config: Any, seen: set[int]) -> Iterator[Any]:
    if id(config) in seen:
        return
    seen.add(id(config))
    yield config
    for value in vars(config).values():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _configs(value, seen)


def _set(part: Any, name: str, value: Any) -> None:
    try:
        setattr(part, name, value)
    except Exception:
        part.__dict__[name] = value


def _smaller(name: str, value: Any, level: Level, divisor: int) -> Any:
    if isinstance(value, bool):
        return value
    if level.depth and COUNT.search(name) and not KEPT_COUNT.search(name) and isinstance(value, int):
        return min(value, level.depth)
    if level.depth and name == "num_kv_shared_layers":
        return 0  # too few are left for one of each kind to share
    if level.depth and FEATURE_LAYERS.search(name) and _whole_numbers(value):
        places = sorted(set(value))
        left = [*range(level.depth)][-len(places) :]
        return type(value)(left[min(places.index(n), level.depth - 1)] for n in value)
    if level.depth and DEPTHS.search(name) and _whole_numbers(value):
        return type(value)(min(n, 2) for n in value)
    if level.depth and EXPERTS.search(name) and isinstance(value, int):
        return min(value, 32)  # the top 8 of them, in groups
    if level.side and SIDE.search(name):
        if isinstance(value, int):
            return min(value, level.side)
        if _whole_numbers(value):
            return type(value)(min(n, level.side) for n in value)
    if level.side and name == "image_embedding_size" and isinstance(value, int):
        return min(value, level.side // PATCHES)
    if divisor > 1 and level.heads:
        if HEADS.search(name) and isinstance(value, int):
            return max(1, value // divisor)
        if HEAD_SIZE.search(name):
            return value
    if divisor > 1 and (name == "upsample_groups" or (WIDTH.search(name) and not NO_WIDTH.search(name))):
        if isinstance(value, int) and value >= 64 and value % divisor == 0:
            return value // divisor
        if _whole_numbers(value) and all(n % divisor == 0 and n >= 2 * divisor for n in value):
            return type(value)(n // divisor for n in value)
    return value


def _fewer_words(name: str, value: Any, numbers: dict[int, int]) -> Any:
    if isinstance(value, bool):
        return value
    if name.endswith("vocab_size") and isinstance(value, int):
        return min(value, WORDS)
    if TOKEN.search(name):
        if isinstance(value, int) and value >= SPECIAL:
            return numbers.setdefault(value, SPECIAL + len(numbers))
        if _whole_numbers(value):
            return type(value)(numbers.setdefault(n, SPECIAL + len(numbers)) if n >= SPECIAL else n for n in value)
    return value


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(type(n) is int for n in value)
