"""What an artifact recorded of its operations stands above what today's plugin would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from families import build, example
from pydantic import BaseModel, Field, model_validator
from torch import nn

import surgeon
from surgeon import plugins
from surgeon.checkpoint.digests import sealed
from surgeon.errors import OperationError, PluginError, SurgeonWarning
from surgeon.interfaces.record import Surgeries
from surgeon.operations import Freeze, Multitask, ReplaceHead, Truncate
from surgeon.pipeline import training_run
from surgeon.pipeline.training_run import recipe_of_artifact
from surgeon.plugins import Plugins
from surgeon.recipe.load import Recipe, operation_dict
from surgeon.recipe.recorded import recorded_operations, resolved
from surgeon.surgery.opened import OpenOptions


class Gain(nn.Module):
    """Multiplies by a number that no state dict holds."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class Options(BaseModel):
    """Options inside a field."""

    factor: float = 2.0


class Scale(surgeon.Operation):
    """Scale the output of a site, as surgeon-scale 1.0 does it."""

    at: str = "layer1"
    factor: float = 2.0
    more: Options = Options()

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        """Insert the factor."""
        gain = surgery.new(Gain, self.factor * self.more.factor)
        surgery.insert(surgery.site(self.at), gain, name="gain")
        return surgery.model


class MoreOptions(BaseModel):
    """The same with another default."""

    factor: float = 7.0


def variant(**members: Any) -> type[surgeon.Operation]:
    """The operation in another release of its distribution."""
    annotations = members.pop("annotations", {})
    members |= {"__module__": __name__, "__annotations__": annotations, "name": "scale"}
    return type("ScaleAgain", (Scale,), members)


def plugin_with(
    operation: type[surgeon.Operation], release: str = "1.0", *, distribution: str = "surgeon-scale"
) -> Plugins:
    """Plugins among which a distribution offers the operation."""

    class Bundle:
        @surgeon.hookimpl
        def surgeon_operations(self) -> list[type[surgeon.Operation]]:
            return [operation]

    loaded = plugins.load(installed=False)
    if distribution:
        loaded.distributions["scale"] = (distribution, release)
    loaded.register(Bundle(), "scale")
    return loaded


def run(model: nn.Module) -> torch.Tensor:
    args, _ = example("resnet")
    with torch.no_grad():
        output: torch.Tensor = model.eval()(*args)
    return output


@pytest.fixture
def made() -> nn.Module:
    return surgeon.apply(build("resnet"), [Scale(at="layer2")], plugins=plugin_with(Scale))


@pytest.fixture
def artifact(made: nn.Module, tmp_path: Path) -> Path:
    return surgeon.save(made, tmp_path / "out")


def recorded(artifact: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((artifact / "surgeon.json").read_text())
    entry: dict[str, Any] = manifest["record"]["surgeries"][-1]
    return entry


def test_the_manifest_holds_every_field_the_version_and_the_distribution(artifact: Path) -> None:
    entry = recorded(artifact)
    assert entry["operations"] == [{"op": "scale", "at": "layer2"}]
    assert entry["resolved"] == [
        {
            "fields": {"at": "layer2", "factor": 2.0, "more": {"factor": 2.0}},
            "version": 1,
            "distribution": "surgeon-scale",
            "release": "1.0",
        }
    ]
    assert "factor" not in (artifact / "recipe.yaml").read_text()


CHANGED_DEFAULTS = {
    "plain": variant(annotations={"factor": float}, factor=32.0),
    "nested": variant(annotations={"more": MoreOptions}, more=MoreOptions()),
    "explicit is the default now": variant(annotations={"at": str, "factor": float}, at="layer2", factor=3.0),
    "no longer a default": variant(annotations={"factor": float}, factor=Field()),
    "a new field": variant(annotations={"another": int}, another=1),
}


@pytest.mark.parametrize("changed", CHANGED_DEFAULTS.values(), ids=CHANGED_DEFAULTS)
def test_another_default_changes_nothing_in_an_artifact(
    changed: type[surgeon.Operation], made: nn.Module, artifact: Path
) -> None:
    today = plugin_with(changed)
    loaded = surgeon.load(artifact, plugins=today)
    assert torch.equal(run(loaded), run(made))
    surgeon.check(artifact, plugins=today)
    again = surgeon.apply(artifact, [Freeze(up_to="layer1")], plugins=today)
    assert torch.equal(run(again), run(made))
    second = surgeon.load(surgeon.save(again, artifact.with_name("second")), plugins=today)
    assert torch.equal(run(second), run(made))


@pytest.mark.parametrize("form", ["out", "out.safetensors", "out.pt"])
def test_training_an_artifact_takes_the_recorded_fields(form: str, tmp_path: Path) -> None:
    model = surgeon.apply(build("resnet"), [Scale(at="layer2")], plugins=plugin_with(Scale))
    path = surgeon.save(model, tmp_path / form)
    (recipe,) = recipe_of_artifact(path, [], plugin_with(CHANGED_DEFAULTS["plain"])).operations
    assert (recipe.at, recipe.factor) == ("layer2", 2.0)  # type: ignore[attr-defined]
    with pytest.warns(SurgeonWarning, match="here it comes from surgeon-scale 2.0"):
        (recipe,) = recipe_of_artifact(path, [], plugin_with(Migrating, "2.0")).operations
    assert recipe.gain == 400.0  # type: ignore[attr-defined]


def test_a_recipe_counts_as_applied_whatever_its_defaults_are_today(artifact: Path) -> None:
    for name in ("plain", "explicit is the default now"):
        kind = CHANGED_DEFAULTS[name]
        options = OpenOptions(plugins=plugin_with(kind))
        recipe = Recipe(operations=[kind(at="layer2")], model=str(artifact))
        if name != "plain":
            recipe = Recipe(operations=[kind(factor=2.0)], model=str(artifact))
        trainee = training_run._trainee(recipe, None, options, None, own_recipe=False)
        assert len(trainee.record.surgeries) == 1
        assert trainee.operations == [kind(at="layer2", factor=2.0)]


def test_without_the_record_the_default_of_today_counts(made: nn.Module, artifact: Path) -> None:
    manifest = json.loads((artifact / "surgeon.json").read_text())
    manifest["record"]["surgeries"][-1].pop("resolved")
    (artifact / "surgeon.json").write_text(json.dumps(sealed({**manifest, "format": 2})))
    changed = plugin_with(CHANGED_DEFAULTS["plain"])
    assert not torch.equal(run(surgeon.load(artifact, plugins=changed)), run(made))


class Renamed(surgeon.Operation):
    """Scale, in version 2: the factor is called gain, and is given in percent."""

    name: ClassVar[str] = "scale"
    version: ClassVar[int] = 2
    at: str = "layer1"
    gain: float = 100.0

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        """Insert the factor."""
        surgery.insert(surgery.site(self.at), surgery.new(Gain, self.gain / 100), name="gain")
        return surgery.model


class Migrating(Renamed):
    """The same, and it knows the fields of version 1."""

    name: ClassVar[str] = "scale"

    @classmethod
    def migrate(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Multiply the factors."""
        assert version == 1
        factor = fields["factor"] * fields["more"]["factor"]
        return {"at": fields["at"], "gain": 100 * factor}


def test_fields_of_an_earlier_version_are_migrated(made: nn.Module, artifact: Path) -> None:
    with pytest.warns(SurgeonWarning, match=r"'?scale'? of surgeon-scale 1\.0; here it comes from surgeon-scale 2\.0"):
        loaded = surgeon.load(artifact, plugins=plugin_with(Migrating, "2.0"))
    assert torch.equal(run(loaded), run(made))


INSTALL = r"python -m pip install 'surgeon-scale==1\.0'"


def test_a_version_that_cannot_be_migrated_names_what_to_install(artifact: Path) -> None:
    pattern = rf"scale: it was recorded in version 1, and version 2 is installed\n.*{INSTALL}"
    with pytest.raises(OperationError, match=pattern):
        surgeon.load(artifact, plugins=plugin_with(Renamed, "2.0"))
    with pytest.raises(OperationError, match=pattern):
        surgeon.check(artifact, plugins=plugin_with(Renamed, "2.0"))


def test_fields_of_a_newer_version_are_refused_without_asking_migrate(tmp_path: Path) -> None:
    newer = plugin_with(Renamed, "2.0")
    path = surgeon.save(surgeon.apply(build("resnet"), [Renamed(gain=300)], plugins=newer), tmp_path / "out")
    with pytest.raises(OperationError, match=r"version 2, and the installed version 1 is older\n.*surgeon-scale==2\.0"):
        surgeon.load(path, plugins=plugin_with(Scale))


def _raises(fields: dict[str, Any], version: int) -> dict[str, Any]:
    return {"gain": fields["gone"]}


def _refuses(fields: dict[str, Any], version: int) -> dict[str, Any]:
    raise OperationError("the factor was per channel then", hint="ask the author")


def _returns_nothing(fields: dict[str, Any], version: int) -> None:
    fields["gain"] = 1.0


def _keeps_old_names(fields: dict[str, Any], version: int) -> dict[str, Any]:
    return fields


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (_raises, PluginError, r"migrate\(fields, 1\) raised KeyError: 'gone'"),
        (_refuses, OperationError, "the factor was per channel then\n.*ask the author; "),
        (_returns_nothing, PluginError, "migrate must return the fields as a dict, not None: is a return missing?"),
        (_keeps_old_names, OperationError, "do not fit the installed operation: factor: unknown key"),
    ],
)
def test_a_migration_that_fails_is_named_with_what_to_install(
    function: Any, error: type[Exception], message: str, artifact: Path
) -> None:
    kind = type("Wrong", (Renamed,), {"name": "scale", "migrate": staticmethod(function), "__module__": __name__})
    with pytest.raises(error, match=rf"{message}[\s\S]*{INSTALL}"):
        surgeon.load(artifact, plugins=plugin_with(kind))


def test_a_field_that_is_gone_is_refused_with_what_to_install(artifact: Path) -> None:
    class Scale(surgeon.Operation):
        """Has lost its options, and kept its version."""

        at: str = "layer1"
        factor: float = 2.0

        def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
            """Do nothing."""
            return model

    with pytest.raises(OperationError, match=rf"recorded fields do not fit.*more: unknown key[\s\S]*{INSTALL}"):
        surgeon.load(artifact, plugins=plugin_with(Scale))


def test_a_value_that_comes_back_otherwise_is_refused(artifact: Path) -> None:
    class Doubling(Scale):
        """Changes what it is given."""

        name: ClassVar[str] = "scale"

        @model_validator(mode="before")
        @classmethod
        def _change(cls, values: Any) -> Any:
            return {**values, "factor": 5.0}

    with pytest.raises(OperationError, match=r"its field factor was recorded as 2\.0 and does not come back so"):
        surgeon.load(artifact, plugins=plugin_with(Doubling))


@pytest.mark.parametrize(
    "operation",
    [
        Scale(more=Options(factor=3.0)),
        Truncate(keep_blocks=0.5),
        Freeze(up_to="layer2"),
        ReplaceHead(classes=["a", "b"]),
        Multitask(tasks={"age": {"kind": "regression", "classes": 1}}),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_operations_survive_the_way_through_a_manifest(operation: surgeon.Operation) -> None:
    loaded = plugin_with(type(operation) if operation.name == "scale" else Scale)
    surgeries = Surgeries(operations=[operation_dict(operation)], resolved=resolved([operation], loaded))
    again = Surgeries.model_validate_json(surgeries.model_dump_json())
    assert recorded_operations(again, loaded) == [operation]
    older = Surgeries(operations=surgeries.operations)
    if operation.name != "scale":
        assert recorded_operations(older, loaded) == [operation]


def test_another_version_of_the_distribution_warns_once_by_name(artifact: Path) -> None:
    newer = plugin_with(Scale, "1.1")

    def use() -> None:
        surgeon.load(artifact, plugins=newer)
        surgeon.check(artifact, plugins=newer)
        surgeon.apply(artifact, [Freeze(up_to="layer1")], plugins=newer)

    with pytest.warns(SurgeonWarning) as caught:
        use()
    assert len(caught) == 1
    assert "scale of surgeon-scale 1.0; here it comes from surgeon-scale 1.1" in str(caught[0].message)


@pytest.mark.parametrize(
    ("today", "text"),
    [
        (plugin_with(Scale, "3.0", distribution="other-scale"), "here it comes from other-scale 3.0"),
        (plugin_with(Scale, distribution=""), "here it comes from a file or module that is not installed"),
    ],
)
def test_another_distribution_warns_too(today: Plugins, text: str, artifact: Path) -> None:
    with pytest.warns(SurgeonWarning, match=text):
        surgeon.load(artifact, plugins=today)


def test_what_came_from_a_file_may_come_from_a_package_later(tmp_path: Path) -> None:
    model = surgeon.apply(build("resnet"), [Scale()], plugins=plugin_with(Scale, distribution=""))
    path = surgeon.save(model, tmp_path / "out")
    assert recorded(path)["resolved"][0]["distribution"] == ""
    surgeon.load(path, plugins=plugin_with(Scale))


def test_another_version_of_surgeon_itself_does_not_warn(tmp_path: Path) -> None:
    path = surgeon.save(surgeon.apply(build("resnet"), [Freeze(up_to="layer1")]), tmp_path / "out")
    manifest = json.loads((path / "surgeon.json").read_text())
    entry = manifest["record"]["surgeries"][-1]["resolved"][0]
    assert entry["distribution"] == "surgeon-torch"
    entry["release"] = "0.0.1"
    (path / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    surgeon.load(path)


def test_an_absurd_size_in_the_recorded_fields_is_refused(artifact: Path) -> None:
    manifest = json.loads((artifact / "surgeon.json").read_text())
    manifest["record"]["surgeries"][-1]["resolved"][0]["fields"]["factor"] = 1e12
    (artifact / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(surgeon.ArchitectureError, match="is 1,000,000,000,000"):
        surgeon.load(artifact, plugins=plugin_with(Scale))


@pytest.mark.parametrize("version", [0, -1, "2", 1.5, None, True])
def test_an_operation_whose_version_is_not_a_number_is_left_out(version: Any) -> None:
    loaded = plugin_with(type("Odd", (Scale,), {"name": "scale", "version": version, "__module__": __name__}))
    assert "scale" not in loaded.operations()
    assert "use a whole number from 1" in loaded.failures["scale"].message


def test_a_missing_plugin_is_named_with_what_to_install(artifact: Path) -> None:
    for use in (surgeon.load, surgeon.check, surgeon.predict):
        with pytest.raises(surgeon.SurgeonError) as error:
            use(artifact, **({"data": [example("resnet")[0]]} if use is surgeon.predict else {}))
        assert "python -m pip install 'surgeon-scale==1.0'" in str(error.value)


def test_a_plugin_that_is_installed_and_failed_is_not_to_be_installed_again(artifact: Path) -> None:
    broken = plugins.load(installed=False)
    broken.distributions["scale"] = ("surgeon-scale", "1.0")
    broken.fail("scale", PluginError("plugin 'scale' cannot be imported: no scipy"))
    with pytest.raises(surgeon.SurgeonError, match="which failed: plugin 'scale' cannot be imported: no scipy"):
        surgeon.load(artifact, plugins=broken)
