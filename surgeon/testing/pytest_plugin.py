"""A pytest plugin that makes one test of each promise; loaded only where a test file or ``-p`` asks for it.

    pytest_plugins = ["surgeon.testing.pytest_plugin"]

    def test_mine(operation_check, small_vit):
        operation_check(small_vit.build, [Mine()], small_vit.args)

``operation_check`` takes what :func:`surgeon.testing.check_operations` takes; the test becomes ``test_mine[values]``,
``test_mine[batches]``, ``test_mine[compile]`` and so on. ``small_resnet``, ``small_vit`` and ``small_bert`` are
networks to try operations on; ``small_network`` is each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from surgeon.testing.conformance import check_composition, check_promise
from surgeon.testing.networks import SmallNetwork, bert, pictures, resnet, vit
from surgeon.testing.promises import PROMISES, SLOW_PROMISES

__all__ = ["OperationCheck", "SmallNetwork", "small_bert", "small_network", "small_resnet", "small_vit"]

COMPOSITION = "composition"
OperationCheck = Callable[..., None]
"""The type of ``operation_check``, for annotations."""


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
    return SmallNetwork(resnet, (pictures(64),))


@pytest.fixture
def small_vit() -> SmallNetwork:
    """A vision transformer of torchvision with two blocks, on pictures of 32 by 32."""
    return SmallNetwork(vit, (pictures(32),))


@pytest.fixture
def small_bert() -> SmallNetwork:
    """A BERT of transformers with two blocks that classifies texts of twelve tokens."""
    tokens = torch.randint(5, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    return SmallNetwork(bert, (), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})


@pytest.fixture(params=["small_resnet", "small_vit", "small_bert"])
def small_network(request: pytest.FixtureRequest) -> SmallNetwork:
    """Each of the small networks."""
    network: SmallNetwork = request.getfixturevalue(request.param)
    return network
