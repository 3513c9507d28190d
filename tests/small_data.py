"""Pictures, tables and tokenizers for tests, small and real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from surgeon.data.network import ANY, Head, Network
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.load_splits import load_splits

COLOURS = {"cat": (220, 30, 30), "dog": (30, 200, 30), "rabbit": (30, 30, 220)}
PIXELS = {"size": 8}


def picture(path: Path, colour: tuple[int, int, int] = (200, 30, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).normal(0, 25, (12, 12, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype("uint8")).save(path)
    return path


def folder(root: Path, names: Any = tuple(COLOURS), count: int = 5, suffix: str = "png") -> Path:
    for number, name in enumerate(names):
        colour = COLOURS.get(name, (20 * number, 250 - 20 * number, 100))
        for index in range(count):
            picture(root / name / f"{index}.{suffix}", colour)
    return root


def images(path: Path, **more: Any) -> dict[str, Any]:
    return {"source": "images", "path": str(path), "pixels": PIXELS, **more}


def table(path: Path, content: str, targets: Any = None, /, **more: Any) -> dict[str, Any]:
    path.write_text(content)
    numbers = {} if {"image", "text", "audio"} & set(more) else {"numbers": {"x": ["x"]}}
    return {"source": "table", "path": str(path), "targets": targets or {"labels": "y"}, **numbers, **more}


def alone(source: dict[str, Any]) -> dict[str, Any]:
    """``source`` with all of its rows to train on, tested on a copy of them."""
    path = Path(source["path"])
    copied = path.with_name(f"copy-{path.name}")
    copied.write_bytes(path.read_bytes())
    return {**source, "test_path": str(copied)}


def load(data: Any, head: Head | None = None, evaluate: Any = None, network: Network = ANY) -> Any:
    given = Network({"labels": head}) if head is not None else network
    return load_splits(TrainSettings(data=data, evaluate=evaluate), 0, given)


def labels(samples: Any, name: str = "labels") -> list[Any]:
    return [samples[row][name].tolist() for row in range(len(samples))]


def by_x(*parts: Any, name: str = "labels") -> dict[float, Any]:
    """The label of each value of the input x, over parts."""
    samples = [part[row] for part in parts for row in range(len(part))]
    return {float(sample["x"][0]): sample[name].tolist() for sample in samples}


def tokenizer(path: Path, more: tuple[str, ...] = ()) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "very", "film", "a", "the", *more]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(path)
    return path
