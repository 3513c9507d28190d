"""Make processors and tokenizers of transformers from plain values, without the network or a folder of the user's."""

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
        kind: The class that finds out which: ``AutoImageProcessor`` or ``AutoFeatureExtractor``.
        config: What ``preprocessor_config.json`` holds.

    Raises:
        TrainingError: transformers cannot make it.
    """
    import transformers

    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(dict(config)))
        try:
            return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever a processor raises at its own settings, or at a package that is missing
            said = (str(error).strip() or type(error).__name__).splitlines()[0].replace(folder, "its folder")
            raise TrainingError(
                f"the checkpoint's processor cannot be made: {said}",
                where="train.data",
                hint="mend the preprocessor_config.json beside the weights, or remove it to do without",
            ) from error


def load_tokenizer(files: Mapping[str, bytes]) -> Any:
    """Make a tokenizer from its files.

    Raises:
        TrainingError: transformers cannot make it.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        for name, data in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # by what is wrong with the files: OSError, KeyError, the Rust library's own
            said = (str(error).strip() or type(error).__name__).splitlines()[0].replace(folder, "its folder")
            raise TrainingError(
                f"the tokenizer beside the weights cannot be loaded: {said}",
                where="train.data",
                hint="name another: tokenizer: FOLDER",
            ) from error


def tensors_of_one(made: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a processor made of one sample, without the dimension of the batch."""
    return {
        name: value[0]
        for name, value in made.items()
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == 1
    }
