"""Make inputs for networks that read text with images in it: one placeholder token for each image feature."""

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
from surgeon.graph.backends import for_real, on_meta, restored_after
from surgeon.nn.grafts import Exit

KINDS = ("mm_token_type_ids", "token_type_ids")
"""Arguments that mark each token as text (0) or as a placeholder for an image feature (1)."""
PLACEHOLDERS = ("image_token_id", "image_token_index", "media_placeholder_token_id", "im_patch_id")


def with_images(model: nn.Module, names: Iterable[str], config: Any, batch: int) -> list[Inputs]:
    """Make inputs of text with images in it; none if the network takes no such inputs, or its image tower fails.

    The number of features of an image is found by running the image tower alone.
    """
    names = set(names)
    method = getattr(model, "get_image_features", None)
    token = setting(config, *PLACEHOLDERS)
    if method is None or not isinstance(token, int) or not {"input_ids", "pixel_values"} <= names:
        return []
    words = choices("input_ids", config, batch)[0]
    inputs = []
    for images in _image_inputs(method, names, config, batch):
        count = _feature_count(model, images, batch)
        if count is not None and count % batch == 0 and count:
            inputs += _text_with_images(words, token, count // batch, images.kwargs, names)
            break
    return inputs


def _image_inputs(method: Any, names: set[str], config: Any, batch: int) -> Iterator[Inputs]:
    """Yield candidate inputs of the image tower: one choice after the other for every argument of the forward."""
    parameters = inspect.signature(method).parameters
    specs_by_name = {name: choices(name, config, batch) for name in parameters if name in names}
    specs_by_name = {name: specs for name, specs in specs_by_name.items() if specs}
    specs_by_name |= grouped(parameters.keys() & names, config, batch)
    if "image_grid_thw" in specs_by_name:  # this network takes images as a sequence of flattened patches
        specs_by_name["pixel_values"] = choices("hidden_states", config, batch)
    for index in range(max(len(specs) for specs in specs_by_name.values())):
        yield Inputs(kwargs={name: specs[min(index, len(specs) - 1)] for name, specs in specs_by_name.items()})


def _feature_count(model: Any, images: Inputs, batch: int) -> int | None:
    """Count the features that the tower makes of a batch of images; None if it does not run.

    If surgery has ended the network within the tower, the count does not matter: use one for each image.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    for backend in (on_meta, for_real):
        try:
            with restored_after(model, training=False), warnings.catch_warnings(), backend(model) as device:
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


def _text_with_images(words: Spec, token: int, count: int, images: dict[str, Any], names: set[str]) -> list[Inputs]:
    batch, length = words.shape[0], words.shape[1] + count
    kinds = {name: Spec((batch, length), torch.int64, high=1, first=(1, count)) for name in KINDS if name in names}
    kwargs = {"input_ids": replace(words, shape=(batch, length), first=(token, count)), **images}
    origin = f"from its config and signature: input_ids {[batch, length]}, of which {count} stand for an image"
    mask = {"attention_mask": Spec((batch, length), torch.int64, low=1)} if "attention_mask" in names else {}
    ways = ({**kwargs, **kinds}, {**kwargs, **kinds, **mask}) if mask else ({**kwargs, **kinds},)
    return [Inputs(kwargs=way, origin=origin, placeholders=batch * count) for way in ways]
