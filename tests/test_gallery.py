"""Every recipe of the gallery runs as its header says, on a small network of the same kind and data made here."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapes
import torch
import transformers
from cases.material import COLOURS, paint, picture, reviews, save_bert
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from scipy.io import wavfile
from torchvision.models import resnet18
from training.language_folders import SENTENCES, byte_tokenizer, t5
from training.test_segmentation import draw, segformer

import surgeon
from surgeon.cli import run

RECIPES = Path(__file__).parents[1] / "recipes"
GALLERY = sorted((RECIPES / "gallery").glob("*.yaml"))
ALL = [*sorted(RECIPES.glob("*.yaml")), *GALLERY]
SHORT = ["--set", "train.epochs=1", "--set", "train.batch_size=8"]


def parsed(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def network_of_pictures() -> str:
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), "resnet18.pth")
    return "resnet18.pth"


def small(*names: str) -> list[str]:
    return [part for name in names for part in ("--set", f"{name}.pixels.size=32")]


def pictures() -> list[str]:
    for colour, name in zip(COLOURS, ("cat", "dog", "rabbit"), strict=False):
        paint(Path("pets", name), colour, 8)
    return [network_of_pictures(), *small("train.data")]


def detector() -> list[str]:
    file = shapes.draw(Path("shots"), 5)
    named = file.read_text(encoding="utf-8").replace('"ball"', '"helmet"').replace('"box"', '"vest"')
    Path("shots", "boxes.json").write_text(named, encoding="utf-8")
    return ["torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"]


def segmenter() -> list[str]:
    draw(Path("fields"), count=10)
    segformer().save_pretrained("segformer")
    return ["segformer", *small("train.data")]


def texts() -> list[str]:
    save_bert(Path("bert"), "BertForMaskedLM", num_hidden_layers=2)
    rows = [f'"{text}",{"good" if good else "bad"}' for text, good in reviews(20)]
    Path("reviews.csv").write_text("\n".join(["text,verdict", *rows]) + "\n", encoding="utf-8")
    Path("new_reviews.txt").write_text("the film is great\n", encoding="utf-8")
    return ["bert", "--set", "train.data.max_length=32"]


def short_language_model() -> list[str]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=300, **sizes)).save_pretrained("llama")
    byte_tokenizer(Path("llama"))
    Path("texts").mkdir()
    for number in range(10):
        Path("texts", f"{number}.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    return ["llama", "--set", "train.data.max_length=32"]


def summaries() -> list[str]:
    t5(Path("t5"))
    lines = ["article,summary", *(f"{text} {text},{text[:number]}" for number, text in enumerate(SENTENCES, 5))]
    for name in ("articles.csv", "new_articles.csv"):
        Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["t5", "--set", "train.data.max_length=48"]


def sounds() -> list[str]:
    config = transformers.WhisperConfig(
        vocab_size=10, d_model=16, encoder_layers=3, decoder_layers=1, encoder_attention_heads=2,
        classifier_proj_size=8,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_source_positions=50, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    transformers.WhisperForConditionalGeneration(config).save_pretrained("whisper")
    transformers.WhisperFeatureExtractor(chunk_length=1).save_pretrained("whisper")
    Path("recordings").mkdir()
    rows = ["file,label"]
    for number in range(12):
        pitch, label = ((3000, "alarm"), (300, "speech"))[number % 2]
        wave = np.sin(2 * np.pi * (pitch + number) * np.arange(8000) / 16000).astype(np.float32)
        wavfile.write(f"recordings/{number}.wav", 16000, wave)
        rows.append(f"recordings/{number}.wav,{label}")
    Path("clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return ["whisper"]


def other_domain() -> list[str]:
    for colour, name in zip(COLOURS, ("bag", "lamp", "shoe"), strict=False):
        paint(Path("product", name), colour, 6)
        paint(Path("phone", name), [0.7 * value for value in colour], 6)
    sizes = ["--set", "train.data.0.pixels.size=32", "--set", "train.data.1.pixels.size=32"]
    return [network_of_pictures(), *sizes]


def several_tasks() -> list[str]:
    rows = ["file,shop,garment,red,blue,striped,price"]
    for number in range(24):
        picture(COLOURS[number % 3], number).save(f"{number}.png")
        garment = ("dress", "shirt", "trousers")[number % 3] if number % 4 else ""
        rows.append(f"{number}.png,{number // 4},{garment},{number % 2},0,{'' if number % 5 else 1},{10 + number}.5")
    Path("garments.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return [network_of_pictures(), *small("train.data")]


MADE: dict[str, Callable[[], list[str]]] = {
    make.__name__: make
    for make in (
        pictures, detector, segmenter, texts, short_language_model, summaries, sounds, other_domain, several_tasks,
    )
}  # fmt: skip
BECOMES = {
    "segmenter": "SegformerForSemanticSegmentation",
    "texts": "BertForSequenceClassification",
    "short_language_model": "LlamaForCausalLM",
    "summaries": "T5ForConditionalGeneration",
    "sounds": "WhisperForAudioClassification",
}
"""The stock class of the result."""


def commands(path: Path) -> list[list[str]]:
    """The ``surgeon`` commands in a recipe's header."""
    lines = [line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("surgeon ")]


def test_every_recipe_of_the_gallery_is_run() -> None:
    assert [path.stem for path in GALLERY] == sorted(MADE)


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_a_recipe_of_the_gallery_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipes").symlink_to(RECIPES)
    model, *settings = MADE[path.stem]()
    apply, *rest = commands(path)
    assert apply[:2] == ["apply", f"recipes/gallery/{path.name}"]
    short = SHORT if "train" in parsed(path) else []
    assert run([*apply[:2], model, *settings, *short, "-q"]) == 0
    network = surgeon.load(f"out/{path.stem}")
    assert type(network).__name__ == BECOMES.get(path.stem, type(network).__name__)
    record = surgeon.record_of(network)
    assert record is not None
    assert bool(record.training) == ("train" in parsed(path))
    assert run(["check", f"out/{path.stem}", "-q"]) == 0
    for command in rest:
        assert run([*command, "-q"]) == 0


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_recipe_is_valid_by_the_schema_that_it_names(path: Path) -> None:
    named = re.search(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert named is not None
    schema = json.loads((path.parent / named[1]).read_text(encoding="utf-8"))
    mistakes = Draft202012Validator(schema).iter_errors(parsed(path))
    assert [f"{list(mistake.path)}: {mistake.message}" for mistake in mistakes] == []


def test_the_schema_of_the_digits_has_their_sources_as_they_are() -> None:
    written = json.loads((RECIPES / "digit_sources.schema.json").read_text(encoding="utf-8"))
    fresh = surgeon.recipe_schema([str(RECIPES / "digit_sources.py")])
    added = set(fresh["$defs"]) - set(surgeon.recipe_schema()["$defs"])
    assert added
    assert {name: written["$defs"].get(name) for name in added} == {name: fresh["$defs"][name] for name in added}


def test_the_readme_of_the_recipes_lists_the_gallery() -> None:
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in GALLERY if f"`gallery/{path.name}`" not in text] == []
