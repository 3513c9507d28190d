"""Copy the companions of the weights, and update in them what surgery changes: sizes, channels, widths, vocabularies.

:mod:`surgeon.checkpoint.companions` lists these files.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from surgeon.architectures.preprocessing import UNSAID, describes
from surgeon.checkpoint.companions import Companion, read_companions, summarise
from surgeon.data.settings import Pixels
from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.preprocessing import TRANSFORMERS, side_of, with_channels, with_side
from surgeon.interfaces.record import Record
from surgeon.operations.adapt_input.operation import AdaptInput
from surgeon.pipeline.manifest import stock_config

POOLED = ("word_embedding_dimension", "embedding_dimension")
"""Keys of sentence-transformers' pooling for the width of its vectors."""
SENTENCES = "sentence-transformers modules"
WIDTH = ("hidden_size", "d_model", "dim")
BLOCKS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
WEIGHED = "num_hidden_layers"
"""The key of sentence-transformers' WeightedLayerPooling for the number of blocks that it has weights for."""
DECODER_BLOCK = re.compile(r"\bdecoder\.layers\.(\d+)\.")
ALIGNMENT = "alignment_heads"
"""The key of Whisper's generation settings for the heads, each a decoder block and its head, that align words."""
PARTS = ("image_processor", "video_processor")
"""Keys of image processors inside a ``processor_config.json``."""
CLASS_FILE = "class_info_file"
"""The key of OneFormer's image processor for the file that names the classes, for the texts that it trains with."""
SINGLE = (".safetensors", ".pt")
"""Suffixes of artifacts that are a single file."""
WEIGHTS = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class AdaptedCompanions:
    """The companions of a result, with notes about them."""

    companions: list[Companion]
    notes: list[str]


@dataclass(frozen=True)
class Sizes:
    """What companions depend on in a network: sizes of a text network, and the classes of any.

    Attributes:
        width: The width of its vectors according to its config; None if it does not say.
        vocabulary: The number of tokens in its embedding; None if it has none.
        blocks: The number of its blocks according to its config; None if it does not say.
        classes: What its config calls its classes, in order.
    """

    width: int | None
    vocabulary: int | None
    blocks: int | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module) -> Sizes:
        """Read the sizes of a network or its skeleton."""
        named = getattr(getattr(model, "config", None), "id2label", None) or {}
        classes = tuple(map(str, named.values()))
        return cls(_from_config(model, *WIDTH), _vocabulary(model), _from_config(model, *BLOCKS), classes)


def adapt(
    companions: Iterable[Companion],
    operations: Sequence[Operation],
    before: Sizes,
    after: nn.Module,
    kept_tensors: Mapping[str, str] = MappingProxyType({}),
) -> AdaptedCompanions:
    """Update companions for a network after operations.

    Args:
        companions: The source's companions.
        operations: The operations.
        before: The sizes of the network before the operations.
        after: The network after the operations, or its skeleton.
        kept_tensors: The names of the tensors that stay, each with its name before the operations.

    Raises:
        OperationError: A companion no longer fits and cannot be adapted.
    """
    adapted, notes = list(companions), []
    for operation in operations:
        if isinstance(operation, AdaptInput):
            adapted, changes = _adapt_processors(adapted, operation)
            notes += changes
    sizes = Sizes.of(after)
    if sizes.classes != before.classes:
        adapted, changes = _adapt_classes(adapted, len(before.classes), len(sizes.classes))
        notes += changes
    _check_vocabulary(adapted, before.vocabulary, sizes.vocabulary)
    adapted, changes = _adapt_sentences(adapted, before, sizes, after)
    notes += changes
    adapted, changes = _adapt_alignment(adapted, kept_tensors)
    notes += changes
    if line := summarise(adapted):
        notes.insert(0, f"beside the weights: {line}")
    return AdaptedCompanions(adapted, notes)


def _adapt_alignment(companions: list[Companion], kept_tensors: Mapping[str, str]) -> tuple[list[Companion], list[str]]:
    """Renumber the decoder blocks by whose attention Whisper finds when a word was said, or leave them out."""
    pairs = [(DECODER_BLOCK.search(old), DECODER_BLOCK.search(new)) for new, old in kept_tensors.items()]
    moved = {int(old[1]): int(new[1]) for old, new in pairs if old and new}
    if not moved:
        return companions, []
    adapted, notes = [], []
    for companion in companions:
        content = companion.json() if companion.kind == "generation settings" else {}
        heads: list[list[int]] = content.get(ALIGNMENT) or []
        heads_left = [[moved[block], head] for block, head in heads if block in moved]
        if heads_left != heads:
            content = (
                {**content, ALIGNMENT: heads_left}
                if heads_left
                else {k: v for k, v in content.items() if k != ALIGNMENT}
            )
            companion = companion.with_json(content)
            few = f"{len(heads_left)} of {len(heads)} {ALIGNMENT} are left"
            notes.append(f"{companion.name}: {few}{'' if heads_left else ', so that words get no timestamps'}")
        adapted.append(companion)
    return adapted, notes


def _from_config(model: nn.Module, *names: str) -> int | None:
    """Return the first of some fields that the config of a text network, or of its text part, has as a number."""
    config = getattr(model, "config", None)
    for part in (config, getattr(config, "text_config", None)):
        for name in names:
            if isinstance(value := getattr(part, name, None), int):
                return value
    return None


def _vocabulary(model: nn.Module) -> int | None:
    """Return the number of tokens in the embedding of a text network; None if it has none."""
    embeddings = getattr(model, "get_input_embeddings", None)
    if not callable(embeddings):
        return None
    try:
        weight = getattr(embeddings(), "weight", None)
    except (NotImplementedError, AttributeError):
        return None
    return int(weight.shape[0]) if weight is not None and weight.ndim == 2 else None


def _adapt_processors(companions: list[Companion], operation: AdaptInput) -> tuple[list[Companion], list[str]]:
    """Update image processors for the channels and the size that ``adapt_input`` made."""
    notes: list[str] = []
    changed = []
    for companion in companions:
        if companion.kind == "processor":
            content = companion.json()
            parts = [name for name in PARTS if isinstance(content.get(name), dict)]
            if parts:
                new = {**content, **{name: _adapted(content[name], operation, notes, companion.name) for name in parts}}
            else:
                new = _adapted(content, operation, notes, companion.name)
            changed.append(companion.with_json(new) if new != content else companion)
        else:
            changed.append(companion)
    return changed, notes


def _adapt_classes(companions: list[Companion], before: int, after: int) -> tuple[list[Companion], list[str]]:
    """Update the class count of image processors, and note where one reads the names of the classes from a file."""
    notes: list[str] = []
    changed = []
    for companion in companions:
        content = companion.json() if companion.kind == "processor" else {}
        if content.get("num_labels") == before != after:
            companion = companion.with_json({**content, "num_labels": after})
            notes.append(f"{companion.name}: {after} classes instead of {before}")
        if named := content.get(CLASS_FILE):
            notes.append(
                f"{companion.name}: {CLASS_FILE} {named} has the names of the old classes; name a file of yours"
            )
        changed.append(companion)
    return changed, notes


def adapt_preprocessing(stated: dict[str, Any], operations: Sequence[Operation]) -> dict[str, Any]:
    """Update a record's preprocessing for the channels and the image size that operations made."""
    pictures = stated.get("pictures")
    if pictures is None:
        return stated
    for operation in operations:
        if isinstance(operation, AdaptInput):
            if operation.channels is not None:
                pictures = with_channels(pictures, operation.channels, repeat=operation.init == "repeat")
            if operation.image_size is not None:
                pictures = with_side(pictures, operation.image_size) or pictures
    return {**stated, "pictures": pictures}


def missing_statistics_notes(record: Record, sources: Sequence[Any]) -> list[str]:
    """Return a note if training reads pictures but the checkpoint does not say how to normalise them."""
    reading = [
        source for source in sources if getattr(source, "kind", "") == "images" or getattr(source, "image", None)
    ]
    settings = [pixels for source in reading if isinstance(pixels := getattr(source, "pixels", None), Pixels)]
    incomplete = [pixels for pixels in settings if pixels.mean is None or pixels.std is None]
    if not incomplete or "pictures" in record.preprocessing or describes(record.companions, "pictures"):
        return []
    return [UNSAID]


def left_behind(path: Path, companions: Sequence[Companion]) -> str | None:
    """Return a note about companions that a single file cannot hold; None if there are none."""
    if not companions or path.suffix not in SINGLE:
        return None
    return f"not in the file: {summarise(companions)}; -o {path.with_suffix('')} writes a folder that holds them"


def with_tokenizer(companions: Sequence[Companion], tokenizer: str) -> list[Companion]:
    """Replace the tokenizer among ``companions`` by the one that training used.

    Args:
        companions: The companions of the weights.
        tokenizer: A folder, or a name on the hub.
    """
    from transformers import AutoTokenizer

    kinds = ("tokenizer", "chat template")
    with tempfile.TemporaryDirectory(prefix="surgeon-") as scratch:
        folder = Path(tokenizer)
        if not folder.is_dir():
            folder = Path(scratch)
            AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False).save_pretrained(folder)
        files = [companion for companion in read_companions(folder) if companion.kind in kinds]
    return sorted([*files, *(c for c in companions if c.kind not in kinds)], key=lambda companion: companion.name)


def _adapted(config: dict[str, Any], operation: AdaptInput, notes: list[str], name: str) -> dict[str, Any]:
    pictures: dict[str, Any] = {"library": TRANSFORMERS, "config": config}
    if operation.channels is not None and "image_mean" in config:
        pictures = with_channels(pictures, operation.channels, repeat=operation.init == "repeat")
        notes.append(f"{name}: means and deviations for {operation.channels} channels")
    if operation.image_size is not None and ("size" in config or "crop_size" in config):
        sized = with_side(pictures, operation.image_size)
        if sized is None:
            notes.append(f"{name} has no fixed image size and is not changed")
        else:
            pictures = sized
            notes.append(f"{name}: image size {operation.image_size} instead of {side_of(config)}")
    return dict(pictures["config"])


def _check_vocabulary(companions: list[Companion], before: int | None, after: int | None) -> None:
    """Refuse a vocabulary that is smaller than the tokenizer's."""
    if before is None or after is None or after >= before:
        return
    largest = max((number for companion in companions for number in _numbers(companion)), default=-1)
    if largest >= after:
        raise OperationError(
            f"the tokenizer has token ids up to {largest}, and the embedding has {after} rows ({before} before)",
            hint="use a tokenizer with the new vocabulary, or keep the embedding",
        )


def _numbers(companion: Companion) -> Iterable[int]:
    """Yield the largest token id in a tokenizer's file; nothing for files without ids."""
    if companion.name == "tokenizer.json":
        content = companion.json()
        vocabulary = (content.get("model") or {}).get("vocab")
        if isinstance(vocabulary, dict):
            yield max(vocabulary.values(), default=-1)
        elif isinstance(vocabulary, list):
            yield len(vocabulary) - 1
        yield max((token.get("id", -1) for token in content.get("added_tokens") or ()), default=-1)
    elif companion.name in ("vocab.json", "added_tokens.json"):
        yield max((number for number in companion.json().values() if isinstance(number, int)), default=-1)
    elif companion.name == "vocab.txt":
        yield len(companion.data.decode().splitlines()) - 1


def _check_blocks(modules: list[Companion], before: int | None, after: int | None) -> None:
    """Refuse another number of blocks where a module of sentence-transformers has a weight for each."""
    if before is None or after == before:
        return
    for companion in modules:
        counted = companion.json().get(WEIGHED) if companion.name.endswith("/config.json") else None
        if counted == before:
            raise OperationError(
                f"{companion.name} weighs the outputs of {counted} blocks, and the network has "
                f"{'another number' if after is None else after} now",
                hint="remove that module from modules.json, or keep the blocks",
            )


def _adapt_sentences(
    companions: list[Companion], sizes_before: Sizes, sizes_after: Sizes, result: nn.Module
) -> tuple[list[Companion], list[str]]:
    """Update sentence-transformers' modules for the new width, or drop them if they can no longer be loaded."""
    modules = [companion for companion in companions if companion.kind == SENTENCES]
    if not modules:
        return companions, []
    if stock_config(result) is None:
        remaining = [companion for companion in companions if companion.kind != SENTENCES]
        return remaining, [f"left behind: {SENTENCES}, because the result has no config to load its encoder by"]
    _check_blocks(modules, sizes_before.blocks, sizes_after.blocks)
    before, after = sizes_before.width, sizes_after.width
    if after == before or before is None or after is None:
        return companions, []
    if trained := next((module for module in modules if module.name.endswith(WEIGHTS)), None):
        raise OperationError(
            f"{trained.name} was trained on vectors of width {before}, and the network's are now {after} wide",
            hint="remove that module from modules.json, or keep the width",
        )
    adapted = []
    for companion in companions:
        content = companion.json() if companion in modules and companion.name.endswith("/config.json") else {}
        pooled = {name: after for name in POOLED if content.get(name) == before}
        adapted.append(companion.with_json({**content, **pooled}) if pooled else companion)
    return adapted, [f"{SENTENCES}: width {after} instead of {before}"]
