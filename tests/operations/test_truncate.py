"""Truncation: the same features as the whole network, and nothing left that does not run."""

from __future__ import annotations

import copy
from functools import lru_cache

import pytest
import torch
import transformers
from families import FAMILIES, build, detection_targets, example, t5_config
from torch import nn
from torch.utils._pytree import tree_leaves
from transformers import T5ForConditionalGeneration

import surgeon
from surgeon.errors import OperationError, SiteError
from surgeon.nn.features import main_tensor
from surgeon.operations import Multitask, ReplaceHead, Truncate

# a site in the middle, and the site after which the network ends
CUTS = {
    "resnet": "layer3",
    "vgg": "features.3",
    "densenet": "features.denseblock2",
    "vit": "encoder.layers.encoder_layer_0",
    "swin": "features.1",
    "convnext": "features.3",
    "mobilenet": "features.4",
    "shufflenet": "stage3",
    "googlenet": "inception4b",
    "fcn": "backbone",
    "lraspp": "backbone",
    "fasterrcnn": "backbone.body",
    "video": "layer2",
    "bert": "bert.encoder.layer.0",
    "bert_base": "encoder.layer.0",
    "distilbert": "distilbert.transformer.layer.0",
    "gpt2": "transformer.h.0",
    "llama": "model.layers.0",
    "t5": "encoder.block.0",
    "t5_classifier": "transformer.encoder.block.0",
    "hf_vit": "vit.layers.0",
    "hf_swin": "swin.encoder.layers.0",
    "hf_convnext": "convnext.encoder.stages.0",
    "wav2vec2": "wav2vec2.encoder.layers.0",
    "whisper": "model.encoder.layers.0",
}


def features_of(model, site, name):
    """What the whole network computes at ``site``, taken the moment it is produced."""
    seen = []
    handle = model.get_submodule(site).register_forward_hook(
        lambda module, args, output: seen.append(copy.deepcopy(output)) or None  # before a ReLU overwrites it
    )
    args, kwargs = example(name)
    with torch.no_grad():
        model(*args, **kwargs)
    handle.remove()
    tensor = main_tensor(seen[0])
    return seen[0] if tensor is None else tensor


@pytest.mark.parametrize("name", sorted(CUTS))
def test_the_features_are_those_of_the_whole_network_bit_for_bit(name, tmp_path):
    model = build(name)
    site = CUTS[name]
    expected = features_of(model, site, name)
    cut = surgeon.apply(model, [Truncate(after=site)])
    args, kwargs = example(name)
    with torch.no_grad():
        got = cut(*args, **kwargs)
        assert torch.equal(main_tensor(got), main_tensor(expected))
        assert torch.equal(main_tensor(copy.deepcopy(cut)(*args, **kwargs)), main_tensor(got))
    count = sum(p.numel() for p in cut.parameters())
    assert count < sum(p.numel() for p in model.parameters())
    surgeon.save(cut, tmp_path / "cut")
    again = surgeon.load(tmp_path / "cut", arch=FAMILIES[name])
    with torch.no_grad():
        assert torch.equal(main_tensor(again(*args, **kwargs)), main_tensor(got))


@pytest.mark.parametrize("name", sorted(CUTS))
def test_a_truncated_network_trains_all_that_it_has_left(name):
    cut = surgeon.apply(build(name), [Truncate(after=CUTS[name])]).train()
    args, kwargs = example(name)
    if name == "fasterrcnn":
        args = (*args, detection_targets())
    leaves = [leaf for leaf in tree_leaves(cut(*args, **kwargs)) if torch.is_tensor(leaf) and leaf.requires_grad]
    torch.stack([leaf.float().pow(2).mean() for leaf in leaves]).sum().backward()
    idle = [n for n, p in cut.named_parameters() if p.grad is None and p.requires_grad]
    # wav2vec2 reads the embedding of masked frames, but may mask none
    assert set(idle) <= ({"wav2vec2.masked_spec_embed"} if name == "wav2vec2" else set())


BLOCKS = {  # the container, and the field of the config that counts its blocks
    "bert": ("bert.encoder.layer", "num_hidden_layers"),
    "distilbert": ("distilbert.transformer.layer", "n_layers"),
    "gpt2": ("transformer.h", "n_layer"),
    "llama": ("model.layers", "num_hidden_layers"),
    "hf_vit": ("vit.layers", "num_hidden_layers"),
    "wav2vec2": ("wav2vec2.encoder.layers", "num_hidden_layers"),
    "t5": ("encoder.block", "num_layers"),
    "whisper": ("model.decoder.layers", "decoder_layers"),
}


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_fewer_blocks_leave_a_stock_class_that_from_pretrained_loads(name, tmp_path):
    container, field = BLOCKS[name]
    model = build(name)
    before = len(model.get_submodule(container))
    cut = surgeon.apply(model, [Truncate(keep_blocks=1, stack=container)])
    assert type(cut) is type(model)
    assert len(cut.get_submodule(container)) == 1
    assert getattr(cut.config, field) == 1
    assert getattr(model.config, field) == before, "the config of the model handed in was changed"
    surgeon.save(cut, tmp_path / "cut")
    args, kwargs = example(name)
    stock = type(model).from_pretrained(tmp_path / "cut")
    ours = surgeon.load(tmp_path / "cut")
    with torch.no_grad():
        expected = main_tensor(cut(*args, **kwargs))
        assert torch.equal(main_tensor(stock(*args, **kwargs)), expected)
        assert torch.equal(main_tensor(ours(*args, **kwargs)), expected)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generation_with_a_cache_gives_what_it_gives_without(name):
    cut = surgeon.apply(build(name), [Truncate(keep_blocks=[1])])
    _, kwargs = example(name)
    ids = kwargs["input_ids"][:1]
    with_cache = cut.generate(ids, max_new_tokens=6, do_sample=False, use_cache=True, pad_token_id=0)
    without = cut.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False, pad_token_id=0)
    assert torch.equal(with_cache, without)


def test_positions_choose_which_blocks_stay_and_they_are_renumbered():
    model = build("llama")
    cut = surgeon.apply(model, [Truncate(keep_blocks=[1])])
    old, new = model.model.layers[1], cut.model.layers[0]
    assert new.self_attn.layer_idx == 0
    for key, value in old.state_dict().items():
        assert torch.equal(value, new.state_dict()[key])


def test_a_network_that_mixes_attention_with_other_blocks_keeps_one_that_attends():
    kinds = ["conv", "conv", "full_attention", "conv"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = transformers.Lfm2Config(**sizes, vocab_size=64, num_key_value_heads=1, layer_types=kinds)
    model = transformers.Lfm2ForCausalLM(config).eval()
    with pytest.raises(OperationError, match="attention, without which") as caught:
        surgeon.plan(model, Truncate(keep_blocks=2))
    assert caught.value.hint == "keep one that has: keep_blocks: [0, 2]"
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    for keep in ([0, 2], 0.5):
        thinned = surgeon.apply(model, Truncate(keep_blocks=keep))
        assert thinned.config.layer_types == ["conv", "full_attention"]
        assert thinned.generate(tokens, max_new_tokens=3, do_sample=False, eos_token_id=None).shape == (1, 8)


def jamba() -> nn.Module:
    config = transformers.JambaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=64, attn_layer_period=3, attn_layer_offset=2, num_experts=2, mamba_d_state=4, mamba_dt_rank=4,
        use_mamba_kernels=False,
    )  # fmt: skip
    return transformers.JambaForCausalLM(config).eval()


def test_blocks_of_several_classes_that_the_config_counts_together_are_one_stack(tmp_path):
    model, tokens = jamba(), torch.tensor([[3, 1, 4, 1, 5]])
    assert len({type(layer) for layer in model.model.layers}) == 2
    thinned = surgeon.apply(model, Truncate(keep_blocks=0.5))
    assert [type(layer) for layer in thinned.model.layers] == [type(layer) for layer in model.model.layers[:3]]
    surgeon.save(thinned, tmp_path / "thinned")
    again = transformers.JambaForCausalLM.from_pretrained(tmp_path / "thinned").eval()
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    assert torch.equal(again.generate(tokens, **options), thinned.generate(tokens, **options))


def test_kinds_of_blocks_that_the_config_works_out_otherwise_are_refused():
    with pytest.raises(OperationError, match="works out of what kind each block is") as caught:
        surgeon.plan(jamba(), Truncate(keep_blocks=[0, 2]))
    assert caught.value.hint == "keep the first ones: keep_blocks: 3"
    assert len(surgeon.apply(jamba(), Truncate(keep_blocks=0.3)).model.layers) == 3


def test_settings_that_name_blocks_by_position_follow_them(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    experts = {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    }
    config = transformers.Qwen2MoeConfig(
        **sizes, **experts, vocab_size=64, num_key_value_heads=1, mlp_only_layers=[1, 3]
    )
    model = transformers.Qwen2MoeForCausalLM(config).eval()
    thinned = surgeon.apply(model, Truncate(keep_blocks=[2, 3]))
    assert thinned.config.mlp_only_layers == [1]
    assert config.mlp_only_layers == [1, 3]
    surgeon.save(thinned, tmp_path / "thinned")
    again = transformers.Qwen2MoeForCausalLM.from_pretrained(tmp_path / "thinned").eval()
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    assert torch.equal(again(tokens).logits, thinned(tokens).logits)


def test_what_a_forward_looks_up_by_position_follows_the_blocks():
    """Qwen2.5-VL's tower asks in its forward which of its blocks see the whole picture."""
    config = transformers.Qwen2_5_VLConfig().vision_config
    config.depth, config.hidden_size, config.intermediate_size, config.num_heads, config.out_hidden_size = (
        4,
        32,
        64,
        2,
        32,
    )
    config.fullatt_block_indexes, config.window_size = [1, 3], 28
    tower = transformers.models.qwen2_5_vl.modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel(config).eval()
    patches = torch.randn(64, 3 * 2 * 14 * 14)
    inputs = {"hidden_states": patches, "grid_thw": torch.tensor([[1, 8, 8]])}
    thinned = surgeon.apply(tower, Truncate(keep_blocks=[0, 3]), inputs=inputs)
    assert list(thinned.fullatt_block_indexes) == [1]
    by_hand = copy.deepcopy(tower)
    by_hand.blocks = nn.ModuleList([tower.blocks[0], tower.blocks[3]])
    by_hand.fullatt_block_indexes = [1]
    for ours, theirs in zip(thinned(**inputs).values(), by_hand(**inputs).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_lists_that_run_in_step_with_the_blocks_are_thinned_with_them(tmp_path):
    config = transformers.XLMConfig(
        vocab_size=64, emb_dim=32, n_layers=4, n_heads=2, dropout=0.0, attention_dropout=0.0
    )
    model, tokens = transformers.XLMModel(config).eval(), torch.tensor([[3, 1, 4, 1, 5]])
    thinned = surgeon.apply(model, Truncate(keep_blocks=[0, 2]))
    lists = (thinned.attentions, thinned.layer_norm1, thinned.ffns, thinned.layer_norm2)
    assert [len(each) for each in lists] == [2, 2, 2, 2]
    assert torch.equal(thinned.layer_norm2[1].weight, model.layer_norm2[2].weight)
    surgeon.save(thinned, tmp_path / "thinned")
    again = transformers.XLMModel.from_pretrained(tmp_path / "thinned").eval()
    assert torch.equal(again(tokens).last_hidden_state, thinned(tokens).last_hidden_state)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.inner(values)


class Expert(nn.Module):
    """Its layers take turns with another network's, as those of PI0's expert do with its language model's."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.expert = (nn.ModuleDict({"layers": nn.ModuleList(Layer() for _ in range(4))}) for _ in "ab")

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for own, other in zip(self.trunk["layers"], self.expert["layers"], strict=True):
            values = other(own(values))
        return values


def test_networks_whose_layers_take_turns_are_thinned_together():
    """Neither can be without the other's blocks, not even in passing."""
    model, values = Expert(), torch.randn(2, 4)
    thinned = surgeon.apply(model, Truncate(keep_blocks=0.25), inputs={"values": [2, 4]})
    assert (len(thinned.trunk["layers"]), len(thinned.expert["layers"])) == (1, 1)
    assert torch.equal(thinned(values), model.expert["layers"][0](model.trunk["layers"][0](values)))


def test_a_fraction_thins_every_stack():
    cut = surgeon.apply(build("whisper"), [Truncate(keep_blocks=0.5)])
    assert (len(cut.model.encoder.layers), len(cut.model.decoder.layers)) == (2, 1)  # of 3 and 2


@pytest.mark.parametrize(
    ("name", "operation", "says"),
    [
        ("resnet", Truncate(after="layer5"), "no module matches 'layer5'"),
        ("whisper", Truncate(keep_blocks=1), "has 2 stacks"),
        ("resnet", Truncate(keep_blocks=[1], stack="layer2"), "block 0 of layer2 cannot go"),
        ("bert", Truncate(keep_blocks=9), "has 4 blocks"),
        ("t5", Truncate(keep_blocks=[1], stack="encoder.block"), "alone holds"),
    ],
)
def test_a_cut_that_cannot_be_made_says_why(name, operation, says):
    with pytest.raises((OperationError, SiteError), match=says):
        surgeon.apply(build(name), [operation])


@pytest.mark.parametrize(
    "fields", [{}, {"after": "a", "keep_blocks": 2}, {"keep_blocks": 1.5}, {"keep_blocks": [1, 1]}, {"keep_blocks": 0}]
)
def test_senseless_fields_are_refused(fields):
    with pytest.raises(ValueError, match=r"says what to cut|fraction|distinct|at least one"):
        Truncate(**fields)


def test_a_truncated_network_compiles_in_one_graph():
    cut = surgeon.apply(build("resnet"), [Truncate(after="layer2")])
    compiled = torch.compile(cut, fullgraph=True, backend="aot_eager")
    args, _ = example("resnet")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*args), cut(*args))


def test_a_sequence_that_was_cut_keeps_its_last_layer_under_a_new_head():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3), torch.nn.ReLU())
    cut = surgeon.apply(model, [Truncate(after="2"), ReplaceHead(classes=5)])
    assert torch.equal(cut[2].weight, model[2].weight)
    assert len(cut) == 3
    assert cut(torch.randn(2, 3, 16, 16)).shape == (2, 5)


def test_a_cut_at_a_dictionary_of_maps_gives_all_of_them():
    cut = surgeon.apply(build("fasterrcnn"), [Truncate(after="backbone.fpn")])
    args, _ = example("fasterrcnn")
    with torch.no_grad():
        maps = cut(*args)
    assert list(maps) == ["0", "1", "pool"]


def test_what_is_fetched_but_never_run_leaves_the_file_and_comes_back_as_an_identity(tmp_path):
    cut = surgeon.apply(build("vit"), [Truncate(after="encoder.layers.encoder_layer_0")])
    assert not any(name.startswith("encoder.ln") for name in cut.state_dict())
    surgeon.save(cut, tmp_path / "cut")
    assert set(surgeon.load(tmp_path / "cut", arch=FAMILIES["vit"]).state_dict()) == set(cut.state_dict())


class Countdown(nn.Module):
    """Runs as many of the first layers as there are more of those than of the last, as BridgeTower does."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.late = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        alone = len(self.early) - len(self.late)
        for layer in self.early[:alone]:
            values = layer(values)
        for first, second in zip(self.late, self.early[alone:], strict=True):
            values = second(first(values))
        return values


def test_a_network_that_counts_its_layers_runs_as_many_after_the_cut(tmp_path):
    model, values = Countdown().eval(), torch.randn(2, 4)
    features = model.late[0](model.early[1](model.early[0](values)))
    cut = surgeon.apply(model, [Truncate(after="late.0")], inputs={"values": [2, 4]})
    assert torch.equal(cut(values), features)
    assert [name for name, _ in cut.named_parameters() if "weight" in name] == [
        "early.0.weight",
        "early.1.weight",
        "late.0.weight",
    ]
    surgeon.save(cut, tmp_path / "cut")
    assert torch.equal(surgeon.load(tmp_path / "cut", arch=Countdown)(values), features)


class Counting(nn.Module):
    """Remembers the layers of a part and goes by how many they are, as XCodec does."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))

    @lru_cache  # noqa: B019
    def layers(self, part: nn.Module) -> list[nn.Module]:
        return [module for module in part.modules() if isinstance(module, nn.Linear)]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.part(values if len(self.layers(self.part)) == 3 else torch.cat([values, values]))


def test_what_a_method_remembers_of_the_layers_before_the_cut_is_forgotten():
    with pytest.raises(OperationError, match="changed its shape"):
        surgeon.apply(Counting(), [Truncate(after="part.1")], inputs={"values": [2, 4]})


class Zipped(nn.Module):
    """Runs as many stages as the shortest of its lists is long, as GLPN does."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(3))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for block, norm in zip(self.blocks, self.norms, strict=False):
            values = norm(block(values))
        return values


@pytest.mark.parametrize("at", [0, 1])
def test_a_network_that_goes_through_two_lists_at_once_runs_up_to_the_cut(at, tmp_path):
    model, values = Zipped().eval(), torch.randn(2, 4)
    features = model.blocks[0](values)
    if at:
        features = model.blocks[1](model.norms[0](features))
    cut = surgeon.apply(model, [Truncate(after=f"blocks.{at}")], inputs={"values": [2, 4]})
    assert torch.equal(cut(values), features)
    assert not any(name.startswith(f"norms.{at}") for name in cut.state_dict())
    surgeon.save(cut, tmp_path / "cut")
    assert torch.equal(surgeon.load(tmp_path / "cut", arch=Zipped)(values), features)


@pytest.mark.parametrize("rate", ["of the module", "of the config"])
def test_a_layer_that_is_cut_after_or_read_is_never_dropped_in_training(rate):
    if rate == "of the module":
        model, site = build("whisper"), "model.encoder.layers.0"
        model.model.encoder.layerdrop = 0.99
    else:
        model, site = build("wav2vec2"), "wav2vec2.encoder.layers.0"
        model.config.layerdrop = 0.99
    operations = [Multitask(tasks={"parity": {"classes": 2, "at": site}}), Truncate(after=site)]
    edited = surgeon.apply(model, operations).train()
    args, kwargs = example("whisper" if rate == "of the module" else "wav2vec2")
    for _ in range(3):
        assert edited(*args, **kwargs)["parity"].shape == (2, 2)
    assert any("LayerDrop is off" in note for step in surgeon.plan(model, operations).steps for note in step.notes)
    assert (model.model.encoder if rate == "of the module" else model.config).layerdrop == 0.99


def test_what_only_training_reads_stays_in_a_stack_whose_layers_are_dropped():
    """Its attention reads its dropout's rate in training alone; a trace in training must not leave the layer out."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=10, layerdrop=0.999)
    encoder = transformers.Wav2Vec2BertModel(config).eval()
    model = nn.Sequential(encoder, Last(), nn.Linear(32, 4), nn.Linear(4, 2))
    cut = surgeon.apply(model, Truncate(after="2"), inputs=[[2, 12, 10]]).train()
    config.layerdrop = cut[0].config.layerdrop = 0.0
    assert cut(torch.rand(2, 12, 10)).shape == (2, 12, 4)


class Last(nn.Module):
    def forward(self, output):
        return output.last_hidden_state


def test_layer_drop_stays_on_where_nothing_hangs_on_a_layer_of_its_stack():
    model = build("wav2vec2")
    model.config.layerdrop = 0.5
    stem = "wav2vec2.feature_projection"
    edited = surgeon.apply(model, Multitask(tasks={"parity": {"classes": 2, "at": stem}}))
    assert edited.config.layerdrop == 0.5


def test_a_t5_with_as_many_encoder_as_decoder_blocks_is_thinned_on_both_sides():
    config = t5_config()
    config.num_layers = config.num_decoder_layers = 4
    model = T5ForConditionalGeneration(config).eval()
    thinned = surgeon.apply(model, [Truncate(keep_blocks=0.5)])
    assert (thinned.config.num_layers, thinned.config.num_decoder_layers) == (2, 2)
    assert len(thinned.encoder.block) == len(thinned.decoder.block) == 2
