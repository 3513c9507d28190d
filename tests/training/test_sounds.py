"""Sounds: an audio model fine-tuned end to end, and how samples become inputs."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from scipy.io import wavfile
from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

import surgeon
from surgeon.cli import app as cli
from surgeon.data.combine import load_source
from surgeon.data.sources import Saved, Table
from surgeon.errors import TrainingError


def tone(pitch: float, length: int, draw: np.random.Generator) -> np.ndarray:
    time = np.arange(length) / 16000
    return np.sin(2 * np.pi * pitch * time + draw.uniform(0, 6)) + 0.1 * draw.normal(size=length)


def saved(folder: Path, count: int = 24) -> Path:
    """Low and high tones of different lengths."""
    draw = np.random.default_rng(0)
    rows = [(pitch, name) for _ in range(count) for pitch, name in ((300.0, "low"), (3000.0, "high"))]
    sounds = [tone(pitch, int(draw.integers(500, 900)), draw).astype(np.float32).tolist() for pitch, _ in rows]
    table = datasets.Dataset.from_dict({"sound": sounds, "kind": [name for _, name in rows]})
    table.save_to_disk(str(folder / "tones"))
    return folder / "tones"


RECIPE = """
operations:
  - {op: replace_head, classes: [high, low]}
  - {op: freeze, sites: wav2vec2.feature_extractor.conv_layers.0}
train:
  data: {source: saved, path: tones, audio: sound, targets: {labels: kind}}
  epochs: 12
  batch_size: 8
  learning_rate: 0.003
"""


def wav2vec2() -> Wav2Vec2ForSequenceClassification:
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(16, 16),
        conv_kernel=(10, 4), conv_stride=(5, 4), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer", classifier_proj_size=8, num_labels=3, layerdrop=0.0, apply_spec_augment=False,
    )  # fmt: skip
    return Wav2Vec2ForSequenceClassification(config)


def test_an_audio_model_is_fine_tuned_from_a_recipe_end_to_end(tmp_path, capfd):
    wav2vec2().save_pretrained(tmp_path / "ears")
    saved(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    capfd.readouterr()
    out = tmp_path / "out"
    assert cli.run(["apply", str(tmp_path / "recipe.yaml"), str(tmp_path / "ears"), "--json", "-o", str(out)]) == 0
    report = json.loads(capfd.readouterr().out)["training"]
    assert report["accuracy_after"] >= 0.9
    assert Wav2Vec2ForSequenceClassification.from_pretrained(out).config.num_labels == 2


def test_sounds_are_normalised_and_padded_with_a_mask(tmp_path):
    splits = load_source(Saved(source="saved", path=str(saved(tmp_path)), audio="sound", targets={"labels": "kind"}))
    first, second = splits.train[0], splits.train[1]
    assert splits.inputs == ("input_values", "attention_mask")
    assert first["input_values"].mean().abs() < 1e-4
    assert first["input_values"].var(correction=0) == pytest.approx(1, abs=1e-3)
    batch = splits.collate([first, second])
    lengths = [len(sample["input_values"]) for sample in (first, second)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    short = lengths.index(min(lengths))
    assert not batch["input_values"][short, min(lengths) :].any()


@pytest.mark.parametrize("kind", ["int16", "uint8", "float32"])
def test_a_wav_file_beside_its_table_has_the_samples_that_were_written(tmp_path, kind):
    wave = np.sin(np.arange(400) / 7) / 2
    stereo = np.stack([wave, wave], 1)
    levels = {"int16": stereo * 32767, "uint8": stereo * 127 + 128, "float32": stereo}[kind].astype(kind)
    wavfile.write(tmp_path / "a.wav", 16000, levels)
    (tmp_path / "t.csv").write_text("file,y\n" + "a.wav,0\na.wav,1\n" * 3)
    fields = {"source": "table", "audio": "file", "targets": {"labels": "y"}}
    splits = load_source(Table(path=str(tmp_path / "t.csv"), waves={"normalise": False, "longest": 300}, **fields))
    assert np.allclose(splits.train[0]["input_values"].numpy(), wave[:300], atol=1 / 60)
    for bad, message in (
        ("t.csv", "cannot be read as a .wav"),
        ("no.wav", "no.wav"),
    ):
        (tmp_path / "bad.csv").write_text(f"file,y\n{bad},0\n{bad},1\n")
        with pytest.raises(TrainingError, match=message):
            load_source(Table(path=str(tmp_path / "bad.csv"), **fields))


def test_sounds_that_datasets_holds_as_files_are_read_too(tmp_path):
    wave = (np.sin(np.arange(400) / 7) * 32767).astype("int16")
    wavfile.write(tmp_path / "a.wav", 16000, wave)
    rows = datasets.Dataset.from_dict({"sound": [str(tmp_path / "a.wav")] * 4, "y": [0, 1, 0, 1]})
    rows.cast_column("sound", datasets.Audio(decode=False)).cast_column("sound", datasets.Audio()).save_to_disk(
        str(tmp_path / "saved")
    )
    source = Saved(source="saved", path=str(tmp_path / "saved"), audio="sound", targets={"labels": "y"})
    waves = load_source(source).train[0]["input_values"].numpy()
    assert np.corrcoef(waves, wave)[0, 1] > 0.999


def wav_files(folder: Path, seconds: list[float], rate: int = 16000) -> Path:
    draw = np.random.default_rng(0)
    folder.mkdir()
    for number, length in enumerate(seconds):
        wavfile.write(folder / f"{number}.wav", rate, tone(300.0, int(length * rate), draw).astype(np.float32))
    return folder


def test_sounds_that_are_cut_are_counted_in_training_prediction_and_evaluation(tmp_path):
    wav_files(tmp_path / "clips", [0.05, 0.2, 0.05, 0.05, 0.2, 0.05])
    rows = [f"{tmp_path}/clips/{n}.wav,{('high', 'low')[n % 2]},{('train', 'test')[n > 3]}" for n in range(6)]
    for part in ("train", "test"):
        kept = "".join(row.rsplit(",", 1)[0] + "\n" for row in rows if row.endswith(part))
        (tmp_path / f"{part}.csv").write_text("file,kind\n" + kept)
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    data = {"source": "table", "path": str(train), "test_path": str(test), "audio": "file"}
    data |= {"targets": {"labels": "kind"}, "waves": {"longest": 1600}}
    recipe = {"operations": [{"op": "replace_head", "classes": ["high", "low"]}], "train": {"data": data, "epochs": 1}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    notes = load_source(Table.model_validate(data)).notes
    model, _ = surgeon.finetune(wav2vec2(), tmp_path / "recipe.json")
    cut = "are longer than 0.1 s and are cut (waves: {longest: N} keeps N samples)"
    assert f"{train}: 1 of 4 sounds {cut.replace('are', 'is', 1).replace('and are', 'and is')}" in notes
    assert f"{test}: 1 of 2 sounds {cut.replace('are', 'is', 1).replace('and are', 'and is')}" in notes
    surgeon.save(model, tmp_path / "out")
    predicted = surgeon.predict(tmp_path / "out", tmp_path / "clips")
    assert f"{tmp_path / 'clips'}: 2 of 6 sounds {cut}" in predicted.notes
    evaluated = surgeon.evaluate(tmp_path / "out", test)
    assert any("1 of 2 sounds is longer than 0.1 s" in note for note in evaluated.notes)


def test_a_sound_with_a_sample_that_is_no_number_is_refused_by_its_name(tmp_path):
    draw = np.random.default_rng(0)
    for number, bad in enumerate((None, np.nan, np.inf, None)):
        samples = tone(300.0, 800, draw).astype(np.float32)
        if bad is not None:
            samples[100] = bad
        wavfile.write(tmp_path / f"{number}.wav", 16000, samples)
    (tmp_path / "t.csv").write_text("file,y\n" + "".join(f"{number}.wav,{number % 2}\n" for number in range(4)))
    fields = {"source": "table", "path": str(tmp_path / "t.csv"), "audio": "file", "targets": {"labels": "y"}}
    with pytest.raises(TrainingError, match=r"row 1: .*1\.wav has samples that are not finite") as caught:
        load_source(Table(**fields))
    assert "1 more row" in str(caught.value)
    assert len(load_source(Table(**fields, on_error="skip")).train) == 1
