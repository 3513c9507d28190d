"""FLOPs and the memory of training, against what a real forward does."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from transformers import BertConfig, BertModel

from surgeon.graph.costs import costs
from surgeon.graph.trace import trace


def kept_for_backward(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Bytes that autograd keeps in a real forward, each storage once, weights left out."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    sizes: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.eval()(*inputs)
    return sum(sizes.values())


@pytest.mark.parametrize("frozen", [False, True])
def test_activations_are_those_of_a_real_forward(frozen: bool) -> None:
    model = models.resnet18()
    if frozen:
        model.requires_grad_(False).fc.requires_grad_(True)
    real = kept_for_backward(model, torch.randn(2, 3, 224, 224))
    measured = costs(model, trace(model)).activations
    assert measured == pytest.approx(real, rel=0.01)


def test_flops_are_those_of_torch_and_add_up_from_the_children() -> None:
    model = models.resnet18()
    price = costs(model, trace(model))
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.randn(2, 3, 224, 224))
    assert 2 * price.flops[""] == counter.get_total_flops()
    assert sum(price.flops.get(name, 0) for name, _ in model.named_children()) == price.flops[""]
    assert price.samples == 2


def test_what_training_keeps_counts_trainable_parameters_only() -> None:
    with torch.device("meta"):
        model = BertModel(BertConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=64))
    model.embeddings.requires_grad_(False)
    price = costs(model, trace(model))
    trainable = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    assert price.gradients == trainable
    assert price.optimizer == 2 * trainable
    assert price.training_bytes == price.weights + 3 * trainable + (price.activations or 0)


def test_the_samples_of_a_detector_are_its_pictures_though_it_finds_no_box() -> None:
    model = models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    assert costs(model, trace(model)).samples == 2
