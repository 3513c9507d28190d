"""Read sounds with soundfile if it is installed, else .wav with SciPy; resample them to the network's rate."""

from __future__ import annotations

import io
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np

from surgeon.data.requirements import install_command
from surgeon.errors import TrainingError

Samples: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"
RIFF = (b"RIFF", b"RIFX", b"RF64")
"""The first bytes of .wav files."""


def read_sound(where: Path | bytes, name: str) -> tuple[Samples, int]:
    """Read a file as ``(samples,)`` in -1…1, channels averaged.

    Args:
        where: A path, or the bytes of a file.
        name: The name for errors.

    Returns:
        The samples and their number per second.

    Raises:
        TrainingError: The file cannot be read, or needs a package that is not installed.
    """
    try:
        data = where.read_bytes() if isinstance(where, Path) else where
    except OSError as error:
        raise _unreadable(name, error) from error
    if find_spec("soundfile") is not None:
        return _by_soundfile(data, name)
    if data[:4] not in RIFF:
        raise TrainingError(
            f"{name} cannot be read as a .wav file, and other kinds of sounds need soundfile, which is not installed",
            where="train.data",
            hint=install_command("audio"),
        )
    return _by_scipy(data, name)


def resampled(samples: Samples, rate: int, target: int) -> Samples:
    """Resample from ``rate`` to ``target`` samples per second with SciPy's polyphase filter."""
    if rate == target or not len(samples):
        return samples
    from scipy.signal import resample_poly

    ratio = Fraction(target, rate)
    return np.ascontiguousarray(resample_poly(samples, ratio.numerator, ratio.denominator), dtype=np.float32)


def _by_soundfile(data: bytes, name: str) -> tuple[Samples, int]:
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (RuntimeError, TypeError, ValueError) as error:  # LibsndfileError is a RuntimeError
        raise _unreadable(name, error) from error
    return np.ascontiguousarray(samples.mean(1), dtype=np.float32), int(rate)


def _by_scipy(data: bytes, name: str) -> tuple[Samples, int]:
    from scipy.io import wavfile

    try:
        rate, samples = wavfile.read(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from error
    if samples.dtype == np.uint8:  # the only dtype whose silence is not 0
        scaled = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        scaled = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    else:
        scaled = samples.astype(np.float32)
    return np.ascontiguousarray(scaled.mean(1) if scaled.ndim > 1 else scaled, dtype=np.float32), int(rate)


def _unreadable(name: str, error: Exception) -> TrainingError:
    return TrainingError(
        f"{name} cannot be read as a sound: {str(error).strip() or type(error).__name__}",
        where="train.data",
        hint="convert it, or give its samples as a list of numbers",
    )
