"""A disk without room for the result is refused before any work: nobody trains for hours and then loses the network."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families import vgg

import surgeon
from surgeon.checkpoint.artifact import check_output
from surgeon.errors import OutputError

RECIPE = """\
operations: [{op: replace_head, classes: 3}]
train: {data: {source: digits, classes: [0, 1, 2], per_class: 1, size: 224, test_fraction: 0.01}, epochs: 1}
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_result_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_output(tmp_path / "out", force=False, inputs=[], nbytes=free // 2)
    with pytest.raises(OutputError, match=r"bytes free, and the output needs"):
        check_output(tmp_path / "not" / "yet" / "out", force=False, inputs=[], nbytes=2 * free)


@pytest.mark.parametrize("command", ["run_recipe", "run_training"])
def test_nothing_is_trained_without_room_for_the_result(tmp_path: Path, small_disk: Path, command: str) -> None:
    torch.save(vgg().state_dict(), tmp_path / "net.pt")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(OutputError, match=r"has 65,536 bytes free, and the output needs 1\d\d,\d\d\d"):
        getattr(surgeon, command)(
            *[tmp_path / name for name in ("net.pt", "recipe.yaml")],
            small_disk / "out",
            arch="python:families:vgg",
        )
    assert not list(small_disk.iterdir())


def test_a_place_that_takes_no_files_is_refused() -> None:
    with pytest.raises(OutputError, match="nothing can be written to /proc"):
        check_output(Path("/proc/out"), force=False, inputs=[], nbytes=1)
