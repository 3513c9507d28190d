"""What a network takes that reads text with images in it: a placeholder among the words for each image feature."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from surgeon.families.inputs import Inputs, Spec
from surgeon.families.transformers.argument_groups import grouped
from surgeon.families.transformers.arguments import choices
from surgeon.families.transformers.quantities import setting
from surgeon.graph.backends import for_real, lent, on_meta
from surgeon.nn.grafts import Exit

KINDS = ("mm_token_type_ids", "token_type_ids")
"""What says of each token whether it is a word (0) or stands for an image (1)."""
PLACEHOLDERS = ("image_token_id", "image_token_index", "media_placeholder_token_id", "im_patch_id")


def with_images(model: nn.Module, names: Iterable[str], config: Any, batch: int) -> list[Inputs]:
    """Words with images among them; nothing where the network takes no such thing, or how many is not to be found.

    How many features an image has is what the network itself says, when its image tower is run by itself.
    """
    names = set(names)
    method = getattr(model, "get_image_features", None)
    token = setting(config, *PLACEHOLDERS)
    if method is None or not isinstance(token, int) or not {"input_ids", "pixel_values"} <= names:
        return []
    words = choices("input_ids", config, batch)[0]
    found = []
    for images in _image_inputs(method, names, config, batch):
        count = _feature_count(model, images, batch)
        if count is not None and count % batch == 0 and count:
            found += _together(words, token, count // batch, images.kwargs, names)
            break
    return found


def _image_inputs(method: Any, names: set[str], config: Any, batch: int) -> Iterator[Inputs]:
    """What the image tower may take: one choice after the other for every argument that the forward has too."""
    parameters = inspect.signature(method).parameters
    wanted = {name: choices(name, config, batch) for name in parameters if name in names}
    wanted = {name: specs for name, specs in wanted.items() if specs}
    wanted |= grouped(parameters.keys() & names, config, batch)
    if "image_grid_thw" in wanted:  # its images come as patches, flattened, one after the other
        wanted["pixel_values"] = choices("hidden_states", config, batch)
    for index in range(max(len(specs) for specs in wanted.values())):
        yield Inputs(kwargs={name: specs[min(index, len(specs) - 1)] for name, specs in wanted.items()})


def _feature_count(model: Any, images: Inputs, batch: int) -> int | None:
    """How many features the tower makes of the images of a batch; None where it does not run.

    One an image where surgery has ended the network within the tower, so that no feature meets a word.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    for rung in (on_meta, for_real):
        try:
            with lent(model, training=False), warnings.catch_warnings(), rung(model) as device:
                warnings.simplefilter("ignore")
                features = model.get_image_features(**images.tensors(device, dtype)[1])
        except Exit:
            return batch
        except Exception:
            continue
        features = getattr(features, "pooler_output", features)
        tensors = [features] if isinstance(features, torch.Tensor) else [t for t in features if torch.is_tensor(t)]
        if tensors and all(tensor.dim() > 1 for tensor in tensors):
            return sum(tensor.numel() // tensor.shape[-1] for tensor in tensors)
    return None


def _together(words: Spec, token: int, count: int, images: dict[str, Any], names: set[str]) -> list[Inputs]:
    batch, length = words.shape[0], words.shape[1] + count
    kinds = {name: Spec((batch, length), torch.int64, high=1, first=(1, count)) for name in KINDS if name in names}
    kwargs = {"input_ids": replace(words, shape=(batch, length), first=(token, count)), **images}
    origin = f"from its config and signature: input_ids {[batch, length]}, of which {count} stand for an image"
    mask = {"attention_mask": Spec((batch, length), torch.int64, low=1)} if "attention_mask" in names else {}
    ways = ({**kwargs, **kinds}, {**kwargs, **kinds, **mask}) if mask else ({**kwargs, **kinds},)
    return [Inputs(kwargs=way, origin=origin, placeholders=batch * count) for way in ways]
