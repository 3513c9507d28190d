"""Providers, sources, losses, callbacks and families: surgeon's own pass, and each mistake is named."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18
from transformers import TrainerCallback

from surgeon.architectures.torchvision import Torchvision
from surgeon.data.sources import Digits
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.data import Source
from surgeon.interfaces.family import Family
from surgeon.interfaces.splits import Splits
from surgeon.plugins import load
from surgeon.testing import check_callback, check_family, check_loss, check_provider, check_source
from surgeon.training import losses
from surgeon.training.early_stopping import EarlyStopping

CLASSES = torch.tensor([0, 2, 1, 3])


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "mse", "huber", "cosine", "next_token", "masked"])
def test_the_built_in_losses_pass(name):
    tokens = torch.randint(0, 5, (3, 6), generator=torch.Generator().manual_seed(0))
    prediction = torch.randn(4, 5)
    given = {
        "cross_entropy": (prediction, CLASSES, -100),
        "bce": (prediction, (prediction > 0).float(), torch.nan),
        "next_token": (torch.randn(3, 6, 5), tokens, -100),
        "masked": (torch.randn(3, 6, 5), tokens, -100),
    }.get(name, (prediction, torch.randn(4, 5), torch.nan))
    check_loss(getattr(losses, name), *given[:2], missing=given[2])


def _entropy(prediction, target):
    return F.cross_entropy(prediction.float(), target, reduction="none")


LOSSES = {
    r"expected \(4,\)": lambda p, t: F.cross_entropy(p, t),
    "returned a float": lambda p, t: 1.0,
    "has no gradient": lambda p, t: _entropy(p.detach(), t),
    "depends on the other samples": lambda p, t: _entropy(p - p.mean(0), t),
    "zero everywhere": lambda p, t: _entropy(p * 0, t),
    "other values the second time": lambda p, t: _entropy(p * torch.rand(()), t),
    "changes the loss of the others|missing label|must have the loss 0": lambda p, t: _entropy(p, t.clamp(min=0)),
}


@pytest.mark.parametrize("message", sorted(LOSSES))
def test_a_loss_with_a_mistake_is_refused(message):
    if "second time" in message:
        message = f"{message}|other samples"
        loss = LOSSES["other values the second time"]
    else:
        loss = LOSSES[message]
    with pytest.raises(AssertionError, match=message):
        check_loss(loss, torch.randn(4, 5), CLASSES, missing=-100)


def test_the_built_in_providers_families_sources_and_callbacks_pass():
    check_provider(Torchvision(), ["resnet18", "mobilenet_v3_small"])
    model = resnet18(num_classes=3)
    family = next(family for family in load(installed=False).families() if family.holds(model))
    check_family(family, model)
    check_source(Digits(classes=[1, 2]))
    check_callback(EarlyStopping, patience=1)


class Plain(ArchitectureProvider):
    scheme = "plain"
    same = nn.Linear(2, 2)

    def names(self):
        return ["a"]

    def build(self, architecture):
        self.require(architecture.name)
        return nn.Linear(2, 2)


class Shared(Plain):
    def build(self, architecture):
        self.require(architecture.name)
        return self.same


class TakesAll(Plain):
    def build(self, architecture):
        return nn.Linear(2, 2)


@pytest.mark.parametrize(("kind", "message"), [(Shared, "same network twice"), (TakesAll, "unknown name")])
def test_a_provider_with_a_mistake_is_refused(kind, message):
    check_provider(Plain())
    with pytest.raises(AssertionError, match=message):
        check_provider(kind())


class Rows(Source):
    source: Literal["rows"] = "rows"

    def load(self, seed):
        return Splits(self.samples(seed), self.samples(0), inputs=("x",), classes={"labels": 2})

    def samples(self, seed):
        draw = torch.Generator().manual_seed(seed)
        return [{"x": torch.randn(2, generator=draw), "labels": torch.tensor(i % 2)} for i in range(6)]


class FollowsSeed(Rows):
    source: Literal["rows_a"] = "rows_a"

    def load(self, seed):
        return Splits(self.samples(seed), self.samples(seed), inputs=("x",))


class NoLabel(Rows):
    source: Literal["rows_b"] = "rows_b"

    def load(self, seed):
        return Splits(self.samples(seed), self.samples(0), inputs=("x", "labels"))


class TooManyClasses(Rows):
    source: Literal["rows_c"] = "rows_c"

    def load(self, seed):
        return Splits(self.samples(seed), self.samples(0), inputs=("x",), classes={"labels": 1})


class Unseeded(Rows):
    source: Literal["rows_d"] = "rows_d"

    def load(self, seed):
        return Splits([{"x": torch.rand(2), "labels": torch.tensor(1)}] * 2, self.samples(0), inputs=("x",))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (FollowsSeed, "test samples depend on the seed"),
        (NoLabel, "none is left as a label"),
        (TooManyClasses, "has the class 1, but classes says 1"),
        (Unseeded, "draw from the seed"),
    ],
)
def test_a_source_with_a_mistake_is_refused(kind, message):
    check_source(Rows())
    with pytest.raises(AssertionError, match=message):
        check_source(kind())


def test_a_family_that_says_what_does_not_hold_is_refused():
    model = resnet18()
    with pytest.raises(AssertionError, match="does not cover torchvision"):
        check_family(Family("other", classes=("lab.Net",)), model)
    with pytest.raises(AssertionError, match=r"stem=.* names nothing"):
        check_family(Family("wrong", classes=("torchvision.models.resnet.ResNet",), stem=("no_such",)), model)


class Raises(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise KeyError("loss")


def test_a_callback_with_a_mistake_is_refused():
    with pytest.raises(AssertionError, match=r"expected a transformers\.TrainerCallback"):
        check_callback(lambda: 3)
    with pytest.raises(AssertionError, match="KeyError"):
        check_callback(Raises)
    one = TrainerCallback()
    with pytest.raises(AssertionError, match="same callback twice"):
        check_callback(lambda: one)
