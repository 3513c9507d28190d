"""Plugins: found, ordered, named when they are at fault, and blocking only what needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from torch import nn

import surgeon
import surgeon.operations
from surgeon import plugins
from surgeon.errors import OperationError, PluginError, TrainingError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.import_plugin import HOOKS
from surgeon.interfaces.operation import Operation
from surgeon.plugins import BUILTINS, Plugins
from surgeon.recipe.recorded_plugins import foreign

SOURCE = """
from __future__ import annotations

from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.operation import Operation


class {name}(Operation):
    \"\"\"Do it.\"\"\"

    depth: int = 1

    def apply(self, model, surgery):
        return model


@hookimpl
def surgeon_operations():
    return [{name}]
"""


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(text)
    return str(path)


def module(name: str, **functions: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(functions)
    return made


def installed(folder: Path, name: str, text: str, entry: str) -> None:
    """A package as pip would leave it, in a folder that is then put on sys.path."""
    (folder / f"{name}.py").write_text(text)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[surgeon]\n{entry} = {name}\n")


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_built_in_operations_come_through_the_hook() -> None:
    operations = plugins.load(installed=False).operations()
    assert list(operations)[:3] == ["truncate", "freeze", "replace_head"]
    assert sorted(operation.__name__ for operation in operations.values()) == sorted(surgeon.operations.__all__)
    assert set(surgeon.operations.__all__) <= set(surgeon.__all__)


def test_every_builtin_module_implements_the_hook_that_it_is_listed_for() -> None:
    loaded = plugins.load(installed=False)
    assert set(loaded.architectures()) == {"torchvision", "hf", "python"}
    assert {"cross_entropy", "bce", "mse"} <= set(loaded.losses())
    loaded.families()
    assert "digits" in loaded.sources()
    assert "early_stopping" in loaded.callbacks()
    assert set(loaded.schedules()) == {"dann", "linear"}
    assert "calibration_error" in loaded.metrics()
    assert all(loaded.manager.has_plugin(name) for name in BUILTINS.values() if name != BUILTINS["surgeon_operations"])


def test_listing_operations_imports_no_torch() -> None:
    code = (
        "import sys; from surgeon import plugins; p = plugins.load(); p.operations(); p.listing();"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_plugin_file_adds_its_operation_behind_the_builtin_ones(tmp_path: Path) -> None:
    loaded = plugins.load([write(tmp_path, "paint", SOURCE.format(name="PaintBlue"))], installed=False)
    assert list(loaded.operations())[-1] == "paint_blue"
    assert loaded.operation("paint_blue").model_fields["depth"].annotation is int


def test_plugins_stand_in_the_order_in_which_they_were_named(tmp_path: Path) -> None:
    files = [write(tmp_path, f"p{i}", SOURCE.format(name=f"Step{i}")) for i in (2, 1, 3)]
    assert list(plugins.load(files, installed=False).operations())[-3:] == ["step2", "step1", "step3"]


def test_a_dotted_module_is_a_plugin_too(site_packages: Path) -> None:
    write(site_packages, "my_dotted_plugin", SOURCE.format(name="Dotted"))
    assert "dotted" in plugins.load(["my_dotted_plugin"], installed=False).operations()


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files = [write(tmp_path / folder, "plugin", SOURCE.format(name=f"Step{folder.upper()}")) for folder in "ab"]
    assert {"step_a", "step_b"} <= set(plugins.load(files, installed=False).operations())


def test_an_installed_package_is_found_by_its_entry_point(site_packages: Path) -> None:
    installed(site_packages, "shiny_plugin", SOURCE.format(name="Shine"), "shiny")
    loaded = plugins.load()
    assert "shine" in loaded.operations()
    assert ("shiny", ["surgeon_operations"]) in loaded.listing()
    assert foreign(loaded, {"operation": ["shine", "freeze"]}) == {"operation shine": "shiny_plugin 1.0"}


def test_an_installed_plugin_that_fails_to_import_is_put_aside_and_named(site_packages: Path) -> None:
    installed(site_packages, "broken_plugin", "import no_such_thing_at_all", "broken")
    loaded = plugins.load()
    assert "no_such_thing_at_all" in loaded.failures["broken"].message
    assert "truncate" in loaded.operations()
    with pytest.raises(OperationError, match=r"unknown operation 'glow'\n.*\n.*'broken', which failed: .*no_such"):
        loaded.operation("glow")


def test_an_installed_plugin_with_an_unknown_hook_blocks_nothing_else(site_packages: Path) -> None:
    text = "from surgeon.interfaces.hooks import hookimpl\n@hookimpl\ndef surgeon_operation(): return []\n"
    installed(site_packages, "typo_plugin", text, "typo")
    loaded = plugins.load()
    assert "plugin 'typo_plugin 1.0' implements 'surgeon_operation'" in loaded.failures["typo"].message
    assert "nearest: surgeon_operations" in str(loaded.failures["typo"])
    assert "truncate" in loaded.operations()


def test_what_a_plugin_prints_does_not_mix_with_the_output_of_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output may be JSON."""
    text = SOURCE.format(name="Glow") + "\n\nprint('hello from import')\n"
    text = text.replace("    return [", "    print('hello from hook')\n    return [")
    loaded = plugins.load([write(tmp_path, "chatty", text)], installed=False)
    assert "glow" in loaded.operations()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "hello from import\nhello from hook" in printed.err


@pytest.mark.parametrize("marked", [True, False])
def test_an_unknown_hook_is_refused_by_plugin_hook_and_nearest_name(marked: bool) -> None:
    def surgeon_loses() -> dict[str, object]:
        return {}

    function = hookimpl(surgeon_loses) if marked else surgeon_loses
    with pytest.raises(PluginError, match=r"plugin 'mine'.*'surgeon_loses'.*\n.*surgeon_losses"):
        Plugins().register(module("mine", surgeon_loses=function), "mine")


def test_a_hook_without_its_mark_is_not_passed_over_in_silence() -> None:
    with pytest.raises(PluginError, match=r"'surgeon_losses' without marking it\n.*@surgeon.hookimpl"):
        Plugins().register(module("mine", surgeon_losses=dict), "mine")


def test_a_hook_with_arguments_of_its_own_is_refused() -> None:
    @hookimpl
    def surgeon_operations(model: object) -> list[object]:
        return []

    loaded = Plugins()
    with pytest.raises(PluginError, match=r"plugin 'mine' cannot be registered: .*model"):
        loaded.register(module("mine", surgeon_operations=surgeon_operations), "mine")
    assert "truncate" in loaded.operations()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('no licence')", "no licence"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("class Stop(BaseException): pass\nraise Stop('now')", "Stop: now"),
    ],
)
def test_a_named_plugin_that_fails_to_import_is_an_error_at_once(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path, "bad", text)
    with pytest.raises(PluginError, match=reason) as caught:
        plugins.load([path], installed=False)
    assert path in caught.value.message
    assert "\n" not in caught.value.message
    assert not [name for name in sys.modules if name.startswith("surgeon_plugin_bad_")]


@pytest.mark.parametrize("name", ["absent.py", "absent_module", "some/folder", "."])
def test_a_plugin_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(PluginError, match=name.replace(".", r"\.")):
        plugins.load([name], installed=False)


def test_a_name_of_ours_stays_ours_and_the_claim_is_listed(tmp_path: Path) -> None:
    loaded = plugins.load([write(tmp_path, "one", SOURCE.format(name="Freeze"))], installed=False)
    assert loaded.operation("freeze") is surgeon.Freeze
    message = loaded.conflicts["operation freeze"].message
    assert "surgeon.operations" in message
    assert "one.py" in message
    assert "built-in" in message


def test_a_name_that_two_plugins_claim_names_both_and_blocks_only_itself(tmp_path: Path) -> None:
    files = [write(tmp_path, name, SOURCE.format(name="Glow")) for name in ("one", "two")]
    loaded = plugins.load(files, installed=False)
    assert "glow" not in loaded.operations()
    assert "truncate" in loaded.operations()
    with pytest.raises(PluginError, match=r"operation 'glow'.*one\.py and .*two\.py"):
        loaded.operation("glow")


def test_losses_and_architectures_of_ours_stay_ours_too() -> None:
    class Mine(ArchitectureProvider):
        scheme = "torchvision"

        def names(self) -> list[str]:
            return []

        def build(self, architecture: object) -> nn.Module:
            return nn.Identity()

    @hookimpl
    def surgeon_losses() -> dict[str, object]:
        return {"mse": lambda prediction, target: prediction - target}

    @hookimpl
    def surgeon_architectures() -> list[object]:
        return [Mine()]

    loaded = Plugins()
    loaded.register(module("m", surgeon_losses=surgeon_losses, surgeon_architectures=surgeon_architectures), "mine")
    assert loaded.loss("mse").__module__ == "surgeon.training.losses"
    assert not isinstance(loaded.architecture("torchvision"), Mine)
    assert {"loss mse", "architecture torchvision"} <= set(loaded.conflicts)
    with pytest.raises(TrainingError, match=r"unknown loss 'cross_entropi'\n.*cross_entropy"):
        loaded.loss("cross_entropi")


class NoApply(Operation):
    """Do nothing."""


class Unscheming(ArchitectureProvider):
    def names(self) -> list[str]:
        return []

    def build(self, architecture: object) -> nn.Module:
        return nn.Identity()


class NoLoad(surgeon.Source):
    source: Literal["empty"] = "empty"


@pytest.mark.parametrize(
    ("hook", "offer", "reason"),
    [
        ("surgeon_operations", RuntimeError("no disk"), "RuntimeError: no disk"),
        ("surgeon_operations", SystemExit(3), "SystemExit: 3"),
        ("surgeon_operations", None, "returned None instead of a list of Operation classes"),
        ("surgeon_operations", 7, "returned 7 instead of"),
        ("surgeon_operations", "widen", "returned 'widen' instead of"),
        ("surgeon_operations", [object], "not a class derived from Operation"),
        ("surgeon_operations", [surgeon.Freeze(up_to="a")], "not a class derived from Operation"),
        ("surgeon_operations", [NoApply], "NoApply defines no apply"),
        ("surgeon_architectures", [Unscheming], "not an ArchitectureProvider"),
        ("surgeon_architectures", [Unscheming()], "has no scheme"),
        ("surgeon_sources", [NoLoad], "defines no load"),
        ("surgeon_sources", [int], "not a subclass"),
        ("surgeon_losses", [print], "instead of a mapping of names to losses"),
        ("surgeon_losses", {"one": lambda prediction: prediction}, "does not take 2 arguments"),
        ("surgeon_losses", {"none": None}, "not a callable under a name"),
        ("surgeon_callbacks", None, "returned None instead of a mapping"),
        ("surgeon_families", ["mine"], "not a Family"),
    ],
)
def test_a_hook_that_raises_or_returns_nonsense_is_put_aside_and_the_rest_works(
    hook: str, offer: object, reason: str
) -> None:
    def function() -> object:
        if isinstance(offer, BaseException):
            raise offer
        return offer

    function.__name__ = hook
    loaded = Plugins()
    loaded.register(module("m", **{hook: hookimpl(function)}), "mine")
    loaded.try_all()
    assert reason in loaded.failures["mine"].message
    assert hook in str(loaded.failures["mine"])
    assert "truncate" in loaded.operations()
    assert "torchvision" in loaded.architectures()
    with pytest.raises(OperationError, match="it may be in the plugin 'mine', which failed"):
        loaded.operation("widen")


def test_a_plugins_facts_stand_before_the_builtin_ones() -> None:
    mine = surgeon.Family(name="mine", classes=("my.Network",))

    @hookimpl
    def surgeon_families() -> list[object]:
        return [mine]

    loaded = Plugins()
    loaded.register(module("m", surgeon_families=surgeon_families), "mine")
    assert loaded.families()[0] is mine


def test_a_plugin_may_be_an_object_with_methods() -> None:
    class Paint(Operation):
        """Paint."""

        def apply(self, model: nn.Module, surgery: object) -> nn.Module:
            return model

    class Bundle:
        @hookimpl
        def surgeon_operations(self) -> list[type[Operation]]:
            return [Paint]

    loaded = Plugins()
    loaded.register(Bundle(), "bundle")
    assert loaded.operation("paint") is Paint


def test_every_hook_is_one_that_plugins_calls() -> None:
    assert set(HOOKS) == {*BUILTINS, "surgeon_commands"}


@pytest.mark.parametrize(
    ("pinned", "without", "there"),
    [(None, [], True), (None, ["shiny"], False), (None, ["shiny_plugin"], False), ("", [], False), ("shiny", [], True)],
)
def test_installed_plugins_are_pinned_and_left_out_by_name(
    site_packages: Path, monkeypatch: pytest.MonkeyPatch, pinned: str | None, without: list[str], there: bool
) -> None:
    installed(site_packages, "shiny_plugin", SOURCE.format(name="Shine"), "shiny")
    if pinned is not None:
        monkeypatch.setenv("SURGEON_PLUGINS", pinned)
    assert ("shine" in plugins.load(without=without).operations()) is there


def test_leaving_out_a_plugin_that_is_not_installed_names_the_nearest(site_packages: Path) -> None:
    installed(site_packages, "shiny_plugin", SOURCE.format(name="Shine"), "shiny")
    with pytest.raises(PluginError, match=r"--without names the plugin 'shinny'[\s\S]*nearest: shiny"):
        plugins.load(without=["shinny"])


def test_a_missing_plugin_is_named_by_its_distribution() -> None:
    needed = {"operation lora": "surgeon-lora 0.3"}
    with pytest.raises(OperationError, match=r"python -m pip install 'surgeon-lora==0\.3'"):
        plugins.load(installed=False).operation("lora", needed)
