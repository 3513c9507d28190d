"""Pictures and texts: the time until training can begin, and samples a second, against plain ``datasets``.

    python tests/benchmarks/encoding.py            # 400 photographs and 20 000 texts: about two minutes

Pictures are JPEG files of 500 x 375 pixels in a folder per class, encoded by a ViT's processor. The others are
transformers' recipe for fine-tuning: ``imagefolder``, ``set_transform`` and the same processor. Texts are lines of the
standard library's sources in a CSV file, encoded by a tokenizer that is trained on them. The others: ``map`` of the
same tokenizer, and its collator. The clock is this process's processor time; rounds are interleaved, and the table
holds medians.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from sklearn.datasets import load_sample_image
from torch.utils.data import DataLoader

import surgeon
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.class_names import network_of
from surgeon.training.load_splits import load_splits, prepared_as, sources_of

CLASSES = ("flower", "temple")
VOCABULARY = 4000
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 2}


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    print("| | until the first batch, s: surgeon, datasets | samples a second: surgeon, datasets | ratio |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, ours, theirs in (
            ("pictures", *pictures(folder / "pictures", options.pictures)),
            ("texts", *texts(folder / "texts", options.texts)),
        ):
            compare(name, ours, theirs, options)


Ready = Callable[[Path], tuple[Any, Callable[[Any], Any]]]
"""Opens the data, with a folder for its caches: the samples, and what makes a batch of a list of them."""


def compare(name: str, ours: Ready, theirs: Ready, options: argparse.Namespace) -> None:
    """Print the row of one kind of samples."""
    starts: dict[Ready, list[float]] = {ours: [], theirs: []}
    speeds: dict[Ready, list[float]] = {ours: [], theirs: []}
    for _ in range(options.rounds):
        for way in (ours, theirs):
            with tempfile.TemporaryDirectory() as caches:
                begun = time.process_time()
                samples, collate = way(Path(caches))
                batches = endless(samples, collate, options.batch)
                next(batches)
                starts[way].append(time.process_time() - begun)
                begun, count = time.process_time(), 0
                while time.process_time() - begun < 3:
                    next(batches)
                    count += options.batch
                speeds[way].append(count / (time.process_time() - begun))
    first, second = (median(starts[way]) for way in (ours, theirs))
    fast, other = (median(speeds[way]) for way in (ours, theirs))
    ratio = median(a / b for a, b in zip(speeds[ours], speeds[theirs], strict=True))
    print(f"| {name} | {first:.2f}, {second:.2f} | {fast:.0f}, {other:.0f} | {ratio:.2f} |", flush=True)


def endless(samples: Any, collate: Callable[[Any], Any], batch: int) -> Iterator[Any]:
    """Yield shuffled batches, epoch after epoch."""
    while True:
        yield from DataLoader(samples, batch, shuffle=True, collate_fn=collate, drop_last=True)


def pictures(folder: Path, count: int) -> tuple[Ready, Ready]:
    """Write photographs of two classes, and a network for them; return both ways to read them."""
    random = np.random.default_rng(0)
    for name, photograph in zip(CLASSES, ("flower.jpg", "china.jpg"), strict=True):
        (folder / "data" / name).mkdir(parents=True)
        pixels = load_sample_image(photograph)
        for number in range(count // 2):
            top, left = random.integers(0, 52), random.integers(0, 140)
            from PIL import Image

            Image.fromarray(pixels[top : top + 375, left : left + 500]).save(
                folder / "data" / name / f"{number}.jpg", quality=90
            )
    transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL)).save_pretrained(folder / "vit")
    transformers.ViTImageProcessor().save_pretrained(folder / "vit")
    source = {"source": "images", "path": str(folder / "data"), "test_fraction": 0.1}

    def theirs(caches: Path) -> tuple[Any, Callable[[Any], Any]]:
        processor = transformers.AutoImageProcessor.from_pretrained(folder / "vit")
        loaded = datasets.load_dataset("imagefolder", data_dir=str(folder / "data"), cache_dir=str(caches))["train"]
        train = loaded.train_test_split(0.1, seed=0)["train"]

        def encode(rows: dict[str, list[Any]]) -> dict[str, Any]:
            rows["pixel_values"] = processor([image.convert("RGB") for image in rows["image"]], return_tensors="pt")[
                "pixel_values"
            ]
            return rows

        train.set_transform(encode)
        return train, lambda rows: {
            "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
            "labels": torch.tensor([row["label"] for row in rows]),
        }

    return _ours(folder / "vit", source), theirs


def texts(folder: Path, count: int) -> tuple[Ready, Ready]:
    """Write a table of texts, a tokenizer and a network for them; return both ways to read it."""
    folder.mkdir(parents=True)
    lines = (
        line.strip()
        for path in sorted(Path(os.__file__).parent.glob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if len(line.split()) > 4
    )
    rows = [(" ".join((line, next(lines, ""))), number % 2) for number, line in zip(range(count), lines, strict=False)]
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "y"), *rows])
    tokenizer = transformers.BertTokenizerFast().train_new_from_iterator([text for text, _ in rows], VOCABULARY)
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SMALL)
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    source = {
        "source": "table", "path": str(folder / "data.csv"), "text": "text", "targets": {"labels": "y"},
        "test_fraction": 0.1,
    }  # fmt: skip

    def theirs(caches: Path) -> tuple[Any, Callable[[Any], Any]]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "bert")
        loaded = datasets.load_dataset("csv", data_files=str(folder / "data.csv"), cache_dir=str(caches))["train"]
        encoded = loaded.map(
            lambda rows: tokenizer(rows["text"], truncation=True, max_length=128),
            batched=True,
            remove_columns="text",
        )
        train = encoded.rename_column("y", "labels").train_test_split(0.1, seed=0)["train"]
        return train, transformers.DataCollatorWithPadding(tokenizer)

    return _ours(folder / "bert", source), theirs


def _ours(network: Path, source: dict[str, Any]) -> Ready:
    settings = TrainSettings.model_validate({"data": source})

    def ready(_: Path) -> tuple[Any, Callable[[Any], Any]]:
        model = surgeon.load(str(network))
        splits = load_splits(settings, 0, prepared_as(network_of(model), model, sources_of(settings)))
        return splits.train, splits.collate

    return ready


if __name__ == "__main__":
    main()
