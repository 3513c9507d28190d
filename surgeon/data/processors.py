"""Make transformers processors and tokenizers from plain values, without the network or the user's folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgeon.errors import TrainingError


def load_processor(kind: str, config: Mapping[str, Any]) -> Any:
    """Make a processor from its config.

    Args:
        kind: The auto class: ``AutoImageProcessor`` or ``AutoFeatureExtractor``.
        config: The content of ``preprocessor_config.json``.

    Raises:
        TrainingError: transformers cannot make the processor.
    """
    import transformers

    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(dict(config)))
        try:
            return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # a processor may raise anything on its settings or a missing package
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].replace(folder, "its folder")
            raise TrainingError(
                f"the checkpoint's processor cannot be made: {reason}",
                where="train.data",
                hint="repair the preprocessor_config.json beside the weights, or remove it",
            ) from error


def load_tokenizer(files: Mapping[str, bytes]) -> Any:
    """Make a tokenizer from its files.

    Raises:
        TrainingError: transformers cannot make the tokenizer.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        for name, data in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # OSError, KeyError, exceptions of the Rust library, …
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].replace(folder, "its folder")
            raise TrainingError(
                f"the tokenizer beside the weights cannot be loaded: {reason}",
                where="train.data",
                hint="use another: tokenizer: FOLDER",
            ) from error


def padding_token(tokenizer: Any) -> int | None:
    """Return the token that ``tokenizer`` pads with, after the end of a text is made that if it has none for it."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    token: int | None = tokenizer.pad_token_id
    return token


def tensors_of_one(features: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a processor's tensors for one sample, without the batch dimension."""
    return {
        name: value[0]
        for name, value in features.items()
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == 1
    }
