"""Truncation: the same features as the whole network, and nothing left that does not run."""

from __future__ import annotations

import copy
from functools import lru_cache

import pytest
import torch
import transformers
from families import FAMILIES, build, detection_targets, example
from torch import nn
from torch.utils._pytree import tree_leaves

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
        actual = cut(*args, **kwargs)
        assert torch.equal(main_tensor(actual), main_tensor(expected))
        assert torch.equal(main_tensor(copy.deepcopy(cut)(*args, **kwargs)), main_tensor(actual))
    count = sum(p.numel() for p in cut.parameters())
    assert count < sum(p.numel() for p in model.parameters())
    surgeon.save(cut, tmp_path / "cut")
    again = surgeon.load(tmp_path / "cut", arch=FAMILIES[name])
    with torch.no_grad():
        assert torch.equal(main_tensor(again(*args, **kwargs)), main_tensor(actual))


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


@pytest.mark.parametrize(
    ("name", "operation", "says"),
    [
        ("resnet", Truncate(after="layer5"), "no module matches 'layer5'"),
        ("whisper", Truncate(keep_blocks=1), "has 2 stacks"),
        ("resnet", Truncate(keep_blocks=[1], stack="layer2"), "block 0 of layer2 cannot be removed"),
        ("bert", Truncate(keep_blocks=9), "has 4 blocks"),
        ("t5", Truncate(keep_blocks=[1], stack="encoder.block"), "only it has"),
    ],
)
def test_a_cut_that_cannot_be_made_says_why(name, operation, says):
    with pytest.raises((OperationError, SiteError), match=says):
        surgeon.apply(build(name), [operation])


@pytest.mark.parametrize(
    "fields", [{}, {"after": "a", "keep_blocks": 2}, {"keep_blocks": 1.5}, {"keep_blocks": [1, 1]}, {"keep_blocks": 0}]
)
def test_senseless_fields_are_refused(fields):
    with pytest.raises(ValueError, match=r"exactly one of|fraction|distinct|at least 1"):
        Truncate(**fields)


@pytest.mark.parametrize(
    "before", [surgeon.Convert(dtype="float64"), surgeon.Reinit(sites=".")], ids=["convert", "reinit"]
)
def test_layers_that_an_operation_gave_other_values_may_be_cut_away(before):
    model = surgeon.apply(build("resnet"), [before, Truncate(after="layer3")])
    assert not hasattr(model, "layer4")


def test_a_layer_that_an_operation_added_is_not_cut_away():
    with pytest.raises(OperationError, match="would cut away fc, which replace_head has just added"):
        surgeon.apply(build("resnet"), [ReplaceHead(classes=3), Truncate(after="layer3")])


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
