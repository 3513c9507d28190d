"""Inputs are found from facts, configs and first layers, or taken from the recipe."""

from __future__ import annotations

import json

import pytest
import torch
from families import FAMILIES, build
from torch import nn

import surgeon
from surgeon.errors import OperationError
from surgeon.families.inputs import Inputs, Spec
from surgeon.graph.inputs.resolve import described, find_inputs
from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.trace import trace
from surgeon.interfaces.family import Family
from surgeon.nn.progressive import ProgressiveNetwork


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_real_network_runs_on_the_inputs_that_are_found_for_it(name):
    model = build(name)
    args, kwargs = find_inputs(model).tensors()
    with torch.no_grad():
        assert model(*args, **kwargs) is not None


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("resnet", [(2, 3, 224, 224)]),
        ("vit", [(2, 3, 32, 32)]),
        ("video", [(2, 3, 16, 112, 112)]),
        ("llama", [(2, 8)]),
        ("hf_vit", [(2, 3, 32, 32)]),
        ("t5", [(2, 8), (2, 8)]),
        ("whisper", [(2, 16, 60), (2, 8)]),
    ],
)
def test_shapes_follow_the_family_or_the_config(name, shapes):
    args, kwargs = find_inputs(skeleton_of(build(name))).tensors("meta")
    assert [tuple(t.shape) for t in [*args, *kwargs.values()]] == shapes


def test_a_detector_takes_a_list_of_images_and_targets_only_in_training():
    inputs = find_inputs(build("fasterrcnn"))
    assert len(inputs.tensors()[0]) == 1
    images, targets = inputs.tensors(training=True)[0]
    assert len(images) == len(targets) == 2
    assert set(targets[0]) == {"boxes", "labels", "masks"}


def test_the_values_are_valid_and_the_same_each_time():
    inputs = find_inputs(build("t5_classifier"))
    tokens = inputs.tensors()[1]["input_ids"]
    assert torch.equal(tokens, inputs.tensors()[1]["input_ids"])
    assert (tokens == 1).sum(dim=1).tolist() == [1, 1]  # one end of sentence in each row, at its end
    assert (tokens[:, -1] == 1).all()


@pytest.mark.parametrize(
    ("first", "shape"),
    [
        (nn.Conv2d(1, 4, 3), (2, 1, 64, 64)),
        (nn.Conv1d(2, 4, 3), (2, 2, 64)),
        (nn.Conv3d(3, 4, 3), (2, 3, 8, 64, 64)),
        (nn.Linear(7, 4), (2, 7)),
        (nn.Embedding(11, 4), (2, 8)),
        (nn.LSTM(6, 4), (2, 8, 6)),
    ],
)
def test_the_first_layer_of_an_unknown_network_says_what_it_takes(first, shape):
    inputs = find_inputs(nn.Sequential(nn.Identity(), first))
    assert inputs.args[0].shape == shape
    assert type(first).__name__ in inputs.origin


def test_the_image_size_that_fits_is_found_by_trying():
    digits = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
    traced = trace(digits)
    assert traced.evidence == "meta"
    assert traced.inputs.args[0].shape == (2, 1, 28, 28)


@pytest.mark.parametrize(
    ("override", "args", "kwargs"),
    [
        ([[2, 3, 48, 48]], ((2, 3, 48, 48),), {}),
        ([2, 3, 48, 48], ((2, 3, 48, 48),), {}),
        ([[2, 8], {"shape": [2, 4], "dtype": "int64", "high": 9}], ((2, 8), (2, 4)), {}),
        ({"pixel_values": [1, 3, 8, 8]}, (), {"pixel_values": (1, 3, 8, 8)}),
    ],
)
def test_an_override_is_taken_as_it_is(override, args, kwargs):
    inputs = find_inputs(build("resnet"), override)
    assert tuple(spec.shape for spec in inputs.args) == args
    assert {name: spec.shape for name, spec in inputs.kwargs.items()} == kwargs


def test_an_override_bounds_its_integers():
    override = {"input_ids": {"shape": [4, 100], "dtype": "int64", "low": 5, "high": 7}}
    tokens = find_inputs(build("bert"), override).tensors()[1]["input_ids"]
    assert tokens.dtype == torch.int64
    assert set(tokens.flatten().tolist()) == {5, 6}


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([[1, 8, 8]], torch.int64), ([True, False], torch.bool), ([[0.5], [1]], torch.bfloat16)],
)
def test_an_override_may_say_the_values(values, dtype):
    (given,) = find_inputs(build("resnet"), [{"values": values}]).tensors(dtype=torch.bfloat16)[0]
    assert torch.equal(given, torch.tensor(values, dtype=dtype))
    assert given.dtype == dtype
    (meta,) = find_inputs(build("resnet"), [{"values": values}]).tensors("meta", torch.bfloat16)[0]
    assert (meta.shape, meta.dtype) == (given.shape, dtype)


def test_tensors_stand_for_what_is_like_them():
    tokens, pixels, many = torch.tensor([[3, 1]]), torch.rand(2, 3, 8, 8), torch.randint(5, 9, (100, 100))
    override = {"input_ids": tokens, "pixel_values": pixels, "many": many}
    assert json.loads(json.dumps(described(override))) == described(override)
    given = find_inputs(build("resnet"), override).tensors(dtype=torch.float16)[1]
    assert torch.equal(given["input_ids"], tokens)
    assert (given["pixel_values"].shape, given["pixel_values"].dtype) == (pixels.shape, torch.float16)
    assert set(given["many"].flatten().tolist()) == {5, 6, 7, 8}
    assert find_inputs(build("resnet"), pixels).args[0].shape == pixels.shape


class Scaled(nn.Module):
    """What it gives depends on the values of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, values: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(values)[:, : int(sizes.sum())].expand(-1, 4))


def test_an_artifact_remembers_the_tensors_that_it_was_traced_with(tmp_path):
    inputs = {"values": torch.rand(2, 4), "sizes": torch.tensor([1, 0])}
    cut = surgeon.apply(Scaled(), surgeon.Truncate(after="first"), inputs=inputs)
    surgeon.save(cut, tmp_path / "cut")
    again = surgeon.load(tmp_path / "cut", arch=Scaled)
    assert torch.equal(again(**inputs), cut(**inputs))
    assert surgeon.record_of(again).surgeries[-1].inputs["sizes"] == {"values": [1, 0], "dtype": "int64"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("[2, 3]", "list of shapes"),
        ([["a", 3]], r"inputs\.0\.shape\.0"),
        ({"x": {"shape": [2], "size": 3}}, r"inputs\.x\.size"),
        ({"x": {"shape": [2], "dtype": "flaot32"}}, "float32"),
        ({"x": {"dtype": "int64"}}, "needs a shape, or values"),
        ({"x": {"values": [[1, 2], [3]]}}, "differ in their lengths"),
        ({"x": {"values": [["a"]]}}, "'a' is not a number"),
        ({"x": {"values": [1, 2], "shape": [3]}}, r"shape \[2\], not \[3\]"),
    ],
)
def test_a_malformed_override_is_refused_with_its_place(override, message):
    with pytest.raises(OperationError, match=message):
        find_inputs(build("resnet"), override)


def test_a_network_that_says_nothing_is_an_error_that_says_how_to_say_it():
    with pytest.raises(OperationError, match=r"inputs: \[\[2, 3, 64, 64\]\]"):
        find_inputs(nn.Sequential(nn.ReLU()))


def test_a_plugin_may_declare_what_its_family_takes():
    class Odd(nn.Sequential):
        pass

    family = Family("odd", (f"{__name__}.*Odd",), shapes=((3, 20, 20),))
    model = Odd(nn.Conv2d(3, 2, 3))
    assert find_inputs(model, families=[family]) == Inputs((Spec((2, 3, 20, 20)),), origin="declared for odd")
    assert trace(model, families=[family]).shape("0") == (2, 2, 18, 18)


@pytest.mark.parametrize("name", ["resnet", "video", "t5", "whisper"])
def test_columns_take_what_the_first_one_takes(name):
    model = build(name)
    columns = surgeon.apply(model, [surgeon.Progressive(task="second")])
    inputs = find_inputs(columns)
    assert inputs == find_inputs(model)
    args, kwargs = inputs.tensors()
    with torch.no_grad():
        assert len(columns(*args, **kwargs)) == 2


def test_settings_of_a_family_reach_every_column_that_has_them():
    class Odd(nn.Sequential):
        pass

    family = Family("odd", (f"{__name__}.*Odd",), shapes=((3, 20, 20),), settings=(("0.padding", (1, 1)),))
    network = ProgressiveNetwork(Odd(nn.Conv2d(3, 2, 3)), "first", [])
    for task, column in (("second", nn.Conv2d(3, 2, 3)), ("third", Odd(nn.Conv2d(3, 2, 3)))):
        network.columns.append(column)
        network.laterals.append(nn.ModuleList())
        network.tasks.append(task)
    assert find_inputs(network, families=[family]).settings == {
        "columns.0.0.padding": (1, 1),
        "columns.2.0.padding": (1, 1),
    }
    shapes = trace(network, families=[family]).outputs
    assert [shape[-1] for shape in shapes.values()] == [20, 18, 20]
    assert network.columns[0][0].padding == (0, 0)
