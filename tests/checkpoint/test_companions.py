"""What belongs beside the weights of a folder: which files, and which damage is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import companion_folders as folders
import pytest

from surgeon.checkpoint.companions import read_companions, summarise
from surgeon.errors import CheckpointError


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return folders.bert(tmp_path / "bert")


def test_tokenizer_template_licence_and_card_belong_beside_the_weights_and_nothing_else(bert: Path) -> None:
    names = {companion.name for companion in read_companions(bert)}
    expected = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE", "README.base.md"}
    assert names == expected


def test_bytes_are_those_of_the_file(bert: Path) -> None:
    for companion in read_companions(bert):
        name = "README.md" if companion.name == "README.base.md" else companion.name
        assert companion.data == (bert / name).read_bytes()


def test_the_line_counts_files_by_kind(bert: Path) -> None:
    assert summarise(read_companions(bert)) == "tokenizer (2 files), chat template, licence, base model's card"


def test_an_earlier_base_card_goes_before_the_card_of_the_artifact(bert: Path) -> None:
    (bert / "README.base.md").write_text("the first")
    cards = [companion.data for companion in read_companions(bert) if companion.name == "README.base.md"]
    assert cards == [b"the first"]


def test_modules_of_sentence_transformers_come_with_their_weights(tmp_path: Path) -> None:
    names = {companion.name for companion in read_companions(folders.sentences(tmp_path / "st"))}
    assert names >= {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
    assert names >= {"1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"}


def test_files_in_folders_of_processors_come_too(bert: Path) -> None:
    for name in ("additional_chat_templates/tool.jinja", "qformer_tokenizer/vocab.txt", "language_model/lm.arpa"):
        (bert / name).parent.mkdir()
        (bert / name).write_text("x")
    (bert / "onnx").mkdir()
    (bert / "onnx" / "vocab.txt").write_text("x")
    names = {companion.name for companion in read_companions(bert) if "/" in companion.name}
    assert names == {"additional_chat_templates/tool.jinja", "qformer_tokenizer/vocab.txt", "language_model/lm.arpa"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("tokenizer.json", b'{"a": ', "not JSON"),
        ("preprocessor_config.json", b"", "not JSON"),
        ("vocab.txt", b"a\n\xff\n", "not UTF-8"),
        ("spiece.model", b"", "is empty"),
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of git-lfs"),
        ("modules.json", b'{"a": 1}', "not a list of modules"),
        ("modules.json", b'[{"path": "../elsewhere"}]', "outside"),
    ],
)
def test_damage_is_an_error_that_names_the_file(bert: Path, name: str, data: bytes, message: str) -> None:
    (bert / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_companions(bert)
    assert caught.value.where == str(bert / name)


def test_a_link_that_leads_nowhere_is_named(bert: Path) -> None:
    os.symlink("../../blobs/0", bert / "vocab.txt")
    with pytest.raises(CheckpointError, match="does not exist") as caught:
        read_companions(bert)
    assert caught.value.where == str(bert / "vocab.txt")


def test_a_module_without_a_folder_is_left_to_sentence_transformers(tmp_path: Path) -> None:
    folder = folders.sentences(tmp_path / "st")
    assert "3_Normalize" in json.dumps(json.loads((folder / "modules.json").read_text()))
    assert not (folder / "3_Normalize").exists()
    assert read_companions(folder)
