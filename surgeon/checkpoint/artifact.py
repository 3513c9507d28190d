"""Write artifacts, the results of ``apply``, completely or not at all.

A folder holds ``model.safetensors`` (shards past 5 GB), the manifest ``surgeon.json``, ``recipe.yaml``, the companions
of the source's weights and, if the result is a stock transformers class, ``config.json``. A single ``.safetensors`` or
``.pt`` file has the manifest in its metadata.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from surgeon.checkpoint.artifact_files import CONFIG, MANIFEST, RECIPE, WEIGHTS
from surgeon.checkpoint.companions import write_companions
from surgeon.checkpoint.digests import digest_of, sealed
from surgeon.checkpoint.file_writer import Progress
from surgeon.checkpoint.pieces import Contents, Piece, in_file_order
from surgeon.checkpoint.safetensors_writer import write_safetensors
from surgeon.checkpoint.scratch import appearing
from surgeon.checkpoint.torch_writer import write_state_dict
from surgeon.errors import OutputError, SurgeonError

T = TypeVar("T")

METADATA_KEY = "surgeon"
REPLACE = "--force replaces it; -o names another place"
SHARD_BYTES = 5 * 10**9


def check_output(path: Path, *, force: bool, inputs: list[Path], nbytes: int = 0) -> None:
    """Refuse an output path that cannot or should not be written to, before any work is done.

    Args:
        path: The file or folder to write.
        force: Whether to replace an existing artifact or file.
        inputs: The source's files, which the output must not overwrite, contain or lie in.
        nbytes: How many bytes of tensors will be written, where that is known.

    Raises:
        OutputError: The path exists, overlaps the input, its parent is not writable, or its disk lacks the room.
    """
    if path.suffix in (".bin", ".pth", ".ckpt", ".onnx", ".pt2"):
        hint = "choose one of these, and export the result: surgeon export"
        raise OutputError(f"{path}: surgeon writes folders, .safetensors and .pt", hint=hint)
    check_place(path, force=force, inputs=inputs, replaceable=lambda folder: (folder / MANIFEST).exists())
    if nbytes:
        _check_room(path, nbytes)


def _check_room(path: Path, nbytes: int) -> None:
    """Refuse a disk that does not hold ``nbytes`` more, or that nothing can be written to, before hours of training."""
    parent = path.resolve().parent
    while not parent.exists():
        parent = parent.parent
    try:
        with tempfile.TemporaryFile(dir=parent):
            disk = shutil.disk_usage(parent)
    except OSError as error:
        message = f"nothing can be written to {parent}: {error.strerror}"
        raise OutputError(message, hint="-o names another place") from error
    if disk.total and disk.free < nbytes:  # some network disks do not say how large they are
        message = f"the disk of {parent} has {disk.free:,} bytes free, and the output needs {nbytes:,}"
        raise OutputError(message, hint="make room, or name another disk with -o")


def check_place(path: Path, *, force: bool, inputs: list[Path], replaceable: Callable[[Path], bool]) -> None:
    """Refuse an output path for a file or folder of any kind; see :func:`check_output`.

    Args:
        path: The file or folder to write.
        force: Whether to replace what exists.
        inputs: The source's files, which the output must not overwrite, contain or lie in.
        replaceable: Returns whether an existing folder may be replaced.

    Raises:
        OutputError: The path exists, overlaps the input, or its parent is not writable.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OutputError(f"{path} is a device, pipe or socket", hint="-o names a file or a folder")
    try:
        resolved = path.resolve()
    except RuntimeError as error:  # raised up to Python 3.12
        raise OutputError(f"{path} lies below a link that leads to itself", hint="-o names another place") from error
    for file in (f.resolve() for f in inputs):
        holder = file.parent if _holds_a_model(file.parent) else file
        if resolved in (file, holder) or resolved in holder.parents:
            raise OutputError(f"{path} is or contains the input, which is never written to", hint="choose another -o")
        if holder in resolved.parents:
            raise OutputError(f"{path} lies inside the input {holder}", hint="choose another -o")
    if path.exists():
        if not force:
            raise OutputError(f"{path} exists", hint=REPLACE)
        if path.is_dir() and any(path.iterdir()) and not replaceable(path):
            raise OutputError(
                f"{path} is not an artifact of surgeon, and surgeon does not replace other folders",
                hint="-o names another place",
            )
    parent = resolved.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"{parent} is a file, so {path} cannot be made below it")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{parent} is not writable", hint="-o names another place")


def _holds_a_model(folder: Path) -> bool:
    return any((folder / name).exists() for name in (MANIFEST, CONFIG))


def write(
    path: Path,
    contents: Contents,
    progress: Progress | None = None,
    *,
    force: bool = False,
    check: Callable[[Path], T] | None = None,
    keep_rejected: bool = False,
) -> T | None:
    """Write an artifact. The path changes only when the artifact is complete and passes ``check``.

    Args:
        path: A folder, or a file that ends in ``.safetensors`` or ``.pt``.
        contents: What to write.
        progress: Called with the number of bytes after each write.
        force: Whether to replace what exists, also what another run has written meanwhile.
        check: Called with the temporary path before it replaces ``path``; if it raises, ``path`` stays as it was.
        keep_rejected: Whether to keep a rejected artifact as ``NAME.rejected``, for results that took long to make.

    Returns:
        The return value of ``check``.

    Raises:
        OutputError: The path cannot be written to.
        SurgeonError: ``check`` rejects the artifact.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path, replace=force) as temporary:
            if path.suffix == ".safetensors":
                metadata = {
                    "format": "pt",
                    METADATA_KEY: json.dumps(sealed(contents.manifest)),
                    "recipe": contents.recipe,
                }
                write_safetensors(temporary, in_file_order(contents.pieces), metadata, progress, seal=True)
            elif path.suffix == ".pt":
                _write_torch(temporary, contents, progress)
            else:
                temporary.mkdir()
                _write_folder(temporary, contents, progress)
            return _checked(path, temporary, check, keep_rejected) if check is not None else None
    except FileExistsError as error:
        raise OutputError(f"{path} exists", hint=REPLACE) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def _checked(path: Path, temporary: Path, check: Callable[[Path], T], keep_rejected: bool) -> T:
    """Run ``check``; replace the temporary path by the output path in errors."""
    try:
        return check(temporary)
    except SurgeonError as error:
        rejected = path.with_name(f"{path.stem}.rejected{path.suffix}")
        note = f"{path} stays as it was" if path.exists() else f"nothing was written to {path}"
        if keep_rejected and not rejected.exists():
            temporary.rename(rejected)
            note += f"; the rejected artifact is in {rejected}"
        error.message = error.message.replace(str(temporary), str(path))
        error.where = (error.where or str(path)).replace(str(temporary), str(path))
        error.hint = f"{error.hint}; {note}" if error.hint else note
        raise


def _write_folder(folder: Path, contents: Contents, progress: Progress | None) -> None:
    shards = _shards(in_file_order(contents.pieces))
    digests: dict[str, str] = {}
    if len(shards) == 1:
        digests[WEIGHTS] = write_safetensors(folder / WEIGHTS, shards[0], {"format": "pt"}, progress)
    else:
        names = {}
        for number, shard in enumerate(shards, start=1):
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            digests[file] = write_safetensors(folder / file, shard, {"format": "pt"}, progress)
            names.update({piece.name: file for piece in shard})
        total = sum(piece.nbytes for piece in contents.pieces)
        index = {"metadata": {"total_size": total}, "weight_map": names}
        digests[f"{WEIGHTS}.index.json"] = _write_text(folder / f"{WEIGHTS}.index.json", _as_json(index))
    digests[RECIPE] = _write_text(folder / RECIPE, contents.recipe)
    if contents.config is not None:
        digests[CONFIG] = _write_text(folder / CONFIG, _as_json(contents.config))
    write_companions(folder, contents.companions)
    digests |= {companion.name: digest_of(companion.data) for companion in contents.companions}
    files = {name: {"bytes": (folder / name).stat().st_size, "xxh3": digest} for name, digest in digests.items()}
    _write_text(folder / MANIFEST, _as_json(sealed({**contents.manifest, "files": files})))


def _shards(pieces: list[Piece]) -> list[list[Piece]]:
    shards: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if shards[-1] and size + piece.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.nbytes
    return shards


def _as_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"


def _write_text(path: Path, text: str) -> str:
    """Write a text to disk without changing line ends, and return its digest."""
    data = text.encode()
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest_of(data)


def _write_torch(path: Path, contents: Contents, progress: Progress | None) -> None:
    """Write a bare state dict with the manifest in ``_metadata``, where torch keeps the version numbers of modules."""
    write_state_dict(
        path,
        [piece.name for piece in contents.pieces],
        in_file_order(contents.pieces),
        contents.manifest.get("aliases", {}),
        {METADATA_KEY: {"manifest": json.dumps(sealed(contents.manifest)), "recipe": contents.recipe}},
        progress,
    )
