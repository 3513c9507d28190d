"""Unpickle files of ``torch.save`` without running the code in them."""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
import torch._weights_only_unpickler
from torch.storage import TypedStorage

from surgeon.checkpoint.contents import damage_at
from surgeon.errors import CheckpointError

HARMLESS = ("torch._utils.", "torch._tensor.", "torch.nn.parameter.", "torch.serialization.")
"""Modules whose functions build plain tensors; used only to word refusals."""

PLAIN = frozenset({"collections.OrderedDict", "torch.Size", "torch.device", "torch.Tensor"})


def unpickle(path: Path, *, trust_pickle: bool) -> tuple[Any, list[str]]:
    """Load a whole file of ``torch.save`` on the CPU, and return it with notes.

    Only tensors and plain containers are built. With ``trust_pickle``, a file that cannot be loaded so is loaded by
    running its pickle.

    Raises:
        CheckpointError: The pickle would run other code and is not trusted, or the file is damaged.
    """
    with damage_at(str(path)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file:  # torch.load decides by the extension of a path
                return torch.load(file, map_location="cpu", weights_only=True, mmap=False), []
        except Exception as error:
            would_run = unsafe_globals(path)
            if not trust_pickle:
                if would_run:
                    raise refusal(path, would_run) from error
                if isinstance(error, UnpicklingError):
                    # torch's message is a page of advice on how to load the file unsafely
                    raise CheckpointError("its pickle is damaged, or asks for more than tensors") from error
                raise
    with damage_at(str(path), "cannot be unpickled"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=False, mmap=False)
    return content, [f"pickle trusted as requested: it ran {_few(would_run) or 'nothing that could be named'}"]


def unpickle_tensors(file: IO[bytes], make_storage: Callable[[Any], TypedStorage]) -> Any:
    """Read one pickle as ``torch.load(weights_only=True)`` does, with storages from ``make_storage``.

    Args:
        file: A file at the start of the pickle; reading moves it to the end of the pickle.
        make_storage: Makes the storage for a persistent id.

    Raises:
        Exception: Any exception of torch on a damaged or unsafe pickle.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            unpickler = torch._weights_only_unpickler.Unpickler(file, encoding="utf-8")
            unpickler.persistent_load = make_storage  # type: ignore[method-assign]
            return unpickler.load()  # type: ignore[no-untyped-call]
        finally:
            # torch keeps sparse tensors in a list until it has validated them; these have no values
            with suppress(Exception):
                torch._utils._validate_loaded_sparse_tensors()  # type: ignore[no-untyped-call]


class _LegacyStorages:
    """Make storages without values, and add up the sizes that a legacy file claims for them.

    Args:
        size: The size of the file in bytes, an upper limit of the sum.
    """

    def __init__(self, size: int) -> None:
        self.made: dict[Any, TypedStorage] = {}
        self._size = size

    def __call__(self, claim: Any) -> TypedStorage:
        """Make the storage of ``("storage", class, key, device, count, view)``, ignoring views."""
        _, kind, key, _, count, _ = claim
        if key not in self.made:
            size = count * kind.dtype.itemsize
            self._size -= size
            if size < 0 or self._size < 0:
                raise CheckpointError(f"its storage {key} claims {size} bytes, which the file does not have")
            storage = torch.UntypedStorage(size)  # type: ignore[no-untyped-call]
            self.made[key] = TypedStorage(  # type: ignore[no-untyped-call]
                wrap_storage=storage, dtype=kind.dtype, _internal=True
            )
        return self.made[key]


def check_legacy(path: Path) -> None:
    """Check that a file from before PyTorch 1.6 has the values of each storage that its tensors use.

    ``torch.load`` returns uninitialised memory for storages that the file's list lacks.

    Raises:
        CheckpointError: A storage is missing, or claims more bytes than the file has.
    """
    storages = _LegacyStorages(path.stat().st_size)
    try:
        with path.open("rb") as file:
            for _ in range(4):  # magic number, version, system, content
                unpickle_tensors(file, storages)
            stored = set(unpickle_tensors(file, storages))
    except CheckpointError:
        raise
    except Exception:
        return  # unsafe or damaged: torch.load says which
    if absent := [str(key) for key in storages.made if key not in stored]:
        raise CheckpointError(f"it lacks the values of {len(absent)} of its storages: {_few(absent)}")


def refusal(path: Path, would_run: list[str]) -> CheckpointError:
    """Return the error for an untrusted pickle."""
    return CheckpointError(
        f"loading it would run code from its pickle: {_few(would_run)}",
        where=str(path),
        hint="--trust-pickle (trust_pickle=True) if you trust its author; or save its state_dict() alone",
    )


def unsafe_globals(path: Path) -> list[str]:
    """List the classes and functions that loading ``path`` would call, other than those for plain tensors."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except ValueError:  # a file from before PyTorch 1.6: not a zip archive
        names = [name for name in _globals_of_legacy(path) if not _is_harmless(name)]
    # the author's own names are more informative than torch's, so they come first
    return sorted(names, key=lambda name: (name.startswith(("torch.", "builtins.")), name))


def _is_harmless(name: str) -> bool:
    is_torch_type = name.startswith("torch.") and (name.endswith("Storage") or name[6:].islower())
    return name in PLAIN or name.startswith(HARMLESS) or is_torch_type


def _globals_of_legacy(path: Path) -> set[str]:
    """Return the globals in the four pickles (magic number, version, system, content) of a legacy file."""
    names: set[str] = set()
    data = io.BytesIO(path.read_bytes())
    strings: list[str] = []
    try:
        for _ in range(4):
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "GLOBAL":
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    except Exception:
        # a damaged pickle ends the scan: the names so far are those that would have run
        return names
    return names


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
