"""The output appears whole, verified, or not at all; what a killed run leaves is cleared."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from families import vgg

import surgeon
from surgeon.checkpoint.renaming import exchange
from surgeon.checkpoint.scratch import appearing, clear_leftovers
from surgeon.cli.app import run
from surgeon.errors import OutputError, VerificationError

RECIPE = "operations: [{op: freeze, sites: features}]\n"
FORMS = ["out", "out.safetensors", "out.pt"]

KILLED = """
import os, signal, sys
from pathlib import Path
from surgeon.checkpoint.scratch import appearing
with appearing(Path(sys.argv[1]), replace=True) as place:
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
    process = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True)
    assert process.stdout == b"writing\n"


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
    err = " ".join(capsys.readouterr().err.split())
    assert f"{form}: {form} holds other values" in err
    assert (f"{form} stays as it was" if earlier else f"nothing was written to {form}") in err
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
    with appearing(tmp_path / "out", replace=False) as place:
        place.write_bytes(b"x")
        code = "import sys, pathlib, surgeon.checkpoint.scratch as s; s.clear_leftovers(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert clear_leftovers(tmp_path) == 0
        assert place.exists()
    assert names(tmp_path) == ["out"]


def test_a_folder_without_a_lock_is_cleared_at_once(tmp_path: Path) -> None:
    """It was just made, and its owner makes another one; or it was being removed when its owner was killed."""
    for name, size in (("new", 0), ("half-removed", 50)):
        leftover = tmp_path / f".surgeon-123-{name}"
        leftover.mkdir()
        if size:
            (leftover / "out").write_bytes(bytes(size))
        assert clear_leftovers(tmp_path) == size
        assert not leftover.exists()


def test_a_scratch_folder_that_another_run_takes_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def mkdtemp(**options: object) -> str:
        folders.append(original(**options))
        if len(folders) == 1:
            clear_leftovers(tmp_path)
        return folders[-1]

    original = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with appearing(tmp_path / "out", replace=False) as place:
        place.write_bytes(b"x")
    assert len(folders) == 2
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("there", ["file", "folder", "empty folder", "link"])
def test_what_appears_meanwhile_stays(tmp_path: Path, kind: str, there: str) -> None:
    out = tmp_path / "out"

    def both(place: Path) -> None:
        place.write_bytes(b"mine") if kind == "file" else place.mkdir()
        if there == "file":
            out.write_bytes(b"theirs")
        elif there == "link":
            out.symlink_to("nowhere")
        else:
            out.mkdir()
            if there == "folder":
                (out / "file").write_bytes(b"theirs")

    with pytest.raises(FileExistsError), appearing(out, replace=False) as place:
        both(place)
    assert names(tmp_path) == ["out"]
    assert out.is_symlink() or out.is_dir() or out.read_bytes() == b"theirs"


@pytest.mark.parametrize("exchanging", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_what_is_to_be_replaced_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, there: str, exchanging: bool
) -> None:
    if not exchanging:
        monkeypatch.setattr("surgeon.checkpoint.scratch.exchange", lambda *_: False)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    out.mkdir() if there == "folder" else out.symlink_to("elsewhere") if there == "link" else out.touch()
    with appearing(out, replace=True) as place:
        place.write_bytes(b"mine") if kind == "file" else place.mkdir()
    assert not out.is_symlink()
    assert out.is_dir() == (kind == "folder")
    assert names(tmp_path) == ["elsewhere", "out"]
    assert names(elsewhere) == ["file"]


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere the folders are renamed one after the other"
)
def test_a_folder_is_replaced_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.write_text("other")
    assert exchange(one, other)
    assert one.read_text() == "other"
    assert other.is_dir()


@pytest.mark.parametrize("place", ["/dev/null", "pipe"])
def test_a_device_or_pipe_is_refused_as_output(folder: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    os.mkfifo("pipe")
    command = ["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-q", "--force", "-o", place]
    assert run(command) == OutputError.exit_code
    assert "is a device, pipe or socket" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    leftover = tmp_path / ".surgeon-123-abc"
    for name in ("out", "replaced"):
        (leftover / name).mkdir(parents=True)
        (leftover / name / "file").write_text(name)
    (leftover / "lock").touch()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "replaced"


def test_folders_of_others_stay(tmp_path: Path) -> None:
    for name in (".surgeon", ".surgeon-notes", ".surgery-1-a"):
        (tmp_path / name).mkdir()
    (tmp_path / ".surgeon-1-file").touch()
    assert clear_leftovers(tmp_path) == 0
    assert len(names(tmp_path)) == 4


def test_an_output_below_a_link_to_itself_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("loop").symlink_to("loop")
    command = ["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-q", "-o", "loop/out"]
    assert run(command) == OutputError.exit_code
    assert "this is a bug" not in capsys.readouterr().err
