"""Declare facts about torchvision's families; ``tests/graph/test_roles.py`` checks each against the real class."""

from __future__ import annotations

from surgeon.interfaces.family import ConfigFields, Family

IMAGE = ((3, 224, 224),)
SWIN_STAGES = tuple(f"features.{i}" for i in (1, 3, 5, 7))
"""The stages with blocks; the modules between them merge patches."""
SWIN3D_STAGES = tuple(f"features.{i}" for i in (0, 2, 4, 6))
SMALL_DETECTION: tuple[tuple[str, object], ...] = (
    ("transform.min_size", (128,)),
    ("transform.max_size", 160),
)
FEW_BOXES: tuple[tuple[str, object], ...] = (("topk_candidates", 8), ("detections_per_img", 8))
FEW_PROPOSALS: tuple[tuple[str, object], ...] = (
    ("rpn._pre_nms_top_n", {"training": 20, "testing": 20}),
    ("rpn._post_nms_top_n", {"training": 2, "testing": 2}),
    ("roi_heads.detections_per_img", 1),  # the keypoint head takes 2 GFLOP per detection
)


def _classifier(
    name: str,
    path: str,
    head: str,
    *,
    aux: tuple[str, ...] = (),
    blocks: tuple[str, ...] = (),
    pool: tuple[str, ...] = (),
    shapes: tuple[tuple[int, ...], ...] = IMAGE,
) -> Family:
    return Family(
        f"torchvision {name}",
        (f"torchvision.models.{path}.{name}",),
        head=(head,),
        aux=aux,
        blocks=blocks,
        pool=pool,
        shapes=shapes,
    )


CLASSIFIERS = (
    _classifier("AlexNet", "alexnet", "classifier.6", blocks=("features",), pool=("avgpool",)),
    _classifier("VGG", "vgg", "classifier.6", blocks=("features",), pool=("avgpool",)),
    _classifier("ResNet", "resnet", "fc", blocks=("layer?",), pool=("avgpool",)),
    _classifier("DenseNet", "densenet", "classifier", blocks=("features.denseblock?",)),
    _classifier("SqueezeNet", "squeezenet", "classifier.1", blocks=("features",), pool=("classifier.3",)),
    _classifier("MobileNetV2", "mobilenetv2", "classifier.1", blocks=("features",)),
    _classifier("MobileNetV3", "mobilenetv3", "classifier.3", blocks=("features",), pool=("avgpool",)),
    _classifier("EfficientNet", "efficientnet", "classifier.1", blocks=("features.?",), pool=("avgpool",)),
    _classifier("MNASNet", "mnasnet", "classifier.1", blocks=("layers.?", "layers.??")),
    _classifier("RegNet", "regnet", "fc", blocks=("trunk_output.*",), pool=("avgpool",)),
    _classifier("ShuffleNetV2", "shufflenetv2", "fc", blocks=("stage?",)),
    _classifier("ConvNeXt", "convnext", "classifier.2", blocks=("features.?",), pool=("avgpool",)),
    _classifier("SwinTransformer", "swin_transformer", "head", blocks=SWIN_STAGES, pool=("avgpool",)),
    Family(
        "torchvision VisionTransformer", ("torchvision.models.vision_transformer.VisionTransformer",),
        head=("heads.head",), blocks=("encoder.layers",), shapes=IMAGE, size="image_size",
        positions=("encoder.pos_embedding",),
        config=ConfigFields(
            attribute="", class_count=("num_classes",), image_size=("image_size",), patch_size=("patch_size",),
            token_count=("seq_length",),
        ),
    ),
    _classifier(
        "MaxVit", "maxvit", "classifier.5", blocks=("blocks.*.layers",), pool=("classifier.0",)
    ),
    _classifier(
        "GoogLeNet", "googlenet", "fc", aux=("aux1", "aux2"), blocks=("inception??",), pool=("avgpool",)
    ),
    _classifier(
        "Inception3", "inception", "fc", aux=("AuxLogits",), blocks=("Mixed_??",), pool=("avgpool",),
        shapes=((3, 299, 299),),
    ),
)  # fmt: skip

VIDEO = (
    _classifier(
        "VideoResNet", "video.resnet", "fc", blocks=("layer?",), pool=("avgpool",), shapes=((3, 16, 112, 112),)
    ),
    _classifier(
        "S3D", "video.s3d", "classifier.1", blocks=("features",), pool=("avgpool",), shapes=((3, 16, 224, 224),)
    ),
    _classifier("MViT", "video.mvit", "head.1", blocks=("blocks",), shapes=((3, 16, 224, 224),)),
    _classifier(
        "SwinTransformer3d", "video.swin_transformer", "head", blocks=SWIN3D_STAGES, pool=("avgpool",),
        shapes=((3, 8, 224, 224),),
    ),
)  # fmt: skip

BACKBONE_BLOCKS = (
    "backbone.layer?", "backbone.body.layer?", "backbone.body", "backbone.features", "backbone.features.?", "backbone",
)  # fmt: skip
"""Sites of the blocks in segmentation networks and detectors with a ResNet, MobileNet or SSD backbone."""

SEGMENTATION = (
    *(
        Family(
            f"torchvision {name}",
            (f"torchvision.models.segmentation.{path}.{name}",),
            head=("classifier.4",),
            aux=("aux_classifier",),
            blocks=BACKBONE_BLOCKS,
            shapes=IMAGE,
        )
        for name, path in (("FCN", "fcn"), ("DeepLabV3", "deeplabv3"))
    ),
    Family(
        "torchvision LRASPP",
        ("torchvision.models.segmentation.lraspp.LRASPP",),
        head=("classifier.low_classifier", "classifier.high_classifier"),
        blocks=BACKBONE_BLOCKS,
        shapes=IMAGE,
    ),
)


def _detector(name: str, path: str, *head: str, settings: tuple[tuple[str, object], ...] = ()) -> Family:
    return Family(
        f"torchvision {name}",
        (f"torchvision.models.detection.{path}.{name}",),
        head=head,
        blocks=BACKBONE_BLOCKS,
        shapes=((3, 128, 128),),
        listed=True,
        settings=settings,
    )


BOXES = ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred")
TWO_STAGES = SMALL_DETECTION + FEW_PROPOSALS
ONE_STAGE = SMALL_DETECTION + FEW_BOXES

DETECTION = (
    _detector("MaskRCNN", "mask_rcnn", *BOXES, "roi_heads.mask_predictor.mask_fcn_logits", settings=TWO_STAGES),
    _detector(
        "KeypointRCNN", "keypoint_rcnn", *BOXES, "roi_heads.keypoint_predictor.kps_score_lowres",
        settings=TWO_STAGES,
    ),
    _detector("FasterRCNN", "faster_rcnn", *BOXES, settings=TWO_STAGES),
    _detector("RetinaNet", "retinanet", "head.classification_head.cls_logits", settings=ONE_STAGE),
    _detector("FCOS", "fcos", "head.classification_head.cls_logits", settings=ONE_STAGE),
    _detector(
        "SSD", "ssd", "head.classification_head.module_list.*", "head.classification_head.module_list.*.1",
        settings=FEW_BOXES,
    ),
)  # fmt: skip

FLOW = (
    Family(
        "torchvision RAFT",
        ("torchvision.models.optical_flow.raft.RAFT",),
        head=("update_block.flow_head.conv2",),
        blocks=("feature_encoder.layer?", "context_encoder.layer?"),
        shapes=((3, 128, 128), (3, 128, 128)),
    ),
)

TORCHVISION: tuple[Family, ...] = (*CLASSIFIERS, *VIDEO, *SEGMENTATION, *DETECTION, *FLOW)
