"""Roles are found by declared facts first and by evidence second; each fact is held against its class."""

from __future__ import annotations

from functools import cache

import pytest
import torchvision
import transformers
from families import FAMILIES, build
from torch import nn

from surgeon.errors import SiteError
from surgeon.families.torchvision import TORCHVISION
from surgeon.families.transformers.heads import TRANSFORMERS
from surgeon.graph.roles import find_roles
from surgeon.graph.skeleton import build_skeleton, skeleton_of
from surgeon.graph.trace import trace
from surgeon.interfaces.family import Family
from surgeon.nn.grafts import Tap, graft

HEADS = {
    "resnet": ["fc"],
    "vgg": ["classifier.6"],
    "densenet": ["classifier"],
    "vit": ["heads.head"],
    "swin": ["head"],
    "convnext": ["classifier.2"],
    "mobilenet": ["classifier.3"],
    "shufflenet": ["fc"],
    "googlenet": ["fc"],
    "fcn": ["classifier.4"],
    "lraspp": ["classifier.low_classifier", "classifier.high_classifier"],
    "fasterrcnn": ["roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"],
    "ssdlite": [f"head.classification_head.module_list.{i}.1" for i in range(6)],
    "video": ["fc"],
    "bert": ["classifier"],
    "bert_base": [],
    "distilbert": ["classifier"],
    "gpt2": ["lm_head"],
    "llama": ["lm_head"],
    "t5": ["lm_head"],
    "t5_classifier": ["classification_head.out_proj"],
    "hf_vit": ["classifier"],
    "hf_swin": ["classifier"],
    "hf_convnext": ["classifier"],
    "wav2vec2": ["classifier"],
    "whisper": ["proj_out"],
    "whisper_classifier": ["classifier"],
}
STEMS = {
    "resnet": "conv1",
    "vgg": "features.0",
    "densenet": "features.conv0",
    "vit": "conv_proj",
    "swin": "features.0.0",
    "convnext": "features.0.0",
    "mobilenet": "features.0.0",
    "shufflenet": "conv1.0",
    "googlenet": "conv1.conv",
    "fcn": "backbone.conv1",
    "lraspp": "backbone.0.0",
    "fasterrcnn": "backbone.body.0.0",
    "ssdlite": "backbone.features.0.0.0",
    "video": "stem.0",
    "bert": "bert.embeddings.word_embeddings",
    "bert_base": "embeddings.word_embeddings",
    "distilbert": "distilbert.embeddings.word_embeddings",
    "gpt2": "transformer.wte",
    "llama": "model.embed_tokens",
    "t5": "encoder.embed_tokens",
    "t5_classifier": "transformer.encoder.embed_tokens",
    "hf_vit": "vit.embeddings.patch_embeddings.projection",
    "hf_swin": "swin.embeddings.patch_embeddings.projection",
    "hf_convnext": "convnext.embeddings.patch_embeddings",
    "wav2vec2": "wav2vec2.feature_extractor.conv_layers.0.conv",
    "whisper": "model.encoder.conv1",
    "whisper_classifier": "encoder.conv1",
}
BLOCKS = {
    "resnet": {"layer1": 2, "layer2": 2, "layer3": 2, "layer4": 2},
    "vgg": {},
    "densenet": {f"features.denseblock{i}": 2 for i in (1, 2, 3, 4)},
    "vit": {"encoder.layers": 4},
    "swin": {"features.1": 2, "features.3": 2},
    "convnext": {"features.1": 2, "features.3": 2, "features.5": 2},
    "mobilenet": {"features": 11},
    "shufflenet": {"stage2": 4, "stage3": 8, "stage4": 4},
    "googlenet": {"": 9},
    "fcn": {f"backbone.layer{i}": 2 for i in (1, 2, 3, 4)},
    "lraspp": {"backbone": 15},
    "fasterrcnn": {"backbone.body": 9},
    "ssdlite": {"backbone.features.0": 12, "backbone.features.1": 2},
    "video": {"layer1": 1, "layer2": 1, "layer3": 1, "layer4": 1},
    "bert": {"bert.encoder.layer": 4},
    "bert_base": {"encoder.layer": 4},
    "distilbert": {"distilbert.transformer.layer": 4},
    "gpt2": {"transformer.h": 4},
    "llama": {"model.layers": 4},
    "t5": {"encoder.block": 3, "decoder.block": 2},
    "t5_classifier": {"transformer.encoder.block": 3, "transformer.decoder.block": 2},
    "hf_vit": {"vit.layers": 4},
    "hf_swin": {"swin.encoder.layers.0.blocks": 2, "swin.encoder.layers.1.blocks": 2},
    "hf_convnext": {f"convnext.encoder.stages.{i}.layers": 2 for i in range(3)},
    "wav2vec2": {"wav2vec2.encoder.layers": 4},
    "whisper": {"model.encoder.layers": 3, "model.decoder.layers": 2},
    "whisper_classifier": {"encoder.layers": 3},
}
FIELDS = {
    "bert": [("num_hidden_layers",)],
    "distilbert": [("n_layers",)],
    "gpt2": [("n_layer",)],
    "llama": [("num_hidden_layers",)],
    "t5": [("num_layers",), ("num_decoder_layers",)],
    "hf_vit": [("num_hidden_layers",)],
    "hf_swin": [("depths.0",), ("depths.1",)],
    "hf_convnext": [("depths.0",), ("depths.1",), ("depths.2",)],
    "wav2vec2": [("num_hidden_layers",)],
    "whisper": [("encoder_layers",), ("decoder_layers",)],
    "whisper_classifier": [("encoder_layers",)],
    "resnet": [(), (), (), ()],
}


@cache
def skeleton(name: str) -> nn.Module:
    return skeleton_of(build(name))


@cache
def traced(name: str):
    return trace(skeleton(name))


def roles_of(name: str, **overrides):
    return find_roles(skeleton(name), lambda: traced(name), overrides)


def no_trace():
    raise AssertionError("this role is declared: no trace is needed")


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_head_is_found(name):
    roles = roles_of(name)
    assert roles.sites("head") == HEADS[name]
    assert all(finding.evidence for finding in roles.head)
    assert all(traced(name).calls(site) for site in HEADS[name])


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_stem_is_the_first_layer_that_runs(name):
    assert roles_of(name).sites("stem") == [STEMS[name]]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_blocks_stand_in_executed_order(name):
    roles = roles_of(name)
    assert {stack.container: len(stack.sites) for stack in roles.blocks} == BLOCKS[name]
    started = [traced(name).visits[site].started for site in roles.block_sites]
    assert started == sorted(started)
    classes = {type(skeleton(name).get_submodule(site)) for site in roles.block_sites}
    assert len(classes) <= 1 or name in ("whisper",)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_the_config_fields_that_count_a_stack_are_found(name):
    assert [stack.config_fields for stack in roles_of(name).blocks] == FIELDS[name]


@pytest.mark.parametrize(
    ("name", "role", "sites"),
    [
        ("googlenet", "aux", ["aux1", "aux2"]),
        ("fcn", "aux", ["aux_classifier"]),
        ("resnet", "aux", []),
        ("resnet", "pool", ["avgpool"]),
        ("bert_base", "pool", ["pooler"]),
        ("hf_swin", "pool", ["swin.pooler"]),
        ("mobilenet", "pool", ["avgpool"]),
        ("gpt2", "embeddings", ["transformer.wte", "transformer.wpe"]),
        ("resnet", "embeddings", []),
        ("resnet", "nonsense", []),
    ],
)
def test_other_roles(name, role, sites):
    assert roles_of(name).sites(role) == sites


@pytest.mark.parametrize(
    ("name", "count"), [("resnet", 20), ("vit", 9), ("llama", 9), ("t5", 14), ("convnext", 10), ("vgg", 0)]
)
def test_norms_are_found_by_class(name, count):
    assert len(roles_of(name).norms) == count


def test_an_override_wins_and_says_so():
    roles = roles_of("resnet", head="layer4.1.conv2", blocks=["layer3"], neck="avgpool")
    assert [(f.site, f.evidence) for f in roles.head] == [("layer4.1.conv2", "override in the recipe")]
    assert roles.block_sites == ["layer3.0", "layer3.1"]
    assert roles.sites("neck") == ["avgpool"]
    with pytest.raises(SiteError, match="no module matches"):
        _ = roles_of("resnet", head="fcc").head


def test_a_plugin_overrules_a_built_in_family():
    family = Family("mine", ("torchvision.models.resnet.ResNet",), head=("layer4",))
    roles = find_roles(skeleton("resnet"), no_trace, families=[family])
    assert [(f.site, f.evidence) for f in roles.head] == [("layer4", "declared for mine")]


def test_the_head_of_an_unknown_network_is_the_last_layer_as_wide_as_its_output():
    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.last_in_tree_first_to_run = nn.Linear(7, 9)
            self.classify = nn.Linear(9, 7)
            self.never = nn.Linear(9, 7)

        def forward(self, x):
            return self.classify(self.last_in_tree_first_to_run(x)).softmax(-1)

    model = Unknown()
    assert find_roles(model, lambda: trace(model)).sites("head") == ["classify"]


def test_a_network_that_ends_early_has_no_head_until_it_gets_one():
    model = skeleton_of(build("resnet"))
    graft(model)
    model.exit = Tap(exits=True)
    model.layer2.register_forward_hook(model.exit.read)
    assert find_roles(model, lambda: trace(model)).sites("head") == []
    model.grafts["logits"] = nn.Linear(128, 3)
    assert find_roles(model, no_trace).sites("head") == ["grafts.logits.head"]


def test_a_head_of_several_layers_in_the_place_of_the_old_one_is_the_head():
    model = skeleton_of(build("resnet"))
    model.fc = nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 3))
    assert find_roles(model, no_trace).sites("head") == ["fc"]
    model.fc = nn.Identity()
    assert find_roles(model, no_trace).sites("head") == []


# ---- every declared fact against the real class

BUILDERS = {
    "AlexNet": "alexnet", "VGG": "vgg11_bn", "ResNet": "resnext50_32x4d", "DenseNet": "densenet121",
    "SqueezeNet": "squeezenet1_1", "MobileNetV2": "mobilenet_v2", "MobileNetV3": "mobilenet_v3_large",
    "EfficientNet": "efficientnet_b0", "MNASNet": "mnasnet0_5", "RegNet": "regnet_y_400mf",
    "ShuffleNetV2": "shufflenet_v2_x1_0", "ConvNeXt": "convnext_tiny", "SwinTransformer": "swin_v2_t",
    "VisionTransformer": "vit_b_32", "MaxVit": "maxvit_t", "GoogLeNet": "googlenet", "Inception3": "inception_v3",
    "VideoResNet": "r2plus1d_18", "S3D": "s3d", "MViT": "mvit_v2_s", "SwinTransformer3d": "swin3d_t",
    "FCN": "fcn_resnet50", "DeepLabV3": "deeplabv3_mobilenet_v3_large", "LRASPP": "lraspp_mobilenet_v3_large",
    "MaskRCNN": "maskrcnn_resnet50_fpn", "KeypointRCNN": "keypointrcnn_resnet50_fpn",
    "FasterRCNN": "fasterrcnn_mobilenet_v3_large_320_fpn", "RetinaNet": "retinanet_resnet50_fpn",
    "FCOS": "fcos_resnet50_fpn", "SSD": "ssd300_vgg16", "RAFT": "raft_small",
}  # fmt: skip
BACKBONED = {"FCN", "DeepLabV3", "LRASPP", "MaskRCNN", "KeypointRCNN", "FasterRCNN", "RetinaNet", "FCOS", "SSD"}


@pytest.mark.parametrize("family", TORCHVISION, ids=lambda family: family.name.split()[1])
def test_every_torchvision_fact_holds_for_its_builder(family):
    kind = family.name.split()[1]
    options = {"weights_backbone": None} if kind in BACKBONED else {}
    if kind in ("FCN", "DeepLabV3"):
        options["aux_loss"] = True
    model = build_skeleton(lambda: torchvision.models.get_model(BUILDERS[kind], weights=None, **options))
    assert family.holds(model)
    roles = find_roles(model, no_trace)
    modules = dict(model.named_modules())
    assert all(finding.evidence == f"declared for {family.name}" for finding in roles.head)
    classes = {91, 400, 1000, 21, 364, 17, 2}  # 364: four sides of 91 boxes; 17: keypoints; 2: flow
    for site in roles.sites("head"):
        width = getattr(modules[site], "out_features", None) or modules[site].out_channels
        anchors = (1, 4, 6, 8, 9) if kind in ("SSD", "RetinaNet", "KeypointRCNN") else (1,)
        assert any(width == count * n for count in classes for n in anchors), (site, width)
    assert roles.head
    assert bool(roles.aux) == bool(family.aux)
    assert len(roles.pool) == 1 or not family.pool
    assert roles.blocks or kind in ("AlexNet", "VGG", "SSD")


@pytest.mark.parametrize("family", [f for f in TRANSFORMERS if f.exact and f.head], ids=lambda family: family.name)
def test_every_fact_about_one_class_holds_without_a_trace(family):
    cls = getattr(transformers, family.name.split()[1])
    if cls.__name__.startswith("OmDetTurbo"):
        pytest.importorskip("timm", reason="its backbone is timm's")
    model = build_skeleton(lambda: cls(cls.config_class()))
    roles = find_roles(model, no_trace)
    assert roles.sites("head")
    assert {finding.evidence for finding in roles.head} == {f"declared for {family.name}"}


@pytest.mark.parametrize("family", [f for f in TRANSFORMERS if not f.exact], ids=lambda f: f.name.split("*")[1])
def test_every_transformers_fact_holds_for_some_class(family):
    classes = {
        "ForSequenceClassification": ["BertForSequenceClassification", "RobertaForSequenceClassification"],
        "ForTokenClassification": ["BertForTokenClassification", "LlamaForTokenClassification"],
        "ForImageClassification": ["ViTForImageClassification"],
        "ForVideoClassification": ["VideoMAEForVideoClassification"],
        "ForAudioClassification": ["ASTForAudioClassification"],
        "ForMultipleChoice": ["BertForMultipleChoice"],
        "ForQuestionAnswering": ["BertForQuestionAnswering"],
        "ForCausalLM": ["LlamaForCausalLM", "GPTNeoXForCausalLM", "RobertaForCausalLM", "RoFormerForCausalLM"],
        "ForCTC": ["Wav2Vec2ForCTC", "HubertForCTC"],
        "LMHeadModel": ["GPT2LMHeadModel"],
        "ForConditionalGeneration": ["T5ForConditionalGeneration", "WhisperForConditionalGeneration"],
        "ForSemanticSegmentation": ["SegformerForSemanticSegmentation", "UperNetForSemanticSegmentation"],
        "ForMaskedLM": ["BertForMaskedLM", "RobertaForMaskedLM", "AlbertForMaskedLM", "DistilBertForMaskedLM"],
    }
    for name in classes[family.name.split("*")[1]]:
        cls = getattr(transformers, name)
        model = build_skeleton(lambda cls=cls: cls(cls.config_class()))
        assert family.holds(model)
        assert find_roles(model, no_trace).sites("head"), name
