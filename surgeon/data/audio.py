"""Encode sounds with the checkpoint's feature extractor: raw samples, or log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from surgeon.data.processors import load_processor, tensors_of_one
from surgeon.data.settings import Waves
from surgeon.data.sound_files import Samples, read_sound, resampled
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import TRANSFORMERS, UNKNOWN, Preprocessing

MASK = "attention_mask"
RAW: dict[str, Any] = {
    "library": TRANSFORMERS,
    "config": {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": True,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": 16000,
    },
}
"""Raw samples normalised to mean 0 and variance 1, for checkpoints without a feature extractor."""
SECONDS = 10
"""The default length limit of raw samples in seconds."""


def chosen_sounds(waves: Waves, stated: Preprocessing = UNKNOWN) -> dict[str, Any]:
    """Return the preprocessing of sounds: the checkpoint's, with values that the recipe overrides."""
    sounds = dict(stated.sounds or RAW)
    config = dict(sounds["config"])
    settings = {"sampling_rate": waves.rate, "do_normalize": waves.normalise, "return_attention_mask": waves.mask}
    config |= {name: value for name, value in settings.items() if value is not None}
    longest = waves.longest or sounds.get("longest")
    return sounds | {"config": config} | ({"longest": longest} if longest else {})


class Sound:
    """Encode the sounds of a column as a network's inputs: ``input_values`` or ``input_features``, and their mask.

    Args:
        column: The column: lists of samples, file paths, or what ``datasets`` stores for either.
        waves: The recipe's settings.
        folder: The folder that paths are relative to.
        stated: The checkpoint's preprocessing.

    Attributes:
        used: The preprocessing, as plain values.
        names: The names of the inputs.
        padding: The padding value of each input.
    """

    def __init__(self, column: str, waves: Waves, folder: Path, stated: Preprocessing = UNKNOWN) -> None:
        self.column = column
        self.folder = folder
        self.used = chosen_sounds(waves, stated)
        self.extractor = load_processor("AutoFeatureExtractor", self.used["config"])
        self.rate = int(self.extractor.sampling_rate)
        probe = self._extract(np.zeros(self.rate, np.float32))
        accepted = set(probe) if stated.arguments is None or not stated.arguments & set(probe) else stated.arguments
        self.names = [name for name in probe if name in accepted]
        filling = getattr(self.extractor, "padding_value", 0.0)
        self.padding = {name: 0 if name.endswith("mask") else filling for name in self.names}
        self.longest = int(self.used.get("longest") or SECONDS * self.rate)
        if probe[self.names[0]].ndim > 1 and "longest" not in self.used:
            self.longest = np.iinfo(np.int64).max  # the extractor limits its spectrograms itself

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """Encode the sound of a row."""
        samples = self._samples(row[self.column], index)[: self.longest]
        if not len(samples):
            raise TrainingError(f"row {index} has no sound in {self.column!r}", where="train.data")
        try:
            encoded = self._extract(samples)
        except (ValueError, RuntimeError, IndexError, AssertionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            message = f"row {index}: {type(self.extractor).__name__} refuses {len(samples)} samples: {reason}"
            raise TrainingError(message, where="train.data") from error
        return {name: encoded[name] for name in self.names}

    def _extract(self, samples: Samples) -> dict[str, Tensor]:
        return tensors_of_one(self.extractor(samples, sampling_rate=self.rate, return_tensors="pt"))

    def _samples(self, value: Any, index: int) -> Samples:
        """Return the samples of a cell at the network's rate."""
        rate = self.rate
        if isinstance(value, Mapping) and value.get("array") is not None:
            rate, value = int(value.get("sampling_rate") or rate), value["array"]
        elif isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            value, rate = read_sound(self.folder / value, str(self.folder / value))
        elif isinstance(value, bytes):
            value, rate = read_sound(value, f"row {index}")
        try:
            samples = np.array([] if value is None else value, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"row {index} has no sound in {self.column!r}", where="train.data") from error
        if samples.ndim != 1:
            raise TrainingError(f"row {index}: {self.column!r} has shape {samples.shape}, not one row of samples")
        return resampled(samples, rate, self.rate)
