"""A resumed training says which checkpoints it cannot use, and where it goes on."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from small import by_sgd, make, splits

from surgeon.errors import SurgeonWarning
from surgeon.training.checkpoints import STATE
from surgeon.training.session import train


@pytest.fixture
def interrupted(tmp_path: Path) -> list[Path]:
    """The checkpoints of a training that was stopped in its third epoch."""

    def stop(step: int, steps: int, *_: object) -> None:
        if step > 2 * steps / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            make(),
            by_sgd(epochs=3, arguments={"save_total_limit": 3}),
            data=splits(),
            progress=stop,
            output_dir=tmp_path,
            checkpoints=True,
        )
    checkpoints = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    assert len(checkpoints) > 1
    return checkpoints


def resume(folder: Path) -> None:
    train(
        make(),
        by_sgd(epochs=3, arguments={"save_total_limit": 3}),
        data=splits(),
        quiet=True,
        output_dir=folder,
        checkpoints=True,
        resume=True,
    )


def remove(state: Path) -> None:
    state.unlink()


def truncate(state: Path) -> None:
    state.write_text(state.read_text()[:20])


@pytest.mark.parametrize("damage", [remove, truncate])
def test_a_damaged_checkpoint_is_named_with_the_one_that_is_used(interrupted: list[Path], damage: Callable) -> None:
    damage(interrupted[-1] / STATE)
    message = f"{interrupted[-1].name} has no .* that can be read; training goes on from {interrupted[-2].name}"
    with pytest.warns(SurgeonWarning, match=message):
        resume(interrupted[0].parent)


def test_without_a_usable_checkpoint_training_starts_from_the_beginning(interrupted: list[Path]) -> None:
    for checkpoint in interrupted:
        truncate(checkpoint / STATE)
    with pytest.warns(SurgeonWarning, match="have no .* that can be read; training starts from the beginning"):
        resume(interrupted[0].parent)


def test_whole_checkpoints_and_none_cause_no_warning(interrupted: list[Path]) -> None:
    folder = interrupted[0].parent
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resume(folder)
        for path in folder.glob("checkpoint-*"):
            shutil.rmtree(path)
        resume(folder)
    assert [warning.message for warning in caught if issubclass(warning.category, SurgeonWarning)] == []
