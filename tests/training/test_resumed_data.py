"""A run is not resumed on other data: fewer pictures, other labels, other classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from small import X, Y, by_sgd, make, splits

from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.training.session import train

FLIPPED = Y.clone()
FLIPPED[5] = (FLIPPED[5] + 1) % 3
OTHER = X.clone()
OTHER[0] += 1
BASE = splits()


def changed(train_columns: Columns) -> Splits:
    return Splits(train_columns, BASE.test, ("x",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(Columns(x=X[:47], labels=Y[:47])), r"data.training samples.samples was 48 and is 47"),
        (changed(Columns(x=X, labels=FLIPPED)), r"the labels 'labels' of the training samples"),
        (changed(Columns(x=OTHER, labels=Y)), r"the inputs of the training samples"),
        (dataclasses.replace(BASE, test=Columns(x=X[:9], labels=Y[:9])), r"test samples.samples was 48 and is 9"),
        (dataclasses.replace(BASE, classes={"labels": 3}), r"data.classes.labels was nothing and is 3"),
    ],
    ids=["deleted", "relabelled", "altered", "fewer tests", "classes"],
)
def test_a_resume_on_other_data_is_refused_and_says_what_differs(data: Splits, message: str, tmp_path: Path):
    def stop(step: int, *_: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make(), by_sgd(), data=BASE, progress=stop, output_dir=tmp_path, checkpoints=True)
    with pytest.raises(TrainingError, match=message):
        train(make(), by_sgd(), data=data, quiet=True, output_dir=tmp_path, checkpoints=True, resume=True)
    train(make(), by_sgd(), data=BASE, quiet=True, output_dir=tmp_path, checkpoints=True, resume=True)
