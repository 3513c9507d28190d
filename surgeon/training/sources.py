"""What a recipe says of its data: where samples come from, and what of them is fed to the network. No torch here."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, Union, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    Tag,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core.core_schema import SerializerFunctionWrapHandler
from typing_extensions import TypeAliasType

from surgeon.hookspecs import hookimpl
from surgeon.operation import BesideRecipe, files_beside

if TYPE_CHECKING:
    from surgeon.training.data import Splits

Digit = Annotated[int, Field(ge=0, le=9)]
Name = Annotated[str, Field(min_length=1)]
File = Annotated[Name, BesideRecipe()]
MaybeFile = Annotated[Name | None, BesideRecipe()]


class Source(BaseModel):
    """Where samples come from: what an author of a source subclasses.

    A subclass says by what name a recipe asks for it, ``source: Literal["scans"]``; its other fields are the
    recipe's keys, and :meth:`load` makes the samples. A plugin offers it through ``surgeon_sources``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    domain: Name | None = None
    """The domain that the samples are of, for a loss on the column ``domain`` and for measures by domain; all
    sources have one, or none has."""
    labels: Literal["visible", "hidden"] = "visible"
    """hidden: no label of a training sample is ever fed to a loss, as in a target domain; the test samples keep
    theirs, to measure by."""

    def load(self, seed: int) -> Splits:
        """Make the samples to train on and those to test on; ``domain`` and ``labels`` are seen to elsewhere.

        Args:
            seed: The recipe's, for what is drawn. What is held out for testing must not depend on it.

        Raises:
            TrainingError: The data are not there, or are not what the settings say.
        """
        raise TypeError(f"{type(self).__name__} defines no load(seed)")

    @model_serializer(mode="wrap")
    def _by_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """With ``source``, also where it is the default: a recipe cannot do without."""
        fields: dict[str, Any] = handler(self)
        return {"source": source_name(type(self)), **fields}


class Digits(Source):
    """scikit-learn's handwritten digits: 1797 scans of 8 x 8 pixels, in the package, so no network is needed.

    The test samples are the same ones whatever the seed: a fixed share of every class, drawn once.
    """

    source: Literal["digits"] = "digits"
    classes: list[Digit] = Field(default_factory=lambda: list(range(10)), min_length=2)
    """The digits to use; their labels are 0, 1, 2, … in this order."""
    column: Name = "labels"
    """What the column of labels is called: several sources may each have a task of their own."""
    per_class: PositiveInt | None = None
    """Labelled training samples of each class; all of them if left out."""
    canvas: int = Field(default=16, ge=8, le=64)
    """Each scan lies at a random place of a black canvas of canvas x canvas pixels; 8 leaves no room to move."""
    size: int = Field(default=64, ge=8, le=512)
    """The canvas is resized to size x size pixels."""
    channels: Literal[1, 3] = 3
    """3 repeats the grey channel, for networks that take colour."""
    test_fraction: float = Field(default=0.4, gt=0, lt=1)
    """The share of every class that is held out for testing."""
    seed: int | None = None
    """Draws the ``per_class`` samples; the recipe's seed if left out."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: list[int]) -> list[int]:
        if len(set(classes)) != len(classes):
            raise ValueError("a digit stands twice; name each once")
        return classes

    def load(self, seed: int) -> Splits:
        """The scans as pictures, ``(channels, size, size)`` in -1…1."""
        from surgeon.training.data import load_data

        return load_data(self, seed)


class Pixels(BaseModel):
    """How pictures become a network's input, by torchvision's transforms v2."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    size: int = Field(default=224, ge=8)
    """Pictures are resized to size x size pixels."""
    channels: Literal[1, 3] = 3
    """1 makes them grey."""
    mean: list[float] | None = Field(default=None, min_length=1, max_length=3)
    """What is subtracted from each channel (0…1); ImageNet's means if left out, 0.5 for grey pictures."""
    std: list[PositiveFloat] | None = Field(default=None, min_length=1, max_length=3)
    """What each channel is divided by then; ImageNet's deviations if left out, 0.5 for grey pictures."""
    augment: list[Literal["flip", "crop", "rotate", "colour"]] = Field(default_factory=list)
    """What training samples are varied by, drawn anew in every epoch: mirrored (flip), a random part of at least
    60 % (crop), up to 15 degrees (rotate), brightness, contrast and saturation by up to 30 % (colour)."""

    @model_validator(mode="after")
    def _as_many_as_channels(self) -> Self:
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) != self.channels:
                raise ValueError(f"{name} has {len(given)} numbers for {self.channels} channels")
        return self


class Waves(BaseModel):
    """How sounds become a network's input."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rate: PositiveInt = 16000
    """Samples a second that the network was trained with; a .wav file of another rate is refused."""
    longest: PositiveInt = 160000
    """Sounds are cut after so many samples."""
    normalise: bool = True
    """Whether each sound is brought to mean 0 and variance 1."""
    mask: bool = True
    """Whether ``attention_mask`` tells the network where a shorter sound has been filled up with zeros."""


class Split(Source):
    """A source that ``datasets`` reads, of which a part is held out for testing."""

    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """The share that is held out, drawn once, the same whatever the seed; not used where test samples are named."""
    samples: PositiveInt | None = None
    """How many training samples to draw, by the recipe's seed; all of them if left out."""

    def load(self, seed: int) -> Splits:
        """The rows, each encoded when it is asked for."""
        from surgeon.training.tables import load_tables

        return load_tables([self], seed)[0]


class Images(Split):
    """A folder of pictures, in a folder for each class: ``cats/1.jpg``, ``dogs/7.png``.

    The column ``labels`` holds the class by the order of the folders' names.
    """

    source: Literal["images"]
    path: File
    """The folder; looked for beside the recipe first."""
    test_path: MaybeFile = None
    """A folder of the same classes to test on."""
    pixels: Pixels = Pixels()
    """How pictures become a network's input."""


class Columns(Split):
    """What tables of all kinds have in common: which columns are fed to the network, and which are its labels."""

    image: Name | None = None
    """The column of pictures, or of paths of pictures beside the table: fed to the network as ``pixel_values``."""
    text: Name | None = None
    """The column of texts: fed to the network as its tokenizer makes them (``input_ids``, ``attention_mask``, …)."""
    audio: Name | None = None
    """The column of sounds: lists of samples, or paths of .wav files beside the table, fed to the network as
    ``input_values`` (and ``attention_mask``)."""
    numbers: dict[Name, list[Name]] = Field(default_factory=dict)
    """Inputs of plain numbers: ``{x: [height, weight]}`` is one input ``x`` of shape ``(batch, 2)``."""
    targets: dict[Name, Name | list[Name]] = Field(min_length=1)
    """The labels: ``{labels: species}`` feeds the column ``species`` to the losses under the name ``labels``. Texts
    are classes, in alphabetical order; whole numbers are classes as they stand; other numbers are values; a list of
    columns is a vector. An empty field is a missing label."""
    pixels: Pixels = Pixels()
    """How pictures become a network's input."""
    waves: Waves = Waves()
    """How sounds become a network's input."""
    tokenizer: MaybeFile = None
    """The tokenizer of texts: a folder, beside the recipe or elsewhere, or a name on the hub."""
    max_length: PositiveInt = 512
    """Texts are cut after so many tokens."""

    @model_validator(mode="after")
    def _has_inputs(self) -> Self:
        if self.image is None and self.text is None and self.audio is None and not self.numbers:
            raise ValueError("nothing is fed to the network: name the column with image, text, audio or numbers")
        if self.text is not None and self.audio is not None and self.waves.mask:
            raise ValueError("text and audio both have an attention_mask: waves: {mask: false} leaves out the sounds'")
        if (self.text is None) != (self.tokenizer is None):
            raise ValueError("text and tokenizer go together")
        return self


class Table(Columns):
    """A CSV, JSON (lines) or Parquet file with a row for each sample."""

    source: Literal["table"]
    path: File
    """The file; looked for beside the recipe first."""
    test_path: MaybeFile = None
    """A file with the same columns to test on."""


class Saved(Columns):
    """A dataset that ``datasets`` saved to disk (``save_to_disk``): one, or one for each split."""

    source: Literal["saved"]
    path: File
    """The folder; looked for beside the recipe first."""
    split: Name = "train"
    """The split to train on, where there are several."""
    test_split: Name | None = None
    """The split to test on; a part of ``split`` is held out if left out."""


class Hub(Columns):
    """A dataset on the Hugging Face hub."""

    source: Literal["hub"]
    name: Name
    """Its name, as in ``ylecun/mnist``."""
    config: Name | None = None
    """Which of its configurations."""
    revision: Name | None = None
    """A tag or commit, so that the data stay the same."""
    split: Name = "train"
    """The split to train on."""
    test_split: Name | None = None
    """The split to test on; a part of ``split`` is held out if left out."""


BUNDLED = (Digits, Images, Table, Saved, Hub)


@hookimpl
def surgeon_sources() -> Sequence[type[Source]]:
    """The sources that ship with surgeon."""
    return BUNDLED


def source_name(kind: type[Source]) -> str:
    """What a recipe calls a source: the one value that its field ``source`` may have.

    Raises:
        TypeError: It says none, or is no source that could be loaded.
    """
    if not (isinstance(kind, type) and issubclass(kind, Source)):
        raise TypeError(f"{kind!r} is no class derived from surgeon.Source")
    field = kind.model_fields.get("source")
    names = get_args(field.annotation) if field else ()
    if len(names) != 1 or not isinstance(names[0], str):
        raise TypeError(f'{kind.__name__} says no name, as in source: Literal["scans"]')
    if kind.load is Source.load:
        raise TypeError(f"{kind.__name__} defines no load(seed)")
    return names[0]


def _chosen(given: Any, info: ValidationInfo) -> Any:
    """The source that ``given`` names, among those that ``info.context["sources"]()`` offers; else the bundled."""
    if isinstance(given, Source):
        source_name(type(given))
        return given
    offered = (info.context or {}).get("sources")
    kinds = _kinds(tuple(offered().values()) if offered else BUNDLED)
    if info.mode == "json":
        return kinds.validate_json(json.dumps(given), strict=True)
    return kinds.validate_python(given)


@functools.cache
def _kinds(kinds: tuple[type[Source], ...]) -> TypeAdapter[Any]:
    union: Any = Union[kinds]  # noqa: UP007 (a tuple of classes)
    return TypeAdapter(Annotated[union, Field(discriminator="source")])


AnySource = TypeAliasType(
    "AnySource",
    Annotated[
        SerializeAsAny[Source],
        PlainValidator(
            _chosen,
            json_schema_input_type=Annotated[Digits | Images | Table | Saved | Hub, Field(discriminator="source")],
        ),
    ],
)
"""A source of any kind; a plugin's too, where the context of validation has ``Plugins.sources`` under ``sources``."""


def _one_or_many(value: Any) -> str:
    return "several" if isinstance(value, (list, tuple)) else "one"


Sources: TypeAlias = Annotated[
    Annotated[AnySource, Tag("one")] | Annotated[list[AnySource], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_many),
]
"""One source, or several whose samples are put together."""


def beside(given: Any, folder: Path) -> Any:
    """Sources whose files lie beside the recipe, in ``folder``, with their paths; others as they are."""
    if isinstance(given, (list, tuple)):
        return [beside(source, folder) for source in given]
    found = files_beside(given, folder)
    return given.model_copy(update=found) if found else given


def as_sources(given: Any) -> list[Any]:
    """The sources that a setting names, one or several."""
    return list(given) if isinstance(given, (list, tuple)) else [given]


def check_domains(sources: list[Any]) -> None:
    """Refuse sources of which some have a domain and others not.

    Raises:
        ValueError: They do.
    """
    if len({source.domain is None for source in sources}) > 1:
        raise ValueError("give every source a domain, or none")
