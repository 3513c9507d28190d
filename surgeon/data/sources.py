"""Define the data sources of a recipe: where samples come from, and which columns are inputs. No torch here."""

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

from surgeon.data.network import LABELS
from surgeon.data.picture_sources import Coco, File, Images, Masks, MaybeFile, Split
from surgeon.data.settings import MaskValues, Pixels, Waves
from surgeon.interfaces.data import Name, Source, source_name
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.selector import files_beside

if TYPE_CHECKING:
    from surgeon.interfaces.splits import Splits

Digit = Annotated[int, Field(ge=0, le=9)]
Pair = Annotated[list[Name], Field(min_length=2, max_length=2)]
Coding = Literal["one_hot", "ordinal"]
Names = Annotated[list[Name], Field(min_length=1)]


class Digits(Source):
    """scikit-learn's handwritten digits: 1797 scans of 8 x 8 pixels, included in the package, so no download is needed.

    The test samples do not depend on the seed: a fixed share of every class, drawn once.
    """

    source: Literal["digits"] = "digits"
    classes: list[Digit] = Field(default_factory=lambda: list(range(10)), min_length=2)
    """The digits to use; their labels are 0, 1, 2, … in this order."""
    column: Name = "labels"
    """The name of the label column; several sources may have different tasks."""
    per_class: PositiveInt | None = None
    """Labelled training samples per class. Default: all."""
    canvas: int = Field(default=16, ge=8, le=64)
    """Each scan is at a random position on a black canvas of canvas x canvas pixels; 8 leaves no room to move."""
    size: int = Field(default=64, ge=8, le=512)
    """The canvas is resized to size x size pixels."""
    channels: Literal[1, 3] = 3
    """3 repeats the grey channel, for colour networks."""
    test_fraction: float = Field(default=0.4, gt=0, lt=1)
    """The share of every class to hold out for testing."""
    seed: int | None = None
    """The seed for drawing ``per_class`` samples. Default: the recipe's seed."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: list[int]) -> list[int]:
        if len(set(classes)) != len(classes):
            raise ValueError("a digit is listed twice")
        return classes

    def load(self, seed: int) -> Splits:
        """Return the scans as pictures, ``(channels, size, size)`` in -1…1."""
        from surgeon.data.digits import load_data

        return load_data(self, seed)


class Columns(Split):
    """The settings of all tables: which columns are inputs, and which are labels."""

    image: Name | None = None
    """The column of pictures, or of picture paths relative to the table; its input is ``pixel_values``."""
    mask: Name | None = None
    """The column of masks, which give each pixel of ``image`` a class: grey pictures, or their paths. They are the
    labels ``labels``, and go through the same crops, turns and sizes as their pictures."""
    mask_values: MaskValues = MaskValues()
    """What the numbers in masks mean."""
    text: Name | Pair | None = None
    """The column of texts, encoded by the tokenizer (``input_ids``, ``attention_mask``, …). Two columns,
    ``[premise, hypothesis]``, are pairs. A column of lists of words goes with targets that are lists of classes (token
    classification): the first piece of a word has its label, and its other pieces have none."""
    audio: Name | None = None
    """The column of sounds: lists of samples, or file paths relative to the table (.wav; with the extra ``audio``
    .flac, .mp3 and others), encoded by the feature extractor (``input_values``, ``input_features``,
    ``attention_mask``)."""
    numbers: dict[Name, list[Name]] = Field(default_factory=dict)
    """Numeric inputs: ``{x: [height, weight]}`` is one input ``x`` of shape ``(batch, 2)``."""
    scale: bool | None = None
    """Whether to standardise numbers by the mean and deviation of their columns in the training samples. Default: as in
    an earlier training, else false. The record keeps these values, and predictions use them."""
    categories: dict[Name, Coding | dict[Coding, Names]] = Field(default_factory=dict)
    """Columns among ``numbers`` that hold names: ``{city: one_hot}`` gives one value per name, ``{size: ordinal}`` the
    index of the name. ``{size: {ordinal: [S, M, L]}}`` lists the names in order; otherwise they are those of the
    training data in natural order. A name that is not in the training data is an error with its row."""
    targets: dict[Name, Name | list[Name]] = Field(default_factory=dict)
    """The labels, required without masks: ``{labels: species}`` passes the column ``species`` to the losses under the
    name ``labels``. Texts are classes, numbered by the head's names or else in natural order; whole numbers are class
    numbers; other numbers are values; a list of columns is a vector, in the order of the head's names if these are the
    columns' names. An empty field, null and NaN are missing labels; "NA", "None" and "null" are names."""
    na: list[str | int | float] | None = None
    """Further marks of missing labels: ``[-1]``, ``[NA, unknown]``. ``[]`` declares that -100 is a value."""
    group: Name | None = None
    """A column such as the patient: rows of one group are never split between parts."""
    pixels: Pixels = Pixels()
    """How pictures become a network's input."""
    waves: Waves = Waves()
    """How sounds become a network's input."""
    tokenizer: MaybeFile = None
    """The tokenizer: a folder or a name on the hub. Default: the checkpoint's."""
    max_length: PositiveInt | None = None
    """The most tokens of a text, which is cut there. Default: the limit of tokenizer and network (512 if unknown)."""

    @model_validator(mode="after")
    def _has_inputs(self) -> Self:
        if self.image is None and self.text is None and self.audio is None and not self.numbers:
            raise ValueError("there is no input: give its column as image, text, audio or numbers")
        vectors = [columns for columns in self.targets.values() if isinstance(columns, list)]
        for columns in [self.text if isinstance(self.text, list) else [], *vectors]:
            if repeated := [column for column in columns if columns.count(column) > 1]:
                raise ValueError(f"the column {repeated[0]!r} is listed twice")
        if self.text is not None and self.audio is not None and self.waves.mask is not False:
            raise ValueError(
                "text and audio both have an attention_mask: use waves: {mask: false} to leave out that of sounds"
            )
        if not self.targets and self.mask is None:
            raise ValueError("there are no labels: name their columns with targets, or that of masks with mask")
        if self.mask is not None and (self.image is None or LABELS in self.targets):
            raise ValueError("a mask is of an image, and its labels are called labels")
        inputs = [column for columns in self.numbers.values() for column in columns]
        for column, coding in self.categories.items():
            if column not in inputs:
                raise ValueError(
                    f"categories: {column} is not a column of numbers (available: {', '.join(inputs) or 'none'})"
                )
            if isinstance(coding, dict) and len(coding) > 1:
                raise ValueError(f"categories: {column} is either one_hot or ordinal")
        if self.text is None and self.tokenizer is not None:
            raise ValueError("a tokenizer needs texts: give their column as text")
        return self


class Table(Columns):
    """A CSV, JSON (lines) or Parquet file with a row per sample."""

    kind: ClassVar[str] = "table"
    source: Literal["table"]
    path: File
    """The file; a relative path is looked up beside the recipe first."""
    validation_path: MaybeFile = None
    """A file with the same columns for validation: early stopping, the best weights."""
    test_path: MaybeFile = None
    """A file with the same columns for testing."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """The separator of a CSV file. Default: a comma, or a tab in a .tsv file."""


class Conll(Split):
    """Sentences with a tag for each word, from a CoNLL file: a word and its tags on each line, separated by a tab or
    spaces, and an empty line after each sentence (token classification).

    Tags are classes, compared by name with the head's. The first piece of a word has its label, and its other pieces
    have none. Comments and lines ``-DOCSTART-`` are left out and counted. A line with another number of columns is an
    error that names it, or with ``on_error: skip`` its sentence is left out.
    """

    kind: ClassVar[str] = "conll"
    text: ClassVar[str] = "words"
    targets: ClassVar[dict[str, str]] = {LABELS: "tags"}
    image: ClassVar[None] = None
    mask: ClassVar[None] = None
    audio: ClassVar[None] = None
    group: ClassVar[None] = None
    numbers: ClassVar[dict[str, list[str]]] = {}
    categories: ClassVar[dict[str, Any]] = {}
    source: Literal["conll"]
    path: File
    """The file; a relative path is looked up beside the recipe first."""
    validation_path: MaybeFile = None
    """A file for validation: early stopping, the best weights."""
    test_path: MaybeFile = None
    """A file for testing."""
    words: PositiveInt = 1
    """The number of the column of words."""
    tags: PositiveInt | None = None
    """The number of the column of tags. Default: the last one."""
    tokenizer: MaybeFile = None
    """The tokenizer: a folder or a name on the hub. Default: the checkpoint's."""
    max_length: PositiveInt | None = None
    """The most tokens of a sentence, which is cut there. Default: the limit of tokenizer and network (512 if
    unknown)."""


class Saved(Columns):
    """A dataset that ``datasets`` saved to disk (``save_to_disk``): one, or one per split."""

    kind: ClassVar[str] = "saved"
    source: Literal["saved"]
    path: File
    """The folder; a relative path is looked up beside the recipe first."""
    split: Name = "train"
    """The split for training, if there are several."""
    validation_split: Name | None = None
    """The split for validation: early stopping, the best weights."""
    test_split: Name | None = None
    """The split for testing. Default: a held-out part of ``split``."""


class Hub(Columns):
    """A dataset on the Hugging Face hub."""

    kind: ClassVar[str] = "hub"
    source: Literal["hub"]
    name: Name
    """Its name, such as ``ylecun/mnist``."""
    config: Name | None = None
    """One of its configurations."""
    revision: Name | None = None
    """A tag or commit, so that the data stay the same."""
    split: Name = "train"
    """The split for training."""
    validation_split: Name | None = None
    """The split for validation: early stopping, the best weights."""
    test_split: Name | None = None
    """The split for testing. Default: a held-out part of ``split``."""


class Corpus(Split):
    """Texts for training a language model to predict the next token, or masked ones.

    The network's class decides between the two, or a loss ``next_token`` or ``masked`` of the output ``logits``. A
    network that writes one sequence by reading another (T5) learns ``masked`` by span corruption: it reads a text with
    sentinels for spans that are left out, and writes these (Raffel et al. 2020, section 3.1.4). Texts
    are tokenized once, before training. Whole texts are held out. Masks for training are drawn in every epoch; masks
    for evaluation are the same in every run and do not depend on the seed.
    """

    source: Literal["corpus"]
    path: File
    """A .txt file, a folder of such files, a table (.csv, .tsv, .json, .jsonl, .parquet), or a folder that ``datasets``
    saved; a relative path is looked up beside the recipe first."""
    validation_path: MaybeFile = None
    """Texts for validation: early stopping, the best weights."""
    test_path: MaybeFile = None
    """Texts for testing."""
    unit: Literal["file", "paragraph", "line"] = "file"
    """What one text in a .txt file is: the whole file, a paragraph between empty lines, or a line."""
    text: Name = "text"
    """The column of texts in a table."""
    prompt: Name | None = None
    """A column of prompts, instead of ``text``; the loss covers the completions only. A network that writes one text by
    reading another reads the prompt, and writes the completion: a translation, a summary."""
    completion: Name | None = None
    """The column of the completions."""
    messages: Name | None = None
    """A column of conversations, instead of ``text``: lists of messages with ``role`` and ``content``, as the chat
    template of the tokenizer takes them. The loss covers the assistant's turns only."""
    packing: Literal["blocks", "none"] | None = None
    """blocks: concatenate texts, each with the end-of-text token, and cut them into full blocks; the rest is dropped
    and reported. none: every text is one sample, cut to ``max_length`` and padded on the tokenizer's side. Default:
    blocks; none for prompts and conversations."""
    max_length: PositiveInt | None = None
    """The tokens per block or text. Default: the limit of tokenizer and network (512 if unknown)."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """The share of tokens to mask; of these, 80 % become the mask token, 10 % another token (Devlin et al. 2019). For
    span corruption the share of tokens to leave out."""
    whole_words: bool = False
    """Whether to mask all tokens of a word at once; then all become the mask token."""
    tokenizer: MaybeFile = None
    """The tokenizer: a folder or a name on the hub. Default: the checkpoint's."""

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("prompt and completion go together: give both columns, or neither")
        if self.prompt is not None and "text" in self.model_fields_set:
            raise ValueError("a sample is a text, or a prompt with its completion: leave text out")
        if self.messages is not None and (self.prompt is not None or "text" in self.model_fields_set):
            raise ValueError("a sample is a conversation, or a text, or a prompt with its completion: keep one of them")
        return self

    def load(self, seed: int) -> Splits:
        """Return the texts as tokens, for an unknown network."""
        from surgeon.data.corpus import load_corpus

        return load_corpus(self, seed)

    def table(self, kind: str, path: Path, split: str) -> Columns:
        """Return a source for the rows of a table, or of a saved dataset, with texts."""
        column = self.messages or self.text
        targets = {"completion": self.completion or column}
        settings: dict[str, Any] = {"source": kind, "path": str(path), "text": self.prompt or column}
        if kind == "saved":
            return Saved.model_construct(**settings, targets=targets, split=split)
        return Table.model_construct(**settings, targets=targets)


BUNDLED = (Digits, Images, Masks, Coco, Table, Conll, Saved, Hub, Corpus)


@hookimpl
def surgeon_sources() -> Sequence[type[Source]]:
    """Return the built-in sources."""
    return BUNDLED


def _chosen(value: Any, info: ValidationInfo) -> Any:
    """Validate ``value`` as one of the sources in ``info.context["sources"]()``, or of the built-in ones."""
    if isinstance(value, Source):
        source_name(type(value))
        return value
    offered = (info.context or {}).get("sources")
    kinds = _kinds(tuple(offered().values()) if offered else BUNDLED)
    if info.mode == "json":
        return kinds.validate_json(json.dumps(value), strict=True)
    return kinds.validate_python(value)


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
                Digits | Images | Masks | Coco | Table | Conll | Saved | Hub | Corpus, Field(discriminator="source")
            ],
        ),
    ],
)
"""A source of any kind; with ``Plugins.sources`` under ``sources`` in the validation context, plugins' too."""


def _one_or_many(value: Any) -> str:
    return "several" if isinstance(value, (list, tuple)) else "one"


Sources: TypeAlias = Annotated[
    Annotated[AnySource, Tag("one")] | Annotated[list[AnySource], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_many),
]
"""One source, or several whose samples are combined."""


def beside(sources: Any, folder: Path) -> Any:
    """Return sources with file paths resolved relative to ``folder``, where the recipe is."""
    if isinstance(sources, (list, tuple)):
        return [beside(source, folder) for source in sources]
    paths = files_beside(sources, folder)
    return sources.model_copy(update=paths) if paths else sources


def as_sources(setting: Any) -> list[Any]:
    """Return the sources in a setting as a list."""
    return list(setting) if isinstance(setting, (list, tuple)) else [setting]


def check_domains(sources: list[Any]) -> None:
    """Refuse a mixture of sources with and without a domain.

    Raises:
        ValueError: Some sources have a domain, and others do not.
    """
    if len({source.domain is None for source in sources}) > 1:
        raise ValueError("give every source a domain, or none")
