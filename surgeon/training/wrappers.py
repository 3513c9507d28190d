"""Restore a network after training: remove what the Trainer and accelerate added to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

PREPARED = "_is_accelerate_prepared"
PUT_IN = (
    "forward",  # accelerate's autocasting forward, for bf16 and fp16
    "_original_forward",
    PREPARED,
    "_compiled_call_impl",  # of torch.compile in place
    "_is_torch_compile",
    "gradient_checkpointing",
    "_gradient_checkpointing_func",
)
"""Attributes that engines set on modules of the network and do not remove."""
CONFIG = "use_cache"
"""A field of a transformers config that the Trainer sets and does not reset."""


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore the attributes of every module, even if training raises an exception.

    Unlike ``accelerate.utils.extract_model_from_parallel(keep_fp32_wrapper=False)``, this leaves no bound method in
    the instance: the network pickles and copies as before, and the next training starts from a clean network.
    """
    before = [(module, {name: module.__dict__[name] for name in PUT_IN if name in module.__dict__})
              for module in model.modules()]  # fmt: skip
    config = getattr(model, "config", None)
    cached = {CONFIG: config.__dict__[CONFIG]} if CONFIG in getattr(config, "__dict__", {}) else {}
    try:
        yield
    finally:
        for module, values in before:
            for name in PUT_IN:
                module.__dict__.pop(name, None)
            module.__dict__.update(values)
        if hasattr(config, "__dict__"):
            config.__dict__.pop(CONFIG, None)
            config.__dict__.update(cached)
