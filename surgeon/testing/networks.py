"""Make the small networks of the kit. Other processes build them too, so that nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


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


def pictures(size: int) -> torch.Tensor:
    """Make two pictures ``(2, 3, size, size)``."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def resnet() -> nn.Module:
    """Make a ResNet-18 of torchvision for five classes."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network: nn.Module = resnet18(num_classes=5)
    return network


def vit() -> nn.Module:
    """Make a vision transformer of torchvision with two blocks, for pictures of 32 by 32."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network: nn.Module = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    return network


def bert() -> nn.Module:
    """Make a BERT of transformers with two blocks that classifies texts."""
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
