"""What a recipe says of pictures in folders: with a folder for each class, with masks, or with boxes. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from surgeon.data.settings import Folds, MaskValues, Pixels
from surgeon.interfaces.data import Name, Source
from surgeon.interfaces.selector import BesideRecipe

if TYPE_CHECKING:
    from surgeon.interfaces.splits import Splits

File = Annotated[Name, BesideRecipe()]
MaybeFile = Annotated[Name | None, BesideRecipe()]


class Split(Source):
    """A source of rows, a part of which is held out for testing.

    The split is stratified by class, so a class with at least two samples is in both parts, and does not depend on the
    seed. Every input is read once before training.
    """

    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """The share of every class to hold out, independent of the seed; not used if test samples are given."""
    folds: Folds | None = None
    """Cross-validation: ``{count: 5, index: 0}`` holds out the first of five folds instead of ``test_fraction``."""
    samples: PositiveInt | None = None
    """How many training samples to draw, by class and with the recipe's seed. Default: all."""
    on_error: Literal["fail", "skip"] = "fail"
    """What to do with a row whose input cannot be read (a damaged picture, a missing file): fail names the file and
    the row; skip leaves the row out and reports how many."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        for keys in (("path", "validation_path", "test_path"), ("split", "validation_split", "test_split")):
            settings = [(key, value) for key in keys if (value := getattr(self, key, None))]
            for number, (key, value) in enumerate(settings):
                if (same := next((name for name, earlier in settings[:number] if earlier == value), None)) is not None:
                    raise ValueError(f"{key} and {same} are the same: held-out samples would be used in training")
        if self.folds is None:
            return self
        named = [name for name in ("test_path", "test_split") if getattr(self, name, None)]
        if "test_fraction" in self.model_fields_set:
            named.append("test_fraction")
        if named:
            raise ValueError(f"folds and {named[0]} both define the held-out part; use one")
        return self

    def load(self, seed: int) -> Splits:
        """Return the rows, each encoded when it is read."""
        from surgeon.data.tables import load_tables

        return load_tables([self], seed)[0]


class Images(Split):
    """A folder of pictures with a folder per class: ``cats/1.jpg``, ``dogs/7.png``.

    If every top folder is called train, val, valid, validation or test, they are splits that contain class folders;
    otherwise every top folder is a class. Pictures at any depth below a class folder belong to the class. Hidden files,
    Thumbs.db, __MACOSX and files without a picture's suffix are left out and counted. The column ``labels`` holds the
    class: by the head's names if it has any, else in the natural order of the folders' names (2 before 10).
    """

    kind: ClassVar[str] = "images"
    source: Literal["images"]
    path: File
    """The folder; a relative path is looked up beside the recipe first."""
    validation_path: MaybeFile = None
    """A folder of the same classes for validation: early stopping, the best weights."""
    test_path: MaybeFile = None
    """A folder of the same classes for testing; classes may be missing."""
    pixels: Pixels = Pixels()
    """How pictures become a network's input."""


class Masks(Split):
    """A folder of pictures and one of masks, which give each pixel a class: ``images/7.jpg`` and ``masks/7.png``.

    If every folder at the top is called train, val, valid, validation or test, they are splits with the two folders
    inside. Masks are grey pictures, or pictures with a palette, whose values are class numbers; they go through the
    same crops, turns and sizes as their pictures. The column ``labels`` holds them.
    """

    kind: ClassVar[str] = "masks"
    image: ClassVar[str] = "image"
    mask: ClassVar[str] = "mask"
    text: ClassVar[None] = None
    audio: ClassVar[None] = None
    group: ClassVar[None] = None
    numbers: ClassVar[dict[str, list[str]]] = {}
    categories: ClassVar[dict[str, Any]] = {}
    targets: ClassVar[dict[str, Any]] = {}
    source: Literal["masks"]
    path: File
    """The folder; looked for beside the recipe first."""
    images: Name = "images"
    """What the folder of pictures is called."""
    masks: Name = "masks"
    """What the folder of masks is called."""
    mask_values: MaskValues = MaskValues()
    """What the numbers in masks mean."""
    validation_path: MaybeFile = None
    """A folder like ``path`` to make choices by: early stopping, the best weights."""
    test_path: MaybeFile = None
    """A folder like ``path`` to test on."""
    pixels: Pixels = Pixels()
    """How pictures become a network's input."""


class Coco(Split):
    """Pictures with boxes for a detector, from a COCO JSON file (``images``, ``annotations``, ``categories``).

    Categories are compared by name with the head's classes, whatever their ids are; those without any annotation are
    left out if the head does not have them. Every annotation is checked: a box without area, or outside its picture, is
    an error that names the file and the annotation, or with ``on_error: skip`` left out and counted. Crowds are not
    trained on, and pictures without boxes are kept. The network computes its own loss; metrics are COCO's mAP (extra
    ``detection``).
    """

    kind: ClassVar[str] = "coco"
    image: ClassVar[str] = "image"
    boxes: ClassVar[tuple[str, ...]] = ("boxes", "categories", "crowd", "annotations", "sizes", "segments")
    mask: ClassVar[None] = None
    text: ClassVar[None] = None
    audio: ClassVar[None] = None
    group: ClassVar[None] = None
    numbers: ClassVar[dict[str, list[str]]] = {}
    categories: ClassVar[dict[str, Any]] = {}
    targets: ClassVar[dict[str, Any]] = {}
    source: Literal["coco"]
    path: File
    """The JSON file; a relative path is looked up beside the recipe first."""
    images: MaybeFile = None
    """The folder of the pictures that it names. Default: the folder of the JSON file."""
    validation_path: MaybeFile = None
    """A JSON file for validation: early stopping, the best weights."""
    validation_images: MaybeFile = None
    """The folder of its pictures. Default: ``images`` or, without that, the folder of the JSON file."""
    test_path: MaybeFile = None
    """A JSON file for testing; categories may be missing."""
    test_images: MaybeFile = None
    """The folder of its pictures. Default: ``images`` or, without that, the folder of the JSON file."""
    masks: bool = False
    """Whether to read the segmentation of every box, for Mask R-CNN."""
    pixels: Pixels = Pixels()
    """How pictures become a network's input. Only ``flip``, ``colour`` and ``erase`` can augment them."""

    @model_validator(mode="after")
    def _visible(self) -> Self:
        if self.labels == "hidden":
            raise ValueError("labels: hidden leaves no boxes, and a picture without boxes is not unlabelled")
        return self
