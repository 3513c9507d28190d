"""Read the data for predictions: paths, sources, recipes or datasets, prepared as in training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from surgeon.data.network import CLASS_LOSS, Network
from surgeon.data.plain_files import File, Files, is_path, kind_of, sort_files
from surgeon.data.requirements import require
from surgeon.data.sources import as_sources
from surgeon.data.whole import Samples, from_splits, limited, read_files, read_source, read_tables
from surgeon.errors import RecipeError, TrainingError
from surgeon.interfaces.data import Source
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.splits import Splits
from surgeon.pipeline.recorded_inputs import TABLES, RecordedInputs, check_kind, check_tokenizer
from surgeon.plugins import Plugins
from surgeon.recipe.data_argument import DataRequest, data_request, is_written_out
from surgeon.recipe.document import parse
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.class_names import network_of
from surgeon.training.load_splits import load_splits, prepared_as, sources_of
from surgeon.training.sample_predictions import known_objectives

Data: TypeAlias = "str | Path | Mapping[str, Any] | Source | Splits | Sequence[str | Path]"
"""A file, folder, glob pattern, or several; a source as in a recipe; a recipe; datasets from Python."""
PARTS = ("train", "validation", "test")
LABELS = "labels"
SKIP = "on_error: skip"
"""The setting that an error about a damaged sample suggests for a recipe."""
RECIPES = (".yaml", ".yml")
RECIPE_KEYS = {"train", "data", "source", "operations"}


@dataclass(frozen=True)
class Reading:
    """Settings for reading samples.

    Attributes:
        model: The network, whose record and checkpoint say how to prepare samples.
        recorded: How samples became inputs in training.
        network: What the data must fit: classes by name, positions, vocabulary.
        plugins: The plugins.
        part: The part of the data to read; None for all.
        seed: The seed for sources that draw samples; None for the recipe's.
        on_error: What to do with samples that cannot be read.
        strict: Whether labels are required and must fit the network's classes.
        next_tokens: Whether the network predicts the next token, so that texts are their own labels.
    """

    model: nn.Module
    recorded: RecordedInputs
    network: Network
    plugins: Plugins
    part: str | None = None
    seed: int | None = None
    on_error: str = "fail"
    strict: bool = False
    next_tokens: bool = False

    def samples(self, data: Data) -> list[Samples]:
        """Read all samples of ``data``.

        Raises:
            TrainingError: The data do not exist, cannot be read, or do not fit the network.
            RecipeError: A source is invalid.
        """
        require("train", "reading data")
        try:
            return self._read(data)
        except TrainingError as error:
            if (error.where or "").startswith("train.data"):
                error.where = None  # no recipe has this key here
            hint = error.hint or ""
            if "--set" in hint:
                error.hint = None
            elif SKIP in hint:
                error.hint = hint.replace(SKIP, 'on_error="skip", or --on-error skip')
            raise

    def _read(self, data: Data) -> list[Samples]:
        if isinstance(data, Splits):
            return self._without_empty(from_splits(data, PARTS if self.part is None else (self.part,)))
        if isinstance(data, Source):
            return self._of_sources([data], self.seed or 0)
        if isinstance(data, Mapping):
            return self._written(json.dumps(data))
        items = [data] if isinstance(data, (str, Path)) else list(data)
        if not items:
            raise TrainingError("no data is given")
        samples: list[Samples] = []
        paths: list[str] = []
        for item in items:
            text = str(item)
            if is_written_out(text) or _is_recipe(text) or not is_path(text):
                samples += self._written(text)
            elif self.network.detector is not None and Path(text).suffix.lower() == ".json":
                samples += self._written(json.dumps({"source": "coco", "path": text}))
            elif self._is_of_tags(Path(text)):
                samples += self._written(json.dumps({"source": "conll", "path": text}))
            elif self._is_of_masks(Path(text)):
                samples += self._written(json.dumps({"source": "masks", "path": text}))
            else:
                paths.append(text)
        return samples + (self._of_paths(paths) if paths else [])

    def _is_of_tags(self, path: Path) -> bool:
        """Return whether a file holds words with tags, as training read them; such files have any suffix."""
        trained_on = [source["source"] for source in self.recorded.sources]
        return "conll" in trained_on and path.is_file() and kind_of(path) is None

    def _is_of_masks(self, path: Path) -> bool:
        """Return whether a folder holds pictures and their masks, as training read them."""
        trained_on = [source["source"] for source in self.recorded.sources]
        return "masks" in trained_on and all((path / name).is_dir() for name in ("images", "masks"))

    def _of_paths(self, paths: Sequence[str]) -> list[Samples]:
        like = self.recorded.source().model_copy(update={"on_error": self.on_error})
        kinds = self.recorded.kinds or ({"image"} if self.network.detector is not None else set())
        sorted_files = sort_files(paths, kinds)  # a COCO file may lie beside the pictures
        lone = len(sorted_files) == 1 and len(sorted_files[0].files) == 1
        read_samples: list[Samples] = []
        for files in sorted_files:
            check_kind(self.recorded, files.kind, files.root)
            check_tokenizer(self.recorded, files.kind, files.root)
            if self.part is not None and not any(file.part for file in files.files):
                read_samples += self._part_as_in_training(files)
                continue
            fed = like if files.kind in ("table", "saved") else like.model_copy(update={files.kind: files.kind})
            network = self._network([fed])
            if files.kind in ("table", "saved"):
                samples = read_tables(files, like, network, strict=self.strict, lone=lone)
            else:
                samples = read_files(files, like, self._label(), network, strict=self.strict)
            samples[0].notes += [*network.preprocessing.notes, *self._training_notes(files)]
            read_samples += [limited(part, self.part) for part in samples] if self.part is not None else samples
        return self._without_empty(read_samples)

    def _network(self, sources: Sequence[Any]) -> Network:
        """Return what samples of ``sources`` must fit, with the preprocessing of training or of the checkpoint."""
        return prepared_as(self.network, self.model, sources)

    def _training_notes(self, files: Files) -> list[str]:
        """Return a note if the files were used in training."""
        notes = []
        trained_on = [Path(source["path"]).resolve() for source in self.recorded.sources if source.get("path")]
        if self.part is None and Path(files.root).exists() and Path(files.root).resolve() in trained_on:
            notes.append(f"{files.root} was mostly used in training; part test (--part test) was held out")
        return notes

    def _part_as_in_training(self, files: Files) -> list[Samples]:
        """Return the part of a folder or table that training would hold out."""
        kinds = {"table": "table", "saved": "saved", "image": "images"}
        sources = [source for source in self.recorded.sources if source["source"] == kinds.get(files.kind)]
        single = Path(files.root).is_dir() if files.kind == "image" else len(files.files) == 1
        if not sources or not single:
            raise TrainingError(
                f"{files.root} has no part {self.part!r}: the network was not trained on data of this kind",
                hint="leave the part out to read all of it",
            )
        paths = {"path": files.root, "validation_path": None, "test_path": None}
        changed = {name: value for name, value in paths.items() if name in sources[0]}
        return self._written(json.dumps({**sources[0], **changed, "domain": None, "labels": "visible"}))

    def _written(self, text: str) -> list[Samples]:
        """Read a recipe or a source as YAML; missing settings are those of training."""
        request = self._in_order(data_request(self._completed(text), self.plugins))
        seed = request.top.get("seed", 0) if self.seed is None else self.seed
        recipe = self.strict and not is_written_out(text) and Path(text).is_file()
        part = "test" if self.part is None and recipe else self.part  # most of a recipe's data were used in training
        if part is not None:
            samples = from_splits(
                load_splits(request.settings, seed, self._network(sources_of(request.settings))), (part,)
            )
            if recipe and self.part is None and samples:
                samples[0].notes.append(f"{text}: its test samples; use part (--part train) for others")
            return self._without_empty(samples)
        return self._of_settings(request, seed)

    def _of_settings(self, request: DataRequest, seed: int) -> list[Samples]:
        settings = request.settings
        sources = [
            source for data in (settings.data, settings.evaluate) if data is not None for source in as_sources(data)
        ]
        return self._of_sources(sources, seed, settings)

    def _of_sources(self, sources: Sequence[Any], seed: int, settings: TrainSettings | None = None) -> list[Samples]:
        tables = [source for source in sources if getattr(source, "kind", None)]
        domains = any(source.domain is not None for source in sources)
        if len(tables) < len(sources) or domains or self.part is not None:
            train_settings = settings or TrainSettings(data=list(sources) if len(sources) > 1 else sources[0])
            parts = PARTS if self.part is None else (self.part,)
            return self._without_empty(
                from_splits(load_splits(train_settings, seed, self._network(sources_of(train_settings))), parts)
            )
        samples: list[Samples] = []
        for source in sources:
            if source.kind == "table":
                named = (("train", source.path), ("validation", source.validation_path), ("test", source.test_path))
                several = sum(path is not None for _, path in named) > 1
                files = [File(Path(path), path, part=part if several else None) for part, path in named if path]
                lone = len(sources) == 1 and not several
                table = Files("table", files, source.path)
                samples += read_tables(table, source, self._network([source]), strict=self.strict, lone=lone)
            else:
                samples += read_source(source, self._network([source]), strict=self.strict)
        return self._without_empty(samples)

    def _completed(self, text: str) -> str:
        """Complete a source as YAML with the input settings of training."""
        if not is_written_out(text) and Path(text).exists():
            return text
        try:
            written = parse(text, "--data").data
        except RecipeError:
            return text  # reading it reports the error
        if not isinstance(written, dict) or "source" not in written:
            return text
        kind = written["source"]
        names: tuple[str, ...] = ()
        if kind in ("images", "coco"):
            names = ("pixels",)
        elif kind == "conll":
            names = ("tokenizer", "max_length")
        elif kind == "masks":
            names = ("pixels", "mask_values")
        elif kind in TABLES:
            names = (
                "mask_values",
                "pixels",
                "waves",
                "tokenizer",
                "max_length",
                "scale",
                "categories",
                "na",
                "targets",
            )
            if not {"image", "text", "audio", "numbers"} & set(written):
                names += ("image", "mask", "text", "audio", "numbers")
        fields = {name: value for name in names if (value := self.recorded.fields.get(name)) is not None}
        if "text" not in written and "text" not in fields:
            fields.pop("tokenizer", None)
        if kind in TABLES and "targets" not in written and "mask" not in written:
            fields.setdefault("targets", {LABELS: LABELS})  # read only where there is such a column
        plain = {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in fields.items()}
        if kind in (*TABLES, "images", "masks", "coco", "conll"):
            plain["on_error"] = self.on_error
        more = {name: value for name, value in plain.items() if name not in written}
        return json.dumps({**written, **more}) if more else text

    def _in_order(self, request: DataRequest) -> DataRequest:
        """List the columns of inputs and vectors in the order of training, if they are the same columns."""

        def ordered(source: Any) -> Any:
            changed = {}
            for field in ("numbers", "targets"):
                recorded = self.recorded.fields.get(field) or {}
                columns = getattr(source, field, None) or {}
                new = {name: _in_order_of(recorded.get(name), listed) for name, listed in columns.items()}
                changed.update({field: new} if new != columns else {})
            return source.model_copy(update=changed) if changed else source

        settings = request.settings
        values = {key: value for key in ("data", "evaluate") if (value := getattr(settings, key)) is not None}
        sources = {key: [ordered(source) for source in as_sources(value)] for key, value in values.items()}
        update = {key: listed if len(listed) > 1 else listed[0] for key, listed in sources.items()}
        return replace(request, settings=settings.model_copy(update=update))

    def _label(self) -> str | None:
        """Return the label column whose classes subfolders may be."""
        if self.next_tokens:
            return None
        heads = self.network.heads
        label = LABELS if LABELS in heads else next(iter(heads), LABELS)
        head = self.network.head(label)
        of_classes = head.loss in (CLASS_LOSS, None) or (head.loss == "bce" and len(head.names) == 2)
        return label if of_classes else None

    def _without_empty(self, samples: list[Samples]) -> list[Samples]:
        filled = [part for part in samples if len(part)]
        if not filled:
            noun = "samples" if self.part is None else f"{self.part} samples"
            raise TrainingError(f"the data have no {noun}")
        return filled


def named_network(model: nn.Module, operations: Sequence[Operation], classes: Sequence[str] | None) -> Network:
    """Return what data for ``model`` must fit, with the caller's class names if given."""
    network = network_of(model, known_objectives(model, operations), partial=True)
    if classes is None:
        return network
    head = network.head(LABELS)
    names = tuple(map(str, classes))
    if head.count is not None and head.count != len(names):
        raise TrainingError(f"{len(names)} class names are given, and the network has {head.count}")
    if len(set(names)) < len(names):
        raise TrainingError("a class name is given twice")
    loss = head.loss or CLASS_LOSS
    heads = {**network.heads, LABELS: replace(head, names=names, count=len(names), loss=loss)}
    return replace(network, heads=heads)


def _in_order_of(recorded: Any, columns: Any) -> Any:
    """Return ``columns`` in the order in which they were recorded, if they are the same ones."""
    lists = isinstance(recorded, (list, tuple)) and isinstance(columns, (list, tuple))
    return list(recorded) if lists and sorted(recorded) == sorted(columns) else columns


def _is_recipe(text: str) -> bool:
    """Return whether a path is a recipe's and not a table's: a JSON file may be either."""
    path = Path(text)
    if path.suffix.lower() in RECIPES:
        return True
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError):
        return False
    several = content if isinstance(content, list) else [content]
    return bool(several) and all(isinstance(item, dict) and RECIPE_KEYS & set(item) for item in several)
