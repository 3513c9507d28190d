"""Edits of a module tree: names stay, taps move along, and what is removed is reported at its topmost site."""

from __future__ import annotations

import pytest
from families import build
from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.edit import (
    all_layers,
    drop_tap,
    keep_children,
    names_of_parameters,
    never_skip,
    parent_of,
    prune,
    remove_module,
    replace_module,
    site_of_tap,
)
from surgeon.nn.grafts import Tap, hook


def test_the_parent_of_a_site_and_its_name_there():
    model = build("resnet")
    assert parent_of(model, "layer1.0.conv1") == (model.layer1[0], "conv1")
    assert parent_of(model, "fc") == (model, "fc")


def test_the_root_has_no_parent():
    with pytest.raises(OperationError, match="the whole network"):
        replace_module(build("resnet"), "", nn.Identity())


def test_a_replacement_takes_over_the_training_mode_and_the_taps_of_other_modules():
    model = build("resnet").eval()
    model.tap = Tap()
    hook(model.layer2, model.tap.read)
    replacement = nn.Identity().train()
    replace_module(model, "layer2", replacement)
    assert model.layer2 is replacement
    assert not replacement.training
    assert site_of_tap(model, model.tap) == "layer2"


def test_a_dropped_tap_reads_nothing():
    model = build("resnet")
    model.tap = Tap()
    hook(model.layer2, model.tap.read)
    drop_tap(model, model.tap)
    assert site_of_tap(model, model.tap) is None


def test_a_layer_removed_from_the_middle_leaves_an_identity_and_the_last_leaves_nothing():
    layers = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    remove_module(layers, "1")
    remove_module(layers, "2")
    assert [type(layer).__name__ for layer in layers] == ["Linear", "Identity"]


def test_an_optional_module_becomes_none():
    model = build("resnet")
    remove_module(model, "layer2.0.downsample", optional=True)
    assert model.layer2[0].downsample is None


def test_pruning_reports_the_topmost_sites_in_the_order_of_the_tree():
    model = build("resnet")
    keep = {name for name, _ in model.named_modules() if not name.startswith(("layer3", "layer4.1", "fc"))}
    assert prune(model, keep) == ["layer3", "layer4.1", "fc"]
    assert not hasattr(model, "layer3")
    assert len(model.layer4) == 1


def test_pruning_with_lengths_keeps_the_number_of_layers():
    model = build("resnet")
    keep = {name for name, _ in model.named_modules() if not name.startswith("layer4.1")}
    assert prune(model, keep, lengths=True) == ["layer4.1"]
    assert [type(block).__name__ for block in model.layer4] == ["BasicBlock", "Identity"]


def test_kept_children_are_in_the_given_order_and_numbered_from_0():
    layers = nn.ModuleList([nn.Linear(1, width) for width in (1, 2, 3)])
    keep_children(layers, [2, 0])
    assert list(layers._modules) == ["0", "1"]
    assert [layer.out_features for layer in layers] == [3, 1]


def test_a_tied_parameter_has_all_its_names():
    model = build("gpt2")
    assert names_of_parameters(model)[id(model.lm_head.weight)] == ["transformer.wte.weight", "lm_head.weight"]


def test_layerdrop_is_off_around_a_site_and_only_there():
    model = build("wav2vec2")
    model.config.layerdrop = 0.5
    encoder = next(name for name, module in model.named_modules() if name.endswith("encoder.layers"))
    assert never_skip(model, f"{encoder}.0")
    assert model.config.layerdrop == 0.0
    model.config.layerdrop = 0.5
    assert never_skip(model, encoder.rpartition(".")[0]) == []
    assert model.config.layerdrop == 0.5


def test_layerdrop_comes_back_after_all_layers_have_run():
    model = build("wav2vec2")
    model.config.layerdrop = 0.5
    with all_layers(model):
        assert model.config.layerdrop == 0.0
    assert model.config.layerdrop == 0.5
