"""Train a tiny network for a few steps, with a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from surgeon.errors import SurgeonError
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.splits import Splits
from surgeon.plugins import load
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.session import train

NAME = "checked"


class _Points(Dataset[dict[str, Tensor]]):
    """Points on either side of a line."""

    def __init__(self, count: int) -> None:
        self.points = torch.randn(count, 4, generator=torch.Generator().manual_seed(count))

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.points[index], "labels": (self.points[index, 0] > 0).long()}


class _Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.hidden(x).relu())}


class _Offer:
    """A plugin with one callback."""

    def __init__(self, factory: Callable[..., Any]) -> None:
        self.factory = factory

    @hookimpl
    def surgeon_callbacks(self) -> dict[str, Callable[..., Any]]:
        return {NAME: self.factory}


def train_with(factory: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Train two epochs with the callback that ``factory`` makes.

    Raises:
        AssertionError: Training with it fails.
    """
    plugins = load(installed=False)
    plugins.register(_Offer(factory), "the callback under test")
    options = {"epochs": 2, "batch_size": 8, "baseline": "none", "callbacks": [{"callback": NAME, **settings}]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _Classifier()
        splits = Splits(_Points(32), _Points(16), inputs=("x",), validation=_Points(16))
        try:
            train(model, TrainSettings.model_validate(options), quiet=True, plugins=plugins, data=splits)
        except SurgeonError as error:
            raise AssertionError(f"training with the callback fails: {error}") from error
        except Exception as error:  # the callback's own code may raise anything
            raise AssertionError(f"the callback raised {type(error).__name__} in training: {error}") from error
