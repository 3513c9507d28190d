"""What samples were prepared with in training is written down, and used from then on."""

from __future__ import annotations

import json
from pathlib import Path

import companion_folders as folders
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import surgeon
from surgeon.cli import app as cli
from surgeon.data.network import ANY
from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.load_splits import load_splits, prepared_as, sources_of

TRAINING = "train: {{data: {data}, epochs: 1, batch_size: 4}}\n"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Dark and light pictures of 20 x 14 pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for kind, level in (("dark", 0), ("light", 150)):
        (folder / kind).mkdir()
        for number in range(5):
            values = level + draw.integers(0, 100, (14, 20, 3), dtype=np.uint8)
            Image.fromarray(values.astype(np.uint8)).save(folder / kind / f"{number}.png")
    return folder


def trained(
    tmp_path: Path, folder: Path, data: str, operations: str = "{op: replace_head, classes: [dark, light]}"
) -> Path:
    """What ``surgeon apply`` writes of a recipe with a ``train:`` section."""
    (tmp_path / "recipe.yaml").write_text(f"operations: [{operations}]\n" + TRAINING.format(data=data))
    out = tmp_path / "out"
    assert cli.run(["apply", str(tmp_path / "recipe.yaml"), str(folder), "-q", "-o", str(out)]) == 0
    return out


def first(model: torch.nn.Module, data: dict) -> dict[str, torch.Tensor]:
    """The first sample that ``predict`` would feed to a network."""
    settings = TrainSettings(data=data)
    splits = load_splits(settings, 0, prepared_as(ANY, model, sources_of(settings)))
    return {name: splits.test[0][name] for name in splits.inputs}


def test_the_manifest_holds_what_training_used(tmp_path: Path, pictures: Path) -> None:
    out = trained(tmp_path, folders.vit(tmp_path / "vit"), f"{{source: images, path: {pictures}}}")
    record = json.loads((out / "surgeon.json").read_text())["record"]
    used = record["training"][0]["preprocessing"]["pictures"]["config"]
    assert (used["size"], used["image_mean"]) == ({"height": 32, "width": 32}, [0.5, 0.5, 0.5])
    assert record["preprocessing"] == record["training"][0]["preprocessing"]


def test_a_folder_alone_is_predicted_on_at_the_size_of_training(tmp_path: Path, pictures: Path) -> None:
    data = f"{{source: images, path: {pictures}, pixels: {{size: 16, mean: [0, 0, 0], std: [1, 1, 1]}}}}"
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "resnet")
    model = surgeon.load(trained(tmp_path, tmp_path / "resnet", data))
    values = first(model, {"source": "images", "path": str(pictures)})["pixel_values"]
    assert values.shape == (3, 16, 16)
    assert 0 <= values.min() <= values.max() <= 1


def test_the_processor_beside_the_weights_does_what_training_did(tmp_path: Path, pictures: Path) -> None:
    data = f"{{source: images, path: {pictures}, pixels: {{mean: [0.1, 0.2, 0.3]}}}}"
    out = trained(tmp_path, folders.vit(tmp_path / "vit"), data)
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    assert list(processor.image_mean) == [0.1, 0.2, 0.3]
    files = [Image.open(path) for path in sorted(pictures.rglob("*.png"))]
    official = processor(images=files, return_tensors="pt")["pixel_values"]
    made = first(surgeon.load(out), {"source": "images", "path": str(pictures)})["pixel_values"]
    assert any(torch.equal(made, values) for values in official)


def test_a_second_surgery_changes_what_training_used(tmp_path: Path, pictures: Path) -> None:
    out = trained(tmp_path, folders.vit(tmp_path / "vit"), f"{{source: images, path: {pictures}}}")
    model = surgeon.apply(out, surgeon.AdaptInput(image_size=64))
    assert first(model, {"source": "images", "path": str(pictures)})["pixel_values"].shape == (3, 64, 64)
    assert transformers.AutoImageProcessor.from_pretrained(surgeon.save(model, tmp_path / "large")).size == {
        "height": 64,
        "width": 64,
    }


def test_the_plan_says_where_imagenets_means_are_taken(tmp_path: Path, pictures: Path) -> None:
    folder = folders.vit(tmp_path / "vit")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "operations: [{op: replace_head, classes: [dark, light]}]\n"
        + TRAINING.format(data=f"{{source: images, path: {pictures}}}")
    )
    assert not any("ImageNet" in note for note in surgeon.plan(folder, recipe).notes)
    (folder / "preprocessor_config.json").unlink()
    assert any("ImageNet" in note for note in surgeon.plan(folder, recipe).notes)


def films(folder: Path) -> Path:
    rows = [{"review": f"{word} film", "verdict": word} for word in ("good", "bad")] * 6
    path = folder / "films.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_texts_are_tokenized_by_the_checkpoints_own_tokenizer(tmp_path: Path) -> None:
    data = {"source": "table", "path": str(films(tmp_path)), "text": "review", "targets": {"labels": "verdict"}}
    folder = folders.bert(tmp_path / "bert", num_labels=2)
    made = first(surgeon.load(folder), data)
    official = transformers.AutoTokenizer.from_pretrained(folder)
    assert made["input_ids"].tolist() in [official(f"{word} film")["input_ids"] for word in ("good", "bad")]


def test_texts_without_any_tokenizer_are_refused(tmp_path: Path) -> None:
    folder = folders.bert(tmp_path / "bert")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    data = {"source": "table", "path": str(films(tmp_path)), "text": "review", "targets": {"labels": "verdict"}}
    with pytest.raises(TrainingError, match="there is no tokenizer beside the weights"):
        first(surgeon.load(folder), data)


def test_the_tokenizer_that_a_recipe_names_travels_with_the_result(tmp_path: Path) -> None:
    folder = folders.bert(tmp_path / "bert")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    folders.tokenizer(tmp_path / "words")
    data = f"{{source: table, path: {films(tmp_path)}, text: review, tokenizer: {tmp_path / 'words'}, max_length: 9"
    out = trained(tmp_path, folder, data + ", targets: {labels: verdict}}", "{op: replace_head, classes: [bad, good]}")
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "words" / "tokenizer.json").read_bytes()
    assert json.loads((out / "surgeon.json").read_text())["record"]["preprocessing"]["texts"] == {
        "max_length": 9,
        "pad_token_id": 0,
    }
