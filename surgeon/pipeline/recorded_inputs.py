"""How samples become a network's input: as its record says that they did when it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgeon.data.settings import Pixels, Waves
from surgeon.data.sources import Table
from surgeon.errors import TrainingError
from surgeon.interfaces.record import Record

COLUMNS = ("image", "text", "audio", "numbers")
"""What names the columns that are fed to a network."""
PREPARED = ("pixels", "waves", "tokenizer", "max_length", "scale", "categories")
"""How what is in them becomes its input."""
LABELLED = ("targets", "na")
TABLES = ("table", "saved", "hub")
IN_MINUS_1_TO_1 = 0.5
"""Mean and deviation that bring pixels of 0…1 to -1…1, as those of the bundled digits are."""


@dataclass(frozen=True)
class RecordedInputs:
    """What a network was trained on, as far as plain files can be read likewise.

    Attributes:
        fields: ``image``, ``text``, ``audio``, ``numbers``, ``targets``, ``na`` and ``pixels``, ``waves``,
            ``tokenizer``, ``max_length``, ``scale``, ``categories``, as a source of data
            has them; only what is recorded.
        sources: The sources of the last training as its record holds them.
        refusal: Why plain files cannot be read as they were in training; None where they can.
        trained: Whether the network was trained by surgeon.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Mapping[str, Any], ...] = ()
    refusal: str | None = None
    trained: bool = False
    distant: str | None = None
    """A tokenizer that the record names, and that would have to be fetched."""
    tokenizer_beside: bool = False
    """Whether a tokenizer lies beside the weights."""

    @property
    def kinds(self) -> set[str]:
        """What kinds of files the network takes, by its record."""
        return {name for name in COLUMNS if self.fields.get(name)}

    def source(self) -> Table:
        """A source of data with these fields, which names no file."""
        fields = {name: value for name, value in self.fields.items() if value is not None}
        return Table.model_construct(**{"source": "table", "path": "", "targets": {}, **fields})


def recorded_inputs(record: Record | None, *, trusted: bool = False) -> RecordedInputs:
    """Decide how plain files become a network's input.

    Args:
        record: What the network's manifest says; a tokenizer beside the weights comes before one that it names.
        trusted: Whether a tokenizer that the record names may be fetched.
    """
    own = record is not None and any(companion.kind == "tokenizer" for companion in record.companions)
    entry = record.training[-1] if record is not None and record.training else None
    if entry is None:
        return RecordedInputs(tokenizer_beside=own)
    data = entry.get("settings", {}).get("data")
    if data is None:
        return RecordedInputs(refusal="it was trained on datasets from Python", trained=True, tokenizer_beside=own)
    sources = tuple(data) if isinstance(data, list) else (data,)
    found = [_fields(source) for source in sources]
    if odd := [source["source"] for source, fields in zip(sources, found, strict=True) if fields is None]:
        why = f"it was trained on the source {odd[0]!r}, which does not say how plain files become its input"
        return RecordedInputs({}, sources, why, trained=True)
    first = found[0] or {}
    for name in (*COLUMNS, *PREPARED):
        values = [(fields or {}).get(name) for fields in found]
        if any(value != values[0] for value in values):
            why = f"it was trained on sources of which each has {name} of its own"
            return RecordedInputs({}, sources, why, trained=True)
    first = {**first, "tokenizer": None} if own else first
    distant = first.get("tokenizer")
    if distant is None or trusted or Path(distant).exists():
        return RecordedInputs(first, sources, trained=True, tokenizer_beside=own)
    return RecordedInputs({**first, "tokenizer": None}, sources, trained=True, distant=str(distant))


def _fields(source: Mapping[str, Any]) -> dict[str, Any] | None:
    """What one source of a record says of inputs; None where it says nothing."""
    kind = source.get("source")
    if kind == "digits":
        channels = source.get("channels", 3)
        scale = [IN_MINUS_1_TO_1] * channels
        pixels = Pixels(size=source.get("size", 64), channels=channels, mean=scale, std=scale)
        return {"image": "image", "pixels": pixels, "targets": {source.get("column", "labels"): "label"}}
    if kind == "images":
        fields: dict[str, Any] = {"image": "image", "targets": {"labels": "label"}}
    elif kind in TABLES:
        names = (*COLUMNS, *LABELLED, "tokenizer", "max_length", "scale", "categories")
        fields = {name: source[name] for name in names if source.get(name) is not None}
    else:
        return None
    fields["pixels"] = Pixels.model_validate(source.get("pixels") or {})
    fields["waves"] = Waves.model_validate(source.get("waves") or {})
    return fields


def check_kind(recorded: RecordedInputs, kind: str, what: str) -> None:
    """Refuse files of a kind that the network was not trained on.

    Raises:
        TrainingError: They are, or nothing says how they become its input.
    """
    if recorded.refusal is not None:
        raise TrainingError(
            f"{what} cannot be read as in training: {recorded.refusal}",
            hint="write the source out, with how samples become inputs: {source: images, path: …, pixels: {size: …}}; "
            "in Python, hand over surgeon.Splits",
        )
    kinds = recorded.kinds
    if kind in ("table", "saved"):
        if not kinds or not (set(recorded.fields) & set(COLUMNS)):
            raise TrainingError(
                f"which columns of {what} are fed to the network? Its record does not say",
                hint=f"write the source out: {{source: table, path: {what}, image: …, targets: {{labels: …}}}}",
            )
        return
    if kinds and kinds != {kind}:
        names = ", ".join(sorted(kinds))
        raise TrainingError(
            f"the network was trained on the inputs {names}, and {what} is read as {kind} alone",
            hint="hand over a table with the columns that it was trained on" if len(kinds) > 1 else None,
        )


def check_tokenizer(recorded: RecordedInputs, kind: str, what: str) -> None:
    """Refuse texts where nothing says which tokenizer makes tokens of them.

    Raises:
        TrainingError: Nothing does, or what does would have to be fetched without consent.
    """
    if recorded.tokenizer_beside or recorded.fields.get("tokenizer") is not None:
        return
    if kind != "text" and not recorded.fields.get("text"):
        return
    if recorded.distant is not None:
        raise TrainingError(
            f"the network was trained with the tokenizer {recorded.distant!r}, which is not here and would be fetched",
            hint="if you trust it: --trust-recipe, or trust_recipe=True",
        )
    raise TrainingError(
        f"which tokenizer makes tokens of {what}? Neither a record nor files beside the weights say",
        hint="write the source out: {source: table, path: …, text: …, tokenizer: …}",
    )
