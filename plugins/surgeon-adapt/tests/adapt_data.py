"""Small networks, and labelled samples beside unlabelled ones that are brighter and have more contrast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

import surgeon
from surgeon import Operation, Source, Splits, TrainReport, TrainSettings
from surgeon.data.columns import Columns

COUNT = 24


def network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten(), nn.Linear(24, 3))


class Stripes(Source):
    """Three classes by the place of a bright stripe."""

    source: Literal["stripes"] = "stripes"
    shifted: bool = False
    """Brighter, with more contrast."""
    wrong: bool = False
    """Other labels in training."""

    def load(self, seed: int) -> Splits:
        train, test = (self._columns(number) for number in (1, 2))
        if self.wrong:
            train.columns["labels"] = (train.columns["labels"] + 1) % 3
        return Splits(train, test, classes={"labels": 3})

    def _columns(self, seed: int) -> Columns:
        draw = torch.Generator().manual_seed(2 * seed + self.shifted)
        labels = torch.randint(3, (COUNT,), generator=draw)
        x = torch.randn(COUNT, 1, 6, 6, generator=draw) * 0.3
        for row, label in enumerate(labels.tolist()):
            x[row, :, 2 * label : 2 * label + 2] += 1.5
        return Columns(pixel_values=x * 2 + 1 if self.shifted else x, labels=labels)


def stripes(*, wrong: bool = False, domains: tuple[str, ...] = ("plain", "photo")) -> list[Stripes]:
    """Labelled samples of one domain, and unlabelled ones of a second, shifted one."""
    first, second = domains or (None, None)
    return [Stripes(domain=first), Stripes(domain=second, shifted=True, wrong=wrong, labels="hidden")]


def two_domains() -> Splits:
    """The same samples as datasets from Python."""
    parts = [Stripes(shifted=shifted).load(0).train.columns for shifted in (False, True)]
    pixels = torch.cat([part["pixel_values"] for part in parts])
    labels = torch.cat([parts[0]["labels"], torch.full((COUNT,), -100)])
    columns = Columns(pixel_values=pixels, labels=labels, domain=torch.arange(2 * COUNT) // COUNT)
    return Splits(columns, columns, domains=("plain", "photo"))


def samples(*, shifted: bool) -> torch.Tensor:
    """Test samples of one domain."""
    return Stripes(shifted=shifted).load(0).test.columns["pixel_values"]


def trained(
    operations: Sequence[Operation],
    *,
    wrong: bool = False,
    domains: tuple[str, ...] = ("plain", "photo"),
    build: Callable[[], nn.Module] = network,
    epochs: float = 8,
    run: Mapping[str, Any] = MappingProxyType({}),
    **settings: object,
) -> tuple[nn.Module, TrainReport]:
    """Apply the operations and train with what they ask for."""
    model = surgeon.apply(build(), list(operations)) if operations else build()
    data = stripes(wrong=wrong, domains=domains)
    train_settings = {"data": data, "epochs": epochs, "batch_size": 24, "learning_rate": 1e-2, **settings}
    penalties = [penalty for operation in operations for penalty in operation.penalties()]
    report = surgeon.train(model, TrainSettings.model_validate(train_settings), penalties=penalties, quiet=True, **run)
    return model, report


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
