"""What surgeon writes serves in transformers' pipelines: unchanged where nothing was edited, else with new classes.

``pytest tests/pipeline/test_hf_pipelines.py -m slow`` runs the families that the default run leaves out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pipeline_folders
import pytest
import torch
import transformers
import yaml

import surgeon

FAMILIES = [*pipeline_folders.FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in pipeline_folders.MANY)]
NOTHING = [{"op": "freeze", "sites": "@head"}]
"""A recipe that changes no output; one without operations is refused."""
CLASSES = ["left", "middle", "right"]


def answers(task: str, folder: Path, samples: list[Any], **options: Any) -> Any:
    """What the pipeline of a task says, from the files of a folder alone.

    Weights are mapped from the file, and where a header's length puts them at another alignment some processors (AMD's
    Zen 3) round differently: they are copied, so that the same values give the same bytes everywhere.
    """
    torch.manual_seed(0)
    serve = transformers.pipeline(task, model=str(folder), device="cpu", **options)
    for parameter in serve.model.parameters():
        parameter.data = parameter.data.clone()
    return [serve(sample) for sample in samples]


def write(folder: Path, operations: list[dict[str, Any]], train: dict[str, Any] | None = None) -> Path:
    recipe = {"seed": 1, "operations": operations, **({"train": train} if train else {})}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_that_does_nothing_leaves_every_answer_as_it_was(name, tmp_path):
    kind = pipeline_folders.ALL[name].kind
    pipeline_folders.source(name, tmp_path / "source", pipeline_folders.CLASSES[kind], num_labels=3)
    surgeon.run_recipe(tmp_path / "source", write(tmp_path, NOTHING), tmp_path / "out", quiet=True)
    samples = pipeline_folders.samples(kind, tmp_path)
    before = answers(pipeline_folders.PIPELINES[kind], tmp_path / "source", samples, top_k=None)
    assert answers(pipeline_folders.PIPELINES[kind], tmp_path / "out", samples, top_k=None) == before


@pytest.mark.parametrize("name", [name for name in pipeline_folders.DECODERS if name in pipeline_folders.FEW])
def test_a_recipe_that_does_nothing_leaves_every_text_as_it_was(name, tmp_path):
    pipeline_folders.source(name, tmp_path / "source", "AutoModelForCausalLM")
    surgeon.run_recipe(tmp_path / "source", write(tmp_path, NOTHING), tmp_path / "out", quiet=True)
    options = {"max_new_tokens": 6, "do_sample": False}
    before = answers("text-generation", tmp_path / "source", pipeline_folders.TEXTS, **options)
    assert answers("text-generation", tmp_path / "out", pipeline_folders.TEXTS, **options) == before


@pytest.mark.parametrize("name", FAMILIES)
def test_new_classes_give_a_stock_class_that_trains_predicts_and_serves(name, tmp_path):
    kind = pipeline_folders.ALL[name].kind
    auto = "AutoModelForCausalLM" if name in pipeline_folders.DECODERS else "AutoModel"
    pipeline_folders.source(name, tmp_path / "source", auto)
    train = {
        "data": pipeline_folders.data(kind, tmp_path / "data"),
        "epochs": 1,
        "batch_size": 4,
        "learning_rate": 0.01,
    }
    recipe = write(tmp_path, [{"op": "replace_head", "classes": CLASSES}], train)
    report = surgeon.run_recipe(tmp_path / "source", recipe, tmp_path / "out", quiet=True)
    assert report.training.after["logits_loss"] != report.training.before["logits_loss"]

    stock = pipeline_folders.stock_class(name, pipeline_folders.CLASSES[kind])
    loaded, loading = stock.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert list(loaded.config.id2label.values()) == CLASSES

    samples = pipeline_folders.samples(kind, tmp_path)
    for answer in answers(pipeline_folders.PIPELINES[kind], tmp_path / "out", samples, top_k=None):
        assert {entry["label"] for entry in (answer[0] if isinstance(answer[0], list) else answer)} == set(CLASSES)
    read = tmp_path / "data" / "t.csv" if kind != "image" else tmp_path / "data" / "left"
    predicted = surgeon.predict(tmp_path / "out", [read])
    assert len(predicted.rows) >= 4
