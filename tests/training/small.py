"""A small network, data, and a loop in plain torch, for tests of what training computes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from surgeon.data.columns import Columns
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import TrainSettings

GENERATOR = torch.Generator().manual_seed(1)
X = torch.randn(48, 6, generator=GENERATOR)
Y = torch.randint(0, 3, (48,), generator=GENERATOR)


class Plain(nn.Module):
    """An MLP with BatchNorm."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.a, self.n = nn.Linear(6, 16), nn.BatchNorm1d(16)
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.n(self.a(x))))


class Tagger(nn.Module):
    """Classes of tokens, ``(batch, tokens, 5)``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Pictures(nn.Module):
    """Classes of pictures of one channel."""

    def __init__(self, classes: int = 3, side: int = 8) -> None:
        super().__init__()
        self.layer = nn.Linear(side * side, classes)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.layer(pixel_values.flatten(1))


def make(kind: type[nn.Module] = Plain, seed: int = 0, **options: int) -> nn.Module:
    torch.manual_seed(seed)
    return kind(**options)


def splits(x: torch.Tensor = X, labels: torch.Tensor = Y, name: str = "x") -> Splits:
    data = Columns(**{name: x, "labels": labels})
    return Splits(data, data, inputs=(name,))


def by_sgd(**changes: object) -> TrainSettings:
    """Settings under which training is a plain loop of SGD with one batch an epoch."""
    arguments = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    arguments |= changes.pop("arguments", {})  # type: ignore[arg-type]
    given = {"epochs": 8, "batch_size": 48, "learning_rate": 0.1, "arguments": arguments, **changes}
    return TrainSettings(**given)  # type: ignore[arg-type]


def difference(one: nn.Module, two: nn.Module) -> float:
    first, second = one.state_dict(), two.state_dict()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)
