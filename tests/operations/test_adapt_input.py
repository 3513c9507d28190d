"""Other channels and another resolution for trained networks."""

from __future__ import annotations

import families
import pytest
import torch
import transformers as tf
from families import FAMILIES, build, example
from pydantic import ValidationError
from torchvision.models import googlenet

import surgeon
from surgeon.errors import OperationError
from surgeon.nn.features import main_tensor
from surgeon.operations import AdaptInput, Multitask, Progressive, Truncate
from surgeon.testing import check_operations

STEMS = {
    "resnet": "conv1",
    "densenet": "features.conv0",
    "vit": "conv_proj",
    "fcn": "backbone.conv1",
    "hf_vit": "vit.embeddings.patch_embeddings.projection",
    "hf_convnext": "convnext.embeddings.patch_embeddings",
    "video": "stem.0",
}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def with_channels(name, channels, side=None):
    """The family's example with so many channels, each with values of its own."""
    args, kwargs = example(name)
    images = args[0] if args else kwargs["pixel_values"]
    size = images.shape[2:] if side is None else (side, side)
    images = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(1))
    return ((images,), {}) if args else ((), {"pixel_values": images})


@torch.no_grad()
def run(model, args, kwargs):
    return main_tensor(model(*args, **kwargs))


def with_a_head(name):
    """The family with a head that is not zero, so that outputs tell something."""
    model = build(name)
    if name == "vit":
        torch.nn.init.normal_(model.heads.head.weight)
    return model


@pytest.mark.parametrize("name", list(STEMS))
def test_a_network_takes_other_channels_and_keeps_all_else(name):
    args, kwargs = with_channels(name, 4)

    def loss(model):
        return (main_tensor(model(*args, **kwargs)).float() - 1).square().mean()

    operation = AdaptInput(channels=4, init="repeat")
    check_operations(FAMILIES[name], [operation], args, kwargs, loss=loss)
    model = build(name)
    edited = surgeon.apply(model, [operation])
    changed = {key for key, value in model.state_dict().items() if value.shape != edited.state_dict()[key].shape}
    assert changed == {f"{STEMS[name]}.weight"}
    layer = edited.get_submodule(STEMS[name])
    assert type(layer) is type(model.get_submodule(STEMS[name]))
    assert layer.in_channels == 4


@pytest.mark.parametrize("name", ["resnet", "vit", "hf_vit"])
def test_the_sum_of_filters_sees_grey_as_the_whole_network_did(name):
    model = with_a_head(name)
    grey, kwargs = with_channels(name, 1)
    images = grey[0] if grey else kwargs["pixel_values"]
    expected = run(model, *as_inputs(name, images.expand(-1, 3, -1, -1)))
    for channels in (1, 5):
        edited = surgeon.apply(model, [AdaptInput(channels=channels)])
        outputs = run(edited, *as_inputs(name, images.expand(-1, channels, -1, -1)))
        torch.testing.assert_close(outputs, expected, atol=1e-4, rtol=1e-4)


def as_inputs(name, images):
    return ((), {"pixel_values": images}) if name.startswith("hf") else ((images,), {})


def test_the_three_ways_give_the_filters_that_their_formulas_say():
    model = build("resnet")
    old = model.conv1.weight
    made = {
        (init, n): surgeon.apply(model, [AdaptInput(channels=n, init=init)]).conv1.weight
        for init in ("sum", "mean", "repeat")
        for n in (1, 4)
    }
    torch.testing.assert_close(made["sum", 1], old.sum(1, keepdim=True))
    torch.testing.assert_close(made["sum", 4][:, 3], old.sum(1) / 4)
    torch.testing.assert_close(made["mean", 1], old.mean(1, keepdim=True))
    torch.testing.assert_close(made["mean", 4][:, 2], old.mean(1))
    torch.testing.assert_close(made["repeat", 4], old[:, [0, 1, 2, 0]] * 3 / 4)
    torch.testing.assert_close(made["repeat", 1], old[:, :1] * 3)


@pytest.mark.parametrize("name", ["vit", "hf_vit"])
def test_position_embeddings_follow_the_resolution(name, tmp_path):
    args, kwargs = with_channels(name, 3, side=48)

    def loss(model):
        return (main_tensor(model(*args, **kwargs)).float() - 1).square().mean()

    check_operations(FAMILIES[name], [AdaptInput(image_size=48)], args, kwargs, loss=loss)
    edited = surgeon.apply(build(name), [AdaptInput(image_size=48)])
    positions = {"vit": "encoder.pos_embedding", "hf_vit": "vit.embeddings.position_embeddings"}[name]
    assert edited.get_parameter(positions).shape == (1, 37, 32)
    assert torch.equal(edited.get_parameter(positions)[:, 0], build(name).get_parameter(positions)[:, 0])
    assert run(edited, args, kwargs).shape == (2, families.CLASSES)


def test_interpolation_is_the_one_that_transformers_makes():
    model = build("hf_vit")
    torch.nn.init.normal_(model.vit.embeddings.position_embeddings)
    images = with_channels("hf_vit", 3, side=48)[1]["pixel_values"]
    with torch.no_grad():
        expected = model(pixel_values=images, interpolate_pos_encoding=True).logits
    edited = surgeon.apply(model, [AdaptInput(image_size=48)])
    torch.testing.assert_close(run(edited, (), {"pixel_values": images}), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        ("ViTForImageClassification", tf.ViTConfig(**SMALL, image_size=32, patch_size=8)),
        ("DeiTForImageClassification", tf.DeiTConfig(**SMALL, image_size=32, patch_size=8)),
        ("SiglipVisionModel", tf.SiglipVisionConfig(**SMALL, image_size=32, patch_size=8)),
        ("Dinov2ForImageClassification", tf.Dinov2Config(**SMALL, image_size=32, patch_size=8)),
    ],
)
def test_a_transformers_model_stays_a_stock_class(cls, config, tmp_path):
    torch.manual_seed(0)
    model = getattr(tf, cls)(config).eval()
    edited = surgeon.apply(model, [AdaptInput(channels=1, image_size=48)])
    surgeon.save(edited, tmp_path / "out")
    stock = getattr(tf, cls).from_pretrained(tmp_path / "out").eval()
    assert (stock.config.image_size, stock.config.num_channels) == (48, 1)
    images = {"pixel_values": torch.rand(2, 1, 48, 48)}
    assert torch.equal(run(stock, (), images), run(edited, (), images))
    assert (model.config.image_size, model.config.num_channels) == (32, 3), "the model handed in is as it was"


def test_two_towers_are_adapted_where_they_see_images():
    text = {**SMALL, "vocab_size": 99, "eos_token_id": 98, "bos_token_id": 1}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    model = tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    plan = surgeon.plan(model, [AdaptInput(channels=1, image_size=48)])
    assert plan.outputs["vision_model_output.last_hidden_state"] == (2, 37, 32)


def test_what_prepares_images_follows_the_channels():
    edited = surgeon.apply(build("fasterrcnn"), [AdaptInput(channels=1)])
    assert len(edited.transform.image_mean) == len(edited.transform.image_std) == 1
    assert set(edited([torch.rand(1, 64, 64)])[0]) == {"boxes", "labels", "scores"}
    model = googlenet(num_classes=5, init_weights=False, transform_input=True, aux_logits=True).eval()
    edited = surgeon.apply(model, [AdaptInput(channels=1)])
    assert edited(torch.rand(2, 1, 64, 64)).shape == (2, 5)


def test_frozen_stems_stay_frozen_and_later_operations_trace_the_new_input():
    operations = [
        surgeon.Freeze(up_to="layer1"),
        AdaptInput(channels=1),
        Truncate(after="layer3"),
        Multitask(tasks={"a": {"classes": 2}}),
    ]
    images = (torch.rand(2, 1, 64, 64),)
    edited = check_operations(FAMILIES["resnet"], operations, images)
    assert not edited.conv1.weight.requires_grad
    again = surgeon.apply(edited, [Multitask(tasks={"b": {"classes": 3}})])
    assert again(*images)["b"].shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("resnet", {"channels": 3}, "already takes 3 channels"),
        ("bert", {"channels": 1}, "not a convolution"),
        ("wav2vec2", {"channels": 2}, "does not run with 2 channels"),
        ("mobilenet", {"channels": 2, "at": "features.1.block.0.0"}, "has 8 groups"),
        ("resnet", {"image_size": 96}, "feed it images of the new size"),
        ("vit", {"image_size": 32}, "takes images of 32 pixels already"),
        ("hf_vit", {"image_size": 32}, "takes images of 32 pixels already"),
        ("vit", {"image_size": 50}, "take 48 or 56"),
        ("hf_vit", {"image_size": 50}, "take 48 or 56"),
    ],
)
def test_what_cannot_be_adapted_is_refused(name, fields, words):
    with pytest.raises(OperationError, match=words):
        surgeon.plan(build(name), [AdaptInput(**fields)])


def test_relative_positions_are_refused_by_name():
    config = tf.BeitConfig(**SMALL, image_size=32, patch_size=8, use_relative_position_bias=True)
    with pytest.raises(OperationError, match="relative_position_bias_table would change from"):
        surgeon.plan(tf.BeitForImageClassification(config).eval(), [AdaptInput(image_size=48)])


def test_columns_see_one_input():
    with pytest.raises(OperationError, match="put adapt_input before the operation"):
        surgeon.plan(build("resnet"), [Progressive(task="b"), AdaptInput(channels=1)])


@pytest.mark.parametrize("fields", [{}, {"image_size": 32, "init": "sum"}, {"channels": 0}])
def test_something_to_adapt_to_is_said(fields):
    with pytest.raises(ValidationError, match=r"channels|greater than 0"):
        AdaptInput(**fields)
