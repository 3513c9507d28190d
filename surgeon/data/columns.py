"""Hold a dataset in memory as named columns of tensors."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset

from surgeon.errors import TrainingError


class Columns(Dataset[dict[str, Tensor]]):
    """A dataset of named tensors of equal length; sample ``i`` is row ``i`` of each."""

    def __init__(self, **columns: Tensor) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise TrainingError(f"the columns of a dataset differ in length: {lengths}")
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}

    def label_values(self, name: str) -> Tensor | None:
        """Return all labels of a column."""
        return self.columns.get(name)
