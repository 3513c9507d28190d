from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from surgeon.architectures import fingerprints, make_fingerprints
from surgeon.architectures.identify import build, identify, match
from surgeon.architectures.registry import parse, surgeon_architectures
from surgeon.checkpoint.formats import memory_checkpoint
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.match import Match

PROVIDERS = {provider.scheme: provider for provider in surgeon_architectures()}
TORCHVISION = PROVIDERS["torchvision"]

SAMPLE = [
    "alexnet", "convnext_tiny", "deeplabv3_mobilenet_v3_large", "densenet121", "efficientnet_b0",
    "fasterrcnn_mobilenet_v3_large_fpn", "fcos_resnet50_fpn", "googlenet", "inception_v3",
    "lraspp_mobilenet_v3_large", "maxvit_t", "mnasnet0_5", "mobilenet_v3_small", "mvit_v2_s", "raft_small",
    "regnet_x_400mf", "resnet18", "resnet50", "s3d", "shufflenet_v2_x0_5", "squeezenet1_1", "ssd300_vgg16",
    "swin_v2_t", "vgg11_bn", "vit_b_32",
]  # fmt: skip


@cache
def tensors(name: str, **options: object) -> dict[str, Tensor]:
    architecture = Architecture(scheme="torchvision", name=name, options=options)
    return dict(build(TORCHVISION, architecture).state_dict())


def find(state: dict[str, Tensor]) -> Match:
    return identify(memory_checkpoint(state), PROVIDERS)


def plain(name: str) -> str:
    return name.removeprefix("quantized_").replace("_320_", "_" if name.startswith("fasterrcnn") else "_320_")


def assert_identified(name: str, **options: object) -> None:
    candidate = find(tensors(name, **options))
    assert candidate.architecture.name == plain(name)
    assert candidate.architecture.options == options
    assert candidate.fit.cost == 0
    assert set(candidate.fit.mapping) == set(tensors(name, **options))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_builder_is_identified_by_its_tensors(name: str) -> None:
    assert_identified(name)


@pytest.mark.parametrize("name", [name for name in SAMPLE if not name.startswith("raft")])
def test_a_builder_with_five_classes_is_identified_with_them(name: str) -> None:
    assert_identified(name, num_classes=5)


@pytest.mark.slow
def test_all_builders_are_identified_whatever_their_classes() -> None:
    for name in TORCHVISION.names():
        assert_identified(name)
        if not name.startswith("raft"):
            assert_identified(name, num_classes=5)
        tensors.cache_clear()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("googlenet", {"aux_logits": False}),
        ("inception_v3", {"aux_logits": False, "num_classes": 7}),
        ("fcn_resnet50", {"aux_loss": True, "num_classes": 3}),
        ("deeplabv3_resnet50", {"aux_loss": True}),
        ("vit_b_16", {"image_size": 384, "num_classes": 9}),
        ("keypointrcnn_resnet50_fpn", {"num_keypoints": 3}),
    ],
)
def test_optional_parts_and_sizes_are_read_from_the_tensors(name: str, options: dict[str, object]) -> None:
    assert_identified(name, **options)


@pytest.mark.parametrize(
    ("name", "head", "missing"),
    [
        ("resnet18", "fc.", ["fc.weight", "fc.bias"]),
        ("vgg11", "classifier.6", ["classifier.6.weight", "classifier.6.bias"]),
        ("convnext_tiny", "classifier.2", ["classifier.2.weight", "classifier.2.bias"]),
        ("vit_b_32", "heads.", ["heads.head.weight", "heads.head.bias"]),
    ],
)
def test_a_missing_head_is_named_and_the_trunk_identified(name: str, head: str, missing: list[str]) -> None:
    candidate = find({key: value for key, value in tensors(name).items() if not key.startswith(head)})
    assert candidate.architecture == Architecture(scheme="torchvision", name=name)
    assert candidate.fit.missing == missing


def test_a_whole_missing_classifier_is_named_layer_by_layer() -> None:
    candidate = find({key: value for key, value in tensors("vgg16").items() if key.startswith("features")})
    assert candidate.architecture.name == "vgg16"
    assert [key for key in candidate.fit.missing if key.endswith("weight")] == [
        f"classifier.{index}.weight" for index in (0, 3, 6)
    ]


def test_a_twin_gives_way_to_the_plain_builder_and_a_note_says_so() -> None:
    candidate = find(tensors("quantized_resnet18"))
    assert str(candidate.architecture) == "torchvision/resnet18"
    assert any("quantized_resnet18 has the same tensors" in note for note in candidate.notes)


def test_half_of_a_resnet18_could_be_two_networks() -> None:
    state = dict(list(tensors("resnet18").items())[:60])
    with pytest.raises(ArchitectureError, match=r"resnet18 \(\d+ missing\), resnet34 \(\d+ missing\)"):
        find(state)


def test_half_of_a_network_unlike_all_others_is_identified() -> None:
    state = tensors("shufflenet_v2_x0_5")
    candidate = find(dict(list(state.items())[: len(state) // 2]))
    assert candidate.architecture.name == "shufflenet_v2_x0_5"
    assert len(candidate.fit.missing) + len(candidate.fit.filled) == len(state) - len(state) // 2


def test_a_backbone_that_two_networks_share_is_ambiguous() -> None:
    state = {key: value for key, value in tensors("fcn_resnet50").items() if key.startswith("backbone.")}
    with pytest.raises(ArchitectureError, match=r"fcn_resnet50 .*deeplabv3_resnet50"):
        find(state)


def test_a_changed_layer_is_distinguished_from_the_stock_network() -> None:
    state = {**tensors("resnet50"), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}
    with pytest.raises(ArchitectureError, match=r"closest: resnet50 \(1 of another shape\)"):
        find(state)


def test_what_resembles_no_builder_is_unknown_at_once() -> None:
    with pytest.raises(ArchitectureError, match="unknown") as caught:
        find({"encoder.w": torch.zeros(3, 3), "decoder.w": torch.zeros(3)})
    assert "--arch" in str(caught.value)


def test_absent_batch_counters_are_filled() -> None:
    state = {k: v for k, v in tensors("resnet18").items() if not k.endswith("num_batches_tracked")}
    candidate = find(state)
    assert len(candidate.fit.filled) == 20
    assert candidate.fit.cost == 0
    assert any("20 num_batches_tracked" in note for note in candidate.fit.notes())


def test_a_detector_that_counts_no_batches_has_frozen_norms() -> None:
    frozen = tensors("fasterrcnn_resnet50_fpn", frozen_norm_eps=1e-5)
    candidate = find(frozen)
    assert candidate.architecture.options == {"frozen_norm_eps": 1e-5}
    assert not candidate.fit.filled
    assert any("COCO_V1" in note for note in candidate.notes)


def test_a_prefix_of_a_wrapper_is_found_to_be_one() -> None:
    candidate = find({f"model.backbone.{key}": value for key, value in tensors("resnet18").items()})
    assert candidate.architecture.name == "resnet18"
    assert candidate.fit.mapping["fc.weight"] in candidate.checkpoint.entries


def replaced(*pairs: tuple[str, str]) -> object:
    def old(name: str) -> str:
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        return name

    return old


OLD_NAMES = {
    "densenet121": replaced((r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2")),
    "vit_b_32": replaced((r"\.mlp\.0", ".mlp.linear_1"), (r"\.mlp\.3", ".mlp.linear_2")),
    "maskrcnn_resnet50_fpn": replaced(
        (r"rpn\.head\.conv\.0\.0", "rpn.head.conv"),
        *[(rf"mask_head\.{i}\.0", f"mask_head.mask_fcn{i + 1}") for i in range(4)],
    ),
    "retinanet_resnet50_fpn": replaced(
        *[(rf"(head\.\w+_head\.conv)\.{i}\.0\.", rf"\1.{2 * i}.") for i in (3, 2, 1, 0)]
    ),
}


@pytest.mark.parametrize("name", OLD_NAMES)
def test_names_of_earlier_releases_are_read_as_todays(name: str) -> None:
    state = {OLD_NAMES[name](key): value for key, value in tensors(name).items()}  # type: ignore[operator]
    assert state.keys() != tensors(name).keys()
    candidate = find(state)
    assert candidate.architecture.name == name
    assert set(candidate.fit.mapping) == set(tensors(name))
    assert set(candidate.fit.mapping.values()) == set(state)
    assert any("renamed" in note for note in candidate.notes)


def test_a_named_architecture_takes_the_class_count_of_the_file() -> None:
    checkpoint = memory_checkpoint(tensors("resnet18", num_classes=5))
    candidate = match(TORCHVISION, parse("torchvision/resnet18"), checkpoint)
    assert candidate.architecture.options == {"num_classes": 5}
    assert candidate.skeleton.fc.out_features == 5


def test_a_named_twin_is_taken_at_its_word() -> None:
    candidate = match(TORCHVISION, parse("torchvision/quantized_resnet18"), memory_checkpoint(tensors("resnet18")))
    assert candidate.architecture.name == "quantized_resnet18"


def test_the_wrong_architecture_is_refused_with_counts_and_names() -> None:
    with pytest.raises(ArchitectureError) as caught:
        match(TORCHVISION, parse("torchvision/resnet18"), memory_checkpoint(tensors("resnet50")))
    text = str(caught.value)
    assert "does not fit torchvision/resnet18" in text
    assert "unexpected (" in text
    assert "of another shape (" in text
    assert len(caught.value.message.splitlines()) == 1


def test_a_tensor_of_another_shape_is_never_accepted() -> None:
    state = {**tensors("resnet18"), "bn1.weight": torch.zeros(65)}
    with pytest.raises(ArchitectureError, match=r"1 of another shape \(bn1.weight is \(65,\), not \(64,\)\)"):
        match(TORCHVISION, parse("torchvision/resnet18"), memory_checkpoint(state))


def test_the_packaged_fingerprints_cover_every_builder_and_are_small() -> None:
    assert {row.name for row in fingerprints.table()} == set(TORCHVISION.names())
    assert Path(fingerprints.__file__).parent.joinpath(fingerprints.FILE).stat().st_size < 64_000


def test_a_fingerprint_is_what_the_installed_torchvision_gives() -> None:
    architecture = Architecture(scheme="torchvision", name="resnet18")
    fresh = make_fingerprints._row(TORCHVISION, architecture)  # type: ignore[arg-type]
    packaged = next(row for row in fingerprints.table() if row.name == "resnet18")
    assert int(fresh["trunk"], 16) == packaged.trunk
    assert int(fresh["body"], 16) == packaged.body
    assert fresh["children"] == packaged.children
