"""Networks of the user's own code: which code may run, and what it has to return."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from surgeon.architectures.python import PythonFunction
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture_name import Architecture

PYTHON = PythonFunction()

NETS = """
import os
from torch import float32, nn
from torch.nn import Linear

def linear(width):
    return nn.Linear(width, 2)

def number():
    return 3

class Wide(nn.Linear):
    @classmethod
    def small(cls):
        return cls(2, 2)

class NoModule:
    pass
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "some_nets", raising=False)
    return "some_nets"


@pytest.mark.parametrize("trusted", ["some_nets", "some_nets:linear"])
def test_a_trusted_function_is_called_with_the_options(nets: str, trusted: str) -> None:
    architecture = Architecture(scheme="python", name=f"{nets}:linear", options={"width": 3})
    model = PYTHON.trusting([trusted]).build(architecture)
    assert (model.in_features, model.out_features) == (3, 2)


def test_a_method_of_a_trusted_class_may_build_the_network(nets: str) -> None:
    architecture = Architecture(scheme="python", name=f"{nets}:Wide.small")
    assert PYTHON.trusting([nets]).build(architecture).in_features == 2


def test_a_trusted_package_stands_for_the_modules_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net_package").mkdir()
    (tmp_path / "net_package" / "nets.py").write_text(NETS)
    (tmp_path / "net_package" / "__init__.py").write_text("from .nets import linear\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("net_package.nets:linear", "net_package:linear"):
        architecture = Architecture(scheme="python", name=name, options={"width": 3})
        assert PYTHON.trusting(["net_package"]).build(architecture).in_features == 3


@pytest.mark.parametrize("trusted", [[], ["some"], ["some_nets.below"], ["some_nets:other"]])
def test_code_that_nobody_trusts_is_not_even_imported(nets: str, trusted: list[str]) -> None:
    with pytest.raises(ArchitectureError, match="--trust-code some_nets"):
        PYTHON.trusting(trusted).build(Architecture(scheme="python", name=f"{nets}:linear"))
    assert nets not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package.nets:make", "PYTHONPATH"),
        ("some_nets:lniear", "nearest: .*linear"),
        ("some_nets", "write python:package.module:function"),
        ("some_nets:float32", "not a function"),
        ("some_nets:number", "returned int, not a torch.nn.Module"),
        ("some_nets:NoModule", "not a subclass of torch.nn.Module"),
        ("some_nets:Linear", "code of torch.nn.modules.linear, not of some_nets"),
        ("some_nets:os.system", "is a builtin_function_or_method"),
        ("some_nets:os.popen", "code of os, not of some_nets"),
        ("some_nets:linear.__globals__", "no attribute"),
        ("math:sqrt", "which surgeon does not call by name"),
        ("os:getcwd", "which surgeon does not call by name"),
        ("torch:load", "which surgeon does not call by name"),
        ("torchvision.models:resnet18", "which surgeon does not call by name"),
        ("surgeon.cli.app:run", "which surgeon does not call by name"),
    ],
)
def test_what_builds_no_network_of_the_users_is_refused(nets: str, name: str, message: str) -> None:
    trusting = PYTHON.trusting([nets, "no_such_package", name.partition(":")[0]])
    with pytest.raises(ArchitectureError, match=message):
        trusting.build(Architecture(scheme="python", name=name))


def test_what_a_users_function_raises_is_reported_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text("def broken():\n    return {}['missing']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ArchitectureError, match=r"python:my_nets:broken: raised KeyError: 'missing'"):
        PYTHON.trusting(["my_nets"]).build(Architecture(scheme="python", name="my_nets:broken"))
