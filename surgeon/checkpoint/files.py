"""One file: what it is by its first bytes, whatever its name says."""

from __future__ import annotations

import stat
from pathlib import Path

from surgeon.checkpoint.contents import Checkpoint, damage_at
from surgeon.checkpoint.safetensors import looks_like_safetensors, open_index, open_safetensors
from surgeon.checkpoint.torchfile import open_legacy, open_zip
from surgeon.errors import CheckpointError, suggest

RECOGNISED: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "run 'git lfs pull' in its repository",
    ),
    (
        b"<",
        "an HTML or XML page, not a checkpoint",
        "the download went wrong: log in, or use the file's raw link",
    ),
    (b"\x1f\x8b", "compressed with gzip", "decompress it first: gunzip"),
    (b"\xfd7zXZ", "compressed with xz", "decompress it first: unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstandard", "decompress it first: unzstd"),
    (b"BZh", "compressed with bzip2", "decompress it first: bunzip2"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first: 7z x"),
    (b"\x89HDF", "an HDF5 file (Keras)", "convert its weights to PyTorch first"),
    (b"GGUF", "a GGUF file (llama.cpp)", "use the model's original safetensors"),
    (b"\x93NUMPY", "a NumPy array", "torch.save a dictionary of named tensors instead"),
    (b"\0" * 16, "filled with zeros", "the download or copy was cut short: repeat it"),
)
"""First bytes, what they are of, and what to do next."""


def open_file(path: Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Open one file of any supported format, or an index of shards.

    Raises:
        CheckpointError: It is empty, damaged, unsafe or of no supported format.
    """
    with damage_at(str(path), "cannot be read"):
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError("not a regular file", hint="copy its content to a file and open that")
        with path.open("rb") as file:
            head = file.read(512)
    if not head:
        raise CheckpointError("empty file", where=str(path), hint="download or save it again")
    if looks_like_safetensors(head):
        return _below(open_safetensors(path), key)
    if head.startswith(b"PK\3\4"):
        return open_zip(path, trust_pickle=trust_pickle, key=key)
    if head[0] == 0x80 and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return open_legacy(path, trust_pickle=trust_pickle, key=key)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        return _below(_open_json(path, trust_pickle), key)
    for magic, what, action in RECOGNISED:
        if text.startswith(magic):
            raise CheckpointError(what, where=str(path), hint=action)
    if head[257:262] == b"ustar":
        raise CheckpointError("a tar archive", where=str(path), hint="unpack it first: tar xf")
    raise CheckpointError(
        "not a checkpoint: its first bytes are of no format that surgeon reads",
        where=str(path),
        hint="it reads .safetensors and what torch.save writes; a damaged one must be downloaded again",
    )


def _below(checkpoint: Checkpoint, key: str | None) -> Checkpoint:
    """The tensors whose names begin with ``key``: where there are no dictionaries, names tell."""
    if key is None:
        return checkpoint
    groups = {name.partition(".")[0] for name in checkpoint.entries if "." in name}
    if not any(name.startswith(f"{key}.") for name in checkpoint.entries):
        hint = suggest(key, groups) or f"they begin with: {', '.join(sorted(groups)[:6])}"
        raise CheckpointError(f"no tensor name begins with '{key}.'", where=checkpoint.location, hint=hint)
    return checkpoint.without_prefix(f"{key}.")


def _open_json(path: Path, trust_pickle: bool) -> Checkpoint:
    if path.name.endswith(".index.json"):
        return open_index(path, lambda shard: open_file(shard, trust_pickle=trust_pickle))
    raise CheckpointError(
        "a JSON file, not a checkpoint",
        where=str(path),
        hint=f"open the folder that it lies in: {path.parent}",
    )
