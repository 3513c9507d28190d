"""Operations of scripts and notebooks: registered, they are saved and loaded; others are refused when saved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from families import build
from torch import nn

import surgeon
from surgeon.errors import OutputError, PluginError, RecipeError, SurgeonError
from surgeon.interfaces.registered import registered
from surgeon.testing.conformance import check_operations


class Quiet(surgeon.Operation):
    """Puts a dropout behind a site."""

    at: str

    def apply(self, model, surgery):
        surgery.insert(self.at, surgery.new(nn.Dropout, 0.1))
        return surgery.model


class Lone(surgeon.ArchitectureProvider):
    scheme = "lone"

    def names(self):
        return ["one"]

    def build(self, architecture):
        return nn.Linear(2, 2)


SITES = {"resnet": "layer4", "vit": "heads.head", "bert": "classifier"}


@pytest.mark.parametrize("family", SITES)
def test_what_a_registered_operation_made_is_saved_and_loaded(family, tmp_path):
    with registered(Quiet):
        edited = surgeon.apply(build(family), [Quiet(at=SITES[family])])
        loaded = surgeon.load(surgeon.save(edited, tmp_path / "out"), arch=lambda: build(family))
        assert "quiet" in surgeon.describe_operations()
    assert loaded.state_dict().keys() == edited.state_dict().keys()
    with pytest.raises(SurgeonError) as refused:
        surgeon.load(tmp_path / "out", arch=lambda: build(family))
    assert "it was registered in test_registered.py: surgeon.register" in str(refused.value)


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_what_an_unregistered_operation_made_is_refused_when_it_is_saved(suffix, tmp_path):
    edited = surgeon.apply(build("resnet"), [Quiet(at="layer4")])
    with pytest.raises(OutputError, match="operation 'quiet' could not be found when this is loaded") as refused:
        surgeon.save(edited, tmp_path / f"out{suffix}")
    assert "register it in test_registered.py" in str(refused.value)
    assert not (tmp_path / f"out{suffix}").exists()
    surgeon.save(edited, tmp_path / "weights.pt")  # a plain state dict needs no operation


def test_an_operation_called_like_ours_is_refused_too(tmp_path):
    same_name = type("Truncate", (Quiet,), {"__module__": __name__})
    with pytest.raises(OutputError, match="operation 'truncate'"):
        surgeon.save(surgeon.apply(build("resnet"), [same_name(at="layer4")]), tmp_path / "out")


def test_to_register_again_replaces_as_in_a_notebook():
    again = type("Quiet", (Quiet,), {"__module__": __name__})
    with registered(Quiet, again):
        assert surgeon.load_plugins(installed=False).operations()["quiet"] is again


def test_a_source_and_a_provider_are_registered_too():
    class Points(surgeon.Source):
        source: Literal["points"] = "points"

        def load(self, seed):
            return None

    with registered(Points, Lone()):
        plugins = surgeon.load_plugins(installed=False)
        assert plugins.sources()["points"] is Points
        assert surgeon.plan("lone/one", [surgeon.Reinit(sites=".")]).parameters == 6


class Deep(Lone):
    def __init__(self, depth):
        self.depth = depth


class Package:
    """A plugin with a provider."""

    def __init__(self, provider):
        self.provider = provider

    @surgeon.hookimpl
    def surgeon_architectures(self):
        return [self.provider]


@pytest.mark.parametrize(
    ("provided", "given", "claimed_twice"),
    [(Lone(), Lone(), False), (Lone(), Deep(1), True), (Deep(1), Deep(2), True)],
    ids=["one class", "two classes", "two states"],
)
def test_a_provider_that_is_installed_too_is_registered_as_the_tests_of_its_package_do(provided, given, claimed_twice):
    with registered(given):
        plugins = surgeon.load_plugins(installed=False)
        plugins.register(Package(provided), "lone-package")
        assert ("lone" not in plugins.architectures()) == claimed_twice
        assert list(plugins.conflicts) == (["architecture lone"] if claimed_twice else [])


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Quiet(at="fc"), "register the class, not an instance"),
        (nn.Linear, "not the class Linear"),
        ("quiet", "not the str 'quiet'"),
        (type("Empty", (surgeon.Operation,), {}), r"defines no apply\(model, surgery\)"),
    ],
    ids=["an instance", "a module", "a name", "without apply"],
)
def test_what_cannot_be_registered_is_refused(thing, message):
    with pytest.raises(PluginError, match=message):
        surgeon.register(thing)


def test_the_kit_checks_operations_that_nothing_has_registered():
    from families import example

    args, kwargs = example("resnet")
    check_operations(lambda: build("resnet"), [Quiet(at="layer4")], args, kwargs)
    assert "quiet" not in surgeon.load_plugins(installed=False).operations()


SCRIPT = """
import surgeon
from torch import nn

@surgeon.register
class Hush(surgeon.Operation):
    def apply(self, model, surgery):
        surgery.insert("fc", surgery.new(nn.Dropout, 0.1))
        return surgery.model

if __name__ == "__main__":
    surgeon.save(surgeon.apply("torchvision/resnet18", [Hush()]), "out")
    print(type(surgeon.load("out").fc.inserted.module).__name__)
"""


def test_a_script_saves_loads_and_is_a_plugin_to_others(tmp_path, monkeypatch):
    (tmp_path / "hush.py").write_text(SCRIPT)
    process = subprocess.run([sys.executable, "hush.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, "Dropout\n"), process.stderr
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"it was registered in .*hush\.py"):
        surgeon.load("out")
    with registered():
        assert type(surgeon.load("out", plugins=["hush.py"]).fc.inserted.module) is nn.Dropout


PLUGIN = """
from surgeon import Operation, hookimpl
from torch import nn

class Hush(Operation):
    def apply(self, model, surgery):
        surgery.insert("fc", surgery.new(nn.Dropout, 0.1))
        return surgery.model

@hookimpl
def surgeon_operations():
    return [Hush]
"""


@pytest.mark.parametrize("given", [list, tuple, lambda names: names[0]], ids=["list", "tuple", "one name"])
def test_every_verb_takes_names_of_plugin_files(tmp_path, given):
    file = tmp_path / "hush.py"
    file.write_text(PLUGIN)
    (tmp_path / "recipe.yaml").write_text("operations: [{op: hush}]\n")
    plugins = given([str(file)])
    edited = surgeon.apply(build("resnet"), tmp_path / "recipe.yaml", plugins=plugins)
    path = surgeon.save(edited, tmp_path / "out")
    with pytest.raises(SurgeonError) as refused:
        surgeon.load(path, arch=lambda: build("resnet"))
    assert f"in Python with plugins=['{file}']" in " ".join(str(refused.value).split())
    assert type(surgeon.load(path, arch=lambda: build("resnet"), plugins=plugins).fc.inserted.module) is nn.Dropout
    assert "hush" in surgeon.describe_operations(plugins)
    with pytest.raises(PluginError, match="no such file"):
        surgeon.load(path, plugins=[str(Path(tmp_path) / "other.py")])
