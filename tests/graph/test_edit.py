"""Edits of a module tree keep what they do not touch: names, order, modes and the hooks of others."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from families import build, example
from torch import nn
from transformers import BartConfig, BartModel

from surgeon.errors import OperationError
from surgeon.graph import edit
from surgeon.nn.grafts import Tap, graft, hook


def three() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()]


def test_the_parent_of_a_site_holds_it_and_the_root_has_none():
    model = build("resnet")
    parent, name = edit.parent_of(model, "layer1.0.conv1")
    assert (parent, name) == (model.layer1[0], "conv1")
    with pytest.raises(OperationError, match="whole network"):
        edit.parent_of(model, "")


def test_what_replaces_a_module_takes_its_mode_and_what_others_read_of_it():
    model = three().eval()
    model.tap = outside = Tap()
    hook(model[0], outside.read)
    inside = nn.Sequential(nn.Linear(4, 4), Tap())
    edit.replace_module(model, "0", inside)
    assert not inside.training
    assert edit.taps_on(inside) == [outside]
    assert edit.site_of_tap(model, outside) == "0"
    edit.drop_tap(model, outside)
    assert edit.site_of_tap(model, outside) is None


def test_what_a_replaced_module_reads_of_itself_goes_with_it():
    model = three()
    old = nn.Sequential(nn.Linear(4, 4), Tap())
    hook(old, old[1].read)
    model[0] = old
    edit.replace_module(model, "0", new := nn.Linear(4, 4))
    assert edit.taps_on(new) == []


def test_the_exit_of_a_network_is_the_site_that_its_tap_reads():
    model = three()
    assert edit.exit_site(model) is None
    cut = graft(model)
    cut.exit = Tap(exits=True)
    hook(model[1], cut.exit.read)
    assert edit.exit_site(model) == "1"


@pytest.mark.parametrize(("site", "left"), [("1", ["0", "1", "2"]), ("2", ["0", "1"])])
def test_a_removed_layer_leaves_an_identity_in_the_middle_and_nothing_at_the_end(site, left):
    model = three()
    edit.remove_module(model, site)
    assert names(model) == left
    assert not any(isinstance(module, nn.ReLU) for module in model) or site == "2"
    assert model(torch.zeros(1, 4)).shape[0] == 1


def test_a_last_layer_before_grafts_counts_as_the_last():
    model = graft(three())
    edit.remove_module(model, "2")
    assert "2" not in model._modules


def test_an_optional_module_becomes_none():
    model = build("resnet")
    edit.remove_module(model, "layer2.0.downsample", optional=True)
    assert model.layer2[0].downsample is None


def test_pruning_removes_all_that_is_not_kept_and_names_the_topmost():
    model = build("resnet")
    keep = {"conv1", "bn1", "relu", "layer1", *(f"layer1.{name}" for name, _ in model.layer1.named_modules() if name)}
    assert edit.prune(model, keep) == ["maxpool", "layer2", "layer3", "layer4", "avgpool", "fc"]
    assert names(model) == ["conv1", "bn1", "relu", "layer1"]
    assert len(model.layer1) == 2


@pytest.mark.parametrize(("lengths", "left"), [(False, 1), (True, 3)])
def test_pruning_a_container_shortens_it_unless_its_length_counts(lengths, left):
    model = nn.Sequential(three())
    assert edit.prune(model, {"0", "0.0"}, lengths=lengths) == ["0.1", "0.2"]
    assert len(model[0]) == left


def test_kept_children_are_renumbered_and_stay_the_same_modules():
    model = build("bert")
    layers = list(model.bert.encoder.layer)
    edit.keep_children(model.bert.encoder.layer, [1])
    assert list(model.bert.encoder.layer) == layers[1:2]
    assert names(model.bert.encoder.layer) == ["0"]
    args, kwargs = example("bert")
    with torch.no_grad():
        model(*args, **kwargs)


def test_a_tied_parameter_has_all_of_its_names():
    model = build("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    tied = edit.names_of_parameters(model)[id(model.lm_head.weight)]
    assert tied == ["model.embed_tokens.weight", "lm_head.weight"]


def bart() -> BartModel:
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "vocab_size": 20,
        "max_position_embeddings": 16,
    }
    return BartModel(BartConfig(**sizes, **heads, encoder_layerdrop=0.5, decoder_layerdrop=0.25))


def test_layer_drop_is_off_within_and_back_afterwards():
    model = bart()
    rates = []
    with suppress(RuntimeError), edit.all_layers(model):
        rates += [model.encoder.layerdrop, model.decoder.layerdrop]
        raise RuntimeError
    assert rates == [0.0, 0.0]
    assert (model.encoder.layerdrop, model.decoder.layerdrop) == (0.5, 0.25)


def test_layer_drop_is_off_in_the_stack_that_contains_the_site():
    model = bart()
    assert {stack for stack, *_ in edit.never_skip(model, "encoder.layers.1.fc1")} == {"encoder"}
    assert (model.encoder.layerdrop, model.decoder.layerdrop) == (0.0, 0.25)
    assert edit.never_skip(model, "encoder.layernorm_embedding") == []
