"""What fine-tuning needs beside surgery, and the command that installs it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from surgeon.data.requirements import EXTRAS, require
from surgeon.errors import TrainingError

ROOT = Path(__file__).resolve().parents[2]
HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {hidden!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
import importlib.util as util
real = util.find_spec
util.find_spec = lambda name, *rest: None if name.split('.')[0] in {hidden!r} else real(name, *rest)
from surgeon import cli
sys.exit(cli.run({arguments!r}))
"""


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_extra_names_the_packages_of_pyproject(extra):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    packages = {line.split(">=")[0] for line in declared} - {"surgeon-torch[train]"}
    assert packages == set(EXTRAS[extra])


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr("surgeon.data.requirements.find_spec", lambda name: None if name == "datasets" else object())
    with pytest.raises(TrainingError, match="fine-tuning needs datasets, which is not installed") as caught:
        require("train", "fine-tuning")
    assert caught.value.hint == "python -m pip install 'surgeon-torch[train]'"


@pytest.mark.parametrize("train", [False, True])
def test_without_the_extra_surgery_works_and_training_says_what_to_install(tmp_path, train):
    recipe = "operations:\n  - {op: replace_head, classes: 3}\n"
    if train:
        recipe += "train:\n  data: {source: digits, classes: [0, 1, 2]}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    arguments = ["apply", str(tmp_path / "recipe.yaml"), "torchvision/resnet18", "-o", str(tmp_path / "out")]
    code = HIDE.format(hidden=set(EXTRAS["train"].values()), arguments=arguments)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if train:
        assert result.returncode != 0
        assert "pip install 'surgeon-torch[train]'" in result.stderr
        assert "bug in surgeon" not in result.stderr
    else:
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "out" / "model.safetensors").exists()
