"""Random state that no state dict holds is drawn under the recipe's seed, so that it comes back on loading."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import build
from torch import nn

import surgeon
from surgeon.checkpoint.digests import sealed
from surgeon.errors import CheckpointError, SurgeonWarning, VerificationError
from surgeon.interfaces.hooks import hookimpl
from surgeon.plugins import Plugins, load_plugins


class Noisy(nn.Module):
    """Hold random values in one of the places that a state dict leaves out."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.place = place
        if place == "buffer":
            self.register_buffer("noise", torch.rand(4), persistent=False)
        elif place == "attribute":
            self.noise = torch.rand(4)
        elif place == "list":
            self.noise = [torch.rand(2), torch.rand(2)]
        elif place == "dict":
            self.noise = {"a": {"b": (torch.rand(4),)}}
        elif place == "numpy":
            self.noise = torch.from_numpy(np.random.rand(4).astype("float32"))
        elif place == "random":
            self.noise = torch.tensor([random.random() for _ in range(4)])

    def values(self) -> torch.Tensor:
        noise: Any = self.noise
        if self.place == "list":
            return torch.cat(noise)
        return noise["a"]["b"][0] if self.place == "dict" else noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight * self.values().mean()


PLACES = ["buffer", "attribute", "list", "dict", "numpy", "random"]


class Noise(surgeon.Operation):
    """Insert a noisy module, made by ``surgery.new``, and one with values drawn in ``apply`` itself."""

    place: str

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        """Insert both."""
        drawn = torch.rand(4)

        def with_drawn() -> nn.Module:
            module = Noisy("attribute")
            module.noise = drawn
            return module

        surgery.insert(surgery.site("conv1"), surgery.new(Noisy, self.place), name="first")
        surgery.insert(surgery.site("layer1"), surgery.new(Noisy, self.place), name="second")
        surgery.insert(surgery.site("layer2"), surgery.new(with_drawn), name="third")
        return surgery.model


class Bundle:
    @hookimpl
    def surgeon_operations(self) -> list[type[surgeon.Operation]]:
        return [Noise]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    loaded = load_plugins(installed=False)
    loaded.register(Bundle(), "bundle")
    return loaded


def noises(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: module.values() for name, module in model.named_modules() if isinstance(module, Noisy)}


@pytest.mark.parametrize("place", PLACES)
def test_what_an_operation_draws_comes_back_on_loading(place: str, plugins: Plugins, tmp_path: Path) -> None:
    model = surgeon.apply(build("resnet"), [Noise(place=place)], seed=3, plugins=plugins)
    torch.manual_seed(77)
    np.random.seed(77)
    again = surgeon.load(surgeon.save(model, tmp_path / "out"), plugins=plugins)
    before, after = noises(model), noises(again)
    assert before.keys() == after.keys()
    assert len(before) == 3
    assert all(torch.equal(before[name], after[name]) for name in before)
    first, second, third = before.values()
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("place", PLACES)
def test_another_seed_draws_other_values_and_the_same_seed_the_same(place: str, plugins: Plugins) -> None:
    first, same, other = (
        list(noises(surgeon.apply(build("resnet"), [Noise(place=place)], seed=seed, plugins=plugins)).values())
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(one, two) for one, two in zip(first, same, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))


def network(place: str) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), Noisy(place), nn.Linear(4, 4))


def reference(place: str) -> str:
    return f"python:{__name__}:network_{place}"


for _place in PLACES:

    def _build(place: str = _place) -> nn.Module:
        return network(place)

    globals()[f"network_{_place}"] = _build


@pytest.mark.parametrize("place", PLACES)
def test_what_a_network_draws_while_it_is_built_comes_back_on_loading(place: str, tmp_path: Path) -> None:
    recipe = [surgeon.Freeze(sites="0")]
    made = surgeon.apply(reference(place), recipe, seed=3, inputs=[[2, 4]])
    np.random.seed(77)
    random.seed(77)
    path = surgeon.save(made, tmp_path / "out")
    again = surgeon.load(path, trust_code=__name__)
    assert all(torch.equal(value, noises(again)[name]) for name, value in noises(made).items())
    second = surgeon.apply(path, [surgeon.Freeze(sites="2")], seed=9, trust_code=__name__)
    assert all(torch.equal(value, noises(second)[name]) for name, value in noises(made).items())
    other = surgeon.apply(reference(place), recipe, seed=4, inputs=[[2, 4]])
    assert not any(torch.equal(value, noises(other)[name]) for name, value in noises(made).items())


def test_building_keeps_the_random_state_of_the_caller(plugins: Plugins) -> None:
    def states() -> tuple[Any, ...]:
        return torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    model = build("resnet")  # which seeds torch itself
    before = states()
    surgeon.apply(model, [Noise(place="numpy")], plugins=plugins)
    assert states() == before


class Fickle(nn.Module):
    """Draw other values in every process, unseeded, in one of the places that a state dict leaves out."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        drawn = torch.from_numpy(np.random.default_rng().random(4).astype("float32"))
        if place == "buffer":
            self.register_buffer("noise", drawn, persistent=False)
        elif place == "array":
            self.noise = drawn.numpy()
        else:
            self.noise = {"attribute": drawn, "list": [drawn], "dict": {"a": (drawn,)}}[place]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


ADDRESSES = {
    "buffer": "noise",
    "array": "noise",
    "attribute": "noise",
    "list": r"noise\[0\]",
    "dict": r"noise\['a'\]\[0\]",
}


class Jitter(surgeon.Operation):
    """Insert a fickle module."""

    place: str

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        """Insert it."""
        surgery.insert(surgery.site("conv1"), surgery.new(Fickle, self.place), name="jitter")
        return surgery.model


for _place in ADDRESSES:

    def _build_fickle(place: str = _place) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), Fickle(place))

    globals()[f"fickle_{_place}"] = _build_fickle


@pytest.fixture(scope="module")
def fickle() -> Plugins:
    class Offer:
        @hookimpl
        def surgeon_operations(self) -> list[type[surgeon.Operation]]:
            return [Jitter]

    loaded = load_plugins(installed=False)
    loaded.register(Offer(), "offer")
    return loaded


@pytest.mark.parametrize("place", ADDRESSES)
def test_what_an_operation_draws_unseeded_is_refused_by_its_site(place: str, fickle: Plugins, tmp_path: Path) -> None:
    message = rf"conv1\.jitter\.module\.{ADDRESSES[place]} of Fickle, which no state dict holds, has other values"
    with pytest.raises(VerificationError, match=message):
        surgeon.run_recipe(build("resnet"), [Jitter(place=place)], tmp_path / "out", plugins=fickle)
    assert not (tmp_path / "out").exists()
    model = surgeon.apply(build("resnet"), [Jitter(place=place)], plugins=fickle)
    path = surgeon.save(model, tmp_path / "saved")
    with pytest.warns(SurgeonWarning, match=message):
        surgeon.load(path, plugins=fickle)
    with pytest.raises(VerificationError, match=message):
        surgeon.check(path, plugins=fickle)


@pytest.mark.parametrize("place", ADDRESSES)
def test_what_a_network_draws_unseeded_is_refused_by_its_site(place: str, tmp_path: Path) -> None:
    message = rf"1\.{ADDRESSES[place]} of Fickle, which no state dict holds, has other values"
    reference = f"python:{__name__}:fickle_{place}"
    steps = [surgeon.Freeze(sites="0")]
    with pytest.raises(VerificationError, match=message):
        surgeon.run_recipe(reference, steps, tmp_path / "out", inputs=[[2, 4]], trust_code=__name__)
    path = surgeon.save(surgeon.apply(reference, steps, inputs=[[2, 4]]), tmp_path / "saved")
    with pytest.warns(SurgeonWarning, match=message):
        surgeon.load(path, trust_code=__name__)
    with pytest.warns(SurgeonWarning, match=message):
        surgeon.apply(path, steps, trust_code=__name__)


def test_state_that_is_missing_after_loading_is_named(tmp_path: Path) -> None:
    model = build("resnet")
    model.layer1.prior = torch.ones(3)
    path = surgeon.save(model, tmp_path / "saved")
    with pytest.warns(SurgeonWarning, match=r"layer1\.prior of Sequential, .* is gone or of another shape"):
        surgeon.load(path)


def test_what_a_forward_leaves_behind_is_not_state(tmp_path: Path) -> None:
    model = surgeon.apply(build("resnet"), [surgeon.Truncate(after="layer2"), surgeon.ReplaceHead(classes=3)])
    with torch.no_grad():
        model(torch.rand(3, 3, 64, 64))
    path = surgeon.save(model, tmp_path / "saved")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        surgeon.load(path)
    assert not [warning for warning in caught if issubclass(warning.category, SurgeonWarning)]


@pytest.mark.parametrize("state", [[], {"a": 1}, {"a": {}}])
def test_damaged_state_is_named(state: Any, tmp_path: Path) -> None:
    path = surgeon.save(surgeon.apply(build("bert"), [surgeon.Freeze(up_to="bert.encoder.layer.0")]), tmp_path / "out")
    manifest = json.loads((path / "surgeon.json").read_text())
    assert manifest["state"]["bert.embeddings.position_ids"]["shape"]
    (path / "surgeon.json").write_text(json.dumps(sealed({**manifest, "state": state})))
    with pytest.raises(CheckpointError, match="its manifest is damaged: state"):
        surgeon.load(path)
