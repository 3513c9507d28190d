"""Networks that read images among words are fed both, and lose no tower where they cannot be."""

from __future__ import annotations

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, Qwen2VLConfig, Qwen2VLForConditionalGeneration

import surgeon
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.trace import trace
from surgeon.nn.features import main_tensor

WORDS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 48, "vocab_size": 99}  # fmt: skip
CUT = "model.language_model.layers.1"


def llava() -> LlavaForConditionalGeneration:
    tower = {"model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 48, "image_size": 32, "patch_size": 16, "projection_dim": 16}  # fmt: skip
    config = LlavaConfig(
        text_config={"model_type": "llama", **WORDS}, vision_config=tower, image_token_index=90, vision_feature_layer=-1
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval()


def qwen() -> Qwen2VLForConditionalGeneration:
    words = {**WORDS, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
    tower = {"embed_dim": 32, "hidden_size": 32, "depth": 2, "num_heads": 4}
    numbers = {"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
    torch.manual_seed(0)
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=words, vision_config=tower, **numbers)).eval()


@pytest.mark.parametrize("build", [llava, qwen])
def test_a_real_forward_takes_the_words_and_images_that_are_found(build):
    model = build()
    args, kwargs = find_inputs(model).tensors()
    assert not args
    assert (kwargs["input_ids"] == 90).sum() == find_inputs(model).placeholders > 0
    with torch.no_grad():
        assert model(**kwargs).logits.shape[:2] == kwargs["input_ids"].shape


@pytest.mark.parametrize(("build", "evidence"), [(llava, "meta"), (qwen, "real")])
def test_the_image_tower_runs_in_a_trace(build, evidence):
    traced = trace(skeleton_of(build()))
    assert traced.evidence == evidence
    assert any("vis" in site for site in traced.order)


def test_a_network_cut_in_its_language_model_still_reads_images(tmp_path):
    model = llava()
    cut = surgeon.apply(model, [surgeon.Truncate(after=CUT)])
    names = [name for name, _ in cut.named_parameters()]
    assert any("vision_tower" in name for name in names)
    assert not any("layers.2" in name or "lm_head" in name for name in names)
    _, kwargs = find_inputs(model).tensors()
    seen = []
    handle = model.get_submodule(CUT).register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        model(**kwargs)
        handle.remove()
        assert torch.equal(main_tensor(cut(**kwargs)), main_tensor(seen[0]))


def test_a_tower_that_no_trace_ran_stays_and_the_plan_says_so():
    model = llava()
    words = {"input_ids": {"shape": [2, 8], "dtype": "int64", "high": 50}}
    plan = surgeon.plan(model, [surgeon.Truncate(after=CUT)], inputs=words)
    assert any("vision_tower" in note and "stayed" in note for step in plan.steps for note in step.notes)
    cut = surgeon.apply(model, [surgeon.Truncate(after=CUT)], inputs=words)
    assert any("vision_tower" in name for name, _ in cut.named_parameters())
