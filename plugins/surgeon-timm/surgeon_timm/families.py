"""Declare where the heads and stems of timm's classes are, and which settings say how many classes and channels.

Heads and stems are what ``classifier`` and ``first_conv`` name in the ``pretrained_cfg`` of the builders of a class,
collected in ``table.json``. surgeon finds blocks by a trace, except where a class has them at a well-known place.
"""

from __future__ import annotations

from surgeon import ConfigFields, Family
from surgeon_timm.fingerprints import content

SETTINGS = ConfigFields(attribute="", class_count=("num_classes",), channels=("in_chans",))
"""timm's networks keep their settings as attributes."""

BLOCKS = {
    "timm.models.beit.Beit": ("blocks",),
    "timm.models.convnext.ConvNeXt": ("stages.*.blocks",),
    "timm.models.efficientnet.EfficientNet": ("blocks.*",),
    "timm.models.eva.Eva": ("blocks",),
    "timm.models.mlp_mixer.MlpMixer": ("blocks",),
    "timm.models.mobilenetv3.MobileNetV3": ("blocks.*",),
    "timm.models.resnet.ResNet": ("layer?",),
    "timm.models.swin_transformer.SwinTransformer": ("layers.*.blocks",),
    "timm.models.swin_transformer_v2.SwinTransformerV2": ("layers.*.blocks",),
    "timm.models.vision_transformer.VisionTransformer": ("blocks",),
}
"""The containers of blocks."""

SIZES = ("patch_embed.img_size", "_traits.img_size", "pretrained_cfg.input_size")
"""Where timm's networks keep the size of the images that they insist on."""


def _sized(name: str) -> bool:
    return name.rpartition(".")[0] in content().get("fixed", ())


FAMILIES = tuple(
    Family(
        f"timm {name.rpartition('.')[2]}",
        classes=(name,),
        head=tuple(heads),
        stem=tuple(stems),
        blocks=BLOCKS.get(name, ()),
        shapes=((3, 224, 224),) if _sized(name) else (),
        size=SIZES if _sized(name) else None,
        config=SETTINGS,
    )
    for name, (heads, stems) in content()["classes"].items()
)
