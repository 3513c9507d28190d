"""Find out how samples are prepared for a checkpoint: from processor files, torchvision's weights, timm's config."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from surgeon.checkpoint.companions import Companion, write_companions
from surgeon.errors import CheckpointError
from surgeon.families.detectors import is_torchvision_detector, picture_channels
from surgeon.interfaces.preprocessing import (
    IMAGENET,
    TORCHVISION,
    TRANSFORMERS,
    UNCHANGED,
    Preprocessing,
    with_channels,
)
from surgeon.interfaces.record import Record, record_of

if TYPE_CHECKING:
    from surgeon.architectures.source import Source

KINDS = ("pictures", "videos", "sounds", "texts")
AUTO = {"pictures": "AutoImageProcessor", "videos": "AutoVideoProcessor", "sounds": "AutoFeatureExtractor"}
"""The transformers class that reads the description of each kind."""
FILES = {
    "pictures": ("preprocessor_config.json", "processor_config.json"),
    "videos": ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json"),
    "sounds": ("preprocessor_config.json", "processor_config.json", "feature_extractor_config.json"),
}
"""The files that describe each kind."""
PART = {"pictures": "image_processor", "videos": "video_processor", "sounds": "feature_extractor"}
"""The key of each kind in a ``processor_config.json``."""
GREY = {"mean": [0.5], "std": [0.5]}


def stated_by(source: Source) -> dict[str, Any]:
    """Return the preprocessing of pictures: of ``torchvision/NAME@WEIGHTS``, a plugin's provider or timm's config.

    Returns:
        ``{"pictures": …}``, or ``{}`` if the source does not say.

    Raises:
        CheckpointError: The definition is not supported.
    """
    scheme, _, name = source.location.partition("/")
    builder, _, member = name.partition("@")
    if scheme == TORCHVISION and member and source.module is None:
        from torchvision import models

        transforms = models.get_model_weights(builder)[member].transforms()
        pictures = _of_torchvision(transforms)
        return {"pictures": pictures} if pictures is not None else {}
    if source.provider is not None and source.architecture is not None and source.module is None:
        stated = source.provider.pictures(source.architecture)
        if stated is not None:
            return {"pictures": stated}
    config = (source.checkpoint.config if source.checkpoint is not None else None) or {}
    if isinstance(config.get("pretrained_cfg"), Mapping):
        return {"pictures": _of_timm(config["pretrained_cfg"], source.location)}
    return {}


def preprocessing_of(model: nn.Module | Record, kinds: Collection[str] = KINDS) -> Preprocessing:
    """Return how samples become a network's input: as in training, else as its checkpoint says.

    Args:
        model: The network with its record, or the record alone.
        kinds: The kinds to look up: ``pictures``, ``videos``, ``sounds``, ``texts``.

    Returns:
        Plain values, sufficient to prepare samples without the network.

    Raises:
        CheckpointError: A companion file cannot be used; the error names it.
    """
    record = model if isinstance(model, Record) else record_of(model)
    module = None if isinstance(model, Record) else model
    stated: dict[str, Any] = dict(record.preprocessing) if record is not None else {}
    companions = {companion.name: companion for companion in (record.companions if record is not None else ())}
    settings = {kind: stated.get(kind) or _described(kind, record, companions) for kind in AUTO if kind in kinds}
    notes: tuple[str, ...] = ()
    if "pictures" in kinds and module is not None and is_torchvision_detector(module):
        settings["pictures"] = with_channels(UNCHANGED, picture_channels(module))
    elif "pictures" in kinds and settings["pictures"] is None:
        settings["pictures"] = _default_pictures(module, record)
        notes = (UNSAID,)
    tokenizer: dict[str, bytes] = {}
    if "texts" in kinds and any(companion.kind == "tokenizer" for companion in companions.values()):
        kinds_kept = ("tokenizer", "chat template")
        tokenizer = {name: companion.data for name, companion in companions.items() if companion.kind in kinds_kept}
        tokenizer |= {"config.json": json.dumps(config).encode()} if (config := _config(record)) else {}
    return Preprocessing(
        pictures=settings.get("pictures"),
        videos=settings.get("videos"),
        sounds=settings.get("sounds"),
        tokenizer=tokenizer,
        texts=stated.get("texts", {}),
        numbers=stated.get("numbers", {}),
        arguments=_arguments(module),
        notes=notes,
    )


UNSAID = (
    "pictures: normalised with ImageNet's mean and deviation, because nothing beside the weights says how "
    "(override with pixels: {mean: …, std: …})"
)
"""The note for a checkpoint that does not define the preprocessing of pictures."""


def describes(companions: Collection[Companion], kind: str) -> bool:
    """Return whether a file among ``companions`` defines the preprocessing of a kind of sample."""
    return any(_part(companion, kind) is not None for companion in companions)


def updated(companions: Collection[Companion], used: Mapping[str, Any]) -> list[Companion]:
    """Update processors among ``companions`` to the preprocessing of training.

    Args:
        companions: The companions of the weights.
        used: The preprocessing of training, by kind.
    """
    changed = []
    for companion in companions:
        for kind in AUTO:
            config = used.get(kind, {})
            part = _part(companion, kind) if config.get("library") == TRANSFORMERS else None
            if part is None:
                continue
            content = companion.json()
            new = {**part, **{key: value for key, value in config["config"].items() if part.get(key) != value}}
            if new != part:
                nested = PART[kind] in content
                companion = companion.with_json({**content, PART[kind]: new} if nested else new)
        changed.append(companion)
    return changed


def _described(kind: str, record: Record | None, companions: Mapping[str, Companion]) -> dict[str, Any] | None:
    """Return the preprocessing of a kind from the processor's files, normalised by transformers."""
    name = next((name for name in FILES[kind] if name in companions and _part(companions[name], kind)), None)
    if name is None:
        return None
    import transformers

    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        write_companions(Path(folder), [c for c in companions.values() if c.kind == "processor"])
        if config := _config(record):
            (Path(folder) / "config.json").write_text(json.dumps(config))
        try:
            processor = getattr(transformers, AUTO[kind]).from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            return {"library": TRANSFORMERS, "config": json.loads(processor.to_json_string())}
        except Exception as error:  # a processor may raise anything on its settings or a missing package
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].replace(folder, "its folder")
            raise CheckpointError(
                f"transformers cannot use it: {reason}", where=f"{record.source if record else ''}/{name}".lstrip("/")
            ) from error


def _part(companion: Companion, kind: str) -> dict[str, Any] | None:
    """Return what a file says of a kind; None if nothing."""
    if companion.name not in FILES[kind]:
        return None
    content = companion.json()
    if companion.name == "processor_config.json":
        part = content.get(PART[kind])
        return part if isinstance(part, dict) else None
    if companion.name == "video_preprocessor_config.json":
        return content
    if kind == "videos":
        return None
    sounds = "sampling_rate" in content or "feature_size" in content
    return content if sounds == (kind == "sounds") else None


def _config(record: Record | None) -> dict[str, Any]:
    """Return the config of a record's transformers network; empty for other networks."""
    options = record.architecture.options if record is not None and record.architecture is not None else {}
    config = options.get("config")
    return config if isinstance(config, dict) else {}


def _arguments(model: nn.Module | None) -> frozenset[str] | None:
    """Return the names of a forward's arguments; None if it accepts any."""
    if model is None:
        return None
    parameters = inspect.signature(model.forward).parameters.values()
    named = frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return named or None


def _of_torchvision(transforms: Any) -> dict[str, Any] | None:
    """Convert a torchvision preset to plain values; None if it does not normalise single pictures."""
    if not hasattr(transforms, "mean") or not hasattr(transforms, "resize_size"):
        return None
    resize, crop = list(transforms.resize_size), list(getattr(transforms, "crop_size", ())) or None
    return {
        "library": TORCHVISION,
        "resize": resize[0] if len(resize) == 1 else resize,
        "crop": crop[0] if crop is not None and len(crop) == 1 else crop,
        "mean": list(transforms.mean),
        "std": list(transforms.std),
        "interpolation": transforms.interpolation.value,
        "antialias": bool(getattr(transforms, "antialias", True)),
    }


def _of_timm(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Convert timm's data config to plain values: resize so that the crop is ``crop_pct`` of the shorter side; crop.

    Source: ``transforms_imagenet_eval`` of pytorch-image-models.
    """
    _, height, width = config.get("test_input_size") or config.get("input_size") or (3, 224, 224)
    share = config.get("test_crop_pct") or config.get("crop_pct") or 0.875
    mode = config.get("crop_mode") or "center"
    scaled = [int(height / share), int(width / share)]
    if mode not in ("center", "squash") or (mode == "center" and height != width):
        raise CheckpointError(f"its pretrained_cfg has crop_mode {mode!r} of {height} x {width} pixels", where=where)
    return {
        "library": TORCHVISION,
        "resize": scaled if mode == "squash" else scaled[0],
        "crop": [height, width],
        "mean": list(config.get("mean") or IMAGENET["mean"]),
        "std": list(config.get("std") or IMAGENET["std"]),
        "interpolation": config.get("interpolation") or "bilinear",
        "antialias": True,
    }


def _default_pictures(model: nn.Module | None, record: Record | None) -> dict[str, Any]:
    """Return ImageNet's values, with the network's image size and channels if known."""
    config = getattr(model, "config", None)
    stated = _config(record)
    size = getattr(config, "image_size", None) or getattr(model, "image_size", None) or stated.get("image_size")
    channels = getattr(config, "num_channels", None) or stated.get("num_channels") or 3
    pictures = dict(IMAGENET)
    if isinstance(size, (list, tuple)) and len(size) == 2:
        pictures["resize"] = list(size)
    elif isinstance(size, int):
        pictures["resize"] = [size, size]
    if channels == 1:
        return {**pictures, **GREY}
    return with_channels(pictures, channels) if isinstance(channels, int) else pictures
