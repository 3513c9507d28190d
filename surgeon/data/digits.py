"""Render scikit-learn's digits as training and test samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits

# The held-out digits must not depend on a recipe's seed: otherwise "test" would differ between runs, and training
# samples
# of one network could be test samples of another.
SPLIT_SEED = 20260
SCAN = 8
"""Height and width of a scan."""


class DigitSettings(Protocol):
    """The settings of digits in a recipe: the fields of :class:`surgeon.data.sources.Digits`."""

    @property
    def classes(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def column(self) -> str: ...  # noqa: D102
    @property
    def per_class(self) -> int | None: ...  # noqa: D102
    @property
    def canvas(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def channels(self) -> int: ...  # noqa: D102
    @property
    def test_fraction(self) -> float: ...  # noqa: D102
    @property
    def seed(self) -> int | None: ...  # noqa: D102


class Scans(NamedTuple):
    """Digits before they are rendered."""

    images: Tensor
    """``(n, 8, 8)``, 0 (paper) to 16 (ink)."""
    places: Tensor
    """``(n, 2)``: the row and column of each scan on the canvas."""
    labels: Tensor
    """``(n,)``: indices into the list of classes."""


def load_data(settings: DigitSettings, seed: int = 0) -> Splits:
    """Make the splits for ``settings``; ``seed`` draws the samples if the settings have no seed.

    Raises:
        TrainingError: The data cannot be loaded, or have too few samples.
    """

    def columns(scans: Scans) -> Columns:
        pixels = render(
            scans.images,
            scans.places,
            canvas=settings.canvas,
            size=settings.size,
            channels=settings.channels,
        )
        return Columns(**{"pixel_values": pixels, settings.column: scans.labels})

    train, test = read_digits(settings, seed)
    return Splits(columns(train), columns(test), classes={settings.column: len(settings.classes)})


def read_digits(settings: DigitSettings, seed: int = 0) -> tuple[Scans, Scans]:
    """Return the scans for training and for testing.

    Raises:
        TrainingError: scikit-learn is missing, or a class has too few samples.
    """
    images, digits = _bundled_digits()
    split = torch.Generator().manual_seed(SPLIT_SEED)
    draw = torch.Generator().manual_seed(seed if settings.seed is None else settings.seed)
    # each scan gets its position before any is drawn, so that a sample looks the same in every run
    places = torch.randint(settings.canvas - SCAN + 1, (len(images), 2), generator=split)
    train, test = [], []
    for digit in range(10):
        rows = (digits == digit).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=split)]
        held_out = max(1, round(len(rows) * settings.test_fraction))
        if digit in settings.classes:
            test.append(rows[:held_out])
            train.append(_pick(rows[held_out:], digit, settings.per_class, draw))
    labels = torch.full((10,), -1)
    labels[torch.tensor(settings.classes)] = torch.arange(len(settings.classes))
    train_rows, test_rows = torch.cat(train), torch.cat(test)
    return (
        Scans(images[train_rows], places[train_rows], labels[digits[train_rows]]),
        Scans(images[test_rows], places[test_rows], labels[digits[test_rows]]),
    )


def render(images: Tensor, places: Tensor, *, canvas: int, size: int, channels: int) -> Tensor:
    """Paste scans on a canvas and resize it: ``(n, 8, 8)`` → network inputs ``(n, channels, size, size)`` in -1…1.

    ``places`` ``(n, 2)`` holds the row and column of each scan's upper left corner.
    """
    canvases = torch.zeros(len(images), 1, canvas, canvas)
    for paper, image, (top, left) in zip(canvases, images, places.tolist(), strict=True):
        paper[0, top : top + SCAN, left : left + SCAN] = image
    resized = F.interpolate(canvases / 16, size=(size, size), mode="bilinear", align_corners=False)
    return (resized * 2 - 1).expand(-1, channels, -1, -1).contiguous()


def _bundled_digits() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise TrainingError(
            "the data source 'digits' comes with scikit-learn, which is not installed",
            hint="python -m pip install 'surgeon-torch[train]'",
        ) from error
    bunch = load_digits()
    return torch.from_numpy(bunch.images).float(), torch.from_numpy(bunch.target).long()


def _pick(rows: Tensor, digit: int, count: int | None, generator: torch.Generator) -> Tensor:
    if count is None:
        return rows
    if count > len(rows):
        raise TrainingError(
            f"data.per_class is {count}, but digit {digit} has only {len(rows)} training samples",
            hint=f"use at most {len(rows)}, a smaller data.test_fraction, or leave per_class out for all",
        )
    return rows[torch.randperm(len(rows), generator=generator)[:count]]
