"""A plugin says of its network, which carries a config, what the built-in table says of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import surgeon
from surgeon.errors import OperationError
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.interfaces.family import Argument, BlockFields, ConfigFields, Family
from surgeon.plugins import load

NETWORK = """
import torch
from dataclasses import dataclass, field
from torch import nn


@dataclass
class Cfg:
    depth: int = 4
    rates: tuple = (0.0, 0.1, 0.2, 0.3)
    global_layers: list = field(default_factory=lambda: [1, 3])
    plain_first: int = 2
    heads: int = 4  # as many as there are blocks, by chance
    channels: int = 3
    side: int = 16
    patch: int = 4
    classes: int = 5
    names: list = field(default_factory=lambda: ["a", "b", "c", "d", "e"])


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.mix(self.norm(x))


class LabViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.cfg = cfg = Cfg()
        self.embed = nn.Conv2d(cfg.channels, 8, cfg.patch, cfg.patch)
        self.positions = nn.Parameter(torch.randn(1, 1 + (cfg.side // cfg.patch) ** 2, 8))
        self.layers = nn.ModuleList(Layer(8) for _ in range(cfg.depth))
        self.head = nn.Linear(8, cfg.classes)

    def forward(self, images):
        assert images.shape[-1] == self.cfg.side and len(self.layers) == self.cfg.depth
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])
"""

PLUGIN = """
from surgeon import Argument, BlockFields, ConfigFields, Family, hookimpl


@hookimpl
def surgeon_families():
    return [
        Family(
            "lab ViT",
            classes=("lab_vit.LabViT",),
            head=("head",),
            stem=("embed",),
            blocks=("layers",),
            positions=("positions",),
            inputs=(Argument("images", "batch channels height width"),),
            config=ConfigFields(
                attribute="cfg",
                blocks=(
                    BlockFields(
                        counts=("depth",), entries=("rates",), positions=("global_layers",), first=("plain_first",)
                    ),
                ),
                class_count=("classes",),
                class_names=("names",),
                channels=("channels",),
                image_size=("side",),
                patch_size=("patch",),
            ),
        )
    ]
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lab_vit.py").write_text(NETWORK)
    (tmp_path / "lab_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))

    plugins = load([str(tmp_path / "lab_plugin.py")], installed=False)

    def run(*operations: surgeon.Operation) -> nn.Module:
        return surgeon.apply("python:lab_vit:LabViT", list(operations), plugins=plugins)

    yield run
    import sys

    sys.modules.pop("lab_vit", None)


def test_thinning_updates_counts_lists_positions_and_leading_blocks(lab):
    thinned = lab(surgeon.Truncate(keep_blocks=[0, 2, 3]))
    cfg = thinned.cfg
    assert (cfg.depth, cfg.rates, cfg.global_layers, cfg.plain_first) == (3, (0.0, 0.2, 0.3), [2], 1)
    assert cfg.heads == 4, "a number that only happens to equal the number of blocks"
    assert thinned(torch.randn(2, 3, 16, 16)).shape == (2, 5)


def test_a_new_head_updates_the_count_and_the_names_of_classes(lab):
    cut = lab(surgeon.ReplaceHead(classes=["cat", "dog"]))
    assert (cut.cfg.classes, cut.cfg.names) == (2, ["cat", "dog"])


def test_other_channels_update_the_config(lab):
    assert lab(surgeon.AdaptInput(channels=1)).cfg.channels == 1


def test_another_image_size_interpolates_the_declared_position_embeddings(lab):
    larger = lab(surgeon.AdaptInput(image_size=24))
    assert larger.cfg.side == 24
    assert larger.positions.shape == (1, 37, 8)
    assert larger(torch.randn(2, 3, 24, 24)).shape == (2, 5)


def test_an_image_size_that_patches_do_not_divide_is_refused(lab):
    with pytest.raises(OperationError, match="an image size of 18 is not a multiple of the patch size 4") as caught:
        lab(surgeon.AdaptInput(image_size=18))
    assert caught.value.hint == "take 16 or 20"


def test_keeping_blocks_in_another_order_than_the_config_can_say_is_refused(lab):
    with pytest.raises(OperationError, match="plain_first: 2 says that the first 2 blocks of layers") as caught:
        lab(surgeon.Truncate(keep_blocks=[2, 0]))
    assert caught.value.hint == "keep the blocks in their order: keep_blocks: [0, 2]"


class Settings:
    width = 6


class Carrier(nn.Linear):
    def __init__(self, config):
        super().__init__(6, 2)
        self.config = config


def family(**facts) -> Family:
    return Family("carrier", (f"{__name__}.Carrier",), config=ConfigFields(), **facts)


def test_declared_arguments_take_their_sizes_from_the_config():
    arguments = (Argument("input", "batch depth|tokens width"), Argument("input", "batch 2*width//4 width"))
    inputs = find_inputs(Carrier(Settings()), families=[family(inputs=arguments)])
    shapes = [way.kwargs["input"].shape for way in inputs.candidates()]
    assert shapes == [(2, 8, 6), (2, 3, 6)]
    assert inputs.origin == "declared for carrier"


def test_an_argument_whose_size_nothing_says_is_an_error_that_names_it():
    with pytest.raises(OperationError, match="declares input of shape 'batch unheard_of'"):
        find_inputs(Carrier(Settings()), families=[family(inputs=(Argument("input", "batch unheard_of"),))])


def test_fields_may_be_declared_for_one_stack_of_several():
    from surgeon.families.config import NetworkConfig
    from surgeon.families.stack import Stack

    fields = ConfigFields(blocks=(BlockFields("enc.*", counts=("a",)), BlockFields("dec.*", counts=("b",))))
    config = NetworkConfig({"a": 2, "b": 2}, fields)
    stacks = config.described([Stack("enc.layers", ["enc.layers.0", "enc.layers.1"]), Stack("dec.layers", ["x", "y"])])
    assert [stack.config_fields for stack in stacks] == [("a",), ("b",)]
    config.keep_blocks("dec.layers", 2, [1], fields=["b"], moved={1: 0})
    assert config.config == {"a": 2, "b": 1}
