"""Open checkpoints of every supported format, lazily and safely.

    checkpoint = open_checkpoint("resnet50.pth")
    checkpoint.entries["fc.weight"].shape    # no weight has been read
    checkpoint.read("fc.weight")             # reads this one only

The content decides the format, not the file name. Pickles that could do more than build tensors are not run.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from surgeon.checkpoint.contents import ByteRange, Checkpoint, Entry, damage_at, memory_checkpoint
from surgeon.checkpoint.files import open_file
from surgeon.checkpoint.folder import belongs_to_folder, open_folder, with_neighbours
from surgeon.checkpoint.prefixes import without_wrappers
from surgeon.checkpoint.unchanged import stamp
from surgeon.errors import CheckpointError, nearest

QUANTIZED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("gptq", re.compile(r"\.g_idx$")),
    ("awq", re.compile(r"\.qzeros$")),
    ("bitsandbytes", re.compile(r"\.quant_state\.bitsandbytes__\w+$|\.SCB$")),
    ("compressed-tensors", re.compile(r"\.weight_packed$")),
    ("hqq", re.compile(r"\.W_q$")),
    ("mxfp4", re.compile(r"_proj_blocks$")),
    ("fp8", re.compile(r"\.weight_scale(_inv)?$")),
)
"""Methods of quantization and the tensor names that show them, for checkpoints without a ``config.json``."""

DEQUANTIZE = {
    "bitsandbytes": "convert it: AutoModelForCausalLM.from_pretrained(folder).dequantize().save_pretrained(new_folder)",
    "fp8": "convert it: AutoModelForCausalLM.from_pretrained(folder, quantization_config="
    "FineGrainedFP8Config(dequantize=True)).save_pretrained(new_folder)",
    "mxfp4": "convert it: AutoModelForCausalLM.from_pretrained(folder, quantization_config="
    "Mxfp4Config(dequantize=True)).save_pretrained(new_folder)",
    "compressed-tensors": "convert it: AutoModelForCausalLM.from_pretrained(folder, quantization_config="
    "CompressedTensorsConfig(run_compressed=False)).save_pretrained(new_folder)",
    "gptq": "use the original checkpoint: GPTQModel and transformers run it, but cannot undo GPTQ",
    "awq": "use the original checkpoint: AutoAWQ and transformers run it, but cannot undo AWQ",
}
"""How to undo each method of quantization."""

__all__ = ["ByteRange", "Checkpoint", "Entry", "memory_checkpoint", "open_checkpoint"]


def open_checkpoint(location: str | Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Open a file or folder without reading its tensors.

    Args:
        location: ``.safetensors``; ``.pt``, ``.pth``, ``.bin`` (zip or legacy); ``*.index.json`` of shards; a
            Hugging Face folder; a surgeon artifact.
        trust_pickle: Whether to run a file's pickle if it cannot be loaded safely.
        key: Selects one of several state dicts: the dictionary keys that lead to it (``model_ema``, ``ema.model``), or
            a prefix of its tensors' names (``encoder_q``).

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, ambiguous or not a checkpoint.
    """
    path = Path(location).expanduser()
    with damage_at(str(location), "cannot be read"):
        if not path.exists():
            raise _missing(path, str(location))
        is_folder = path.is_dir()
    if is_folder:
        checkpoint = open_folder(path, trust_pickle=trust_pickle, key=key)
    else:
        checkpoint = open_file(path, trust_pickle=trust_pickle, key=key)
        if belongs_to_folder(path):
            checkpoint = with_neighbours(checkpoint, path.parent)
    stamps = {file: at for file in checkpoint.files if (at := stamp(file)) is not None}
    checkpoint = replace(checkpoint, location=str(location), stamps=stamps)
    if not checkpoint.entries:
        raise CheckpointError("it holds no tensors", where=checkpoint.location, hint="save the model again")
    if checkpoint.manifest is not None:
        return checkpoint  # an artifact's names are exactly those of its network
    _check_quantization(checkpoint)
    return without_wrappers(checkpoint)


def _check_quantization(checkpoint: Checkpoint) -> None:
    """Refuse quantized weights: their tensors are packed or scaled, not the values of parameters."""
    config = checkpoint.config or {}
    text = config.get("text_config")
    described = config.get("quantization_config") or (isinstance(text, dict) and text.get("quantization_config"))
    method = None
    if described:
        method = str(described.get("quant_method", "")) if isinstance(described, dict) else ""
        method = method or "bitsandbytes"  # the only method before transformers recorded one
    else:
        names = checkpoint.entries
        scaled = any(entry.dtype.is_floating_point and entry.dtype.itemsize == 1 for entry in names.values())
        for kind, end in QUANTIZED:
            if any(end.search(name) for name in names) and (kind != "fp8" or scaled):
                method = kind
                break
    if method is None:
        return
    raise CheckpointError(
        f"its weights are quantized ({method}), and surgeon edits plain values only",
        where=checkpoint.location,
        hint=DEQUANTIZE.get(method, "use the checkpoint from before quantization"),
    )


def _missing(path: Path, location: str) -> CheckpointError:
    if "://" in location:
        return CheckpointError("an address, not a file", where=location, hint="download it and pass its path")
    if path.is_symlink():
        hint = "restore its target or give another path"
        return CheckpointError(f"a link to {path.readlink()}, which does not exist", where=location, hint=hint)
    if not path.parent.is_dir():
        return CheckpointError("no such file", where=location, hint=f"the folder {path.parent} does not exist either")
    names = [neighbour.name for neighbour in path.parent.iterdir()]
    close = nearest(path.name, names) or sorted(names)[:5]
    hint = f"in {path.parent}: {', '.join(close)}" if close else f"{path.parent} is empty"
    return CheckpointError("no such file or folder", where=location, hint=hint)
