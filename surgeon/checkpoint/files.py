"""Identify a file's format by its first bytes, not by its name."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from pathlib import Path

from surgeon.checkpoint.contents import Checkpoint, damage_at
from surgeon.checkpoint.safetensors import looks_like_safetensors, open_index, open_safetensors
from surgeon.checkpoint.statedict import below, parts_of
from surgeon.checkpoint.torchfile import open_legacy, open_zip
from surgeon.errors import CheckpointError, suggest

FROM_TENSORFLOW = (
    "convert it with transformers 4: AutoModel.from_pretrained(folder, from_tf=True).save_pretrained(new_folder)"
)
FROM_FLAX = (
    "convert it with transformers 4: AutoModel.from_pretrained(folder, from_flax=True).save_pretrained(new_folder)"
)
FROM_GGUF = (
    "use the model's original safetensors, or convert it with transformers: "
    "AutoModelForCausalLM.from_pretrained(folder, gguf_file=name).save_pretrained(new_folder)"
)
FROM_ZERO = "gather it: python zero_to_fp32.py . new_folder, in the folder that holds that script"
FROM_DCP = (
    "gather it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch folder new.pt, "
    "or accelerate merge-weights folder new_folder"
)

FOREIGN: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"^zero_to_fp32\.py$|^global_step\d+$|zero_pp_rank_\d+.*\.pt$"),
        "a DeepSpeed ZeRO checkpoint",
        FROM_ZERO,
    ),
    (re.compile(r"\.distcp$|^pytorch_model_fsdp_\d+$"), "a sharded FSDP checkpoint (.distcp)", FROM_DCP),
    (re.compile(r"\.gguf$", re.I), "a GGUF model (llama.cpp)", FROM_GGUF),
    (re.compile(r"^tf_model.*\.h5$|\.weights\.h5$|\.keras$"), "a TensorFlow (Keras) model", FROM_TENSORFLOW),
    (re.compile(r"\.ckpt(-\d+)?\.(index|meta|data-\d+-of-\d+)$"), "a TensorFlow checkpoint", FROM_TENSORFLOW),
    (re.compile(r"^saved_model\.pb$"), "a TensorFlow SavedModel", FROM_TENSORFLOW),
    (re.compile(r"\.msgpack$"), "a Flax model", FROM_FLAX),
    (re.compile(r"\.onnx$"), "an ONNX graph, not a network of modules", "use the model that it was exported from"),
)
"""Patterns of file and folder names in other formats, what they are, and how to convert them."""

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
    (b"\x89HDF", "an HDF5 file (Keras, TensorFlow)", FROM_TENSORFLOW),
    (b"GGUF", "a GGUF file (llama.cpp)", FROM_GGUF),
    (b"lmgg", "a GGML file (llama.cpp before GGUF)", "use the model's original safetensors"),
    (b"tjgg", "a GGML file (llama.cpp before GGUF)", "use the model's original safetensors"),
    (b"\x93NUMPY", "a NumPy array", "torch.save a dictionary of named tensors instead"),
    (b"\0" * 16, "filled with zeros", "the download or copy was cut short: repeat it"),
)
"""First bytes of a file, what they identify, and what to do next."""


INDEX = re.compile(r"\.index(\.\w+)?\.json$")
"""The end of an index file's name: ``model.safetensors.index.json``, or ``….index.fp16.json`` for a variant."""


def open_file(path: Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Open one file of any supported format, or an index of shards.

    Raises:
        CheckpointError: The file is empty, damaged, unsafe or in an unsupported format.
    """
    with damage_at(str(path), "cannot be read"):
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError("not a regular file", hint="copy its content to a file and open that")
        with path.open("rb") as file:
            head = file.read(512)
    if not head:
        raise CheckpointError("empty file", where=str(path), hint="download or save it again")
    if looks_like_safetensors(head):
        return below_key(open_safetensors(path), key)
    if other := foreign([path.name], str(path)):
        raise other
    if head.startswith(b"PK\3\4"):
        return open_zip(path, trust_pickle=trust_pickle, key=key)
    if head[0] == 0x80 and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return open_legacy(path, trust_pickle=trust_pickle, key=key)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        return below_key(_open_json(path, trust_pickle), key)
    for magic, problem, action in RECOGNISED:
        if text.startswith(magic):
            raise CheckpointError(problem, where=str(path), hint=action)
    if head[257:262] == b"ustar":
        raise CheckpointError("a tar archive", where=str(path), hint="unpack it first: tar xf")
    raise CheckpointError(
        "not a checkpoint: surgeon reads no format that begins with its first bytes",
        where=str(path),
        hint="surgeon reads .safetensors and files of torch.save; download a damaged file again",
    )


def foreign(names: Iterable[str], where: str) -> CheckpointError | None:
    """Return an error if a file, or a folder of files, has a name of another format; None otherwise."""
    names = list(names)
    for pattern, problem, action in FOREIGN:
        if any(map(pattern.search, names)):
            return CheckpointError(problem, where=where, hint=action)
    return None


def below_key(checkpoint: Checkpoint, key: str | None) -> Checkpoint:
    """Select the tensors whose names begin with ``key``: these files have no nested dictionaries."""
    if key is None:
        return checkpoint
    names = below(checkpoint.entries, key)
    if not names:
        parts = parts_of(checkpoint.entries)
        if parts:
            hint = suggest(key, parts) or f"they begin with: {', '.join(list(parts)[:6])}"
        else:
            hint = "leave --key out: its names have no parts to choose from"
        raise CheckpointError(f"no tensor name begins with '{key}.'", where=checkpoint.location, hint=hint)
    note = f"'{key}' taken: {len(names)} tensors"
    if left_out := len(checkpoint.entries) - len(names):
        note += f"; {left_out} tensors outside it are left out"
    return checkpoint.renamed(names, note)


def _open_json(path: Path, trust_pickle: bool) -> Checkpoint:
    if INDEX.search(path.name):
        return open_index(path, lambda shard: open_file(shard, trust_pickle=trust_pickle))
    raise CheckpointError(
        "a JSON file, not a checkpoint",
        where=str(path),
        hint=f"open its folder: {path.parent}",
    )
