"""Present rows of tables as datasets: encode on reading, labels as tensors, batches padded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from surgeon.data.files import Encoder
from surgeon.data.labels import IGNORED
from surgeon.data.numbers import Numbers
from surgeon.data.texts import Texts
from surgeon.data.word_texts import WORD_IDS, Words, label_first_pieces
from surgeon.errors import SurgeonError, TrainingError

ROOM = 2 * 2**30
"""How many bytes of numbers or tokens a dataset keeps in memory; what is beyond is read in every epoch."""
STEP = 100_000
"""How many rows are read at a time."""
OBJECT = 112
"""About how many bytes an array has beside its values."""


class Gathered(Sequence[dict[str, Tensor]]):
    """The samples of a batch that is already one: columns of tensors, ``(samples, …)``."""

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Gathered({name: column[index] for name, column in self.columns.items()})
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return {name: column[index] for name, column in self.columns.items()}


class Rows(Dataset[dict[str, Tensor]]):
    """Rows of a table, each encoded when it is read; training rows are varied differently in each epoch.

    Args:
        rows: A ``datasets.Dataset``.
        encoders: Make the inputs.
        labels: The labels of all rows, by their names in a batch.
        numbers: The number of each row in its source, for messages.
        where: The name of the source in messages.
        groups: The group of each row; a group is never split between parts.
        strata: The class of each row, for stratified splits.
        ids: The name of each row of the source, by number. Default: its number.
        varied: Whether to vary samples.
        by_word: The labels that have one class per word.
        keep_words: Whether samples include the word index of each token.
        whole: Returns columns of all rows as an Arrow table, for inputs that are read once.
    """

    def __init__(
        self,
        rows: Any,
        encoders: Sequence[Encoder],
        labels: Mapping[str, Tensor],
        *,
        numbers: Sequence[int],
        where: str,
        groups: Sequence[Any] | None = None,
        strata: Any = None,
        ids: Sequence[str] | None = None,
        varied: bool,
        by_word: Sequence[str] = (),
        keep_words: bool = False,
        whole: Callable[[Sequence[str]], Any] | None = None,
    ) -> None:
        self.rows = rows
        self.encoders = list(encoders)
        self.labels = dict(labels)
        self.numbers = numbers
        self.where = where
        self.groups = groups
        self.strata = strata
        self.ids = ids
        self.varied = varied
        self.by_word = tuple(by_word)
        self.keep_words = keep_words
        self.whole = whole
        self._kept: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
        self._room = ROOM
        self._numbers: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number = int(self.numbers[index])
        sample: dict[str, Tensor] = {}
        try:
            row = self.rows[index]
            for encode in self.encoders:
                sample.update(encode(row, number, self.varied))
        except SurgeonError:
            raise
        except Exception as error:  # libraries may raise anything on a user's data
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TrainingError(f"{self.where}, row {number} cannot be read: {reason}", where="train.data") from error
        return self._labelled(sample, index)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[dict[str, Tensor]]:
        """Return the samples of a batch, which is what a DataLoader asks for; it reads and encodes them together."""
        try:
            if all(isinstance(encode, Numbers) for encode in self.encoders):
                return self._gathered(indices)
            if len(self.encoders) == 1 and isinstance(self.encoders[0], Texts):
                return self._tokens(self.encoders[0], indices)
        except Exception:  # reading the rows one at a time says which it is
            pass
        return [self[index] for index in indices]

    def _gathered(self, indices: Sequence[int]) -> Gathered:
        places = torch.as_tensor(indices)
        if (inputs := self._all_numbers()) is not None:
            columns = {name: values[places] for name, values in inputs.items()}
        else:
            table = self.rows.with_format("arrow")[list(indices)]
            columns = self._encoded(table)
        return Gathered(columns | {name: values[places] for name, values in self.labels.items()})

    def _encoded(self, table: Any) -> dict[str, Tensor]:
        columns = {name: table[name].to_numpy() for name in table.column_names}
        return {encode.name: encode.batch(columns) for encode in self.encoders}  # type: ignore[attr-defined]

    def _all_numbers(self) -> dict[str, Tensor] | None:
        """Return the inputs of all rows, read once; None if they take too much memory."""
        if self._numbers is None:
            first = self._encoded(self.rows.with_format("arrow")[:1])
            if self.whole is None or len(self) * sum(values[0].numel() for values in first.values()) * 4 > ROOM:
                return None
            names = [column for encode in self.encoders for column in encode.columns]  # type: ignore[attr-defined]
            table = self.whole(names)
            parts = [self._encoded(table.slice(start, STEP)) for start in range(0, len(self), STEP)]
            self._numbers = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return self._numbers

    def _tokens(self, encode: Texts, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return samples of texts, which become tokens once, in the first epoch."""
        new = [index for index in indices if index not in self._kept]
        encoded: dict[int, dict[str, Tensor]] = {}
        if new:
            columns = self.rows[new]
            rows = [{name: values[place] for name, values in columns.items()} for place in range(len(new))]
            tokens = encode.tensors(encode.encode([encode.value(row) for row in rows]))
            encoded = dict(zip(new, tokens, strict=True))
            for index, sample in encoded.items():
                if self._room > 0:
                    # of the smallest type that holds every token
                    self._kept[index] = {name: value.numpy().astype(np.int32) for name, value in sample.items()}
                    self._room -= sum(OBJECT + value.nbytes for value in self._kept[index].values())
        samples = [
            dict(encoded[index])
            if index in encoded
            else {name: torch.from_numpy(value).long() for name, value in self._kept[index].items()}
            for index in indices
        ]
        return [self._labelled(sample, index) for sample, index in zip(samples, indices, strict=True)]

    def _labelled(self, sample: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        labels = {name: values[index] for name, values in self.labels.items()}
        if WORD_IDS in sample:
            labels |= {name: label_first_pieces(labels[name], sample[WORD_IDS]) for name in self.by_word}
            if not self.keep_words:
                del sample[WORD_IDS]
        return {**sample, **labels}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines variations."""
        for encode in self.encoders:
            if hasattr(encode, "set_epoch"):
                encode.set_epoch(epoch)

    def label_values(self, name: str) -> Tensor | None:
        """Return all labels of a column."""
        return self.labels.get(name)

    def row_ids(self, positions: Sequence[int]) -> list[str]:
        """Return the names of rows, for the record of what is held out."""
        numbers = [int(self.numbers[position]) for position in positions]
        return [str(number) if self.ids is None else self.ids[number] for number in numbers]

    def words(self, indices: Sequence[int]) -> list[list[str]] | None:
        """Return the words of rows whose texts are lists of words; None for other rows."""
        encode = next((encode for encode in self.encoders if isinstance(encode, Words)), None)
        return None if encode is None else [list(encode.value(self.rows[index]) or ()) for index in indices]

    def unvaried(self) -> Rows:
        """Return the same rows without variations."""
        plain = copy.copy(self)
        plain.varied = False
        plain._kept = dict(self._kept)
        return plain


class Chosen(Dataset[dict[str, Tensor]]):
    """Select samples of a dataset."""

    def __init__(self, samples: Any, positions: Sequence[int]) -> None:
        self.samples = samples
        self.positions = [int(position) for position in positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Any:
        return self.samples[self.positions[index]]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """Return the samples of a batch."""
        chosen: Sequence[Any] = several(self.samples, [self.positions[index] for index in indices])
        return chosen

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        if hasattr(self.samples, "set_epoch"):
            self.samples.set_epoch(epoch)

    @property
    def encoders(self) -> Sequence[Any]:
        """The encoders of the samples, if the dataset has any."""
        return list(getattr(self.samples, "encoders", ()))

    def words(self, indices: Sequence[int]) -> Any:
        """Return the words of samples; None if they are not lists of words."""
        return words_of(self.samples, [self.positions[index] for index in indices])

    @property
    def members(self) -> Sequence[Any]:
        """The members of a dataset with several sources."""
        return list(getattr(self.samples, "members", ()))

    @property
    def groups(self) -> list[Any] | None:
        """The group of each sample; None if the dataset has no groups."""
        groups = groups_of(self.samples)
        return None if groups is None else [groups[position] for position in self.positions]

    def label_values(self, name: str) -> Tensor | None:
        """Return all labels of a column; None if the dataset cannot list them."""
        values = label_values(self.samples, name)
        return None if values is None else values[torch.tensor(self.positions, dtype=torch.long)]


def several(samples: Any, indices: Sequence[int]) -> Any:
    """Return samples of a dataset, together if it can read them so."""
    together = getattr(samples, "__getitems__", None)
    return together(indices) if callable(together) else [samples[index] for index in indices]


def words_of(samples: Any, indices: Sequence[int]) -> list[list[str]] | None:
    """Return the words of samples whose texts are lists of words; None for other samples."""
    ask = getattr(samples, "words", None)
    return ask(indices) if callable(ask) else None


def groups_of(samples: Any) -> Sequence[Any] | None:
    """Return the group of each sample, which no split may divide; None if the dataset has no groups."""
    groups: Sequence[Any] | None = getattr(samples, "groups", None)
    return groups


def label_values(samples: Any, name: str) -> Tensor | None:
    """Return all labels of a column as one tensor; None if the dataset would have to read every sample."""
    ask = getattr(samples, "label_values", None)
    values = ask(name) if callable(ask) else None
    return values if isinstance(values, Tensor) else None


@dataclass
class Collate:
    """Make a batch; sequences are padded to the longest with a value per column."""

    padding: dict[str, float] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    """Columns of pictures; with ``fill``, different sizes are padded with zeros at the bottom and right."""
    fill: bool = False
    masks: tuple[str, ...] = ()
    """Columns of masks; they are filled up as pictures are, with -100."""

    def __call__(self, samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return ``samples`` as a batch."""
        if isinstance(samples, Gathered):
            return dict(samples.columns)
        masks = [name for name in self.masks if name in samples[0]]
        filled = {name: self._filled(name, samples) for name in (*self.pictures, *masks)}
        rest = [{k: v for k, v in s.items() if k not in self.padding and k not in filled} for s in samples]
        batch = {**filled, **(default_collate(rest) if rest[0] else {})}
        for name, value in self.padding.items():
            if name not in samples[0]:  # optional labels
                continue
            columns = [sample[name] for sample in samples]
            batch[name] = torch.nn.utils.rnn.pad_sequence(columns, batch_first=True, padding_value=value)
        return dict(batch)

    def _filled(self, name: str, samples: Sequence[dict[str, Tensor]]) -> Tensor:
        columns = [sample[name] for sample in samples]
        sizes = sorted({tuple(column.shape) for column in columns})
        if len(sizes) == 1:
            return torch.stack(columns)
        if not self.fill or len({len(size) for size in sizes}) > 1:
            raise TrainingError(
                f"the checkpoint's processor makes {name} of shapes {sizes[0]} and {sizes[-1]}: no batch is possible",
                where="train.data.pixels",
                hint="give them one size, pixels: {size: …}, or batch_size: 1",
            )
        most = [max(size[axis] for size in sizes) for axis in range(len(sizes[0]))]
        batch = columns[0].new_full((len(columns), *most), IGNORED if name in self.masks else 0)
        for place, column in zip(batch, columns, strict=True):
            place[tuple(slice(side) for side in column.shape)] = column
        return batch


def unlabelled(values: Tensor) -> int:
    """Return the number of samples without any label."""
    flat = values.reshape(len(values), -1)
    missing = flat.isnan() if values.is_floating_point() else flat == IGNORED
    return int(missing.all(1).sum())
