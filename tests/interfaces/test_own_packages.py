"""The table of surgeon's own packages is what the packages offer, and their names lead to them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import surgeon
from surgeon.errors import ArchitectureError, CheckpointError, SurgeonError
from surgeon.interfaces.own_packages import OWN_PACKAGES, operation_hint

PLUGINS = Path(__file__).parents[2] / "plugins"


def trees(distribution: str) -> list[ast.Module]:
    folder = PLUGINS / distribution
    return [ast.parse(path.read_text()) for path in folder.rglob("*.py") if "tests" not in path.parts]


def offered(distribution: str) -> set[str]:
    """Names of the operations in the list that the package's hook returns."""
    hooks = [
        node
        for tree in trees(distribution)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "surgeon_operations"
    ]
    classes = [name.id for hook in hooks for name in ast.walk(hook.body[-1]) if isinstance(name, ast.Name)]
    return {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() for name in classes}


def schemes(distribution: str) -> set[str]:
    return {
        ast.literal_eval(node.value)
        for tree in trees(distribution)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["scheme"]
    }


def test_every_package_is_listed():
    assert set(OWN_PACKAGES) == {path.parent.name for path in PLUGINS.glob("*/pyproject.toml")}


@pytest.mark.parametrize("distribution", OWN_PACKAGES)
def test_what_is_listed_is_what_the_package_offers(distribution):
    assert set(OWN_PACKAGES[distribution].operations) == offered(distribution)
    assert set(OWN_PACKAGES[distribution].schemes) == schemes(distribution)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lora", "write op: peft with method: lora, after python -m pip install surgeon-peft"),
        ("peft", "it is in surgeon-peft: python -m pip install surgeon-peft"),
        ("prune_heads", "it is in surgeon-prune: python -m pip install surgeon-prune"),
    ],
)
def test_an_operation_of_a_package_that_is_missing_names_the_package(name, hint, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"operations: [{{op: {name}}}]\n")
    plugins = surgeon.load_plugins(installed=False)
    with pytest.raises(SurgeonError) as raised:
        surgeon.plan("torchvision/resnet18", recipe, plugins=plugins)
    assert hint in str(raised.value)


def test_a_method_of_an_installed_package_names_its_operation():
    assert operation_hint("lora", ["surgeon-peft"]) == "write op: peft with method: lora"
    assert operation_hint("peft", ["surgeon-peft"]) is None


def test_a_scheme_of_a_package_that_is_missing_names_the_package(tmp_path):
    plugins = surgeon.load_plugins(installed=False)
    with pytest.raises(CheckpointError, match="timm is in surgeon-timm: python -m pip install surgeon-timm"):
        surgeon.inspect("timm/resnet18", plugins=plugins)
    with pytest.raises(CheckpointError, match="peft is in surgeon-peft"):
        surgeon.inspect("peft:adapter", plugins=plugins)
    with pytest.raises(ArchitectureError, match="timm is in surgeon-timm"):
        surgeon.inspect(Path("recipes/digits.pt").absolute(), arch="timm/resnet18", plugins=plugins)
