"""What an artifact or a recipe of a stranger names is not run, opened or fetched without consent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families import vgg

import surgeon
from surgeon.checkpoint.digests import sealed
from surgeon.cli.app import run
from surgeon.errors import ArchitectureError, SurgeonError
from surgeon.recipe.reach import reaches

BUILDER = """
from pathlib import Path
from families import vgg
Path("ran").touch()
def build():
    return vgg()
"""
RECIPE = "operations: [{op: freeze, sites: features}]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network of the user's, its module and a recipe; ``ran`` shows that the module ran."""
    (tmp_path / "stranger_nets.py").write_text(BUILDER)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    torch.save(vgg().state_dict(), tmp_path / "net.pt")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger_nets", raising=False)
    return tmp_path


@pytest.fixture
def artifact(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact whose manifest names the module, which has not run since."""
    assert run(["apply", "recipe.yaml", "net.pt", "--arch", "python:stranger_nets:build", "-o", "out", "-q"]) == 0
    (folder / "ran").unlink()
    monkeypatch.delitem(sys.modules, "stranger_nets")
    return folder / "out"


def edit(artifact: Path, **changes: Any) -> None:
    """Change the record in a manifest, as somebody would who wants it to pass for unchanged."""
    manifest = json.loads((artifact / "surgeon.json").read_text())
    record = manifest["record"]
    record.update({key: value for key, value in changes.items() if key in record})
    record["surgeries"][-1].update({key: value for key, value in changes.items() if key in record["surgeries"][-1]})
    (artifact / "surgeon.json").write_text(json.dumps(sealed(manifest)))


COMMANDS = {
    "inspect": ["inspect", "out"],
    "check": ["check", "out"],
    "plan": ["plan", "recipe.yaml", "out"],
    "apply": ["apply", "recipe.yaml", "out", "-o", "again"],
    "predict": ["predict", "out", "--data", "{source: digits}"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_code_that_a_manifest_names_is_refused_with_the_option_that_lets_it_run(
    artifact: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(COMMANDS[command]) == ArchitectureError.exit_code
    assert "--trust-code stranger_nets" in " ".join(capsys.readouterr().err.split())
    assert not Path("ran").exists()


@pytest.mark.parametrize("command", ["inspect", "check", "plan", "apply"])
def test_with_that_option_it_runs(artifact: Path, command: str) -> None:
    assert run([*COMMANDS[command], "--trust-code", "stranger_nets"]) == 0
    assert Path("ran").exists()


def test_python_has_the_same_rule(artifact: Path) -> None:
    for verb in (surgeon.load, surgeon.verify, lambda path: surgeon.plan(path, "recipe.yaml")):
        with pytest.raises(ArchitectureError, match="trust_code='stranger_nets'"):
            verb(artifact)
    assert not Path("ran").exists()
    assert surgeon.load(artifact, trust_code="stranger_nets") is not None
    assert surgeon.load(artifact, arch="python:stranger_nets:build") is not None
    assert surgeon.verify(artifact, trust_code=["stranger_nets:build"]).tensors > 0
    assert surgeon.plan(artifact, "recipe.yaml", trust_code="stranger_nets").tensors


@pytest.mark.parametrize("name", ["os:system", "torch:load", "subprocess:run", "torch.hub:load", "builtins:eval"])
def test_a_function_of_a_library_is_never_called(artifact: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    edit(artifact, architecture={"scheme": "python", "name": name, "options": {"command": "touch ran"}})
    for options in ([], ["--trust-code", "stranger_nets"]):
        assert run(["inspect", "out", *options]) == ArchitectureError.exit_code
    assert run(["inspect", "out", "--trust-code", name]) == ArchitectureError.exit_code
    assert "does not call by name" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_code_among_the_recorded_answers_is_refused(folder: Path) -> None:
    surgeon.save(surgeon.apply(vgg(), [surgeon.Progressive(task="second", arch="python:stranger_nets:build")]), "out")
    Path("ran").unlink()
    del sys.modules["stranger_nets"]
    with pytest.raises(ArchitectureError, match="trust_code='stranger_nets'"):
        surgeon.load("out", arch=vgg)
    assert not Path("ran").exists()
    assert surgeon.load("out", arch=vgg, trust_code="stranger_nets") is not None


@pytest.mark.parametrize(
    "text",
    [
        RECIPE + "arch: python:stranger_nets:build\n",
        RECIPE + "model: python:stranger_nets:build\n",
        "operations: [{op: progressive, task: second, arch: 'python:stranger_nets:build'}]\n",
        "operations: [{op: transfer, donor: 'python:stranger_nets:build', sites: features}]\n",
    ],
)
def test_code_that_a_recipe_names_needs_consent(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text(text)
    model = [] if "model" in text else ["net.pt"]
    arch = [] if "arch: python" in text or "model" in text else ["--arch", "python:families:vgg"]
    assert run(["plan", "recipe.yaml", *model, *arch]) == ArchitectureError.exit_code
    assert "--trust-code stranger_nets" in " ".join(capsys.readouterr().err.split())
    assert not Path("ran").exists()


def test_what_the_caller_types_with_set_runs(folder: Path) -> None:
    assert run(["plan", "recipe.yaml", "net.pt", "--set", "arch=python:stranger_nets:build"]) == 0


def test_operations_of_a_manifest_are_not_taken_for_the_callers_own(folder: Path) -> None:
    from surgeon.pipeline.finetune import from_scratch
    from surgeon.pipeline.prepare import prepare
    from surgeon.plugins import load

    operation = surgeon.Progressive(task="second", arch="python:stranger_nets:build")
    prepared = prepare(vgg(), [operation])
    Path("ran").unlink()
    del sys.modules["stranger_nets"]
    source = prepare("net.pt", "recipe.yaml", arch="python:families:vgg").source
    with pytest.raises(ArchitectureError, match="trust_code='stranger_nets'"):
        from_scratch(source, prepared.record, load())
    assert not Path("ran").exists()


def test_a_donor_that_a_manifest_names_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(vgg().state_dict(), "donor.pt")
    surgeon.save(surgeon.apply(vgg(), [surgeon.Transfer(donor="donor.pt", sites="features")]), "out")
    assert surgeon.load("out", arch=vgg) is not None
    manifest = json.loads(Path("out/surgeon.json").read_text())
    manifest["record"]["surgeries"][-1]["answers"] = {}
    Path("out/surgeon.json").write_text(json.dumps(sealed(manifest)))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a file that a manifest names was opened")

    monkeypatch.setattr("surgeon.architectures.donor.open_source", refuse)
    with pytest.raises(ArchitectureError, match=r"does not record the answer for 'donor\.pt'"):
        surgeon.load("out", arch=vgg)


TRAIN = """
operations: [{op: replace_head, classes: 2}]
train: {epochs: 1, data: {source: table, path: PATH, numbers: {x: [a]}, targets: {labels: y}}}
"""


def test_the_recipe_inside_an_artifact_reads_no_file_elsewhere(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "secret.csv").write_text("a,y\n1,0\n2,1\n")
    Path("recipe.yaml").write_text(TRAIN.replace("PATH", str(folder / "secret.csv")))
    command = ["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "--no-train", "-o", "out", "-q"]
    assert run(command) == 0
    assert run(["train", "out", "--trust-code", "families", "-q"]) == 3
    err = " ".join(capsys.readouterr().err.split())
    assert "secret.csv" in err
    assert "--trust-recipe" in err


@pytest.mark.parametrize("argument", ["push_to_hub", "hub_model_id", "hub_token", "output_dir", "logging_dir"])
def test_no_recipe_publishes_or_writes_elsewhere(
    folder: Path, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TRAIN.replace("PATH", "x.csv").replace("epochs: 1", f"epochs: 1, arguments: {{{argument}: '/tmp/x'}}")
    Path("recipe.yaml").write_text(text)
    assert run(["plan", "recipe.yaml", "net.pt"]) == 3
    assert f"{argument!r} cannot be set here" in " ".join(capsys.readouterr().err.split())


def test_the_plan_lists_what_a_recipe_reaches_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(vgg().state_dict(), "donor.pt")
    Path("recipe.yaml").write_text(
        "model: net.pt\narch: python:families:vgg\n"
        "operations: [{op: transfer, donor: donor.pt, sites: features}, {op: progressive, task: b, arch: hf/BertModel}]"
        "\ntrain:\n  arguments: {report_to: wandb}\n"
        "  data: [{source: hub, name: a/b, numbers: {x: [a]}, targets: {y: y}},"
        " {source: table, path: /etc/x.csv, text: a, tokenizer: c/d, targets: {y: y}}]\n"
    )
    listed = [(reach.kind, reach.what, reach.where) for reach in reaches(surgeon.load_recipe("recipe.yaml"))]
    assert listed == [
        ("file", "net.pt", "model"),
        ("code", "families:vgg", "arch"),
        ("file", "donor.pt", "operations.0.donor"),
        ("network", "data set a/b", "train.data.0.name"),
        ("network", "c/d", "train.data.1.tokenizer"),
        ("file", "/etc/x.csv", "train.data.1.path"),
        ("network", "reports to wandb", "train.arguments.report_to"),
    ]
    Path("recipe.yaml").write_text("operations: [{op: transfer, donor: donor.pt, sites: features}]\n")
    assert run(["plan", "recipe.yaml", "net.pt", "--arch", "python:families:vgg"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "outside resources file donor.pt (operations.0.donor)" in out


@pytest.mark.parametrize("value", ["kernels-community/evil", {"": "someone/kernel"}])
def test_a_config_fetches_no_kernels_from_the_hub(folder: Path, value: object) -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"], "_attn_implementation": value}
    Path("net").mkdir()
    Path("net/config.json").write_text(json.dumps(config))
    with pytest.raises(SurgeonError, match="does not download"):
        surgeon.plan("hf:./net", [surgeon.Freeze(sites="embeddings")])


def test_an_option_of_a_torchvision_builder_fetches_no_weights(artifact: Path) -> None:
    options = {"pretrained": True}
    edit(artifact, architecture={"scheme": "torchvision", "name": "resnet18", "options": options})
    with pytest.raises(ArchitectureError, match="options cannot load weights"):
        surgeon.load(artifact)
