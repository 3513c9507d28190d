"""Data for the recipes: tasks made of scikit-learn's handwritten digits, offered as a plugin offers its own sources.

    surgeon apply recipes/RECIPE.yaml --plugin recipes/digit_sources.py

Nothing is downloaded. Which digits and which halves of the photos are held out for testing is the same in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from surgeon import Source, hookimpl

if TYPE_CHECKING:
    import torch

    from surgeon.data.digits import Scans
    from surgeon.interfaces.splits import Splits

SIDE = 16
"""Height and width of a picture."""
HELD_OUT = 0.4
"""The share of every digit's scans that is held out for testing."""

Digit = Annotated[int, Field(ge=0, le=9)]
Question = Literal["digit", "parity", "loop", "prime", "large"]

QUESTIONS = {"loop": (0, 6, 8, 9), "prime": (2, 3, 5, 7), "large": (5, 6, 7, 8, 9)}
"""Of which digits the answer is yes."""


def scans(seed: int, per_class: int | None = None, canvas: int = 8) -> tuple[Scans, Scans]:
    """The scans of all ten digits to train on and those to test on."""
    from surgeon.data.digits import read_digits
    from surgeon.data.sources import Digits

    return read_digits(Digits(per_class=per_class, canvas=canvas, test_fraction=HELD_OUT), seed)


class PhotoDigits(Source):
    """Digits in colour, 16 x 16 pixels, white on black or over patches of two photographs.

    The photographs are those of ``sklearn.datasets.load_sample_images``. Patches of training samples are cut from
    their left halves, drawn by the seed; those of test samples from their right halves, always the same.

    Columns: ``pixel_values`` ``(3, 16, 16)`` in -1…1, ``labels`` 0…9.
    """

    source: Literal["photo_digits"]
    rule: Literal["over", "difference"] = "over"
    """With digit d and patch p in 0…1: over is d + (1 - d) · gain · p; difference is |p - d|, as MNIST-M is made
    (Ganin & Lempitsky 2015)."""
    gain: float = Field(1.0, ge=0, le=1)
    """How bright the photograph is; 0 leaves the background black."""
    per_class: PositiveInt | None = None
    """Training samples of each digit; all of them if left out."""

    def load(self, seed: int) -> Splits:
        """The pictures; see :class:`surgeon.Source`."""
        import torch

        from surgeon.data.columns import Columns
        from surgeon.data.digits import SPLIT_SEED
        from surgeon.interfaces.splits import Splits

        train, test = scans(seed, self.per_class)
        parts = []
        for part, half, draw in ((train, 0, seed), (test, 1, SPLIT_SEED)):
            patches = photo_patches(len(part.labels), half, torch.Generator().manual_seed(draw))
            digits = enlarged(part.images)
            mixed = digits + (1 - digits) * self.gain * patches if self.rule == "over" else (patches - digits).abs()
            parts.append(Columns(pixel_values=mixed * 2 - 1, labels=part.labels))
        return Splits(*parts, classes={"labels": 10})


class DigitQuestions(Source):
    """Several questions about one digit, many of them without an answer.

    Digits lie at a random place of 16 x 16 pixels. Columns: ``pixel_values`` ``(1, 16, 16)``, ``digit`` 0…9,
    ``parity`` 0 or 1, and the yes/no questions ``loop`` (has it a closed loop: 0, 6, 8, 9), ``prime``, ``large``
    (5 and more). Where the answer is missing the column holds -100 or NaN; test samples have all answers.
    """

    source: Literal["digit_questions"]
    missing: float = Field(0.5, ge=0, lt=1)
    """The share of all answers to training samples that is missing, drawn by the seed."""
    questions: list[Question] = Field(default=["digit", "parity", "loop", "prime", "large"], min_length=1)
    """The columns of answers; the others are left out."""
    rows: Literal["answered", "complete"] = "answered"
    """answered: training samples with an answer to one of the questions at least; complete: to all of them."""
    per_class: PositiveInt | None = None
    """Training samples of each digit; all of them if left out."""

    def load(self, seed: int) -> Splits:
        """The pictures and answers; see :class:`surgeon.Source`."""
        import torch

        from surgeon.data.columns import Columns
        from surgeon.data.digits import render
        from surgeon.interfaces.splits import Splits

        train, test = scans(seed, self.per_class, canvas=SIDE)
        parts = []
        for part, missing in ((train, self.missing), (test, 0.0)):
            columns = answers(part.labels)
            generator = torch.Generator().manual_seed(seed)
            given = {name: torch.rand(len(part.labels), generator=generator) >= missing for name in columns}
            columns = {name: answer.where(given[name], unknown(answer)) for name, answer in columns.items()}
            pixels = render(part.images, part.places, canvas=SIDE, size=SIDE, channels=1)
            table = torch.stack([given[name] for name in self.questions])
            rows = table.all(0) if self.rows == "complete" else table.any(0)
            parts.append(Columns(pixel_values=pixels[rows], **{name: columns[name][rows] for name in self.questions}))
        counts = {"digit": 10, "parity": 2}
        return Splits(*parts, classes={name: counts[name] for name in self.questions if name in counts})


class PlacedDigits(Source):
    """Digits in a quarter of 16 x 16 pixels, white on black or black on white: 80 classes of 10 x 4 x 2.

    A fifth of the classes, in which every digit, place and polarity occurs, is kept apart. Columns:
    ``pixel_values`` ``(1, 16, 16)`` in -1…1, ``labels`` by the order of :func:`placed_classes`.
    """

    source: Literal["placed_digits"]
    classes: Literal["seen", "unseen"] = "seen"
    """The classes that are trained on, or those that are kept apart."""

    def load(self, seed: int) -> Splits:
        """The pictures; see :class:`surgeon.Source`."""
        import torch

        from surgeon.data.columns import Columns
        from surgeon.data.digits import SPLIT_SEED, render
        from surgeon.interfaces.splits import Splits

        chosen = placed_classes(self.classes)
        parts = []
        for part, draw in zip(scans(seed), (seed, SPLIT_SEED), strict=True):
            # Every scan is put to one of the classes of its digit.
            numbers = torch.rand(len(part.labels), generator=torch.Generator().manual_seed(draw))
            classes_of = {d: [i for i, c in enumerate(chosen) if c[0] == d] for d in range(10)}
            drawn = zip(part.labels.tolist(), numbers.tolist(), strict=True)
            labels = [classes_of[d][int(u * len(classes_of[d]))] for d, u in drawn]
            corners = torch.tensor([divmod(chosen[label][1], 2) for label in labels]) * (SIDE - 8)
            negative = torch.tensor([chosen[label][2] for label in labels]).reshape(-1, 1, 1, 1)
            pixels = render(part.images, corners, canvas=SIDE, size=SIDE, channels=1)
            parts.append(Columns(pixel_values=pixels * (1 - 2 * negative), labels=torch.tensor(labels)))
        return Splits(*parts, classes={"labels": len(chosen)})


class RenderedDigits(Source):
    """The same ten digits in two renderings, each for a stem of its own.

    ``pen`` shows the ink; ``relief`` how it changes from left to right and from above to below, as light from the
    upper left shows a carving. Each rendering has its own half of the training scans, which lie at random places.
    Columns: ``pixel_values`` ``(1, 16, 16)``, ``labels`` 0…9 and, for networks with several stems, ``stem``: 0 for
    the pen, 1 for the relief.
    """

    source: Literal["rendered_digits"]
    rendering: Literal["pen", "relief"]
    """What is seen of a digit."""
    per_class: PositiveInt | None = None
    """Training samples of each digit, drawn by the seed; half of all scans if left out."""
    stem: Literal["own", "none"] = "own"
    """Whether there is a column ``stem``, which is fed to the network too."""

    def load(self, seed: int) -> Splits:
        """The pictures; see :class:`surgeon.Source`."""
        import torch
        from torch.nn import functional as F

        from surgeon.data.columns import Columns
        from surgeon.data.digits import render
        from surgeon.interfaces.splits import Splits

        number = ("pen", "relief").index(self.rendering)
        train, test = scans(0, canvas=SIDE)  # the seed draws from the rendering's own half below
        rows = torch.cat([own_half(train.labels == digit, number, self.per_class, seed) for digit in range(10)])
        train = type(train)(*(values[rows] for values in train))
        parts = []
        for part in (train, test):
            pixels = render(part.images, part.places, canvas=SIDE, size=SIDE, channels=1)
            if self.rendering == "relief":
                pixels = (pixels - F.pad(pixels, (1, 0, 1, 0), value=-1.0)[:, :, :-1, :-1]) / 2
            stems = {"stem": torch.full((len(pixels),), number)} if self.stem == "own" else {}
            parts.append(Columns(pixel_values=pixels, **stems, labels=part.labels))
        return Splits(*parts, inputs=("pixel_values", *stems), classes={"labels": 10})


class PhotoTextures(Source):
    """Grey patches of two photographs, 16 x 16 pixels: what has nothing to do with digits.

    Each photograph is cut into five columns. Patches of training samples come from their upper 60 %, those of test
    samples from the rest, always the same. Columns: ``pixel_values`` ``(1, 16, 16)`` in -1…1, ``labels`` 0…4.
    """

    source: Literal["photo_textures"]
    task: Literal["place", "random"] = "place"
    """place: the label is the column that a patch was cut from; random: it is drawn by the seed, and can only be
    memorised."""
    per_class: PositiveInt = 100
    """Training samples of each column."""

    def load(self, seed: int) -> Splits:
        """The patches; see :class:`surgeon.Source`."""
        import torch

        from surgeon.data.columns import Columns
        from surgeon.data.digits import SPLIT_SEED
        from surgeon.interfaces.splits import Splits

        parts = []
        for rows, count, draw in (((0.0, 0.6), self.per_class, seed), ((0.6, 1.0), 60, SPLIT_SEED)):
            generator = torch.Generator().manual_seed(draw)
            pixels = torch.cat([texture_patches(count, column, rows, generator) for column in range(5)])
            labels = torch.arange(5).repeat_interleave(count)
            if self.task == "random":
                labels = labels[torch.randperm(len(labels), generator=generator)]
            parts.append(Columns(pixel_values=pixels * 2 - 1, labels=labels))
        return Splits(*parts, classes={"labels": 5})


def texture_patches(count: int, column: int, rows: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Grey patches ``(count, 1, 16, 16)`` in 0…1 of one of five columns of both photographs, between two heights."""
    import torch
    from sklearn.datasets import load_sample_images

    photos = torch.stack([torch.from_numpy(photo.copy()) for photo in load_sample_images().images]).float().mean(-1)
    _, height, width = photos.shape
    photos = photos[:, int(rows[0] * height) : int(rows[1] * height), column * width // 5 : (column + 1) * width // 5]
    which, top, left = (
        torch.randint(high, (count,), generator=generator).tolist()
        for high in (len(photos), photos.shape[1] - SIDE + 1, photos.shape[2] - SIDE + 1)
    )
    patches = [photos[i, y : y + SIDE, x : x + SIDE] for i, y, x in zip(which, top, left, strict=True)]
    return torch.stack(patches)[:, None] / 255


def enlarged(images: torch.Tensor) -> torch.Tensor:
    """Scans ``(n, 8, 8)`` as pictures in colour ``(n, 3, 16, 16)`` in 0…1."""
    from torch.nn import functional as F

    large = F.interpolate(images[:, None] / 16, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return large.expand(-1, 3, -1, -1)


def photo_patches(count: int, half: int, generator: torch.Generator) -> torch.Tensor:
    """Patches ``(count, 3, 16, 16)`` in 0…1 of the left (0) or right (1) halves of both photographs."""
    import torch
    from sklearn.datasets import load_sample_images

    photos = torch.stack([torch.from_numpy(photo.copy()) for photo in load_sample_images().images])
    middle = photos.shape[2] // 2
    photos = photos[:, :, half * middle : (half + 1) * middle]
    _, height, width, _ = photos.shape
    which, top, left = (
        torch.randint(high, (count,), generator=generator).tolist()
        for high in (len(photos), height - SIDE + 1, width - SIDE + 1)
    )
    patches = [photos[i, y : y + SIDE, x : x + SIDE] for i, y, x in zip(which, top, left, strict=True)]
    return torch.stack(patches).permute(0, 3, 1, 2).float() / 255


def answers(digits: torch.Tensor) -> dict[str, torch.Tensor]:
    """The answers to all questions ``(n,)``: whole numbers of classes, and 0.0 or 1.0 of yes/no questions."""
    import torch

    yes = {name: torch.isin(digits, torch.tensor(those)).float() for name, those in QUESTIONS.items()}
    return {"digit": digits, "parity": digits % 2, **yes}


def unknown(answers: torch.Tensor) -> torch.Tensor:
    """What stands for a missing answer."""
    import torch

    return torch.full_like(answers, torch.nan if answers.is_floating_point() else -100)


def placed_classes(which: Literal["seen", "unseen"]) -> list[tuple[int, int, int]]:
    """Digit, quarter (0…3) and polarity of the classes, in the order of their labels."""
    every = [(digit, place, polarity) for digit in range(10) for place in range(4) for polarity in range(2)]
    return [(d, place, p) for d, place, p in every if ((d + 2 * place + p) % 5 == 0) == (which == "unseen")]


def own_half(of_digit: torch.Tensor, number: int, count: int | None, seed: int) -> torch.Tensor:
    """Rows of one digit that belong to a rendering, every other one; ``count`` of them, drawn by the seed."""
    import torch

    from surgeon.errors import TrainingError

    rows = of_digit.nonzero().flatten()[number::2]
    if count is None:
        return rows
    if count > len(rows):
        raise TrainingError(f"per_class asks for {count} samples, and a digit has {len(rows)} in this rendering")
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]]


@hookimpl
def surgeon_sources() -> Sequence[type[Source]]:
    """What recipes may name."""
    return [PhotoDigits, DigitQuestions, PlacedDigits, RenderedDigits, PhotoTextures]
