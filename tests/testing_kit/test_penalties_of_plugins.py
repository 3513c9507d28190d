"""check_penalty: surgeon's own penalties pass, and each mistake is named."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch import nn

from surgeon.data.columns import Columns
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Penalty
from surgeon.testing import check_penalty
from surgeon.training.conservation import L2SP, FeatureMatching


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def data() -> Splits:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    part = Columns(x=x, labels=(x[:, 0] > 0).long())
    return Splits(part, part, inputs=("x",))


BEGUN = count(1)


class Remembering(Penalty):
    def begin(self, run):
        factor = next(BEGUN)
        return lambda outputs, batch: factor * outputs["logits"].square().mean()


class Detached(Penalty):
    def begin(self, run):
        return lambda outputs, batch: outputs["logits"].detach().square().mean()


class Hooked(Penalty):
    def begin(self, run):
        run.model[0].register_forward_hook(lambda module, args, output: None)
        return lambda outputs, batch: outputs["logits"].square().mean()


class Broken(Penalty):
    def begin(self, run):
        return lambda outputs, batch: outputs["scores"].mean()


class Infinite(Penalty):
    def begin(self, run):
        return lambda outputs, batch: outputs["logits"].mean() / 0


@pytest.mark.parametrize("penalty", [L2SP(weight=1.0, new_weight=0.0), FeatureMatching(weight=1.0, sites=["0"])])
def test_the_built_in_penalties_pass(penalty):
    check_penalty(penalty, build, data())


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (Remembering(), "give other weights: keep what changes"),
        (Detached(), "trains as it does without Detached"),
        (Hooked(), "leaves hook 1 on 0 in the network.*run.ending"),
        (Broken(), "Broken.*KeyError"),
        (Infinite(), "training with Infinite fails"),
    ],
)
def test_a_mistake_is_named(penalty, message):
    with pytest.raises(AssertionError, match=message):
        check_penalty(penalty, build, data())
