from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torchvision
import transformers
from torch import nn

from surgeon.architectures.identify import build
from surgeon.architectures.registry import parse, surgeon_architectures
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture_name import Architecture

PROVIDERS = {provider.scheme: provider for provider in surgeon_architectures()}
TORCHVISION, HF = PROVIDERS["torchvision"], PROVIDERS["hf"]

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {key: SIZES[key] for key in list(SIZES)[:4]}
HF_MODELS = {
    "BertForSequenceClassification": {**SIZES, "model_type": "bert", "num_labels": 5},
    "BertForMaskedLM": {**SIZES, "model_type": "bert"},
    "DistilBertForSequenceClassification": {
        "model_type": "distilbert", "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 50,
    },
    "GPT2LMHeadModel": {
        "model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "LlamaForCausalLM": {**SIZES, "model_type": "llama", "num_key_value_heads": 1},
    "T5ForConditionalGeneration": {
        "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 50,
    },
    "ViTForImageClassification": {**VISION, "model_type": "vit", "image_size": 32, "patch_size": 8},
    "SwinForImageClassification": {
        "model_type": "swin", "image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1],
        "num_heads": [2, 2], "window_size": 4,
    },
    "ConvNextForImageClassification": {
        "model_type": "convnext", "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1],
    },
    "Wav2Vec2ForCTC": {
        **VISION, "model_type": "wav2vec2", "vocab_size": 20, "conv_dim": [8, 8], "conv_stride": [2, 2],
        "conv_kernel": [3, 3], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    },
    "WhisperForConditionalGeneration": {
        "model_type": "whisper", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        "num_mel_bins": 8,
    },
}  # fmt: skip


def hf_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return HF.build(Architecture(scheme="hf", name=name, options={"config": HF_MODELS[name]}))


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    ("text", "scheme", "name"),
    [
        ("torchvision/resnet50", "torchvision", "resnet50"),
        ("hf:google/vit-base", "hf", "google/vit-base"),
        ("hf/BertModel", "hf", "BertModel"),
        ("python:my.package:make", "python", "my.package:make"),
    ],
)
def test_references_are_read_by_scheme_and_name(text: str, scheme: str, name: str) -> None:
    architecture = parse(text)
    assert (architecture.scheme, architecture.name, architecture.options) == (scheme, name, {})


@pytest.mark.parametrize("architecture", ["torchvision/resnet50", "hf/BertModel", "python:a.b:c"])
def test_an_architecture_reads_as_it_is_written(architecture: str) -> None:
    assert str(parse(architecture)) == architecture


@pytest.mark.parametrize("text", ["resnet50", "torchvisoin/resnet50", "", "torchvision"])
def test_an_invalid_reference_is_refused_with_the_valid_forms(text: str) -> None:
    with pytest.raises(ArchitectureError, match="torchvision/NAME"):
        parse(text)


def test_torchvision_lists_all_its_builders() -> None:
    assert TORCHVISION.names() == torchvision.models.list_models()
    assert len(TORCHVISION.names()) >= 121


def test_an_unknown_builder_is_named_with_the_nearest() -> None:
    with pytest.raises(ArchitectureError, match=r"nearest: .*resnet50"):
        TORCHVISION.build(parse("torchvision/resnet5O"))


def test_an_unknown_option_is_an_error_of_one_line() -> None:
    with pytest.raises(ArchitectureError, match="colour"):
        TORCHVISION.build(Architecture(scheme="torchvision", name="resnet18", options={"colour": 1}))


def test_detectors_are_built_without_any_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = build(TORCHVISION, parse("torchvision/fasterrcnn_mobilenet_v3_large_fpn"))
    assert not list(tmp_path.iterdir())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.backbone.modules())


def test_quantizable_builders_give_float_networks() -> None:
    model = build(TORCHVISION, parse("torchvision/quantized_resnet18"))
    assert type(model).__name__ == "QuantizableResNet"
    assert all(parameter.is_floating_point() for parameter in model.parameters())


def test_a_network_that_runs_itself_while_it_is_built_has_a_skeleton_too() -> None:
    model = build(TORCHVISION, parse("torchvision/ssdlite320_mobilenet_v3_large"))
    assert all(parameter.is_meta for parameter in model.parameters())


BUILT = [
    ("resnet18", {"num_classes": 5}),
    ("quantized_resnet18", {}),
    ("googlenet", {"aux_logits": False, "num_classes": 3}),
    ("inception_v3", {"transform_input": True}),
    ("fcn_resnet50", {"aux_loss": True, "num_classes": 2}),
    ("vit_b_16", {"image_size": 384, "num_classes": 3}),
    ("fasterrcnn_resnet50_fpn", {"num_classes": 4, "frozen_norm_eps": 0.0}),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", {}),
    ("keypointrcnn_resnet50_fpn", {"num_keypoints": 5}),
    ("retinanet_resnet50_fpn", {"num_classes": 3}),
    ("swin3d_t", {"num_classes": 6}),
    ("raft_small", {}),
]


@pytest.mark.parametrize(("name", "options"), BUILT, ids=[name for name, _ in BUILT])
def test_a_torchvision_module_tells_how_it_was_built(name: str, options: dict[str, object]) -> None:
    architecture = Architecture(scheme="torchvision", name=name, options=options)
    assert TORCHVISION.of_module(build(TORCHVISION, architecture)) == architecture


@pytest.mark.slow
def test_every_torchvision_module_tells_its_builder() -> None:
    for name in TORCHVISION.names():
        architecture = Architecture(scheme="torchvision", name=name)
        assert TORCHVISION.of_module(build(TORCHVISION, architecture)) == architecture


EDITS = {
    "a layer gone": lambda model: model.layer4.pop(1),
    "a new head": lambda model: setattr(model, "fc", nn.Sequential(nn.Linear(512, 9), nn.ReLU())),
    "another activation": lambda model: setattr(model, "relu", nn.GELU()),
    "another stride": lambda model: setattr(model.conv1, "stride", (1, 1)),
    "another eps": lambda model: setattr(model.bn1, "eps", 0.1),
    "a tie": lambda model: setattr(model.layer1[1].conv1, "weight", model.layer1[0].conv1.weight),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_module_is_not_taken_for_the_stock_one(edit: str) -> None:
    model = torchvision.models.resnet18(num_classes=4)
    assert TORCHVISION.of_module(model) is not None
    EDITS[edit](model)
    assert TORCHVISION.of_module(model) is None


def test_training_mode_and_frozen_parameters_do_not_hide_the_builder() -> None:
    model = torchvision.models.resnet18(num_classes=4).eval().requires_grad_(False)
    assert TORCHVISION.of_module(model).options == {"num_classes": 4}


@pytest.mark.parametrize("name", HF_MODELS)
def test_a_transformers_module_tells_how_it_was_built(name: str) -> None:
    model = hf_model(name)
    architecture = HF.of_module(model)
    assert architecture is not None
    assert architecture.name == name
    again = build(HF, Architecture.model_validate_json(architecture.model_dump_json()))
    assert shapes(again) == shapes(model)
    assert not [key for key in architecture.options["config"] if key.startswith("_")]


def test_a_tied_embedding_stays_tied_when_it_is_rebuilt() -> None:
    model = build(HF, HF.of_module(hf_model("GPT2LMHeadModel")))
    assert model.lm_head.weight is model.transformer.wte.weight


def test_an_edited_transformers_module_is_not_taken_for_the_stock_one() -> None:
    model = hf_model("BertForSequenceClassification")
    del model.bert.encoder.layer[1]
    assert HF.of_module(model) is None


def test_a_shorter_stack_with_its_config_is_stock_again() -> None:
    model = hf_model("BertForSequenceClassification")
    del model.bert.encoder.layer[1]
    model.config.num_hidden_layers = 1
    assert HF.of_module(model).options["config"]["num_hidden_layers"] == 1


def test_a_base_models_names_are_placed_in_a_head_class_and_the_other_way_round() -> None:
    inside, outside = "bert.embeddings.LayerNorm.weight", "embeddings.LayerNorm.weight"
    base = HF.build(Architecture(scheme="hf", name="BertModel", options={"config": HF_MODELS["BertForMaskedLM"]}))
    assert next(HF.namings(hf_model("BertForMaskedLM"), [outside])) == {outside: inside}
    assert next(HF.namings(base, [inside])) == {inside: outside}


def test_another_attention_implementation_does_not_change_the_architecture() -> None:
    model = hf_model("LlamaForCausalLM")
    before = HF.of_module(model)
    model.set_attn_implementation("eager")
    assert HF.of_module(model) == before


def test_a_big_bird_that_has_read_a_short_text_is_still_itself():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = transformers.BigBirdModel(transformers.BigBirdConfig(vocab_size=64, **sizes)).eval()
    before = HF.of_module(model)
    model(torch.ones(1, 8, dtype=torch.long))
    assert (
        type(model.encoder.layer[0].attention.self).__name__ == "BigBirdSelfAttention"
    )  # no block-sparse one any more
    assert before is not None
    assert HF.of_module(model) == before


@pytest.mark.parametrize("which", ["funnel", "gemma4_audio"])
def test_what_a_network_works_out_as_it_runs_does_not_hide_its_class(which: str) -> None:
    if which == "funnel":
        sizes = {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32, "block_sizes": [1, 1], "num_decoder_layers": 1}
        model = transformers.FunnelModel(transformers.FunnelConfig(vocab_size=64, **sizes)).eval()
        inputs = {"input_ids": torch.ones(1, 8, dtype=torch.long)}
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = transformers.Gemma4AudioModel(transformers.Gemma4AudioConfig(**sizes)).eval()
        inputs = {"input_features": torch.rand(1, 32, 128), "attention_mask": torch.ones(1, 32, dtype=torch.bool)}
    before = HF.of_module(model)
    with torch.no_grad():
        model(**inputs)
    assert before is not None
    assert HF.of_module(model) == before


def test_a_class_that_the_auto_classes_build_for_another_type_is_known() -> None:
    if "internlm3" not in transformers.CONFIG_MAPPING:
        pytest.skip("this transformers has no internlm3")
    config = transformers.AutoConfig.for_model("internlm3", **SIZES)
    model = transformers.AutoModel.from_config(config)
    assert type(model).__name__ == "LlamaModel"
    architecture = HF.of_module(model)
    assert architecture is not None
    assert shapes(build(HF, architecture)) == shapes(model)


def test_a_subclass_of_a_users_own_is_nobodys_architecture() -> None:
    class Mine(transformers.BertModel):
        pass

    assert HF.of_module(Mine(transformers.BertConfig(**SIZES))) is None


def test_remote_code_is_never_run() -> None:
    config = {"model_type": "mystery", "auto_map": {"AutoModel": "modeling_mystery.Mystery"}}
    with pytest.raises(ArchitectureError, match="code from its own repository"):
        HF.of_config(config, "folder")  # type: ignore[attr-defined]


def test_an_unknown_model_type_names_the_nearest() -> None:
    with pytest.raises(ArchitectureError, match=r"nearest: .*bert"):
        HF.of_config({"model_type": "bertt"}, "folder")  # type: ignore[attr-defined]


def test_quantised_weights_are_refused() -> None:
    config = {**HF_MODELS["LlamaForCausalLM"], "quantization_config": {"quant_method": "gptq"}}
    with pytest.raises(ArchitectureError, match=r"quantised \(gptq\)"):
        HF.of_config(config, "folder")  # type: ignore[attr-defined]


def test_a_config_without_a_class_gives_the_base_model() -> None:
    architecture = HF.of_config(HF_MODELS["GPT2LMHeadModel"], "folder")  # type: ignore[attr-defined]
    assert architecture.name == "GPT2Model"


def test_a_class_of_another_model_type_is_refused_by_name() -> None:
    options = {"config": HF_MODELS["BertForMaskedLM"]}
    with pytest.raises(ArchitectureError, match="not a class for model type 'bert'"):
        build(HF, Architecture(scheme="hf", name="GPT2LMHeadModel", options=options))


def imported(code: str) -> set[str]:
    script = textwrap.dedent(code) + "\nimport sys; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(process.stdout.split())


def test_naming_architectures_imports_no_library() -> None:
    modules = imported(
        """
        from surgeon.architectures.registry import parse, surgeon_architectures
        surgeon_architectures(), parse("torchvision/resnet18")
        """
    )
    assert not {"torch", "torchvision", "transformers"} & modules


def test_torchvision_does_not_need_transformers() -> None:
    modules = imported(
        """
        from surgeon.checkpoint.formats import memory_checkpoint
        from surgeon.architectures.registry import surgeon_architectures
        from surgeon.architectures.identify import build, identify
        from surgeon.interfaces.architecture_name import Architecture
        providers = {p.scheme: p for p in surgeon_architectures()}
        model = build(providers["torchvision"], Architecture(scheme="torchvision", name="resnet18"))
        assert [p.of_module(model) for p in providers.values()].count(None) == 2
        identify(memory_checkpoint(model.state_dict()), providers)
        """
    )
    assert "torchvision" in modules
    assert "transformers" not in modules


def test_transformers_does_not_reach_for_torchvisions_networks(tmp_path: Path) -> None:
    hf_model("BertForMaskedLM").save_pretrained(tmp_path)
    modules = imported(
        f"""
        from surgeon.checkpoint.formats import open_checkpoint
        from surgeon.architectures.registry import surgeon_architectures
        from surgeon.architectures.identify import identify
        providers = {{p.scheme: p for p in surgeon_architectures()}}
        found = identify(open_checkpoint({str(tmp_path)!r}), providers)
        assert [p.of_module(found.skeleton) for p in providers.values()].count(None) == 2
        """
    )
    assert "transformers" in modules
    # transformers itself imports torchvision where it is installed (loss_for_object_detection): ours stays out.
    assert "surgeon.architectures.fingerprints" not in modules
