"""Find the texts of a corpus: in text files, tables and saved datasets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from surgeon.data.conversations import messages_in
from surgeon.data.plain_files import Files, sort_files
from surgeon.data.readers import existing_path, read
from surgeon.errors import TrainingError

CorpusSource: TypeAlias = Any
"""A :class:`surgeon.data.sources.Corpus`."""
PARAGRAPHS = re.compile(r"\n[^\S\n]*\n\s*")
WHERE = "train.data"


@dataclass(frozen=True)
class Text:
    """One text, a completion with its prompt, or a conversation.

    Attributes:
        name: Its file or row, for messages.
        whole: The text, or the completion of a prompt.
        prompt: The prompt, which is not learned.
        messages: The messages of a conversation; empty for anything else.
    """

    name: str
    whole: str
    prompt: str | None = None
    messages: tuple[dict[str, Any], ...] = ()


def texts_by_part(source: CorpusSource, notes: list[str]) -> dict[str, list[Text]]:
    """Return the texts of a source by part, at least ``train``; add remarks on omitted texts to ``notes``.

    Raises:
        TrainingError: A file is missing or cannot be read, or there is no text.
    """
    paths = {"train": source.path, "validation": source.validation_path, "test": source.test_path}
    parts: dict[str, list[Text]] = {}
    for name, path in paths.items():
        if path is None:
            continue
        existing_path(path)
        for part, texts in _texts_in(source, path, notes).items():
            parts.setdefault(part if name == "train" else name, []).extend(texts)
    if not parts.get("train"):
        raise TrainingError(f"{source.path} holds no text", where=f"{WHERE}.path")
    return parts


def _texts_in(source: CorpusSource, path: str, notes: list[str]) -> dict[str, list[Text]]:
    """Return the texts of a path by part; all are ``train`` unless its folders are splits."""
    parts: dict[str, list[Text]] = {}
    for files in sort_files([path], ("text", "table", "saved")):
        notes += files.notes
        for part, text in _texts_of(source, files, notes):
            if text.whole.strip() or text.messages:
                parts.setdefault(part or "train", []).append(text)
            else:
                notes.append(f"{path}: left out the empty text {text.name}")
    return parts


def _texts_of(source: CorpusSource, files: Files, notes: list[str]) -> list[tuple[str | None, Text]]:
    texts: list[tuple[str | None, Text]] = []
    for file in files.files:
        if files.kind == "text":
            for setting in ("prompt", "messages"):
                if (column := getattr(source, setting)) is not None:
                    message = f"{file.path} is not a table, so it has no column {column!r}"
                    raise TrainingError(message, where=f"{WHERE}.{setting}")
            texts += [(file.part, Text(name, text)) for name, text in _units(source, file.path, file.name)]
        elif files.kind in ("table", "saved"):
            rows = _rows_of(source, files, file.path, file.name, bool(file.part), notes)
            texts += [(file.part, text) for text in rows]
        else:
            raise TrainingError(f"{file.path} holds no text", where=f"{WHERE}.path")
    return texts


def _units(source: CorpusSource, path: Path, name: str) -> list[tuple[str, str]]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{path} is not UTF-8: byte {error.start} cannot be read", where=f"{WHERE}.path", hint="save it as UTF-8"
        ) from error
    if source.unit == "file":
        return [(name, content)]
    pieces = PARAGRAPHS.split(content) if source.unit == "paragraph" else content.splitlines()
    return [(f"{name}: {source.unit} {number}", piece) for number, piece in enumerate(pieces) if piece.strip()]


def _rows_of(source: CorpusSource, files: Files, path: Path, name: str, split: bool, notes: list[str]) -> list[Text]:
    if source.messages is not None:
        return _conversations(source, files, path, name, split, notes)
    columns = [source.text] if source.prompt is None else [source.prompt, source.completion]
    rows = read(source.table(files.kind, path, name if split else "train")).parts["train"].rows
    values = [rows[str(column)][:] for column in columns]
    entries = []
    for number, row in enumerate(zip(*values, strict=True)):
        if not_text := next((value for value in row if value is not None and not isinstance(value, str)), None):
            _refuse(source, path, number, TrainingError(f"{not_text!r} is not a text", where=WHERE), notes)
            continue
        texts = [value or "" for value in row]
        entries.append(Text(f"row {number}", texts[-1], None if source.prompt is None else texts[0]))
    return entries


def _conversations(
    source: CorpusSource, files: Files, path: Path, name: str, split: bool, notes: list[str]
) -> list[Text]:
    rows = read(source.table(files.kind, path, name if split else "train")).parts["train"].rows
    conversations = []
    for number, value in enumerate(rows[str(source.messages)][:]):
        try:
            conversations.append(Text(f"row {number}", "", messages=messages_in(value)))
        except TrainingError as error:
            _refuse(source, path, number, error, notes)
    return conversations


def _refuse(source: CorpusSource, path: Path, number: int, error: TrainingError, notes: list[str]) -> None:
    """Raise the error about a row, or note that the row is left out where the source says so."""
    if source.on_error == "skip":
        notes.append(f"{path}: left out row {number}: {error.message}")
        return
    error.message = f"{path}, row {number}: {error.message}"
    raise error
