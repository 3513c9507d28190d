"""Arguments that must fit one another are found from a config alone, for real classes at a small size."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import BarkConfig, BarkModel, Sam2VideoConfig, Sam2VideoModel, TvpConfig, TvpModel
from zoo.shrinking import transformers_module

from surgeon.errors import OperationError
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.graph.skeleton import build_skeleton, skeleton_of
from surgeon.graph.trace import trace


@pytest.mark.parametrize(
    ("model_type", "cls", "shapes"),
    [
        ("gemma4_vision", "Gemma4VisionModel", {"pixel_values": (2, 144, 768), "pixel_position_ids": (2, 144, 2)}),
        ("minicpmv4_7_vision", "MiniCPMV4_7VisionModel", {"pixel_values": (1, 3, 16, 512), "target_sizes": (2, 2)}),
        ("glm4v_vision", "Glm4vVisionModel", {"hidden_states": (32, 1176), "grid_thw": (2, 3)}),
        ("kimi_k25_vision", "Kimi_K25VisionModel", {"pixel_values": (32, 3, 14, 14), "grid_thw": (2, 3)}),
        ("inkling2_vision", "Inkling2VisionModel", {"pixel_values": (32, 40, 40, 3), "image_grid_thw": (2, 3)}),
        ("kosmos-2", "Kosmos2Model", {"input_ids": (2, 72), "image_embeds_position_mask": (2, 72)}),
        ("idefics", "IdeficsModel", {"pixel_values": (2, 1, 3, 224, 224), "image_attention_mask": (2, 8, 1)}),
        ("pi0", "PI0Model", {"pixel_values": (2, 1, 3, 224, 224), "pixel_attention_mask": (2, 1)}),
        ("fun_asr_nano_encoder", "FunAsrNanoEncoder", {"input_features": (2, 64, 560), "input_features_mask": (2, 64)}),
        ("blip_2_qformer", "Blip2QFormerModel", {"encoder_hidden_states": (2, 8, 352)}),
        ("musicgen", "MusicgenForCausalLM", {"input_ids": (8, 8)}),
        ("dia", "DiaModel", {"input_ids": (2, 8), "decoder_input_ids": (2, 8, 9)}),
        ("muse_glimmer_assistant", "MuseGlimmerAssistantModel", {"noise_embeds": (2, 16, 208)}),
    ],
)
def test_a_trace_finds_arguments_that_fit(model_type, cls, shapes):
    if not hasattr(transformers, cls):
        pytest.skip(f"this transformers has no {cls}")
    module, _ = transformers_module(model_type, cls)
    fed = trace(skeleton_of(module)).inputs
    assert {name: fed.kwargs[name].shape for name in shapes} == shapes
    with torch.no_grad():
        module(**fed.tensors()[1])


def test_an_image_has_one_step_in_time():
    module, _ = transformers_module("glm4v_vision", "Glm4vVisionModel")
    grid = find_inputs(module).tensors()[1]["grid_thw"]
    assert grid.tolist() == [[1, 4, 4]] * 2


def test_a_network_that_only_works_with_a_session_says_what_is_missing():
    module = build_skeleton(lambda: Sam2VideoModel(Sam2VideoConfig()))
    with pytest.raises(OperationError, match="'inference_session', an object that its processor makes"):
        find_inputs(module)


def test_one_sample_alone_is_tried_last():
    inputs = find_inputs(build_skeleton(lambda: TvpModel(TvpConfig())))
    batches = [candidate.kwargs["input_ids"].shape[0] for candidate in inputs.candidates()]
    assert set(batches) == {1, 2}
    assert batches == sorted(batches, reverse=True)


def test_a_set_of_networks_names_its_parts():
    module = build_skeleton(lambda: BarkModel(BarkConfig()))
    with pytest.raises(OperationError, match=r"no forward of its own[^§]*parts: semantic, coarse_acoustics"):
        find_inputs(module)
