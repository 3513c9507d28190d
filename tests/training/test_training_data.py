from __future__ import annotations

import pytest
import torch

from surgeon.data.columns import Columns
from surgeon.data.digits import load_data, render
from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import Digits

SMALL = {"size": 16, "channels": 1}


def rows(dataset) -> set[bytes]:
    return {image.numpy().tobytes() for image in dataset.columns["pixel_values"]}


def test_labels_follow_the_order_in_which_the_classes_are_named():
    one = load_data(Digits(classes=[7, 3], **SMALL))
    other = load_data(Digits(classes=[3, 7], **SMALL))
    assert rows(one.test) == rows(other.test)
    images = {image.numpy().tobytes(): label for image, label in zip(*other.test.columns.values(), strict=True)}
    for image, label in zip(*one.test.columns.values(), strict=True):
        assert images[image.numpy().tobytes()] == 1 - label
    assert one.classes == {"labels": 2}


def test_test_samples_are_the_same_in_every_run_and_never_trained_on():
    first, second = (load_data(Digits(per_class=20, **SMALL), seed=seed) for seed in (0, 1))
    assert rows(first.test) == rows(second.test)
    assert rows(first.train) != rows(second.train)
    assert not rows(first.test) & (rows(first.train) | rows(second.train))
    everything = load_data(Digits(**SMALL))
    assert len(everything.train) + len(everything.test) == 1797
    assert not rows(everything.train) & rows(everything.test)


def test_per_class_gives_that_many_samples_of_each_and_its_own_seed_wins():
    fixed = Digits(classes=[5, 6, 9], per_class=7, seed=3, **SMALL)
    first, second = load_data(fixed, seed=0), load_data(fixed, seed=1)
    assert first.train.columns["labels"].bincount().tolist() == [7, 7, 7]
    assert rows(first.train) == rows(second.train)


def test_more_samples_than_there_are_is_an_error_that_says_how_many_there_are():
    with pytest.raises(TrainingError, match=r"per_class is 1000, but digit 5 has only \d+"):
        load_data(Digits(classes=[5, 6], per_class=1000, **SMALL))


def test_a_scan_is_rendered_at_its_place_between_minus_one_and_one():
    images = torch.full((2, 8, 8), 16.0)
    places = torch.tensor([[0, 0], [8, 4]])
    pixels = render(images, places, canvas=16, size=16, channels=3)
    assert pixels.shape == (2, 3, 16, 16)
    assert (pixels[0, :, :8, :8] == 1).all()
    assert (pixels[1, :, 8:, 4:12] == 1).all()
    assert (pixels == 1).sum() == 2 * 3 * 64
    assert pixels.min() == -1


def test_columns_of_different_length_are_refused():
    with pytest.raises(TrainingError, match="differ in length"):
        Columns(pixel_values=torch.zeros(2, 1), labels=torch.zeros(3))
