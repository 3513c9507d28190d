"""Provide torchvision's builders: ``torchvision/resnet50``, ``torchvision/resnet50@IMAGENET1K_V2``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.architectures.torchvision_names import ALWAYS, EPS, FROZEN_NORM, REPLACED, readings
from surgeon.errors import ArchitectureError, CheckpointError, suggest
from surgeon.interfaces.architecture import ArchitectureProvider, Shapes
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from torch import nn

    from surgeon.checkpoint.formats import Checkpoint
    from surgeon.interfaces.match import Match

# Arguments that keep a builder from downloading and quantising, and Inception and GoogLeNet from warning that the
# default
# initialisation may change.
FIXED = {"weights": None, "weights_backbone": None, "quantize": False}

FROZEN_DETECTORS = frozenset(
    {
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_resnet50_fpn",
        "fcos_resnet50_fpn",
        "keypointrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn",
        "retinanet_resnet50_fpn",
    }
)

# Attributes that a forward sets: a detector's RoI pool stores the scales of its feature maps.
MUTABLE = frozenset({"scales"})

# Options that a builder sets for certain weights, and that keys and shapes do not show.
WEIGHTS_OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("googlenet", "IMAGENET1K_V1"): {"transform_input": True},
    ("inception_v3", "IMAGENET1K_V1"): {"transform_input": True},
    ("fasterrcnn_resnet50_fpn", "COCO_V1"): {FROZEN_NORM: 0.0},
    ("keypointrcnn_resnet50_fpn", "COCO_V1"): {FROZEN_NORM: 0.0},
    ("maskrcnn_resnet50_fpn", "COCO_V1"): {FROZEN_NORM: 0.0},
    ("retinanet_resnet50_fpn", "COCO_V1"): {FROZEN_NORM: 0.0},
}


class Torchvision(ArchitectureProvider):
    """Build any network of ``torchvision.models.list_models()``; only named weights are downloaded."""

    scheme = "torchvision"

    def names(self) -> list[str]:
        """Return the names of all registered builders."""
        from torchvision import models

        return models.list_models()  # type: ignore[no-any-return]

    def build(self, architecture: Architecture) -> nn.Module:
        """Call the builder without weights for the network or its backbone."""
        from torchvision import models

        name = architecture.name
        self.require(name)
        builder = models.get_model_builder(name)
        accepted = inspect.signature(inspect.unwrap(builder)).parameters
        options = dict(architecture.options)
        if fetching := sorted(key for key in options if key in FIXED or key.startswith(("weights", "pretrained"))):
            raise ArchitectureError(f"{', '.join(fetching)}: options cannot load weights", where=str(architecture))
        eps = options.pop(FROZEN_NORM, None)
        replaced = options.pop(REPLACED, None)
        arguments = {key: value for key, value in FIXED.items() if key in accepted}
        arguments |= ALWAYS.get(name.removeprefix("quantized_"), {})
        try:
            model: nn.Module = builder(**arguments, **options)
        except (TypeError, ValueError) as error:
            raise ArchitectureError(
                f"{type(error).__name__}: {error}".splitlines()[0], where=f"{architecture} {options}"
            ) from error
        if eps is not None:
            _freeze_norms(model.backbone, eps)  # type: ignore[arg-type]
        if replaced:
            _put_in(model, replaced, str(architecture))
        return model

    def locate(self, name: str, *, weights: bool = True) -> tuple[Architecture, Path | None]:
        """Return the architecture ``NAME`` and, for ``NAME@WEIGHTS``, the file in torch.hub's cache."""
        name, _, member = name.partition("@")
        self.require(name)
        options = {}
        path = None
        if member:
            chosen = _weights(name, member)
            options = WEIGHTS_OPTIONS.get((name, chosen.name), {})
            path = _cached(chosen) if weights else None
        return Architecture(scheme=self.scheme, name=name, options=options), path

    def of_module(self, module: nn.Module) -> Architecture | None:
        """Look up the class and shapes of a module, and confirm the builder setting by setting."""
        if not type(module).__module__.startswith("torchvision."):
            return None
        from surgeon.architectures import fingerprints
        from surgeon.architectures.identify import build
        from surgeon.architectures.same_structure import same_structure

        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        for row in fingerprints.table():
            if row.module != fingerprints.class_name(module) or not row.has_trunk_of(fingerprints.Keys(shapes)):
                continue
            options = {**row.options, **(row.read_options(shapes) or {}), **_settings(module)}
            architecture = Architecture(scheme=self.scheme, name=row.name, options=options)
            if same_structure(module, build(self, architecture), mutable=MUTABLE):
                return architecture
        return None

    def identify(self, checkpoint: Checkpoint) -> Match | None:
        """Identify keys and shapes; a file with a Hugging Face config is left to that provider."""
        if checkpoint.config is not None and "model_type" in checkpoint.config:
            return None
        from surgeon.architectures.torchvision_identify import identify

        return identify(self, checkpoint)

    def complete(self, architecture: Architecture, checkpoint: Checkpoint) -> list[Architecture]:
        """Return variants with the class count, image size and auxiliary heads of the tensors; given options stay."""
        from surgeon.architectures.fingerprints import table
        from surgeon.architectures.fit import shapes_of

        forms, shapes = [], shapes_of(checkpoint)
        for row in table():
            if row.name == architecture.name:
                options = {**row.options, **(row.read_options(shapes) or {})}
                if architecture.name in FROZEN_DETECTORS and not _counts_batches(shapes):
                    options[FROZEN_NORM] = EPS
                forms.append(architecture.model_copy(update={"options": {**options, **architecture.options}}))
        return forms or [architecture]

    def namings(self, skeleton: nn.Module, names: Iterable[str]) -> Iterator[dict[str, str]]:
        """Yield names unchanged, then with names of earlier releases updated."""
        yield from readings(names)


def _counts_batches(shapes: Shapes) -> bool:
    return any(name.startswith("backbone.") and name.endswith("num_batches_tracked") for name in shapes)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return options of a module that its tensors do not show."""
    from torchvision.ops import FrozenBatchNorm2d

    settings: dict[str, Any] = {}
    if getattr(module, "transform_input", False):
        settings["transform_input"] = True
    eps = {norm.eps for norm in module.modules() if isinstance(norm, FrozenBatchNorm2d)}
    if len(eps) == 1:
        settings[FROZEN_NORM] = eps.pop()
    return settings


def _put_in(model: nn.Module, replaced: Any, where: str) -> None:
    """Insert the layers of a changed network; a manifest may ask for impossible ones."""
    from surgeon.architectures.torchvision_variants import put_in

    try:
        put_in(model, replaced)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ArchitectureError(f"its option {REPLACED} is invalid: {error}", where=where) from error


def _freeze_norms(module: nn.Module, eps: float) -> None:
    from torch import nn
    from torchvision.ops import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps))
        else:
            _freeze_norms(child, eps)


def _weights(name: str, member: str) -> Any:
    from torchvision import models

    members = models.get_model_weights(name).__members__
    if member not in members:
        raise ArchitectureError(
            f"torchvision/{name} has no weights {member!r}",
            hint=suggest(member, members) or f"it has: {', '.join(members)}",
        )
    chosen = members[member]
    if "unquantized" in chosen.meta:
        plain = name.removeprefix("quantized_")
        raise ArchitectureError(
            f"the weights of torchvision/{name}@{member} are quantised, and cannot be edited",
            hint=f"use torchvision/{plain}@{chosen.meta['unquantized'].name}",
        )
    return chosen


def _cached(weights: Any) -> Path:
    """Return the file of ``weights``, downloaded as torch.hub does if it is not in its cache."""
    from torch import hub

    folder = Path(hub.get_dir()) / "checkpoints"
    path = folder / Path(weights.url).name
    if not path.exists():
        digest = hub.HASH_REGEX.search(path.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            hub.download_url_to_file(weights.url, str(path), digest.group(1) if digest else None, progress=True)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
            raise CheckpointError(f"cannot download {weights.url} ({error})", hint=f"put the file at {path}") from error
    return path
