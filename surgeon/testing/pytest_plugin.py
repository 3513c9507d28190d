"""A pytest plugin that makes one test of each promise; loaded only where a test file or ``-p`` asks for it.

    pytest_plugins = ["surgeon.testing.pytest_plugin"]

    def test_mine(operation_check, small_vit):
        operation_check(small_vit.build, [Mine()], small_vit.args)

``operation_check`` takes what :func:`surgeon.testing.check_operations` takes; the test becomes ``test_mine[values]``,
``test_mine[batches]``, ``test_mine[compile]`` and so on. ``small_resnet``, ``small_vit`` and ``small_bert`` are
networks to try operations on; ``small_network`` is each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from surgeon.testing.conformance import check_composition, check_promise
from surgeon.testing.promises import PROMISES, SLOW_PROMISES

COMPOSITION = "composition"
OperationCheck = Callable[..., None]
"""The type of ``operation_check``, for annotations."""


@dataclass(frozen=True)
class SmallNetwork:
    """Hold a network to try operations on.

    Attributes:
        build: Makes it, the same one on each call.
        args: Positional arguments of a forward.
        kwargs: Keyword arguments of a forward.
    """

    build: Callable[[], nn.Module]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each promise for tests that take ``operation_check``."""
    if "operation_check" in metafunc.fixturenames:
        names = [*PROMISES, *SLOW_PROMISES, COMPOSITION]
        metafunc.parametrize("operation_check", [_check_of(name) for name in names], ids=names)


def _check_of(promise: str) -> OperationCheck:
    if promise == COMPOSITION:
        return _composition
    return partial(check_promise, promise)


def _composition(*arguments: Any, loss: Any = None, **more: Any) -> None:
    check_composition(*arguments, **more)  # nothing is trained, so that no loss is needed


@pytest.fixture
def small_resnet() -> SmallNetwork:
    """A ResNet-18 of torchvision for five classes, on pictures of 64 by 64."""
    return SmallNetwork(_resnet, (_pictures(64),))


@pytest.fixture
def small_vit() -> SmallNetwork:
    """A vision transformer of torchvision with two blocks, on pictures of 32 by 32."""
    return SmallNetwork(_vit, (_pictures(32),))


@pytest.fixture
def small_bert() -> SmallNetwork:
    """A BERT of transformers with two blocks that classifies texts of twelve tokens."""
    tokens = torch.randint(5, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    return SmallNetwork(_bert, (), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})


@pytest.fixture(params=["small_resnet", "small_vit", "small_bert"])
def small_network(request: pytest.FixtureRequest) -> SmallNetwork:
    """Each of the small networks."""
    network: SmallNetwork = request.getfixturevalue(request.param)
    return network


def _pictures(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def _resnet() -> nn.Module:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network: nn.Module = resnet18(num_classes=5)
    return network


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network: nn.Module = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    return network


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=5,
    )
    network: nn.Module = BertForSequenceClassification(config)
    return network
