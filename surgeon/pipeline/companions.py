"""Take along what belongs beside the weights, and change what surgery changes: sizes, channels, widths, vocabularies.

Which files these are, :mod:`surgeon.checkpoint.companions` says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
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
"""What sentence-transformers' pooling calls the width of the vectors that it pools."""
SENTENCES = "sentence-transformers modules"
PARTS = ("image_processor", "video_processor")
"""The processors of pictures inside a ``processor_config.json``."""
SINGLE = (".safetensors", ".pt")
"""The suffixes of artifacts that are one file."""
WEIGHTS = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class Beside:
    """What lies beside the weights of a result, and what is to be said of it."""

    companions: list[Companion]
    notes: list[str]


@dataclass(frozen=True)
class Sizes:
    """What companions depend on of a text network.

    Attributes:
        width: The width of its vectors, as its config says; None where it does not.
        vocabulary: How many tokens its embedding knows; None where it has none.
    """

    width: int | None
    vocabulary: int | None

    @classmethod
    def of(cls, model: nn.Module) -> Sizes:
        """Measure a network, or a skeleton of it."""
        return cls(_width(model), _vocabulary(model))


def adapt(companions: Iterable[Companion], operations: Sequence[Operation], before: Sizes, after: nn.Module) -> Beside:
    """Let companions agree with a network that has been operated on.

    Args:
        companions: Those of the source.
        operations: What was done.
        before: The sizes of the network before the operations.
        after: The network after them, or its skeleton.

    Raises:
        OperationError: A companion no longer fits, and cannot be made to.
    """
    kept, notes = list(companions), []
    for operation in operations:
        if isinstance(operation, AdaptInput):
            kept, said = _adapt_processors(kept, operation)
            notes += said
    sizes = Sizes.of(after)
    _check_vocabulary(kept, before.vocabulary, sizes.vocabulary)
    kept, said = _adapt_sentences(kept, before.width, sizes.width, after)
    notes += said
    if line := summarise(kept):
        notes.insert(0, f"beside the weights: {line}")
    return Beside(kept, notes)


def _width(model: nn.Module) -> int | None:
    """The width of a text network's vectors, as its config says."""
    config = getattr(model, "config", None)
    for part in (config, getattr(config, "text_config", None)):
        for name in ("hidden_size", "d_model", "dim"):
            if isinstance(value := getattr(part, name, None), int):
                return value
    return None


def _vocabulary(model: nn.Module) -> int | None:
    """How many tokens the embedding of a text network knows; None where it has none."""
    embeddings = getattr(model, "get_input_embeddings", None)
    if not callable(embeddings):
        return None
    try:
        weight = getattr(embeddings(), "weight", None)
    except (NotImplementedError, AttributeError):
        return None
    return int(weight.shape[0]) if weight is not None and weight.ndim == 2 else None


def _adapt_processors(companions: list[Companion], operation: AdaptInput) -> tuple[list[Companion], list[str]]:
    """The processors of pictures for the channels and the size that ``adapt_input`` made."""
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


def adapt_preprocessing(stated: dict[str, Any], operations: Sequence[Operation]) -> dict[str, Any]:
    """What a record says of how pictures become inputs, for the channels and the size that operations made."""
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


def unsaid(record: Record, sources: Sequence[Any]) -> list[str]:
    """The note for a plan whose training reads pictures, where the checkpoint says nothing of how."""
    read = [source for source in sources if getattr(source, "kind", "") == "images" or getattr(source, "image", None)]
    pixels = [given for source in read if isinstance(given := getattr(source, "pixels", None), Pixels)]
    silent = [given for given in pixels if given.mean is None or given.std is None]
    if not silent or "pictures" in record.preprocessing or describes(record.companions, "pictures"):
        return []
    return [UNSAID]


def left_behind(path: Path, companions: Sequence[Companion]) -> str | None:
    """Say what a single file does not hold of what lies beside the weights; None where nothing is left behind."""
    if not companions or path.suffix not in SINGLE:
        return None
    return f"not in the file: {summarise(companions)}; -o {path.with_suffix('')} writes a folder that holds them"


def with_tokenizer(companions: Sequence[Companion], tokenizer: str) -> list[Companion]:
    """``companions`` with the tokenizer that training used, instead of one that lay beside the weights.

    Args:
        companions: What lies beside the weights.
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
    return sorted([*files, *(each for each in companions if each.kind not in kinds)], key=lambda each: each.name)


def _adapted(config: dict[str, Any], operation: AdaptInput, notes: list[str], name: str) -> dict[str, Any]:
    pictures: dict[str, Any] = {"library": TRANSFORMERS, "config": config}
    if operation.channels is not None and "image_mean" in config:
        pictures = with_channels(pictures, operation.channels, repeat=operation.init == "repeat")
        notes.append(f"{name}: means and deviations for {operation.channels} channels")
    if operation.image_size is not None and ("size" in config or "crop_size" in config):
        sized = with_side(pictures, operation.image_size)
        if sized is None:
            notes.append(f"{name} has no fixed size of pictures, and stays as it is")
        else:
            pictures = sized
            notes.append(f"{name}: pictures of {operation.image_size} pixels, not of {side_of(config)}")
    return dict(pictures["config"])


def _check_vocabulary(companions: list[Companion], before: int | None, after: int | None) -> None:
    """Refuse a vocabulary that became smaller than what the tokenizer makes."""
    if before is None or after is None or after >= before:
        return
    largest = max((number for companion in companions for number in _numbers(companion)), default=-1)
    if largest >= after:
        raise OperationError(
            f"the tokenizer beside the weights makes tokens up to number {largest}, and the embedding has {after} rows "
            f"(it had {before})",
            hint="give it a tokenizer of the new vocabulary, or keep the embedding",
        )


def _numbers(companion: Companion) -> Iterable[int]:
    """The largest number of a token in a file of a tokenizer; nothing of a file that holds none."""
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


def _adapt_sentences(
    companions: list[Companion], before: int | None, after: int | None, result: nn.Module
) -> tuple[list[Companion], list[str]]:
    """sentence-transformers' modules for the network's new width, or none where they can no longer be loaded."""
    modules = [companion for companion in companions if companion.kind == SENTENCES]
    if not modules:
        return companions, []
    if stock_config(result) is None:
        rest = [companion for companion in companions if companion.kind != SENTENCES]
        return rest, [f"left behind: {SENTENCES}, which load an encoder by its config, and the result has none"]
    if after == before or before is None or after is None:
        return companions, []
    if weighty := next((module for module in modules if module.name.endswith(WEIGHTS)), None):
        raise OperationError(
            f"{weighty.name} was trained on vectors of width {before}, and the network now makes them {after} wide",
            hint="remove that module from modules.json, or keep the width",
        )
    adapted = []
    for companion in companions:
        content = companion.json() if companion in modules and companion.name.endswith("/config.json") else {}
        pooled = {name: after for name in POOLED if content.get(name) == before}
        adapted.append(companion.with_json({**content, **pooled}) if pooled else companion)
    return adapted, [f"{SENTENCES}: vectors of width {after}, not of {before}"]
