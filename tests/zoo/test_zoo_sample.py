"""A few networks of the sweep, through every operation: one for each way that things are found or done.

The whole sweep is a command, ``PYTHONPATH=tests python -m zoo``; ``pytest -m slow`` runs a larger share of it.
"""

from __future__ import annotations

import pytest

from zoo import task_classes
from zoo.checks import examine
from zoo.results import OPERATIONS, Result
from zoo.table import render

SAMPLE = (
    "torchvision/squeezenet1_1",  # fire modules, a convolution for a head
    "torchvision/shufflenet_v2_x0_5",  # views of one tensor, written in place
    "torchvision/lraspp_mobilenet_v3_large",  # segmentation, from two depths of the trunk
    "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn",  # detection: lists of boxes, a real forward for a trace
    "transformers/bert/BertForSequenceClassification",
    "transformers/gpt2/GPT2ForSequenceClassification",  # one sample, since it knows no padding
    "transformers/t5/T5Model",  # encoder and decoder of the same depth
    "transformers/clip/CLIPModel",  # two towers
    "transformers/llava/LlavaForConditionalGeneration",  # images among the words
    "transformers/mamba/MambaModel",  # state space
    "transformers/wav2vec2/Wav2Vec2ForSequenceClassification",  # sound waves
    "transformers/patchtst/PatchTSTModel",  # time series
)
LARGER = (
    "torchvision/regnet_y_400mf",  # named blocks, and an attribute that surgery once had the name of
    "torchvision/quantized_mobilenet_v2",
    "torchvision/googlenet",  # auxiliary heads
    "transformers/swin/SwinForImageClassification",  # changes its own settings as it runs
    "transformers/whisper/WhisperForAudioClassification",  # mel features
    "torchvision/mc3_18",  # video
    "transformers/mixtral/MixtralForSequenceClassification",  # mixture of experts
    "torchvision/fcn_resnet50",
    "torchvision/keypointrcnn_resnet50_fpn",
    "torchvision/raft_small",
    "torchvision/ssdlite320_mobilenet_v3_large",
    "torchvision/swin3d_t",
    "torchvision/vit_b_32",
    "transformers/detr/DetrForObjectDetection",
    "transformers/dpt/DPTForSemanticSegmentation",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_every_operation_goes_all_the_way(name, tmp_path):
    assert _failures(name, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_every_operation_goes_all_the_way_on_larger_networks(name, tmp_path):
    assert _failures(name, tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        "become/bert/multiple_choice/BertForMultipleChoice",
        "become/vit/image_classification/ViTForImageClassification",
        "count/segformer/semantic_segmentation/SegformerForSemanticSegmentation",
        "become/musicgen/causal_lm/MusicgenForCausalLM",  # the decoder's own type is in no mapping
        "become/rf_detr/object_detection/RfDetrForObjectDetection",  # scores that count classes in the trunk
        "become/rf_detr/instance_segmentation/RfDetrForInstanceSegmentation",  # a trunk within a trunk of one name
        "become/rf_detr/base/RfDetrForInstanceSegmentation",
    ],
)
def test_a_task_class_is_what_from_pretrained_makes(name, tmp_path):
    results: list[Result] = []
    task_classes.examine(name, tmp_path, results.append)
    assert [(result.outcome, result.reason) for result in results] == [("ok", "")]


def test_the_section_on_task_classes_is_put_in_place_of_the_old_one():
    section = task_classes.render([Result("count/a/object_detection/A", "count", "ok", note="loss compared")], "v")
    page = task_classes.put_section("# Page\n", section)
    assert "| count | object_detection | 1 | 1 | 0 | 0 | 0 |" in page
    assert task_classes.put_section(page, section) == page
    assert task_classes.with_section_of("# New\n", page).count("## Task classes") == 1


def _failures(name, folder):
    results: list[Result] = []
    examine(name, folder, results.append)
    reported = {result.operation for result in results}
    assert set(OPERATIONS) - reported <= ({"identify"} if name.startswith("transformers") else set())
    return {(result.operation, result.stage): result.reason for result in results if result.outcome == "failed"}


def test_the_table_counts_a_network_that_ended_early_as_failed_everywhere():
    results = [
        Result("torchvision/a", "build", "ok"),
        Result("torchvision/a", "inspect", "ok"),
        Result("torchvision/a", "replace head", "failed", "load", "differs"),
        Result("torchvision/b", "build", "ok", code="abc1234"),
        Result("torchvision/b", "inspect", "failed", reason="does not run", code="abc1234"),
    ]
    page = render(results, "command", "versions")
    assert "- build, inspect: 1 at earlier ones, 1 at abc1234\n- replace head: 1 at earlier ones\n\n" in page
    assert "| replace head | 0 | 2 | 0 | 0 / 0 / 0 / 1 / 0 |" in page
    assert "| failed | differs | replace head (load): a |" in page
