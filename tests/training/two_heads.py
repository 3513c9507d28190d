"""A network with two outputs and what it may be trained on, for tests of the loop."""

from __future__ import annotations

import torch
from torch import nn

from surgeon.data.columns import Columns
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective
from surgeon.nn.outputs import Outputs
from surgeon.recipe.train_settings import TrainSettings


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.logits = nn.Linear(8, 2)
        self.new = nn.Linear(8, 2)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        features = self.trunk(pixel_values)
        return Outputs(logits=self.logits(features), new=self.new(features))


def data(count: int = 32, *, noise: float = 0.0, missing: float = 0.0) -> Splits:
    def split(seed: int) -> Columns:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 4, generator=generator)
        y = (x[:, 0] > 0).long()
        flipped = torch.rand(count, generator=generator) < noise
        other = torch.where(flipped, torch.randint(2, (count,), generator=generator), (x[:, 1] > 0).long())
        other[torch.rand(count, generator=generator) < missing] = -100
        return Columns(pixel_values=x, labels=y, other=other)

    return Splits(split(1), split(2))


BOTH = [Objective(output="logits"), Objective(output="new", label="other")]
NEW = [Objective(output="new", label="other")]


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, **changes})
