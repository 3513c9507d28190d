"""RandAugment and random erasing vary training pictures, the same way in the same epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from surgeon.data.pictures import Picture
from surgeon.data.settings import Pixels


def pictures(augment: list[str], epoch: int, varied: bool = True) -> torch.Tensor:
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    encode = Picture("image", Pixels.model_validate({"size": 16, "augment": augment}), Path(), seed=0)
    encode.set_epoch(epoch)
    row = {"image": Image.fromarray(noise)}
    return torch.stack([encode(row, index, varied)["pixel_values"] for index in range(24)])


@pytest.mark.parametrize("name", ["randaugment", "erase"])
def test_training_pictures_vary_with_the_epoch_and_others_do_not(name):
    plain = pictures([], 0)
    made = pictures([name], 0)
    assert torch.equal(pictures([name], 0), made)
    assert not torch.equal(pictures([name], 1), made)
    assert torch.equal(pictures([name], 0, varied=False), plain)


def test_erasing_sets_a_rectangle_of_some_pictures_to_the_mean():
    plain, made = pictures([], 0), pictures(["erase"], 0)
    changed = (plain != made).any(1)
    assert 0 < changed.flatten(1).any(1).sum() < 24
    assert (made[changed[:, None].expand_as(made)] == 0).all()
    assert torch.equal(made[~changed[:, None].expand_as(made)], plain[~changed[:, None].expand_as(plain)])
