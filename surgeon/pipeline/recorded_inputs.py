"""Describe how samples become a network's input, from the record of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgeon.data.settings import MaskValues, Pixels, Waves
from surgeon.data.sources import Table
from surgeon.errors import TrainingError
from surgeon.interfaces.record import Record

COLUMNS = ("image", "text", "audio", "numbers")
"""Fields of a source that name the columns with inputs."""
PREPARED = ("pixels", "waves", "tokenizer", "max_length", "scale", "categories")
"""Fields of a source that say how to prepare inputs."""
LABELLED = ("targets", "na", "mask", "mask_values")
TABLES = ("table", "saved", "hub")
IN_MINUS_1_TO_1 = 0.5
"""The mean and deviation that map pixels from 0…1 to -1…1, as for the bundled digits."""


@dataclass(frozen=True)
class RecordedInputs:
    """The inputs of a network's training, as far as plain files can be read in the same way.

    Attributes:
        fields: ``image``, ``text``, ``audio``, ``numbers``, ``targets``, ``na``, ``pixels``, ``waves``, ``tokenizer``,
            ``max_length``, ``scale`` and ``categories``, as in a source of data; only those recorded.
        sources: The sources of the last training, from its record.
        refusal: Why plain files cannot be read as in training; None if they can.
        trained: Whether surgeon trained the network.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Mapping[str, Any], ...] = ()
    refusal: str | None = None
    trained: bool = False
    distant: str | None = None
    """A tokenizer that the record names and that would have to be downloaded."""
    tokenizer_beside: bool = False
    """Whether the weights have a tokenizer beside them."""

    @property
    def kinds(self) -> set[str]:
        """The kinds of files that the network takes, according to its record."""
        return {name for name in COLUMNS if self.fields.get(name)}

    def source(self) -> Table:
        """Return a data source with these fields and without a file."""
        fields = {name: value for name, value in self.fields.items() if value is not None}
        return Table.model_construct(**{"source": "table", "path": "", "targets": {}, **fields})


def recorded_inputs(record: Record | None, *, trusted: bool = False) -> RecordedInputs:
    """Decide how to prepare plain files for a network.

    Args:
        record: The record in the network's manifest; a tokenizer beside the weights takes precedence over one named in
            it.
        trusted: Whether a tokenizer that the record names may be downloaded.
    """
    beside = record is not None and any(companion.kind == "tokenizer" for companion in record.companions)
    entry = record.training[-1] if record is not None and record.training else None
    if entry is None:
        return RecordedInputs(tokenizer_beside=beside)
    data = entry.get("settings", {}).get("data")
    if data is None:
        return RecordedInputs(refusal="it was trained on datasets from Python", trained=True, tokenizer_beside=beside)
    sources = tuple(data) if isinstance(data, list) else (data,)
    fields_of = [_fields(source) for source in sources]
    if unknown := [source["source"] for source, fields in zip(sources, fields_of, strict=True) if fields is None]:
        refusal = f"it was trained on the source {unknown[0]!r}, which does not say how plain files become its input"
        return RecordedInputs({}, sources, refusal, trained=True)
    first = fields_of[0] or {}
    for name in (*COLUMNS, *PREPARED):
        values = [(fields or {}).get(name) for fields in fields_of]
        if any(value != values[0] for value in values):
            refusal = f"it was trained on sources with different {name}"
            return RecordedInputs({}, sources, refusal, trained=True)
    first = {**first, "tokenizer": None} if beside else first
    distant = first.get("tokenizer")
    if distant is None or trusted or Path(distant).exists():
        return RecordedInputs(first, sources, trained=True, tokenizer_beside=beside)
    return RecordedInputs({**first, "tokenizer": None}, sources, trained=True, distant=str(distant))


def _fields(source: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the input settings of one source in a record; None if it has none."""
    kind = source.get("source")
    if kind == "digits":
        channels = source.get("channels", 3)
        scale = [IN_MINUS_1_TO_1] * channels
        pixels = Pixels(size=source.get("size", 64), channels=channels, mean=scale, std=scale)
        return {"image": "image", "pixels": pixels, "targets": {source.get("column", "labels"): "label"}}
    if kind == "images":
        fields: dict[str, Any] = {"image": "image", "targets": {"labels": "label"}}
    elif kind == "masks":
        fields = {"image": "image", "targets": {}, "mask_values": source.get("mask_values")}
    elif kind == "conll":
        fields = {name: source[name] for name in ("tokenizer", "max_length") if source.get(name) is not None}
        fields |= {"text": "words", "targets": {"labels": "tags"}}
    elif kind == "coco":
        fields = {"image": "image", "targets": {}}
    elif kind in TABLES:
        names = (*COLUMNS, *LABELLED, "tokenizer", "max_length", "scale", "categories")
        fields = {name: source[name] for name in names if source.get(name) is not None}
    elif kind == "corpus" and not source.get("prompt"):
        fields = {name: source[name] for name in ("text", "tokenizer", "max_length") if source.get(name) is not None}
    else:
        return None
    fields["pixels"] = Pixels.model_validate(source.get("pixels") or {})
    fields["mask_values"] = MaskValues.model_validate(fields.get("mask_values") or {})
    fields["waves"] = Waves.model_validate(source.get("waves") or {})
    return fields


def check_kind(recorded: RecordedInputs, kind: str, files: str) -> None:
    """Refuse files of a kind that the network was not trained on.

    Raises:
        TrainingError: They are of another kind, or their preparation is unknown.
    """
    if recorded.refusal is not None:
        raise TrainingError(
            f"{files} cannot be read as in training: {recorded.refusal}",
            hint=f"give the source as YAML, with its preparation: {_example(recorded)}; in Python, pass surgeon.Splits",
        )
    kinds = recorded.kinds
    if kind in ("table", "saved"):
        if not kinds or not (set(recorded.fields) & set(COLUMNS)):
            raise TrainingError(
                f"the network's record does not say which columns of {files} are its inputs",
                hint=f"give the source as YAML: {{source: table, path: {files}, image: …, targets: {{labels: …}}}}",
            )
        return
    if kinds and kinds != {kind}:
        names = ", ".join(sorted(kinds))
        raise TrainingError(
            f"the network was trained on the inputs {names}, and {files} is read as {kind} only",
            hint="give a table with the columns of its training" if len(kinds) > 1 else None,
        )


def check_tokenizer(recorded: RecordedInputs, kind: str, files: str) -> None:
    """Refuse texts without a known tokenizer.

    Raises:
        TrainingError: The tokenizer is unknown, or would have to be downloaded without consent.
    """
    if recorded.tokenizer_beside or recorded.fields.get("tokenizer") is not None:
        return
    if kind != "text" and not recorded.fields.get("text"):
        return
    if recorded.distant is not None:
        raise TrainingError(
            f"the network was trained with the tokenizer {recorded.distant!r}, which would have to be downloaded",
            hint="if you trust it: --trust-recipe, or trust_recipe=True",
        )
    raise TrainingError(
        f"no tokenizer is known for {files}: neither the network's record nor files beside its weights have one",
        hint="give the source as YAML: {source: table, path: …, text: …, tokenizer: …}",
    )


def _example(recorded: RecordedInputs) -> str:
    """Return a source as a user writes it: that of the training for texts to learn, else one of pictures."""
    kept = [source for source in recorded.sources if source.get("source") == "corpus"]
    if not kept:
        return "{source: images, path: …, pixels: {size: …}}"
    named = [f", {name}: {kept[0][name]}" for name in ("prompt", "completion", "messages") if kept[0].get(name)]
    return f"{{source: corpus, path: …{''.join(named)}}}"
