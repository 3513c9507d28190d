"""Small files that ask for far too much, or for nonsense, end in one clear line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING

import surgeon
from surgeon.architectures import torchvision_identify
from surgeon.architectures.limits import check_config
from surgeon.checkpoint.digests import sealed
from surgeon.cli.app import run
from surgeon.errors import ArchitectureError

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BERT in the folder ``net``."""
    transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path / "net")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "net"


def edit(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


BOMBS = {
    "layers": {"num_hidden_layers": 1_000_000},
    "labels": {"id2label": None, "num_labels": 10**9},
    "labels of no tensor": {"id2label": None, "num_labels": 10**6},
    "heads": {"pruned_heads": {str(number): [0] for number in range(50_001)}},
    "names of labels": {"id2label": {str(number): "x" for number in range(1_000_001)}},
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("weights", [True, False])
def test_a_config_that_asks_for_too_much_is_refused_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], bomb: str, weights: bool
) -> None:
    edit(folder, **BOMBS[bomb])
    if not weights:
        (folder / "model.safetensors").unlink()
    start = time.monotonic()
    assert run(["inspect", "net" if weights else "hf:./net"]) == ArchitectureError.exit_code
    assert time.monotonic() - start < 10
    assert "SURGEON_LIMITS=off" in " ".join(capsys.readouterr().err.split())


def test_no_default_config_of_transformers_is_beyond_the_bounds() -> None:
    for kind in CONFIG_MAPPING.values():
        try:
            values = kind().to_dict()
        except Exception:  # a composite one that has no defaults
            continue
        check_config(values, kind.__name__)


@pytest.mark.parametrize("field", ["head_dim", "max_position_embeddings", "hidden_size", "vocab_size", "n_heads"])
def test_a_size_beyond_every_network_is_refused(field: str) -> None:
    with pytest.raises(ArchitectureError, match=rf"text_config\.{field} is 1,000,000,000"):
        check_config({"text_config": {field: 10**9}}, "here")
    check_config({"rope_theta": 10**9, "eos_token_id": 10**9}, "here")


def test_labels_that_a_tensor_has_rows_for_are_not_too_many() -> None:
    check_config({"num_labels": 300_000}, "here", [(300_000, 16)])
    with pytest.raises(ArchitectureError, match="num_labels is 300,000: at most 50,000 labels"):
        check_config({"num_labels": 300_000}, "here", [(16, 300_000), ()])


def test_the_bounds_can_be_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"num_hidden_layers": 1001}
    with pytest.raises(ArchitectureError, match="num_hidden_layers is 1,001"):
        check_config(values, "here")
    monkeypatch.setenv("SURGEON_LIMITS", "off")
    check_config(values, "here")


def test_indices_of_layers_are_not_taken_for_numbers_of_them() -> None:
    check_config({"cross_attention_layers": list(range(3, 98, 5)), "depths": [2, 2, 18, 2]}, "here")
    with pytest.raises(ArchitectureError, match="depths"):
        check_config({"text_config": {"depths": [2, 10**6]}}, "here")


@pytest.mark.parametrize(
    "recipe",
    [
        "operations: [{op: replace_head, classes: 1000000000000}]",
        "operations: [{op: freeze, sites: classifier}]\ninputs: [[1000000, 1000000]]",
    ],
)
def test_a_recipe_that_asks_for_too_much_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    Path("recipe.yaml").write_text(recipe)
    assert run(["plan", "recipe.yaml", "net"]) == ArchitectureError.exit_code
    assert "SURGEON_LIMITS=off" in " ".join(capsys.readouterr().err.split())


def test_a_manifest_that_asks_for_too_much_is_refused(folder: Path) -> None:
    surgeon.save(surgeon.apply("net", [surgeon.ReplaceHead(classes=3)]), "out")
    manifest = json.loads(Path("out/surgeon.json").read_text())
    manifest["record"]["surgeries"][-1]["operations"][0]["classes"] = 10**12
    Path("out/surgeon.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(ArchitectureError, match=r"operations\.0\.classes is 1,000,000,000,000"):
        surgeon.load("out")


@pytest.mark.parametrize("per_surgery", [5000, 1])
def test_a_manifest_of_thousands_of_operations_is_refused_before_it_is_replayed(folder: Path, per_surgery: int) -> None:
    surgeon.save(surgeon.apply("net", [surgeon.ReplaceHead(classes=3)]), "out")
    manifest = json.loads(Path("out/surgeon.json").read_text())
    surgeries = manifest["record"]["surgeries"][-1]
    surgeries["operations"] *= per_surgery
    manifest["record"]["surgeries"] = [surgeries] * (5000 // per_surgery)
    Path("out/surgeon.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(ArchitectureError, match=r"the number of (operations|surgeries) is 5,000: at most 1,000"):
        surgeon.load("out")


def test_a_recipe_of_thousands_of_operations_is_refused(folder: Path) -> None:
    with pytest.raises(ArchitectureError, match="the number of operations is 1,001"):
        surgeon.plan("net", [surgeon.Freeze(sites="classifier")] * 1001)


def test_a_file_of_more_tensors_than_any_builder_has_is_compared_with_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(*_: object) -> None:
        raise AssertionError("compared with every builder")

    monkeypatch.setattr(torchvision_identify, "_exact", compare)
    save_file({f"{number}.weight": torch.zeros(1) for number in range(5001)}, tmp_path / "many.safetensors")
    with pytest.raises(ArchitectureError, match="the architecture of these 5001 tensors is unknown"):
        surgeon.inspect(tmp_path / "many.safetensors")


NONSENSE: list[tuple[str, Any]] = [
    ("num_attention_heads", 0),
    ("hidden_size", "wide"),
    ("num_hidden_layers", "two"),
    ("num_hidden_layers", []),
    ("hidden_act", 3),
    ("hidden_act", ["gelu"]),
    ("id2label", [1, 2]),
    ("vocab_size", -5),
    ("layer_norm_eps", {}),
    ("intermediate_size", None),
    ("architectures", "BertModel"),
    ("architectures", [7]),
    ("model_type", ["bert"]),
]


@pytest.mark.parametrize(("field", "value"), NONSENSE)
def test_nonsense_in_a_config_is_the_files_fault_and_the_field_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], field: str, value: Any
) -> None:
    edit(folder, **{field: value})
    code = run(["inspect", "net"])
    err = " ".join(capsys.readouterr().err.split())
    assert "bug in surgeon" not in err
    assert code in (0, ArchitectureError.exit_code), err
    if code:
        assert field in err
