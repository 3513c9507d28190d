"""Collect from a manifest what a model card says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from surgeon.architectures.artifact_record import read_record
from surgeon.checkpoint.companions import BASE_CARD
from surgeon.checkpoint.formats import Checkpoint, open_checkpoint
from surgeon.errors import CheckpointError
from surgeon.families.config import NetworkConfig
from surgeon.families.transformers.fields import TRANSFORMERS_CONFIG
from surgeon.interfaces.record import Record

HUB = "hf:"


@dataclass(frozen=True)
class Facts:
    """What is known of an artifact without building its network.

    Attributes:
        path: The artifact.
        record: How it was made.
        manifest: Its manifest, which also holds what is frozen and the versions of libraries.
        config: Its ``config.json``; None where the network is of no stock class of transformers.
        tensors: The shape of every tensor by name.
        base: The metadata of the base model's card; empty where there is no card or it has none.
        has_base_card: Whether the base model's card lies beside the weights.
    """

    path: Path
    record: Record
    manifest: Mapping[str, Any]
    config: Mapping[str, Any] | None
    tensors: Mapping[str, tuple[int, ...]]
    base: Mapping[str, Any]
    has_base_card: bool

    @property
    def stock_class(self) -> str | None:
        """The class of transformers that loads it without surgeon."""
        return str((self.config.get("architectures") or ["AutoModel"])[0]) if self.config is not None else None

    @property
    def base_model(self) -> str | None:
        """The name of the base model on the hub; None where it comes from elsewhere."""
        source = self.record.source
        if not source.startswith(HUB) or source[len(HUB) :].startswith((".", "/", "~")):
            return None
        return source[len(HUB) :].partition("@")[0]

    @property
    def source(self) -> str:
        """What the base model is called, without the folders of the machine that it lay on."""
        source = self.record.source
        return Path(source.removeprefix(HUB)).name if self.base_model is None and _is_path(source) else source

    @property
    def values(self) -> int:
        """How many values all tensors have together: parameters, and buffers such as the statistics of norm layers."""
        total = 0
        for shape in self.tensors.values():
            count = 1
            for size in shape:
                count *= size
            total += count
        return total

    @property
    def untrained(self) -> list[str]:
        """The new tensors that nothing has trained since they were drawn at random."""
        trained = max((int(entry.get("surgeries", 0)) for entry in self.record.training), default=0)
        names: list[str] = []
        for past in self.record.surgeries[trained:]:
            names += [name for name in past.made if name not in past.derived]
        return [name for name in names if name in self.tensors]

    @property
    def classes(self) -> dict[str, list[str]]:
        """The names of the classes by label column; those of the config where training recorded none."""
        for entry in reversed(self.record.training):
            if named := {key: [str(name) for name in names] for key, names in (entry.get("classes") or {}).items()}:
                return named
        names = NetworkConfig(self.config or {}, TRANSFORMERS_CONFIG).class_names()
        return {"labels": list(names)} if names else {}


def facts_of(path: Path) -> Facts:
    """Read an artifact's manifest and small files.

    Raises:
        CheckpointError: It is missing, damaged, or not an artifact of surgeon.
    """
    checkpoint = open_checkpoint(path)
    if checkpoint.manifest is None:
        hint = "surgeon apply and surgeon.save write artifacts"
        raise CheckpointError("has no manifest of surgeon, from which a card is made", where=str(path), hint=hint)
    record = read_record(checkpoint)
    return Facts(
        Path(path),
        record,
        checkpoint.manifest,
        checkpoint.config,
        {name: tuple(entry.shape) for name, entry in checkpoint.entries.items()},
        *_base_card(checkpoint),
    )


def sources_of_data(data: Any) -> Iterator[Mapping[str, Any]]:
    """List the sources that training recorded."""
    for source in data if isinstance(data, list) else [data]:
        if isinstance(source, Mapping):
            yield source


def name_of_data(source: Mapping[str, Any]) -> str:
    """What a source of data is called: its name on the hub, or its file without the folders of the machine."""
    if source.get("source") == "hub":
        return str(source.get("name"))
    path = source.get("path")
    return Path(str(path)).name if path else str(source.get("source", "data"))


def _base_card(checkpoint: Checkpoint) -> tuple[Mapping[str, Any], bool]:
    """The metadata of the base model's card, and whether there is a card."""
    path = checkpoint.folder / BASE_CARD if checkpoint.folder is not None else None
    if path is None or not path.is_file():
        return {}, False
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        metadata: dict[str, Any] = ModelCard(text, ignore_metadata_errors=True).data.to_dict()  # type: ignore[no-untyped-call]
        return metadata, True
    except Exception:  # metadata of somebody's, in whatever state
        return {}, True


def _is_path(source: str) -> bool:
    """Whether a source is a file or folder, not a reference such as ``torchvision/resnet18``."""
    return not source.startswith(("torchvision/", "hf/", "python:")) and ("/" in source or "\\" in source)
