"""A new plugin package installs, and passes its tests, linters and type checks as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import surgeon
from surgeon import cli, plugins
from surgeon.errors import OutputError, PluginError
from surgeon.scaffold.package import KINDS, write_package

ROOT = Path(surgeon.__file__).resolve().parents[1]


def written(folder: Path, kind: str, name: str = "surgeon-brand-new") -> Path:
    return write_package(name, kind, folder, plugins.load(installed=False))[0].parent  # type: ignore[arg-type]


def execute(folder: Path, *command: str, path: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT))))}
    environment["MYPYPATH"] = str(ROOT)
    process = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def installed(package: Path, site: Path) -> Path:
    """Build the wheel and unpack it, as pip would."""
    execute(package, "hatchling", "build", "-t", "wheel")
    (wheel,) = (package / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def check_tests(package: Path, site: Path) -> None:
    execute(package, "pytest", "-x", "-p", "no:cacheprovider", path=installed(package, site))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_its_linters(tmp_path, kind):
    package = written(tmp_path, kind)
    assert "All checks passed" in execute(package, "ruff", "check", ".")
    execute(package, "ruff", "format", "--check", ".")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "operation" else kind for kind in KINDS]
)
def test_a_new_package_installs_and_passes_its_tests(tmp_path, kind):
    check_tests(written(tmp_path, kind), tmp_path / "site")
    listing = execute(tmp_path, "surgeon", "plugins", path=tmp_path / "site")
    assert "surgeon-brand-new 0.1.0" in listing


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_strict_type_checks(tmp_path, kind):
    assert "no issues found" in execute(written(tmp_path, kind), "mypy", "--strict", "--follow-imports=silent")


def test_no_word_of_a_template_is_left_and_the_package_has_all_parts(tmp_path):
    for kind in KINDS:
        package = written(tmp_path / kind, kind)
        files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
        assert {"pyproject.toml", "README.md", ".gitignore", ".github/workflows/test.yml"} <= files
        assert {"surgeon_brand_new/__init__.py", "surgeon_brand_new/py.typed", "tests/test_plugin.py"} <= files
        texts = "".join((package / file).read_text() for file in files)
        assert "$" not in texts.replace("${{ matrix.python }}", "")
        assert "brand_new" in texts


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("1st", "operation", "cannot name a package"),
        ("../evil", "operation", "cannot name a package"),
        ("surgeon-class", "operation", "not a Python name"),
        ("surgeon-2d", "operation", "not a Python name"),
        ("torch", "operation", "exists already"),
        ("json", "operation", "exists already"),
        ("surgeon", "operation", "exists already"),
        ("surgeon-freeze", "operation", "already the operation 'freeze'"),
        ("surgeon-torchvision", "architecture", "already the architecture scheme"),
        ("surgeon-mse", "training", "already the loss 'mse'"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(tmp_path, name, kind, reason):
    with pytest.raises(PluginError, match=reason):
        written(tmp_path, kind, name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_left_alone(tmp_path):
    written(tmp_path, "operation")
    with pytest.raises(OutputError, match="exists already"):
        written(tmp_path, "training")


def test_the_command_writes_it_and_the_bare_command_still_lists(tmp_path, capsys):
    assert cli.run(["plugins", "new", "Surgeon_Shiny.Gates", "-o", str(tmp_path)]) == 0
    assert "surgeon-shiny-gates" in capsys.readouterr().out
    assert "class ShinyGates(Operation)" in (
        tmp_path / "surgeon-shiny-gates/surgeon_shiny_gates/operation.py"
    ).read_text(encoding="utf-8")
    assert cli.run(["plugins", "new", "x-y", "--kind", "operatoin"]) == 1
    assert "operation" in capsys.readouterr().err
    assert cli.run(["plugins"]) == 0
    assert "surgeon.operations" in capsys.readouterr().out
