"""Pictures of boxes and balls with a COCO file beside them, and small detectors of both libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.rpn import AnchorGenerator

SIDE = 64
NAMES = ["ball", "box"]
COLOURS = {"box": (220, 40, 30), "ball": (40, 210, 60)}


def draw(root: Path, count: int = 8, name: str = "boxes.json", seed: int = 0, **changes: Any) -> Path:
    """Draw pictures with a box and a ball each, and write the file; ``changes`` replace its lists.

    The categories have the ids 7 and 3, and one without annotations: ids are no class numbers.
    """
    random = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    rows, columns = np.mgrid[:SIDE, : SIDE + 16]
    for number in range(count):
        picture = np.full((SIDE, SIDE + 16, 3), 120.0)
        left, top = (int(v) for v in random.integers(2, 20, 2))
        picture[top : top + 20, left : left + 24] = COLOURS["box"]
        x, y = (int(v) for v in random.integers(48, 54, 2))
        picture[(columns - x) ** 2 + (rows - y) ** 2 < 81] = COLOURS["ball"]
        file = f"{Path(name).stem}{number}.png"
        Image.fromarray(np.clip(picture + random.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)).save(
            root / file
        )
        images.append({"id": 100 + number, "file_name": file, "width": SIDE + 16, "height": SIDE})
        corners = [left, top, left + 24, top, left + 24, top + 20, left, top + 20]
        for kind, box, polygon in ((7, [left, top, 24, 20], corners), (3, [x - 8, y - 8, 17, 17], None)):
            a, b, w, h = box
            polygon = polygon or [a, b, a + w, b, a + w, b + h, a, b + h]
            annotation = {"id": len(annotations), "image_id": 100 + number, "category_id": kind, "bbox": box}
            annotations.append({**annotation, "segmentation": [polygon], "area": w * h, "iscrowd": 0})
    categories = [{"id": 0, "name": "shape"}, {"id": 3, "name": "ball"}, {"id": 7, "name": "box"}]
    content = {"images": images, "annotations": annotations, "categories": categories, **changes}
    (root / name).write_text(json.dumps(content))
    return root / name


def content(file: Path) -> dict[str, Any]:
    """Read a COCO file."""
    return dict(json.loads(file.read_text()))


def faster_rcnn(classes: int = 91, kind: Any = detection.FasterRCNN, **options: Any) -> nn.Module:
    """A Faster or Mask R-CNN with a small backbone."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
    )
    backbone.out_channels = 32  # type: ignore[assignment]
    anchors = AnchorGenerator(((16, 24, 32),), ((0.7, 1.0, 1.4),))
    settings = {"min_size": SIDE, "max_size": 128, "rpn_anchor_generator": anchors, "box_detections_per_img": 20}
    settings |= {"box_batch_size_per_image": 32, "rpn_post_nms_top_n_train": 60, "rpn_post_nms_top_n_test": 30}
    return kind(backbone, num_classes=classes, **settings, **options).eval()


def ssdlite() -> nn.Module:
    """torchvision's SSDlite."""
    torch.manual_seed(0)
    return detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91).eval()


def retinanet() -> nn.Module:
    """torchvision's RetinaNet, at a small size."""
    torch.manual_seed(0)
    made = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, min_size=SIDE, max_size=128)
    return made.eval()


def detr(classes: int = 4) -> nn.Module:
    """A small DETR."""
    torch.manual_seed(0)
    backbone = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1] * 4, layer_type="basic")
    config = tf.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=8, use_timm_backbone=False, backbone_config=backbone,
        num_labels=classes, use_pretrained_backbone=False, backbone=None,
    )  # fmt: skip
    return tf.DetrForObjectDetection(config).eval()


def yolos(classes: int = 4) -> nn.Module:
    """A small YOLOS."""
    torch.manual_seed(0)
    config = tf.YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=[64, 80],
        patch_size=8, num_detection_tokens=8, num_labels=classes,
    )  # fmt: skip
    return tf.YolosForObjectDetection(config).eval()
