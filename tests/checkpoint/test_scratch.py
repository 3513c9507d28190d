"""The output appears whole, verified, or not at all; what a killed run leaves is cleared."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from families import vgg

import surgeon
from surgeon.checkpoint.scratch import appearing, clear_leftovers
from surgeon.cli.app import run
from surgeon.errors import VerificationError

RECIPE = "operations: [{op: freeze, sites: features}]\n"
FORMS = ["out", "out.safetensors", "out.pt"]

KILLED = """
import os, signal, sys
from pathlib import Path
from surgeon.checkpoint.scratch import appearing
with appearing(Path(sys.argv[1])) as place:
    place.write_bytes(bytes(100_000))
    print("writing", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    torch.save(vgg().state_dict(), tmp_path / "net.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def killed(path: Path) -> None:
    """Leave behind what a run leaves that is killed while it writes."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True)
    assert done.stdout == b"writing\n"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("earlier", [False, True])
def test_what_fails_the_reload_check_leaves_the_output_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str, earlier: bool
) -> None:
    command = ["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-o", form, "-q", "--force"]
    if earlier:
        assert run(command) == 0
    before = names(folder)

    def refuse(_: object, path: Path, *__: object) -> None:
        raise VerificationError(f"{path} holds other values", where=str(path), hint="a bug")

    monkeypatch.setattr("surgeon.pipeline.run.check_streamed", refuse)
    assert run(command) == VerificationError.exit_code
    assert names(folder) == before
    told = " ".join(capsys.readouterr().err.split())
    assert f"{form}: {form} holds other values" in told
    assert (f"{form} stays as it was" if earlier else f"nothing was written to {form}") in told
    if earlier:
        assert surgeon.verify(form, trust_code="families").digests


def test_a_network_that_cannot_be_had_again_is_kept_as_rejected(folder: Path) -> None:
    def refuse(path: Path) -> None:
        raise VerificationError("holds other values", where=str(path))

    with pytest.raises(VerificationError, match=r"the rejected artifact is in out\.rejected\.pt"):
        surgeon.save(vgg(), "out.pt", check=refuse)
    assert names(folder) == ["net.pt", "out.rejected.pt", "recipe.yaml"]


def test_what_a_killed_run_leaves_is_cleared_by_the_next_which_says_how_much(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(folder / "out")
    (left,) = (name for name in names(folder) if name.startswith(".surgeon-"))
    assert left.split("-")[1].isdigit()
    assert run(["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-o", "out"]) == 0
    assert "removed 100 kB that an interrupted run left" in " ".join(capsys.readouterr().err.split())
    assert names(folder) == ["net.pt", "out", "recipe.yaml"]


def test_what_another_run_is_writing_stays(tmp_path: Path) -> None:
    with appearing(tmp_path / "out") as place:
        place.write_bytes(b"x")
        code = "import sys, pathlib, surgeon.checkpoint.scratch as s; s.clear_leftovers(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert clear_leftovers(tmp_path) == 0
        assert place.exists()
    assert names(tmp_path) == ["out"]


def test_a_folder_without_a_lock_is_cleared_when_it_is_old(tmp_path: Path) -> None:
    left = tmp_path / ".surgeon-123-abc"
    left.mkdir()
    (left / "out").write_bytes(bytes(50))
    assert clear_leftovers(tmp_path) == 0
    os.utime(left, (time.time() - 3600,) * 2)
    assert clear_leftovers(tmp_path) == 50
    assert not left.exists()


def test_a_folder_that_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    left = tmp_path / ".surgeon-123-abc"
    for name in ("out", "replaced"):
        (left / name).mkdir(parents=True)
        (left / name / "file").write_text(name)
    (left / "lock").touch()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "replaced"


def test_folders_of_others_stay(tmp_path: Path) -> None:
    for name in (".surgeon", ".surgeon-notes", ".surgery-1-a"):
        (tmp_path / name).mkdir()
    (tmp_path / ".surgeon-1-file").touch()
    assert clear_leftovers(tmp_path) == 0
    assert len(names(tmp_path)) == 4
