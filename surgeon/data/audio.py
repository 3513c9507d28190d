"""Encode sounds with the checkpoint's feature extractor: raw samples, or log-mel spectrograms."""

from __future__ import annotations

import inspect
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
        most: The most samples that are encoded of a sound; None without a limit.
        cut: The places of the sounds of a part that are longer, once they were checked.
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
        self.own = own_limit(self.extractor)
        most = min(self.longest, self.own or self.longest)
        self.most = None if most == np.iinfo(np.int64).max else most
        self.cut: set[int] = set()

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """Encode the sound of a row."""
        return self.encode(self.read(row[self.column], index), index)

    def notes(self, count: int, where: str) -> list[str]:
        """Return a note on how many of ``count`` sounds are cut, by the last check."""
        if not self.cut or self.most is None:
            return []
        are = "is" if len(self.cut) == 1 else "are"
        whose = "waves: {longest: N} keeps N samples"
        if self.most == self.own:
            whose = f"{type(self.extractor).__name__} takes no more"
        text = f"{are} longer than {self.most / self.rate:.4g} s and {are} cut ({whose})"
        return [f"{where}: {len(self.cut)} of {count} sounds {text}"]

    def encode(self, samples: Samples, index: int) -> dict[str, Tensor]:
        """Encode a sound at the network's rate, up to the limit."""
        samples = samples[: self.longest]
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

    def read(self, value: Any, index: int) -> Samples:
        """Return all samples of a cell at the network's rate.

        Raises:
            TrainingError: It holds no sound, or one with samples that are not finite.
        """
        rate = self.rate
        path = value.get("path") if isinstance(value, Mapping) else value
        name = str(self.folder / path) if isinstance(path, str) else f"the sound in {self.column!r}"
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
        if not np.isfinite(samples).all():  # one such sample would make NaN of all by normalisation
            raise TrainingError(
                f"row {index}: {name} has samples that are not finite (NaN or infinite)", where="train.data"
            )
        return resampled(samples, rate, self.rate)


def own_limit(extractor: Any) -> int | None:
    """Return the most samples that a feature extractor takes of a sound by itself; None where it takes all."""
    if type(extractor).__name__ == "ASTFeatureExtractor":  # frames of 25 ms every 10 ms, as Kaldi has them
        window, step = extractor.sampling_rate * 25 // 1000, extractor.sampling_rate // 100
        return int(window + step * extractor.max_length - 1)
    if getattr(extractor, "truncation", None) == "rand_trunc":  # of CLAP
        return int(extractor.nb_max_samples)
    options = inspect.signature(extractor.__call__).parameters
    if "truncation" not in options or options["truncation"].default is not True:
        return None
    seconds = getattr(extractor, "default_audio_length", None)
    stated = (options[name].default for name in ("max_length",) if name in options)
    limits = (
        *stated,
        None if seconds is None else seconds * extractor.sampling_rate,
        *(getattr(extractor, name, None) for name in ("num_max_samples", "n_samples")),
    )
    return next((int(limit) for limit in limits if isinstance(limit, (int, float))), None)
