"""What a recipe says of its data: where samples come from, and what of them is fed to the network. No torch here."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, Union

from pydantic import (
    Discriminator,
    Field,
    PlainValidator,
    PositiveInt,
    SerializeAsAny,
    Tag,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import TypeAliasType

from surgeon.data.settings import Folds, Pixels, Waves
from surgeon.interfaces.data import Name, Source, source_name
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.selector import BesideRecipe, files_beside

if TYPE_CHECKING:
    from surgeon.interfaces.splits import Splits

Digit = Annotated[int, Field(ge=0, le=9)]
File = Annotated[Name, BesideRecipe()]
Pair = Annotated[list[Name], Field(min_length=2, max_length=2)]
Coding = Literal["one_hot", "ordinal"]
Names = Annotated[list[Name], Field(min_length=1)]
MaybeFile = Annotated[Name | None, BesideRecipe()]


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
        from surgeon.data.digits import load_data

        return load_data(self, seed)


class Split(Source):
    """A source of rows, of which a part is held out for testing.

    What is held out is drawn by class, so that a class of at least two samples is on both sides, and is the same
    whatever the seed. Every input is read once before training.
    """

    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """The share of every class that is held out, the same whatever the seed; not used where test samples are named."""
    folds: Folds | None = None
    """Cross-validation: ``{count: 5, index: 0}`` holds out the first of five folds instead of ``test_fraction``."""
    samples: PositiveInt | None = None
    """How many training samples to draw, by class and by the recipe's seed; all of them if left out."""
    on_error: Literal["fail", "skip"] = "fail"
    """What to do with a row whose input cannot be read (a damaged picture, a file that is not there): fail names the
    file and the row; skip leaves the row out and says how many were."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        for keys in (("path", "validation_path", "test_path"), ("split", "validation_split", "test_split")):
            given = [(key, value) for key in keys if (value := getattr(self, key, None))]
            for number, (key, value) in enumerate(given):
                if (same := next((other for other, earlier in given[:number] if earlier == value), None)) is not None:
                    raise ValueError(f"{key} and {same} are the same: what is held out would be trained on")
        if self.folds is None:
            return self
        named = [name for name in ("test_path", "test_split") if getattr(self, name, None)]
        if "test_fraction" in self.model_fields_set:
            named.append("test_fraction")
        if named:
            raise ValueError(f"folds and {named[0]} both say what is held out")
        return self

    def load(self, seed: int) -> Splits:
        """The rows, each encoded when it is asked for."""
        from surgeon.data.tables import load_tables

        return load_tables([self], seed)[0]


class Images(Split):
    """A folder of pictures, in a folder for each class: ``cats/1.jpg``, ``dogs/7.png``.

    If every folder at the top is called train, val, valid, validation or test, they are splits with the folders of
    classes inside; otherwise every folder at the top is a class, whatever it is called. A class has all pictures below
    its folder, however deep. Hidden files, Thumbs.db, __MACOSX and what is no picture by its name are left out and
    counted. The column ``labels`` holds the class: by the head's names, where it has any, else by the natural order of
    the folders' names (2 before 10).
    """

    kind: ClassVar[str] = "images"
    source: Literal["images"]
    path: File
    """The folder; looked for beside the recipe first."""
    validation_path: MaybeFile = None
    """A folder of the same classes to make choices by: early stopping, the best weights."""
    test_path: MaybeFile = None
    """A folder of the same classes to test on; it may lack some."""
    pixels: Pixels = Pixels()
    """How pictures become a network's input."""


class Columns(Split):
    """What tables of all kinds have in common: which columns are fed to the network, and which are its labels."""

    image: Name | None = None
    """The column of pictures, or of paths of pictures beside the table: fed to the network as ``pixel_values``."""
    text: Name | Pair | None = None
    """The column of texts: fed to the network as its tokenizer makes them (``input_ids``, ``attention_mask``, …). Two
    columns, ``[premise, hypothesis]``, are pairs. A column of lists of words goes with targets that are lists of their
    classes (token classification): the first piece of a word has its label, and its other pieces have none."""
    audio: Name | None = None
    """The column of sounds: lists of samples, or paths of files beside the table (.wav; with the extra ``audio`` .flac,
    .mp3 and others), fed to the network as its feature extractor makes them (``input_values``, ``input_features``,
    ``attention_mask``)."""
    numbers: dict[Name, list[Name]] = Field(default_factory=dict)
    """Inputs of plain numbers: ``{x: [height, weight]}`` is one input ``x`` of shape ``(batch, 2)``."""
    scale: bool | None = None
    """Whether numbers are standardised by the mean and deviation that their columns have in the training samples; as an
    earlier training did it if left out, else not. The record keeps them, and predictions use the same."""
    categories: dict[Name, Coding | dict[Coding, Names]] = Field(default_factory=dict)
    """Columns among ``numbers`` that hold names: ``{city: one_hot}`` is a value for each name, ``{size: ordinal}`` the
    place of the name. ``{size: {ordinal: [S, M, L]}}`` says which names there are, and in which order; else they are
    those of the training data in natural order. A name that training has not seen is an error with its row."""
    targets: dict[Name, Name | list[Name]] = Field(min_length=1)
    """The labels: ``{labels: species}`` feeds the column ``species`` to the losses under the name ``labels``. Texts
    are classes, numbered by the head's names or else in natural order; whole numbers are classes as they stand; other
    numbers are values; a list of columns is a vector, in the order of the head's names where these are the columns'.
    An empty field, null and NaN are missing labels; "NA", "None" and "null" are names."""
    na: list[str | int | float] | None = None
    """What else marks a missing label: ``[-1]``, ``[NA, unknown]``. Where -100 is a value, ``[]`` says so."""
    group: Name | None = None
    """A column, such as the patient: rows of one group are never on two sides of a split."""
    pixels: Pixels = Pixels()
    """How pictures become a network's input."""
    waves: Waves = Waves()
    """How sounds become a network's input."""
    tokenizer: MaybeFile = None
    """The tokenizer of texts: a folder, beside the recipe or elsewhere, or a name on the hub; the checkpoint's own if
    left out."""
    max_length: PositiveInt | None = None
    """Texts are cut after so many tokens; as many as tokenizer and network allow if left out (512 if neither says)."""

    @model_validator(mode="after")
    def _has_inputs(self) -> Self:
        if self.image is None and self.text is None and self.audio is None and not self.numbers:
            raise ValueError("nothing is fed to the network: name the column with image, text, audio or numbers")
        if self.text is not None and self.audio is not None and self.waves.mask is not False:
            raise ValueError("text and audio both have an attention_mask: waves: {mask: false} leaves out the sounds'")
        inputs = [column for columns in self.numbers.values() for column in columns]
        for column, coding in self.categories.items():
            if column not in inputs:
                raise ValueError(
                    f"categories: {column} is no column of numbers (there are: {', '.join(inputs) or 'none'})"
                )
            if isinstance(coding, dict) and len(coding) > 1:
                raise ValueError(f"categories: {column} is either one_hot or ordinal")
        if self.text is None and self.tokenizer is not None:
            raise ValueError("a tokenizer is of use for texts only: name their column with text")
        return self


class Table(Columns):
    """A CSV, JSON (lines) or Parquet file with a row for each sample."""

    kind: ClassVar[str] = "table"
    source: Literal["table"]
    path: File
    """The file; looked for beside the recipe first."""
    validation_path: MaybeFile = None
    """A file with the same columns to make choices by: early stopping, the best weights."""
    test_path: MaybeFile = None
    """A file with the same columns to test on."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """What stands between the cells of a CSV: a comma if left out, a tab in a .tsv file."""


class Saved(Columns):
    """A dataset that ``datasets`` saved to disk (``save_to_disk``): one, or one for each split."""

    kind: ClassVar[str] = "saved"
    source: Literal["saved"]
    path: File
    """The folder; looked for beside the recipe first."""
    split: Name = "train"
    """The split to train on, where there are several."""
    validation_split: Name | None = None
    """The split to make choices by: early stopping, the best weights."""
    test_split: Name | None = None
    """The split to test on; a part of ``split`` is held out if left out."""


class Hub(Columns):
    """A dataset on the Hugging Face hub."""

    kind: ClassVar[str] = "hub"
    source: Literal["hub"]
    name: Name
    """Its name, as in ``ylecun/mnist``."""
    config: Name | None = None
    """Which of its configurations."""
    revision: Name | None = None
    """A tag or commit, so that the data stay the same."""
    split: Name = "train"
    """The split to train on."""
    validation_split: Name | None = None
    """The split to make choices by: early stopping, the best weights."""
    test_split: Name | None = None
    """The split to test on; a part of ``split`` is held out if left out."""


class Corpus(Split):
    """Texts from which a language model learns to predict tokens: the next one, or those that are masked.

    Which of them the network's class decides, or a loss ``next_token`` or ``masked`` of the output ``logits``. Texts
    become tokens once, before training. Whole texts are held out. What is masked in training is drawn anew in every
    epoch; what is masked for a measure is the same in every run, whatever the seed.
    """

    source: Literal["corpus"]
    path: File
    """A .txt file, a folder of such, a table (.csv, .tsv, .json, .jsonl, .parquet), or a folder that ``datasets``
    saved; looked for beside the recipe first."""
    validation_path: MaybeFile = None
    """Texts to make choices by: early stopping, the best weights."""
    test_path: MaybeFile = None
    """Texts to test on."""
    unit: Literal["file", "paragraph", "line"] = "file"
    """What one text of a .txt file is: all of it, what stands between empty lines, or a line."""
    text: Name = "text"
    """The column of texts in a table."""
    prompt: Name | None = None
    """A column of prompts, in the place of ``text``; the loss is of the completions only."""
    completion: Name | None = None
    """The column of what follows each prompt."""
    packing: Literal["blocks", "none"] | None = None
    """blocks: texts follow one another, each with the token that ends a text, and are cut into full blocks; what is
    left over is dropped, and said. none: every text is a sample of its own, cut to ``max_length`` and padded at the
    tokenizer's side. Default: blocks; none for prompts."""
    max_length: PositiveInt | None = None
    """Tokens of a block, or of a text; as many as tokenizer and network allow if left out (512 if neither says)."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """The share of tokens to mask; of these, 80 % become the mask token, 10 % another token (Devlin et al. 2019)."""
    whole_words: bool = False
    """Mask all tokens of a word together; then all become the mask token."""
    tokenizer: MaybeFile = None
    """The tokenizer: a folder, beside the recipe or elsewhere, or a name on the hub; the checkpoint's own if left
    out."""

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("prompt and completion go together: name both columns, or neither")
        if self.prompt is not None and "text" in self.model_fields_set:
            raise ValueError("a sample is a text, or a prompt with its completion: leave text out")
        return self

    def load(self, seed: int) -> Splits:
        """The texts as tokens, for a network of which nothing is known."""
        from surgeon.data.corpus import load_corpus

        return load_corpus(self, seed)

    def table(self, kind: str, path: Path, split: str) -> Columns:
        """The rows of a table, or of a saved dataset, that hold texts."""
        targets = {"completion": self.completion or self.text}
        settings: dict[str, Any] = {"source": kind, "path": str(path), "text": self.prompt or self.text}
        if kind == "saved":
            return Saved.model_construct(**settings, targets=targets, split=split)
        return Table.model_construct(**settings, targets=targets)


BUNDLED = (Digits, Images, Table, Saved, Hub, Corpus)


@hookimpl
def surgeon_sources() -> Sequence[type[Source]]:
    """The sources that ship with surgeon."""
    return BUNDLED


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
            json_schema_input_type=Annotated[
                Digits | Images | Table | Saved | Hub | Corpus, Field(discriminator="source")
            ],
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
