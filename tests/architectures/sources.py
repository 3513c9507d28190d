"""Small networks to write and to read back."""

from __future__ import annotations

import torch
import transformers
from torch import nn

from surgeon.architectures.source import Source

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def bert(cls: str = "BertForSequenceClassification", **options: object) -> nn.Module:
    torch.manual_seed(0)
    return getattr(transformers, cls)(transformers.BertConfig(**{**SIZES, **options}))


def check_values(source: Source, model: nn.Module) -> None:
    """Every tensor of ``model`` is what the source's mapping reads for it."""
    assert source.checkpoint is not None
    assert source.mapping is not None
    for name, tensor in model.state_dict().items():
        if name in source.mapping:
            assert torch.equal(source.checkpoint.read(source.mapping[name]), tensor), name
