"""The heads of torchvision's detectors.

All of them count the background as class 0, as torchvision does: N classes make N + 1 outputs, and the labels
of boxes go from 1 to N. RetinaNet and FCOS judge every class by itself (Lin et al. 2017; Tian et al. 2019) and
so would need no background, but torchvision's labels and weights start at 1 there too: output 0 stays unused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from surgeon.errors import OperationError
from surgeon.nn.heads import scored_conv
from surgeon.operations.replace_head.class_rows import initialise, shared_classes

if TYPE_CHECKING:
    from surgeon.operations.replace_head.fields import ReplaceHeadFields
    from surgeon.surgery.context import Surgery

BACKGROUND = "labels go from 1 to {n}; 0 is the background"
UNUSED = "labels go from 1 to {n}, as in torchvision; this family has no background, so its output 0 stays unused"
PRIOR = 0.01
"""The probability of an object that RetinaNet's and FCOS's biases start from."""


@dataclass(frozen=True)
class Scores:
    """One layer whose outputs are counted in classes.

    Attributes:
        site: Its address.
        groups: How often the classes repeat along its outputs: the anchors.
        block: How many outputs each class has: four for the sides of its box.
        prior: The probability that its bias starts from.
        std: The standard deviation that its weights start from; None leaves PyTorch's own.
    """

    site: str
    groups: int = 1
    block: int = 1
    prior: float | None = None
    std: float | None = None


def replace_detection_heads(operation: ReplaceHeadFields, surgery: Surgery) -> nn.Module:
    """Replace every layer of a detector that counts its classes; boxes of no class stay as they are.

    Raises:
        OperationError: The heads are not those of the family, or the operation asks for another kind.
    """
    model = surgery.model
    _refuse_other_kinds(operation, model)
    layers = list(_scores(model))
    first = layers[0]
    old_count = _rows(model.get_submodule(first.site)) // (first.groups * first.block)
    pairs = None
    if operation.init == "rows":
        shared = shared_classes(operation, surgery, old_count - 1)
        pairs = [(0, 0), *((new + 1, old + 1) for new, old in shared)]
        surgery.note(f"starts with the rows of the background and {len(shared)} of {old_count - 1} old classes")
    number = operation.count + 1
    for layer in layers:
        old = model.get_submodule(layer.site)
        new = _new_layer(surgery, layer, old, number)
        initialise(surgery, operation, new, old, pairs, groups=layer.groups, block=layer.block)
        surgery.replace(layer.site, new)
    _recount(model, number)
    note = UNUSED if first.prior is not None else BACKGROUND
    surgery.note(note.format(n=operation.count))
    if getattr(getattr(model, "roi_heads", None), "keypoint_predictor", None) is not None:
        surgery.note("the keypoints stay as they are: classes counts kinds of objects")
    return model


def _scores(model: nn.Module) -> Iterator[Scores]:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteClassificationHead

    layers: list[Scores] = []
    if isinstance(model, FasterRCNN):
        layers = [Scores("roi_heads.box_predictor.cls_score"), Scores("roi_heads.box_predictor.bbox_pred", block=4)]
        if getattr(model.roi_heads, "mask_predictor", None) is not None:
            layers.append(Scores("roi_heads.mask_predictor.mask_fcn_logits"))
    elif isinstance(model, SSD):
        anchors = model.anchor_generator.num_anchors_per_location()
        lite = isinstance(model.head.classification_head, SSDLiteClassificationHead)
        for index, count in enumerate(anchors):
            site = f"head.classification_head.module_list.{index}"
            layers.append(Scores(f"{site}.1" if lite else site, groups=count, std=0.03 if lite else None))
    else:
        anchors = cast("Any", model).anchor_generator.num_anchors_per_location()
        layers = [Scores("head.classification_head.cls_logits", groups=anchors[0], prior=PRIOR, std=0.01)]
    modules = dict(model.named_modules())
    for layer in layers:
        if not isinstance(modules.get(layer.site), (nn.Linear, nn.Conv2d)):
            raise OperationError(
                f"{type(model).__name__} has no layer {layer.site}: its head is not the one of its family",
                hint="name the layers to replace with at: SITE",
            )
    yield from layers


def _new_layer(surgery: Surgery, layer: Scores, old: nn.Module, classes: int) -> nn.Module:
    outputs = layer.groups * layer.block * classes
    if isinstance(old, nn.Linear):
        return surgery.new(nn.Linear, old.in_features, outputs, bias=old.bias is not None, like=cast("nn.Module", old))
    options = {name: getattr(old, name) for name in ("kernel_size", "stride", "padding")}
    return surgery.new(
        scored_conv,
        old.in_channels,
        outputs,
        prior=layer.prior,
        std=layer.std,
        bias=old.bias is not None,
        like=old,
        **options,
    )


def _rows(layer: nn.Module) -> int:
    return cast("nn.Linear", layer).weight.shape[0]


def _recount(model: nn.Module, number: int) -> None:
    """Set the class count of heads over anchors, which reshape their scores by it."""
    head = getattr(getattr(model, "head", None), "classification_head", None)
    for name in ("num_classes", "num_columns"):
        if hasattr(head, name):
            setattr(head, name, number)


def _refuse_other_kinds(operation: ReplaceHeadFields, model: nn.Module) -> None:
    changes = {
        "kind": operation.kind != "linear",
        "hidden": bool(operation.hidden),
        "dropout": bool(operation.dropout),
        "pool": operation.pool != "auto",
        "problem_type": operation.problem_type is not None,
    }
    wrong = [name for name, changed in changes.items() if changed]
    if wrong:
        raise OperationError(
            f"the head of {type(model).__name__} has the form of its family: {', '.join(wrong)} cannot change it",
            hint="leave that out, or truncate to the backbone to put another head on its features",
        )
