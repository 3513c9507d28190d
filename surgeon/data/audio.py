"""Sounds as inputs of a network: raw samples, as Wav2Vec2 and its kin take them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgeon.data.settings import Waves
from surgeon.errors import TrainingError

MASK = "attention_mask"


class Sound:
    """Encodes the sounds of a column as ``input_values`` of shape ``(samples,)`` and, if asked for, a mask of them.

    Args:
        column: The column: of lists of samples, of paths of .wav files, or of what ``datasets`` makes of either.
        waves: How they become inputs.
        folder: Where paths begin.
    """

    def __init__(self, column: str, waves: Waves, folder: Path) -> None:
        self.column = column
        self.waves = waves
        self.folder = folder
        self.names = ["input_values", *([MASK] if waves.mask else [])]

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """The sound of a row."""
        wave = torch.from_numpy(self._samples(row[self.column], index))[: self.waves.longest]
        if not len(wave):
            raise TrainingError(f"row {index} has no sound in {self.column!r}", where="train.data")
        if self.waves.normalise:  # as transformers' Wav2Vec2FeatureExtractor does
            wave = (wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt()
        return {"input_values": wave, **({MASK: torch.ones(len(wave), dtype=torch.long)} if self.waves.mask else {})}

    def _samples(self, value: Any, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        if isinstance(value, Mapping) and value.get("array") is not None:
            self._check_rate(int(value.get("sampling_rate") or self.waves.rate), index)
            value = value["array"]
        elif isinstance(value, Mapping):
            value = io.BytesIO(value["bytes"]) if value.get("bytes") else value.get("path")
        if isinstance(value, (str, io.BytesIO)):
            return self._read(value, index)
        try:
            found = np.array([] if value is None else value, dtype=np.float32)  # a copy that may be written to
        except (TypeError, ValueError) as error:
            raise TrainingError(f"row {index} has no sound in {self.column!r}", where="train.data") from error
        if found.ndim != 1:
            raise TrainingError(f"row {index}: {self.column!r} has shape {found.shape}, not one row of samples")
        return found

    def _read(self, where: str | io.BytesIO, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        from scipy.io import wavfile

        name = str(self.folder / where) if isinstance(where, str) else f"row {index}"
        try:
            rate, found = wavfile.read(name if isinstance(where, str) else where)
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{name} cannot be read as a .wav file: {str(error).strip() or type(error).__name__}",
                where="train.data",
                hint="convert it, or hand its samples over as a list of numbers",
            ) from error
        self._check_rate(rate, index)
        if found.dtype == np.uint8:  # the one kind whose silence is not 0
            scaled = (found.astype(np.float32) - 128) / 128
        else:
            whole = np.issubdtype(found.dtype, np.integer)
            scaled = found.astype(np.float32) / (-float(np.iinfo(found.dtype).min) if whole else 1.0)
        return np.ascontiguousarray(scaled.mean(1) if scaled.ndim > 1 else scaled, dtype=np.float32)

    def _check_rate(self, rate: int, index: int) -> None:
        if rate != self.waves.rate:
            raise TrainingError(
                f"row {index} has {rate} samples a second, and the network takes {self.waves.rate}",
                where="train.data",
                hint=f"resample it, or set waves: {{rate: {rate}}} if that is what the network was trained with",
            )
