"""Attribute errors of other libraries in training to the library, the network or the data, not to surgeon."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.errors import SurgeonError, TrainingError

if TYPE_CHECKING:
    from surgeon.plugins import Plugins

PACKAGE = "surgeon"
CREDENTIALS = re.compile(
    r"api[_ ]?key|log(ged)? ?in\b|\b40[13]\b|credential|\b(access|auth\w*|api|hf|hub|bearer|user|your|no)[ _]token\b"
)
"""What services say where a user is not logged in; texts have tokens too."""
ENGINES = ("transformers", "accelerate", "torch", "torchvision", "datasets", "numpy", "safetensors", "huggingface_hub")
"""Libraries that run a network and its training; errors in them are mostly caused by their inputs."""


@contextmanager
def foreign_errors_explained(plugins: Plugins | None) -> Iterator[None]:
    """Turn an exception from outside surgeon into a TrainingError that names the library and what to try.

    Exceptions of surgeon's and plugins' code are not changed, because their authors need to see them.
    """
    try:
        yield
    except (SurgeonError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except Exception as error:
        if plugins is not None and plugins.owner_of(error):
            raise
        module, place = _raised_in(error)
        memory = type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower()
        if module == PACKAGE and not memory and not isinstance(error, (ImportError, OSError)):
            raise
        raise TrainingError(_message(error, module, place), where="train", hint=_hint(error, module, memory)) from error


def _raised_in(error: BaseException) -> tuple[str, str]:
    """Return the package whose code raised an exception, with file and line."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return PACKAGE, ""
    frame, line = frames[-1]
    name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return name, f"{Path(frame.f_code.co_filename).name}:{line}"


def _message(error: Exception, module: str, place: str) -> str:
    first = next((line for line in str(error).strip().splitlines() if line.strip()), "")
    text = " ".join(f"{type(error).__name__}: {first}".split()) if first else type(error).__name__
    return f"{module or 'a module'} ended the training ({place}): {text}"


def _hint(error: Exception, module: str, memory: bool) -> str:
    if memory:
        return (
            "use a smaller batch_size, with arguments: {gradient_accumulation_steps: …} in its place, "
            "or arguments: {gradient_checkpointing: true}"
        )
    if isinstance(error, ImportError):
        missing = f"pip install {error.name}" if getattr(error, "name", None) else "install the named package"
        return f"{missing}, or leave out the argument that needs it"
    text = str(error).lower()
    if CREDENTIALS.search(text):
        return "log in with that service's own command, or leave report_to and hub_… out of arguments"
    if isinstance(error, OSError):
        return "check the free disk space and the folder's permissions"
    if module in ENGINES:
        return "check the network, the data and the arguments; --debug shows the traceback"
    return f"it was raised in code of {module!r}; --debug shows the traceback"
