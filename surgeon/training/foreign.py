"""Say what other libraries raise while training as what it is: theirs, the network's or the data's, never surgeon's."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from surgeon.errors import SurgeonError, TrainingError

if TYPE_CHECKING:
    from surgeon.plugins import Plugins

OWN = "surgeon"
ENGINES = ("transformers", "accelerate", "torch", "torchvision", "datasets", "numpy", "safetensors", "huggingface_hub")
"""What a network and its training run on; an error raised there is mostly of what was handed in."""


@contextmanager
def foreign_errors_explained(plugins: Plugins | None) -> Iterator[None]:
    """Turn an exception from outside surgeon into a TrainingError that names the library, and what to try.

    One that is raised by surgeon's code or a plugin's passes: its maker has to know of it.
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
        if module == OWN and not memory and not isinstance(error, (ImportError, OSError)):
            raise
        raise TrainingError(_what(error, module, place), where="train", hint=_hint(error, module, memory)) from error


def _raised_in(error: BaseException) -> tuple[str, str]:
    """The package in whose code an exception was raised, and the file and line there."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return OWN, ""
    frame, line = frames[-1]
    name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return name, f"{Path(frame.f_code.co_filename).name}:{line}"


def _what(error: Exception, module: str, place: str) -> str:
    first = next((line for line in str(error).strip().splitlines() if line.strip()), "")
    said = " ".join(f"{type(error).__name__}: {first}".split()) if first else type(error).__name__
    return f"{module or 'a module'} ended the training ({place}): {said}"


def _hint(error: Exception, module: str, memory: bool) -> str:
    if memory:
        return (
            "use a smaller batch_size, with arguments: {gradient_accumulation_steps: …} in its place, "
            "or arguments: {gradient_checkpointing: true}"
        )
    if isinstance(error, ImportError):
        missing = f"pip install {error.name}" if getattr(error, "name", None) else "install what it names"
        return f"{missing}, or leave out the argument that needs it"
    text = str(error).lower()
    if any(word in text for word in ("token", "api_key", "api key", "login", "401", "403", "credential")):
        return "log in with that service's own command, or leave report_to and hub_… out of arguments"
    if isinstance(error, OSError):
        return "is there room on the disk, and may the folder be written to?"
    if module in ENGINES:
        return "look at what the network, the data and arguments hand to it; --debug shows the traceback"
    return f"it was raised in code of {module!r}; --debug shows the traceback"
