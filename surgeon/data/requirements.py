"""Refuse early if an optional package is missing, with the command that installs it. Imports none of them."""

from __future__ import annotations

from importlib.util import find_spec

from surgeon.errors import SurgeonError, TrainingError
from surgeon.interfaces.distribution import DISTRIBUTION

EXTRAS = {
    "train": {
        "accelerate": "accelerate",
        "datasets": "datasets",
        "torchmetrics": "torchmetrics",
        "scikit-learn": "sklearn",
        "scipy": "scipy",
    },
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"},
    "detection": {"pycocotools": "pycocotools"},
    "audio": {"soundfile": "soundfile"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "wandb": {"wandb": "wandb"},
    "mlflow": {"mlflow": "mlflow"},
    "comet": {"comet-ml": "comet_ml"},
    "trackio": {"trackio": "trackio"},
}
"""The packages of each extra in ``pyproject.toml``, with the module that each provides."""


def require(extra: str, feature: str, error: type[SurgeonError] = TrainingError) -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: A key of :data:`EXTRAS`.
        feature: What needs them, as a noun, such as ``fine-tuning``.
        error: The class of the error.

    Raises:
        SurgeonError: A package is missing; the hint is the command that installs it.
    """
    missing = missing_packages(extra)
    if missing:
        raise error(
            f"{feature} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            hint=install_command(extra),
        )


def missing_packages(extra: str) -> list[str]:
    """List the packages of an extra that are not installed."""
    return [package for package, module in EXTRAS[extra].items() if find_spec(module) is None]


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"python -m pip install '{DISTRIBUTION}[{extra}]'"
