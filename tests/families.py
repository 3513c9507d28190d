"""Small real networks of every family, and an input for each: the zoo that the other tests share.

Every factory is a module-level function, so that ``python:families:vgg`` names it as an architecture.
``build(name)`` seeds and evaluates; ``example(name)`` gives ``(args, kwargs)`` for a forward.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision.models as tv
import transformers as tf
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.video.resnet import (
    BasicBlock,
    BasicStem,
    Conv3DNoTemporal,
    Conv3DSimple,
    VideoResNet,
)

CLASSES = 5
"""The class count of every classifier in the zoo."""
VOCABULARY = 97
"""The vocabulary of every text model in the zoo."""


# torchvision ------------------------------------------------------------------------------------------


def resnet() -> nn.Module:
    return tv.resnet18(num_classes=CLASSES)


def vgg() -> nn.Module:
    """VGG with its real forward and feature layers; the two 4096-wide layers are 32 wide here."""
    with torch.device("meta"):
        model = VGG(make_layers([8, "M", 16, "M", 16, "M"], batch_norm=False), num_classes=CLASSES)
    model.features = make_layers([8, "M", 16, "M", 16, "M"], batch_norm=False)
    model.classifier = nn.Sequential(
        nn.Linear(16 * 7 * 7, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Dropout(),
        nn.Linear(32, CLASSES),
    )  # fmt: skip
    return model


def densenet() -> nn.Module:
    return tv.DenseNet(growth_rate=8, block_config=(2, 2, 2, 2), num_init_features=16, num_classes=CLASSES)


def vit() -> nn.Module:
    return tv.VisionTransformer(32, 8, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=CLASSES)


def swin() -> nn.Module:
    return tv.SwinTransformer(
        [4, 4], 16, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], stochastic_depth_prob=0.0,
        num_classes=CLASSES,
    )  # fmt: skip


def convnext() -> nn.Module:
    stages = [CNBlockConfig(16, 32, 2), CNBlockConfig(32, 64, 2), CNBlockConfig(64, None, 2)]
    return tv.ConvNeXt(stages, num_classes=CLASSES)


def mobilenet() -> nn.Module:
    return tv.mobilenet_v3_small(num_classes=CLASSES, width_mult=0.5)


def shufflenet() -> nn.Module:
    return tv.shufflenet_v2_x0_5(num_classes=CLASSES)


def googlenet() -> nn.Module:
    return tv.googlenet(num_classes=CLASSES, init_weights=False, aux_logits=True)


def fcn() -> nn.Module:
    """Segmentation with an auxiliary head, on a small backbone."""
    backbone = IntermediateLayerGetter(tv.resnet18(), {"layer3": "aux", "layer4": "out"})
    return FCN(backbone, FCNHead(512, CLASSES), FCNHead(256, CLASSES))


def lraspp() -> nn.Module:
    return tv.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=CLASSES)


def fasterrcnn() -> nn.Module:
    """Detection with proposals: class 0 is the background."""
    trunk = tv.mobilenet_v3_small(width_mult=0.5).features
    backbone = BackboneWithFPN(trunk, {"4": "0", "9": "1"}, [24, 48], 32)
    return FasterRCNN(
        backbone, min_size=64, max_size=96, rpn_pre_nms_top_n_train=50, rpn_pre_nms_top_n_test=50,
        rpn_post_nms_top_n_train=20, rpn_post_nms_top_n_test=20,
        rpn_anchor_generator=AnchorGenerator(((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3),
        box_head=TwoMLPHead(32 * 7 * 7, 64), box_predictor=FastRCNNPredictor(64, CLASSES),
    )  # fmt: skip


def ssdlite() -> nn.Module:
    """Detection in one shot: class 0 is the background."""
    return tv.detection.ssdlite320_mobilenet_v3_large(weights_backbone=None, num_classes=CLASSES)


def video() -> nn.Module:
    """The mixed-convolution video network (mc3) with one block a stage."""
    convolutions = [Conv3DSimple, Conv3DNoTemporal, Conv3DNoTemporal, Conv3DNoTemporal]
    return VideoResNet(BasicBlock, convolutions, [1, 1, 1, 1], BasicStem, num_classes=CLASSES)


# transformers -----------------------------------------------------------------------------------------

TEXT: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64}
DEPTH: dict[str, Any] = {"num_hidden_layers": 4, "num_attention_heads": 2}


def bert() -> nn.Module:
    config = tf.BertConfig(**TEXT, **DEPTH, num_labels=CLASSES, max_position_embeddings=64)
    return tf.BertForSequenceClassification(config)


def bert_base() -> nn.Module:
    """BERT without a head."""
    return tf.BertModel(tf.BertConfig(**TEXT, **DEPTH, max_position_embeddings=64))


def distilbert() -> nn.Module:
    config = tf.DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, hidden_dim=64, n_layers=4, n_heads=2, num_labels=CLASSES,
        max_position_embeddings=64,
    )  # fmt: skip
    return tf.DistilBertForSequenceClassification(config)


def gpt2() -> nn.Module:
    """GPT-2, whose head is tied to its token embedding."""
    config = tf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=4, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    return tf.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    config = tf.LlamaConfig(**TEXT, **DEPTH, max_position_embeddings=64)
    return tf.LlamaForCausalLM(config)


def t5_config() -> tf.T5Config:
    return tf.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=3, num_decoder_layers=2, num_heads=2,
        num_labels=CLASSES, decoder_start_token_id=0,
    )  # fmt: skip


def t5() -> nn.Module:
    return tf.T5ForConditionalGeneration(t5_config())


def t5_classifier() -> nn.Module:
    return tf.T5ForSequenceClassification(t5_config())


def hf_vit() -> nn.Module:
    config = tf.ViTConfig(
        hidden_size=32, intermediate_size=64, **DEPTH, image_size=32, patch_size=8, num_labels=CLASSES
    )
    return tf.ViTForImageClassification(config)


def hf_swin() -> nn.Module:
    config = tf.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4,
        num_labels=CLASSES, drop_path_rate=0.0,
    )  # fmt: skip
    return tf.SwinForImageClassification(config)


def hf_convnext() -> nn.Module:
    config = tf.ConvNextConfig(hidden_sizes=[16, 32, 64], depths=[2, 2, 2], num_stages=3, num_labels=CLASSES)
    return tf.ConvNextForImageClassification(config)


def wav2vec2() -> nn.Module:
    config = tf.Wav2Vec2Config(
        **TEXT, **DEPTH, num_labels=CLASSES, conv_dim=(16, 16, 16), conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2),
        num_feat_extract_layers=3, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        classifier_proj_size=16, mask_time_prob=0.0, layerdrop=0.0,
    )  # fmt: skip
    return tf.Wav2Vec2ForSequenceClassification(config)


def whisper_config() -> tf.WhisperConfig:
    return tf.WhisperConfig(
        vocab_size=VOCABULARY, d_model=32, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=16,
        max_source_positions=30, max_target_positions=32, num_labels=CLASSES, classifier_proj_size=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip


def whisper() -> nn.Module:
    return tf.WhisperForConditionalGeneration(whisper_config())


def whisper_classifier() -> nn.Module:
    return tf.WhisperForAudioClassification(whisper_config())


# the zoo ----------------------------------------------------------------------------------------------

TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    f.__name__: f
    for f in (
        resnet, vgg, densenet, vit, swin, convnext, mobilenet, shufflenet, googlenet, fcn, lraspp, fasterrcnn,
        ssdlite, video,
    )
}  # fmt: skip
TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    f.__name__: f
    for f in (
        bert, bert_base, distilbert, gpt2, llama, t5, t5_classifier, hf_vit, hf_swin, hf_convnext, wav2vec2,
        whisper, whisper_classifier,
    )
}  # fmt: skip
FAMILIES: dict[str, Callable[[], nn.Module]] = TORCHVISION | TRANSFORMERS

TOKENS = {"bert", "bert_base", "distilbert", "gpt2", "llama", "t5", "t5_classifier"}
MEL = {"whisper", "whisper_classifier"}
DETECTION = {"fasterrcnn", "ssdlite"}
SMALL_IMAGES = {"vit", "hf_vit", "hf_swin"}


def build(name: str, *, seed: int = 0) -> nn.Module:
    """The network ``name`` with values that follow from ``seed``, in evaluation mode."""
    torch.manual_seed(seed)
    return FAMILIES[name]().eval()


def example(name: str, *, batch: int = 2, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a forward of ``FAMILIES[name]()``.

    Shapes: images ``(batch, 3, 64, 64)`` (32 for the transformers on patches), video
    ``(batch, 3, 4, 32, 32)``, tokens ``(batch, 8)``, waveforms ``(batch, 1000)``, mel ``(batch, 16, 60)``.
    A detector takes a list of images.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = partial(torch.rand, generator=generator)
    if name in TOKENS:
        kwargs: dict[str, Tensor] = {
            "input_ids": torch.randint(3, VOCABULARY, (batch, 8), generator=generator),
            "attention_mask": torch.ones(batch, 8, dtype=torch.long),
        }
        if name == "t5":
            kwargs["decoder_input_ids"] = torch.randint(3, VOCABULARY, (batch, 6), generator=generator)
        elif name == "t5_classifier":
            kwargs["input_ids"][:, -1] = 1  # the classifier pools at the end-of-sentence token
        return (), kwargs
    if name in MEL:
        mel = {"input_features": noise(batch, 16, 60)}
        if name == "whisper":
            mel["decoder_input_ids"] = torch.randint(3, VOCABULARY, (batch, 6), generator=generator)
        return (), mel
    if name == "wav2vec2":
        return (), {"input_values": noise(batch, 1000)}
    if name in DETECTION:
        return ([noise(3, 64, 64) for _ in range(batch)],), {}
    if name == "video":
        return (noise(batch, 3, 4, 32, 32),), {}
    side = 32 if name in SMALL_IMAGES else 64
    images = noise(batch, 3, side, side)
    return ((), {"pixel_values": images}) if name in TRANSFORMERS else ((images,), {})


def detection_targets(batch: int = 2) -> list[dict[str, Tensor]]:
    """Boxes and labels for one training step of a detector on ``example(name)``."""
    boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 10.0, 60.0, 50.0]])
    return [{"boxes": boxes.clone(), "labels": torch.tensor([1, 2])} for _ in range(batch)]
