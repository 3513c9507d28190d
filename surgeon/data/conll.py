"""Read CoNLL files: a word and its tags on each line, an empty line after each sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surgeon.errors import TrainingError

DOCUMENT = "-DOCSTART-"
"""The word that begins a document in CoNLL-2003, which is none."""
SHOWN = 3


def read_conll(file: Path, *, words: int, tags: int | None, skip: bool) -> tuple[dict[str, list[list[str]]], list[str]]:
    """Read the sentences of a file as lists of words and of tags.

    Columns are separated by tabs if the first line has one, otherwise by spaces. Lines that begin with ``#`` and have
    another number of columns are comments.

    Args:
        file: The file.
        words: The number of the column of words, from 1 on.
        tags: The number of the column of tags. Default: the last one.
        skip: Whether to leave out sentences with a wrong line, with a count, instead of raising.

    Returns:
        The columns ``words`` and ``tags``, and remarks on what was read and left out.

    Raises:
        TrainingError: The file is not UTF-8, or a line has another number of columns; the error names the line.
    """
    columns: dict[str, list[list[str]]] = {"words": [], "tags": []}
    comments = documents = 0
    bad: list[str] = []
    width: int | None = None
    separator: str | None = None
    for sentence in _sentences(file):
        rows: list[list[str]] = []
        wrong: str | None = None
        for number, line in sentence:
            if width is None and not line.startswith("# "):
                separator = "\t" if "\t" in line else None
                width = len(line.split(separator))
                _check_columns(file, number, width, words, tags)
            cells = line.split(separator)
            if len(cells) != width and line.startswith("#"):
                comments += 1
            elif cells[0] == DOCUMENT:
                documents += 1
            elif len(cells) != width or not all(cells):
                wrong = wrong or f"line {number} has {len([c for c in cells if c])} columns, not {width}: {line!r}"
            else:
                rows.append(cells)
        if wrong is not None and not skip:
            raise TrainingError(
                f"{file}, {wrong}",
                where="train.data.path",
                hint="a line is a word and its tags, and an empty line ends a sentence; or on_error: skip",
            )
        if wrong is not None:
            bad.append(wrong)
        elif rows:
            columns["words"].append([cells[words - 1] for cells in rows])
            columns["tags"].append([cells[-1 if tags is None else tags - 1] for cells in rows])
    count = len(columns["words"])
    if not count:
        raise TrainingError(f"{file} has no sentence", where="train.data.path")
    notes = [f"{file}: {count} sentences of {sum(map(len, columns['words']))} words"]
    if bad:
        more = "; …" if len(bad) > SHOWN else ""
        notes.append(f"{file}: left out {len(bad)} sentences ({'; '.join(bad[:SHOWN])}{more})")
    if comments or documents:
        notes.append(f"{file}: left out {comments} comments and {documents} lines {DOCUMENT}")
    return columns, notes


def conll_rows(source: Any, file: Path, notes: list[str]) -> Any:
    """Return the sentences of a source's file as a dataset, and add remarks to ``notes``."""
    import datasets

    columns, remarks = read_conll(file, words=source.words, tags=source.tags, skip=source.on_error == "skip")
    notes += remarks
    return datasets.Dataset.from_dict(columns)


def _sentences(file: Path) -> Iterator[list[tuple[int, str]]]:
    """Yield the lines between empty ones, with their numbers."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise TrainingError(f"{file} is not UTF-8 text", where="train.data.path", hint="save it as UTF-8") from error
    sentence: list[tuple[int, str]] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            sentence.append((number, line.rstrip()))
        elif sentence:
            yield sentence
            sentence = []


def _check_columns(file: Path, number: int, width: int, words: int, tags: int | None) -> None:
    if width < 2:
        raise TrainingError(
            f"{file}, line {number} has a single column",
            where="train.data.path",
            hint="a line is a word and its tags, separated by a tab or spaces",
        )
    for key, column in (("words", words), ("tags", tags)):
        if column is not None and column > width:
            raise TrainingError(
                f"{file} has {width} columns, so {key}: {column} is none of them", where=f"train.data.{key}"
            )
