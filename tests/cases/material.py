"""The pictures, tables, texts and small networks that cases work on; what several need is made once."""

from __future__ import annotations

import csv
import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

COLOURS = ((220, 30, 30), (30, 200, 30), (30, 30, 220), (220, 220, 30), (200, 30, 200), (30, 200, 200))
GOOD, BAD = ("good", "great", "fine"), ("bad", "dull", "boring")
FILL = ("the", "a", "film", "story", "plot", "is", "was", "very")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FAST = {"learning_rate": 3e-3, "batch_size": 8, "epochs": 12}
"""Settings by which the small networks learn colours and words to the last sample."""


class Material:
    """A folder for the case at hand, and what all cases share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root
        self._shared: dict[str, Path] = {}
        (root / "shared").mkdir(parents=True, exist_ok=True)
        os.environ["SURGEON_CACHE"] = str(root / "cache")

    def beginning(self, name: str) -> Material:
        """Turn to the case ``name``: an empty folder, fresh random numbers."""
        torch.manual_seed(0)
        self.folder = self.root / re.sub(r"[^\w.-]+", "-", name)
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def shared(self, name: str, make: Callable[[Path], object]) -> Path:
        """What ``make`` writes to a path, made when it is first asked for."""
        if name not in self._shared:
            path = self.root / "shared" / name
            torch.manual_seed(0)
            make(path)
            self._shared[name] = path
        return self._shared[name]

    def recipe(self, operations: Sequence[Mapping[str, Any]], name: str = "recipe.yaml", **rest: Any) -> Path:
        """A recipe in the folder of the case."""
        path = self.folder / name
        path.write_text(yaml.safe_dump({"operations": list(operations), **rest}, sort_keys=False), encoding="utf-8")
        return path

    def table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]], separator: str = ",") -> Path:
        """A CSV in the folder of the case."""
        path = self.folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=separator)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    def lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """A file of JSON lines in the folder of the case."""
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def pictures(self, names: Sequence[str], per: int = 12, root: str | Path = "pictures", **style: Any) -> Path:
        """A folder of pictures for each name; each has a colour of its own, by its place in ``names``."""
        folder = self.folder / root
        for number, name in enumerate(names):
            paint(folder / name, colour_of(number), per, **style)
        return folder

    def vit(self, **config: Any) -> Path:
        """A small ViT as transformers saves it, with its processor (means and deviations of 0.5)."""
        key = "vit" + "".join(f"-{name}-{value}" for name, value in config.items() if not isinstance(value, dict))
        return self.shared(key + ("-named" if "id2label" in config else ""), lambda path: save_vit(path, **config))

    def bert(self, kind: str = "BertForSequenceClassification", **config: Any) -> Path:
        """A small BERT with a tokenizer."""
        key = "-".join([kind, *(f"{name}-{value}" for name, value in config.items() if not isinstance(value, dict))])
        return self.shared(
            key + ("-named" if "id2label" in config else ""), lambda path: save_bert(path, kind, **config)
        )


def colour_of(number: int) -> tuple[int, int, int]:
    """A colour of its own for each number."""
    if number < len(COLOURS):
        return COLOURS[number]
    red, green, blue = np.random.default_rng(number).integers(0, 255, 3)
    return int(red), int(green), int(blue)


def picture(colour: Sequence[float], seed: int, size: int = 32, noise: float = 12) -> Image.Image:
    """Noise about one colour."""
    values = np.asarray(colour) + np.random.default_rng(seed).normal(0, noise, (size, size, 3))
    return Image.fromarray(values.clip(0, 255).astype("uint8"))


def paint(folder: Path, colour: Sequence[float], per: int, ext: str = "png", prefix: str = "", size: int = 32) -> None:
    """Write ``per`` pictures of one colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(per):
        picture(colour, number, size).save(folder / f"{prefix}{number:03d}.{ext}")


def reviews(count: int, seed: int = 0, words: int = 5) -> list[tuple[str, bool]]:
    """Texts of filling words with one that says whether the film is good."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        good = number % 2 == 0
        text = list(rng.choice(FILL, words))
        text[rng.integers(words)] = str(rng.choice(GOOD if good else BAD))
        rows.append((" ".join(map(str, text)), good))
    return rows


def save_vit(path: Path, **config: Any) -> None:
    """Save a ViT of one layer for pictures of 32 pixels."""
    import transformers

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    settings = transformers.ViTConfig(**{**size, "image_size": 32, "patch_size": 16, **config})
    transformers.ViTForImageClassification(settings).save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)


BERT = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}


def save_bert(path: Path, kind: str, **config: Any) -> None:
    """Save a BERT of one layer with a tokenizer of words."""
    import transformers

    settings = transformers.BertConfig(**{**BERT, "max_position_embeddings": 32, "pad_token_id": 0, **config})
    getattr(transformers, kind)(settings).save_pretrained(path)
    save_tokenizer(path)


def save_tokenizer(path: Path, words: Sequence[str] = (*FILL, *GOOD, *BAD), **options: Any) -> Any:
    """Save a tokenizer that knows ``words`` and BERT's special tokens; return it."""
    import tokenizers
    import transformers

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    word_tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    word_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    word_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=word_tokenizer, **{**named, **options})
    tokenizer.save_pretrained(path)
    return tokenizer


class Numbers(nn.Module):
    """A network of plain numbers, ``(batch, 6)`` to ``(batch, outputs)``."""

    def __init__(self, outputs: int = 3, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.second = nn.Linear(16, 16)
        self.head = nn.Linear(16, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))))


def numbers(outputs: int = 3, seed: int = 0, **options: Any) -> Numbers:
    """A network of plain numbers with weights drawn from ``seed``."""
    torch.manual_seed(seed)
    return Numbers(outputs, **options)


@functools.cache
def resnet(classes: int = 5) -> nn.Module:
    """A torchvision ResNet-18 with random weights; copy it before changing it."""
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=classes).eval()
