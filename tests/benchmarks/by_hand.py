"""Edited networks as somebody would write them by hand in plain PyTorch, around the layers of surgeon's result.

Each takes a clean copy of what surgery made (the same layers and weights, no hooks, no taps), so that both give the
same outputs and only the way they are put together differs.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def clean(edited: nn.Module) -> nn.Module:
    """A copy without hooks, to take layers from."""
    copy = deepcopy(edited)
    for module in copy.modules():
        module._forward_hooks.clear()
    return copy


class Reverse(torch.autograd.Function):
    """The identity with its gradient negated."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor) -> torch.Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> torch.Tensor:
        return -gradients[0]


class ResNet(nn.Module):
    """The layers of a torchvision ResNet, which ends at ``last`` and has linear heads on stages.

    Args:
        edited: What surgery made.
        last: The last stage, 1 to 4; the original head follows the fourth.
        heads: The stage that each of the network's branches reads.
        reverse: Whether the branches' gradients are reversed.
    """

    def __init__(
        self, edited: nn.Module, last: int = 4, heads: dict[str, int] | None = None, *, reverse: bool = False
    ) -> None:
        super().__init__()
        net: Any = clean(edited)
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.stages = nn.ModuleList([getattr(net, f"layer{number}") for number in range(1, last + 1)])
        self.fc = net.fc if last == 4 else None
        self.stage_of = heads or {}
        self.heads = nn.ModuleDict({name: net.grafts[name].head.layers for name in self.stage_of})
        self.reverse = reverse

    def forward(self, images: torch.Tensor) -> Any:
        x = self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        produced = []
        for stage in self.stages:
            x = stage(x)
            produced.append(x)
        if self.fc is None:
            return x
        outputs = {"logits": self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))}
        for name, head in self.heads.items():
            x = produced[self.stage_of[name] - 1]
            pooled = torch.flatten(F.adaptive_avg_pool2d(Reverse.apply(x) if self.reverse else x, 1), 1)
            outputs[name] = head(pooled)
        return outputs if self.heads else outputs["logits"]


class ProgressiveResNet(nn.Module):
    """Two ResNet columns; what the first makes at the end of a stage is added, through a 1×1 convolution.

    Args:
        edited: What surgery made.
        laterals: With them, or the two columns alone, one after the other.
    """

    def __init__(self, edited: nn.Module, *, laterals: bool = True) -> None:
        super().__init__()
        net: Any = clean(edited)
        self.columns = nn.ModuleList([ResNet(column) for column in net.columns])
        adapters = [lateral.adapters[0] for lateral in net.laterals[1]] if laterals else []
        self.projections = nn.ModuleList([adapter.project for adapter in adapters])
        self.scales = nn.ParameterList([adapter.alpha for adapter in adapters])

    def train(self, mode: bool = True) -> ProgressiveResNet:
        super().train(mode)
        self.columns[0].train(False)
        return self

    def _column(self, column: Any, images: torch.Tensor, added: list[torch.Tensor]) -> tuple[Any, list[torch.Tensor]]:
        x = column.maxpool(F.relu(column.bn1(column.conv1(images)), inplace=True))
        produced = []
        for number, stage in enumerate(column.stages):
            x = stage(x)
            produced.append(x)
            if added:
                x = x + self.projections[number](added[number] * self.scales[number])
        return column.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)), produced

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            first, produced = self._column(self.columns[0], images, [])
        second, _ = self._column(self.columns[1], images, produced if len(self.projections) else [])
        return {"first": first, "second": second}


class FrozenResNet(ResNet):
    """A ResNet whose stem and first stages are frozen, the statistics of their norms with them."""

    def __init__(self, edited: nn.Module, frozen: int) -> None:
        super().__init__(edited)
        self.still = [self.conv1, self.bn1, *self.stages[:frozen]]

    def train(self, mode: bool = True) -> FrozenResNet:
        super().train(mode)
        for part in self.still:
            part.train(False)
        return self


def bert_layers(bert: Any, collected: dict[int, torch.Tensor], added: Any = None) -> None:
    """Give the encoder a forward that collects what the layers produce, and may add something to it."""
    plain = type(bert.encoder)

    class Collecting(plain):  # type: ignore[misc, valid-type]
        def forward(self, hidden: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
            from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

            kwargs = {name: value for name, value in kwargs.items() if name not in ("use_cache", "encoder_outputs")}
            for number, layer in enumerate(self.layer):
                hidden = layer(hidden, attention_mask, **kwargs)
                if added is not None:
                    hidden = hidden + added(number)
                collected[number] = hidden
            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)

    bert.encoder.__class__ = Collecting


class TruncatedBert(nn.Module):
    """The embeddings and the first layers of a BERT."""

    def __init__(self, edited: nn.Module) -> None:
        super().__init__()
        self.bert: Any = clean(edited).bert
        self.bert.pooler = None

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.bert(**batch).last_hidden_state
        return hidden


class BranchedBert(nn.Module):
    """A BERT classifier with linear heads, each on the mean of what a layer makes of all but padding, or on the pooler.

    Args:
        edited: What surgery made.
        heads: The layer that each branch reads; None reads what the classifier does.
        reverse: Whether the branches' gradients are reversed.
    """

    def __init__(self, edited: nn.Module, heads: dict[str, int | None], *, reverse: bool = False) -> None:
        super().__init__()
        net: Any = clean(edited)
        self.bert, self.dropout, self.classifier = net.bert, net.dropout, net.classifier
        self.collected: dict[int, torch.Tensor] = {}
        bert_layers(self.bert, self.collected)
        self.layer_of = heads
        self.heads = nn.ModuleDict({name: net.grafts[name].head.layers for name in heads})
        self.reverse = reverse

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        pooled = self.dropout(self.bert(**batch).pooler_output)
        outputs = {"logits": self.classifier(pooled)}
        for name, head in self.heads.items():
            layer = self.layer_of[name]
            if layer is None:
                outputs[name] = head(pooled)
                continue
            x = self.collected[layer]
            x = Reverse.apply(x) if self.reverse else x
            weights = batch["attention_mask"].unsqueeze(-1).to(x.dtype)
            outputs[name] = head((x * weights).sum(1) / weights.sum(1).clamp(min=1))
        self.collected.clear()
        return outputs


class ProgressiveBert(nn.Module):
    """Two BERT classifiers; what the first makes at some layers is added to the second's, through a matrix.

    Args:
        edited: What surgery made.
        laterals: With them, or the two columns alone, one after the other.
    """

    def __init__(self, edited: nn.Module, *, laterals: bool = True) -> None:
        super().__init__()
        net: Any = clean(edited)
        self.columns = net.columns
        adapters = [lateral.adapters[0] for lateral in net.laterals[1]]
        self.projections = nn.ModuleList([adapter.project for adapter in adapters])
        self.scales = nn.ParameterList([adapter.alpha for adapter in adapters])
        self.place = {int(site.rpartition(".")[2]): position for position, site in enumerate(net.sites[1])}
        self.produced: dict[int, torch.Tensor] = {}
        if laterals:
            bert_layers(self.columns[0].bert, self.produced)
            bert_layers(self.columns[1].bert, {}, self._added)

    def _added(self, number: int) -> Any:
        position = self.place.get(number)
        if position is None:
            return 0
        return self.projections[position](self.produced[number] * self.scales[position])

    def train(self, mode: bool = True) -> ProgressiveBert:
        super().train(mode)
        self.columns[0].train(False)
        return self

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            first = self.columns[0](**batch).logits
        return {"first": first, "second": self.columns[1](**batch).logits}
