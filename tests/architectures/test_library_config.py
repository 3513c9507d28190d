"""A plugin's provider says how its library alone loads a result, and how pictures become inputs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import surgeon
from surgeon.interfaces.preprocessing import IMAGENET

PICTURES = {**IMAGENET, "resize": [8, 8], "mean": [0.5, 0.5, 0.5]}


class Net(nn.Module):
    """The network of a small library."""

    def __init__(self, classes: int = 4, slope: float = 0.1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.act = nn.LeakyReLU(slope)
        self.head = nn.Linear(6, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.stem(images)).mean((2, 3)))


class Library(surgeon.ArchitectureProvider):
    """Provides ``library/net``; its networks are loaded from ``{"classes": N}``."""

    scheme = "library"
    slope = 0.1

    def names(self) -> list[str]:
        return ["net"]

    def build(self, architecture):
        return Net(**architecture.options)

    def pictures(self, architecture):
        return PICTURES

    def stock(self, architecture, model):
        if isinstance(model.head, nn.Linear):
            yield architecture.model_copy(update={"options": {"classes": model.head.out_features}})

    def config(self, rebuilt, pictures):
        return {"classes": rebuilt.head.out_features, "mean": pictures["mean"]}

    def load_stock(self, folder):
        from safetensors.torch import load_file

        net = Net(json.loads((folder / "config.json").read_text())["classes"], self.slope)
        net.load_state_dict(load_file(folder / "model.safetensors"))
        return net


def plugins(provider: surgeon.ArchitectureProvider, monkeypatch: pytest.MonkeyPatch) -> surgeon.Plugins:
    module = ModuleType("library_plugin")
    module.surgeon_architectures = surgeon.hookimpl(lambda: [provider])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "library_plugin", module)
    return surgeon.load_plugins(["library_plugin"])


def run(operation: surgeon.Operation, out: Path, chosen: surgeon.Plugins) -> Path:
    surgeon.run_recipe("library/net", [operation], out, train=False, plugins=chosen)
    return out


def test_a_result_that_the_library_builds_gets_its_config(tmp_path, monkeypatch):
    chosen = plugins(Library(), monkeypatch)
    out = run(surgeon.ReplaceHead(classes=2), tmp_path / "out", chosen)
    assert json.loads((out / "config.json").read_text()) == {"classes": 2, "mean": [0.5, 0.5, 0.5]}
    images = torch.rand(2, 3, 8, 8)
    again = surgeon.load(out, plugins=chosen).eval()
    assert torch.equal(Library().load_stock(out).eval()(images), again(images))


def test_a_result_that_it_does_not_build_gets_none(tmp_path, monkeypatch):
    chosen = plugins(Library(), monkeypatch)
    out = run(surgeon.Truncate(after="act"), tmp_path / "out", chosen)
    assert not (out / "config.json").exists()


def test_a_library_that_loads_another_network_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    provider = Library()
    provider.slope = 0.9
    with pytest.raises(surgeon.VerificationError):
        run(surgeon.ReplaceHead(classes=2), tmp_path / "out", plugins(provider, monkeypatch))
    assert not (tmp_path / "out").exists()


def test_the_preprocessing_of_the_provider_is_recorded(tmp_path, monkeypatch):
    out = run(surgeon.ReplaceHead(classes=2), tmp_path / "out", plugins(Library(), monkeypatch))
    manifest = json.loads((out / "surgeon.json").read_text())
    assert manifest["record"]["preprocessing"]["pictures"] == PICTURES


def test_pictures_without_a_library_are_refused_by_the_name_of_the_provider(tmp_path, monkeypatch):
    class Wrong(Library):
        def pictures(self, architecture):
            return {"mean": [0.5]}

    with pytest.raises(surgeon.PluginError, match=r"Wrong\.pictures"):
        run(surgeon.ReplaceHead(classes=2), tmp_path / "out", plugins(Wrong(), monkeypatch))


@pytest.mark.parametrize(
    ("size", "shape"),
    [("side", (16, 16)), ("parts.shape", (12, 20)), (("missing", "parts.list"), (4, 6))],
)
def test_a_family_names_the_size_of_images_by_a_path(size, shape):
    class Sized(Net):
        def __init__(self):
            super().__init__()
            self.side = 16
            self.parts = {"shape": (3, 12, 20), "list": [4, 6]}

        def forward(self, images):
            assert tuple(images.shape[-2:]) == shape
            return super().forward(images)

    family = surgeon.Family(
        "sized", classes=(f"{Sized.__module__}.{Sized.__qualname__}",), shapes=((3, 8, 8),), size=size
    )
    module = ModuleType("sized_plugin")
    module.surgeon_families = surgeon.hookimpl(lambda: [family])
    sys.modules["sized_plugin"] = module
    try:
        view = surgeon.inspect(Sized(), plugins=surgeon.load_plugins(["sized_plugin"]))
        assert view.select("stem")[0].shape == (2, 6, shape[0] - 2, shape[1] - 2)
    finally:
        del sys.modules["sized_plugin"]


class ForgetsToLoad(Library):
    """Writes a config, and does not say how to load by it."""

    load_stock = surgeon.ArchitectureProvider.load_stock


def test_a_provider_that_writes_a_config_and_cannot_load_by_it_is_named(tmp_path, monkeypatch):
    chosen = plugins(ForgetsToLoad(), monkeypatch)
    with pytest.raises(surgeon.PluginError, match="the provider of 'library' writes a config") as caught:
        run(surgeon.ReplaceHead(classes=2), tmp_path / "out", chosen)
    assert "load_stock(folder)" in str(caught.value)
    assert not (tmp_path / "out").exists()
