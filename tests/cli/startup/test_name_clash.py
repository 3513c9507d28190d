"""Another distribution called ``surgeon`` in the same environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def install(folder: Path, name: str, files: list[str]) -> None:
    info = folder / f"{name}-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def version(folder: Path) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(folder)!r}]; from surgeon import cli; cli.run(['--version'])"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_distribution_whose_files_lie_over_ours_is_named_at_start(tmp_path):
    install(tmp_path, "surgeon", ["surgeon/__init__.py"])
    assert "pip uninstall surgeon" in version(tmp_path).stderr


def test_one_without_such_files_is_not(tmp_path):
    install(tmp_path, "surgeon", ["elsewhere/__init__.py"])
    result = version(tmp_path)
    assert result.stderr == ""
    assert result.stdout.startswith("surgeon ")
