"""The public interface: three lists of the same names, and types that hold for a user."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import surgeon
from surgeon.cli.app import make_app
from surgeon.recipe.catalog import describe_operations

SOURCE = Path(surgeon.__file__)

SCRIPT = '''
from pathlib import Path

from torch import nn

import surgeon
from surgeon import Freeze, Operation, ReplaceHead, Selector, Surgery, Truncate


class Drop(Operation):
    """Remove a site."""

    site: Selector

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        site = surgery.site(self.site)
        surgery.note(f"removes {site.name}, shape {surgery.shape(site)}")
        surgery.remove(site)
        return surgery.model


def main(model: nn.Module, recipe: Path) -> float | None:
    plugins: surgeon.Plugins = surgeon.load_plugins()
    plan: surgeon.Plan = surgeon.plan(model, [Truncate(after="layer3"), ReplaceHead(classes=3)], plugins=plugins)
    print(plan.counts, plan.parameters)
    edited: nn.Module = surgeon.apply(model, [Freeze(up_to="layer2")], seed=3, roles={"head": "fc"})
    out: Path = surgeon.save(edited, "out", force=True)
    again: nn.Module = surgeon.load(out, trust_pickle=False)
    checked: surgeon.Verification = surgeon.verify(out, model)
    print(checked.kept)
    view: surgeon.NetworkView = surgeon.inspect(again)
    print([site.parameters for site in view.sites], view.select("@head")[0].shape)
    trained, report = surgeon.finetune(model, surgeon.load_recipe(recipe), quiet=False)
    settings = surgeon.TrainSettings(epochs=2)
    second: surgeon.TrainReport = surgeon.train(trained, settings, seed=1)
    advice: surgeon.Advice = surgeon.advise(model, {"source": "digits"}, at=["layer1"])
    advice.save("advised.yaml")
    predicted: surgeon.Predictions = surgeon.predict("out", ["shots", "one.png"], on_error="skip")
    evaluated: surgeon.Evaluation = surgeon.evaluate(again, "shots", classes=["cat", "dog"])
    print(predicted.rows, predicted.to_table(), evaluated.main, evaluated.to_dict())
    run: surgeon.RunReport = surgeon.run_recipe(model, recipe, "made", train=False)
    surgeon.run_training("made", None, "trained", resume=True)
    print(run.reload, second.after, surgeon.describe_operations()["freeze"], surgeon.recipe_schema(plugins))
    return report.accuracy_after
'''

MISTAKES = """
import surgeon

surgeon.plan("net.pt", "recipe.yaml", archi="torchvision/resnet18")
surgeon.apply("net.pt", "recipe.yaml", seed="three")
"""


def test_the_three_lists_name_the_same():
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    typed = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.If)
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    homes = set(surgeon._HOME_OF)
    assert homes == typed == set(surgeon.__all__) - {"__version__"}
    assert sorted(surgeon.__all__) == list(surgeon.__all__)


def test_every_command_has_a_function():
    functions = {
        "apply": "run_recipe",
        "train": "run_training",
        "ops": "describe_operations",
        "schema": "recipe_schema",
    }
    functions |= {"plugins": "load_plugins", "train-report": "write_page"}
    commands = typer.main.get_command(make_app(surgeon.load_plugins(installed=False))).commands
    missing = [name for name in commands if functions.get(name, name) not in surgeon.__all__]
    assert missing == []


def test_operations_are_described_as_the_command_lists_them(capsys):
    import json

    from surgeon import cli

    capsys.readouterr()
    assert cli.run(["ops", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [operation["name"] for operation in printed] == list(describe_operations())


def test_importing_surgeon_and_describing_operations_imports_no_torch():
    code = "import sys, surgeon; surgeon.describe_operations(); surgeon.load_recipe; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_defaults_of_fields_are_given_by_keyword_so_that_type_checkers_see_them():
    positional = [
        f"{path.name}:{node.lineno}"
        for path in SOURCE.parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field" and node.args
    ]
    assert positional == []


@pytest.mark.slow
def test_a_users_script_is_clean_under_strict_mypy_and_mistakes_are_found(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    process = subprocess.run([*command, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout
    process = subprocess.run([*command, "mistakes.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert 'Unexpected keyword argument "archi"' in process.stdout
    assert 'Argument "seed"' in process.stdout
