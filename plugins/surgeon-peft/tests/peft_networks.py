"""Small real networks of transformers, and folders of them."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import torch
import transformers

IDS = torch.tensor([[5, 9, 3, 17, 22, 1], [7, 7, 30, 2, 40, 11]])


def llama(**changes):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        **changes,
    )
    return transformers.LlamaForCausalLM(config).eval()


def bert(labels: int = 3):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=40,
        num_labels=labels,
    )
    return transformers.BertForSequenceClassification(config).eval()


def vit():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        num_labels=3,
    )
    return transformers.ViTForImageClassification(config).eval()


def saved(model, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def logits(model, inputs=IDS):
    with torch.no_grad():
        return model.eval()(inputs).logits


def perturbed(model):
    """Train, so to say: move every trainable tensor away from its first value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def quiet(function):
    """Run without the warnings of peft and transformers, which are about their own code."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)

    return run
