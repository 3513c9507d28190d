"""What lies beside the weights travels with them, and agrees with what surgery made of the network."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import companion_folders as folders
import pytest
import torch
import transformers

import surgeon
from surgeon.cli import app as cli
from surgeon.errors import CheckpointError, OperationError, SurgeonError
from surgeon.operations.adapt_input.operation import AdaptInput
from surgeon.operations.freeze import Freeze
from surgeon.operations.replace_head.operation import ReplaceHead
from surgeon.operations.truncate.operation import Truncate
from surgeon.pipeline.companions import Sizes, adapt
from surgeon.pipeline.prepare import prepare
from surgeon.surgery.make_record import companions_of

THINNED = Truncate(keep_blocks=2)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return folders.bert(tmp_path / "bert")


def test_a_thinned_network_keeps_its_tokenizer(bert: Path, tmp_path: Path) -> None:
    prepare(bert, THINNED).write(tmp_path / "out")
    numbers = transformers.AutoTokenizer.from_pretrained(bert)("abc def")["input_ids"]
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("abc def")["input_ids"] == numbers


def test_files_are_copied_to_the_byte_and_others_stay_behind(bert: Path, tmp_path: Path) -> None:
    out = prepare(bert, THINNED).write(tmp_path / "out")
    assert (out / "tokenizer.json").read_bytes() == (bert / "tokenizer.json").read_bytes()
    assert (out / "README.base.md").read_bytes() == (bert / "README.md").read_bytes()
    names = {path.name for path in out.iterdir()}
    assert not names & {"optimizer.pt", "scheduler.pt", "trainer_state.json", "tf_model.h5", "notes.txt", ".cache"}


def test_the_manifest_holds_their_digests(bert: Path, tmp_path: Path) -> None:
    out = prepare(bert, THINNED).write(tmp_path / "out")
    recorded = json.loads((out / "surgeon.json").read_text())["companions"]
    assert recorded["LICENSE"]["kind"] == "licence"
    for name, fact in recorded.items():
        assert fact["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()


def test_the_plan_names_them_in_one_line(bert: Path) -> None:
    line = "beside the weights: tokenizer (2 files), chat template, licence, base model's card"
    assert line in surgeon.plan(bert, THINNED).notes


def test_a_model_in_memory_remembers_the_files_of_its_folder(bert: Path, tmp_path: Path) -> None:
    expected = (bert / "tokenizer.json").read_bytes()
    model = surgeon.apply(surgeon.load(bert), THINNED)
    shutil.rmtree(bert)
    assert (surgeon.save(model, tmp_path / "out") / "tokenizer.json").read_bytes() == expected


def test_an_artifact_passes_them_on(bert: Path, tmp_path: Path) -> None:
    first = prepare(bert, THINNED).write(tmp_path / "first")
    second = prepare(first, ReplaceHead(classes=["good", "bad"])).write(tmp_path / "second")
    for name in ("tokenizer.json", "LICENSE", "README.base.md", "chat_template.jinja"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
    assert json.loads((second / "config.json").read_text())["id2label"] == {"0": "good", "1": "bad"}


def test_the_hubs_cache_passes_them_on(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(bert, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    out = prepare("hf:someone/tiny", THINNED).write(tmp_path / "out")
    assert (out / "tokenizer.json").read_bytes() == (bert / "tokenizer.json").read_bytes()


def test_a_damaged_file_stops_surgery_before_any_work(bert: Path) -> None:
    (bert / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON") as caught:
        prepare(bert, THINNED)
    assert caught.value.where == str(bert / "tokenizer_config.json")


def test_generation_settings_of_a_language_model_come_along(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path / "llama")
    out = prepare(tmp_path / "llama", THINNED).write(tmp_path / "out")
    assert transformers.GenerationConfig.from_pretrained(out).max_new_tokens == 7


def test_heads_that_align_words_are_renumbered_with_whispers_decoder_blocks(tmp_path: Path) -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 4, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.WhisperConfig(
        d_model=16,
        vocab_size=20,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        pad_token_id=0,
        max_source_positions=20,
        **sizes,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config.alignment_heads = [[1, 0], [3, 1], [2, 0]]
    model.save_pretrained(tmp_path / "whisper")
    few = Truncate(keep_blocks=[0, 3], stack="model.decoder.layers")
    prepared = prepare(tmp_path / "whisper", few)
    assert any("1 of 3 alignment_heads are left" in note for note in prepared.plan.notes)
    out = prepared.write(tmp_path / "out")
    assert json.loads((out / "generation_config.json").read_text())["alignment_heads"] == [[1, 1]]
    none = prepare(tmp_path / "whisper", Truncate(keep_blocks=[0], stack="model.decoder.layers")).write(
        tmp_path / "one"
    )
    assert "alignment_heads" not in json.loads((none / "generation_config.json").read_text())


def test_sentence_modules_stay_with_a_thinned_encoder(tmp_path: Path) -> None:
    out = prepare(folders.sentences(tmp_path / "st"), THINNED).write(tmp_path / "out")
    assert json.loads((out / "1_Pooling" / "config.json").read_text())["word_embedding_dimension"] == 16
    assert (out / "2_Dense" / "model.safetensors").exists()
    assert (out / "modules.json").exists()


def test_sentence_modules_are_left_behind_where_no_config_builds_the_result(tmp_path: Path) -> None:
    prepared = prepare(folders.sentences(tmp_path / "st"), Truncate(after="encoder.layer.1"))
    assert any("left behind: sentence-transformers modules" in note for note in prepared.plan.notes)
    out = prepared.write(tmp_path / "out")
    assert not (out / "modules.json").exists()
    assert (out / "tokenizer.json").exists()


def wide(width: int, rows: int = len(folders.WORDS)) -> torch.nn.Module:
    config = transformers.BertConfig(
        vocab_size=rows, hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    return transformers.BertModel(config)


def companions(folder: Path):
    from surgeon.architectures.source import open_source
    from surgeon.plugins import load

    return companions_of(open_source(folder, plugins=load()))


def test_pooling_is_given_the_new_width(tmp_path: Path) -> None:
    folder = folders.sentences(tmp_path / "st")
    shutil.rmtree(folder / "2_Dense")
    beside = adapt(companions(folder), [], Sizes(16, None), wide(12))
    pooling = next(companion for companion in beside.companions if companion.name == "1_Pooling/config.json")
    assert pooling.json()["word_embedding_dimension"] == 12


def test_a_trained_module_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match=r"2_Dense/model.safetensors was trained on vectors of width 16"):
        adapt(companions(folders.sentences(tmp_path / "st")), [], Sizes(16, None), wide(12))


def test_weights_for_each_block_are_refused_where_blocks_go(tmp_path: Path) -> None:
    folder = folders.sentences(tmp_path / "st")
    (folder / "2_Dense" / "config.json").write_text(
        '{"embedding_dimension": 16, "layer_start": 1, "num_hidden_layers": 4}'
    )
    with pytest.raises(OperationError, match=r"2_Dense/config.json weighs the outputs of 4 blocks, and .* has 2 now"):
        prepare(folder, THINNED)
    assert prepare(folder, Freeze(sites="encoder.layer.0")).plan.notes


def test_a_tokenizer_of_more_tokens_than_the_new_embedding_is_refused(bert: Path) -> None:
    with pytest.raises(OperationError, match="token ids up to 9, and the embedding has 6 rows"):
        adapt(companions(bert), [], Sizes(16, 10), wide(16, rows=6))


def test_a_new_resolution_changes_the_processors_size(tmp_path: Path) -> None:
    out = prepare(folders.vit(tmp_path / "vit"), AdaptInput(image_size=64)).write(tmp_path / "out")
    assert transformers.AutoImageProcessor.from_pretrained(out).size == {"height": 64, "width": 64}


def test_new_channels_change_mean_and_deviation(tmp_path: Path) -> None:
    out = prepare(folders.vit(tmp_path / "vit"), AdaptInput(channels=1)).write(tmp_path / "out")
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    assert (list(processor.image_mean), list(processor.image_std)) == ([0.5], [0.5])


def test_new_classes_change_their_count_in_the_processor_and_a_file_of_old_names_is_noted(tmp_path: Path) -> None:
    folders.vit(tmp_path / "in")
    config = tmp_path / "in" / "preprocessor_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_labels": 2, "class_info_file": "ade20k.json"}))
    prepared = prepare(tmp_path / "in", ReplaceHead(classes=["cat", "dog", "owl"]))
    out = prepared.write(tmp_path / "out")
    assert json.loads((out / "preprocessor_config.json").read_text())["num_labels"] == 3
    assert "preprocessor_config.json: 3 classes instead of 2" in prepared.plan.notes
    assert any("class_info_file ade20k.json has the names of the old classes" in note for note in prepared.plan.notes)
    kept = prepare(tmp_path / "in", Freeze(sites="@stem"))
    assert not any("classes" in note for note in kept.plan.notes)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_what_a_single_file_does_not_hold_is_said(bert: Path, tmp_path: Path, capfd, suffix: str) -> None:
    (tmp_path / "recipe.yaml").write_text("operations: [{op: truncate, keep_blocks: 2}]\n")
    out = tmp_path / f"out{suffix}"
    assert cli.run(["apply", str(tmp_path / "recipe.yaml"), str(bert), "-o", str(out)]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "not in the file: tokenizer (2 files), chat template, licence, base model's card" in said


def test_a_file_of_a_module_that_changed_since_it_was_written_is_noticed(tmp_path: Path) -> None:
    out = prepare(folders.sentences(tmp_path / "st"), THINNED).write(tmp_path / "out")
    surgeon.verify(out)
    (out / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 17}')
    with pytest.raises(SurgeonError, match="changed") as caught:
        surgeon.verify(out)
    assert str(caught.value.where).endswith("1_Pooling/config.json")
