"""Sounds become what the checkpoint's own feature extractor makes of them, from files of any rate."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
from scipy.io import wavfile

import surgeon
from surgeon.architectures.preprocessing import preprocessing_of
from surgeon.data import sound_files
from surgeon.data.audio import Sound
from surgeon.data.settings import Waves
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import UNKNOWN
from surgeon.interfaces.record import Record

EXTRACTORS = {
    "wav2vec2": lambda: transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=True),
    "wav2vec2 without a mask": lambda: transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
    "whisper": lambda: transformers.WhisperFeatureExtractor(chunk_length=1),
    "ast": lambda: transformers.ASTFeatureExtractor(max_length=64, mean=-4.0, std=4.5),
    "seamless": lambda: transformers.SeamlessM4TFeatureExtractor(),
    "speech_to_text at 8 kHz": lambda: transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000),
    "clap": lambda: transformers.ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc"),
}


def tone(rate: int, seconds: float = 0.6) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def record_with(folder: Path) -> Record:
    from surgeon.checkpoint.companions import read_companions

    record = Record(architecture=None, source=str(folder))
    record.carry(read_companions(folder))
    return record


@pytest.mark.parametrize("name", EXTRACTORS)
def test_sounds_are_those_of_the_official_extractor(name: str, tmp_path: Path) -> None:
    EXTRACTORS[name]().save_pretrained(tmp_path)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    samples = tone(extractor.sampling_rate)
    official = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    sound = Sound("sound", Waves(), Path(), preprocessing_of(record_with(tmp_path), {"sounds"}))
    inputs = sound({"sound": samples}, 0, False)
    for key, value in inputs.items():
        assert torch.equal(value, official[key][0]), key
    assert {"input_values", "input_features"} & set(inputs)


def test_a_sound_of_another_rate_is_resampled(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "slow.wav", 8000, tone(8000))
    sound = Sound("file", Waves(normalise=False), tmp_path)
    waveform = sound({"file": "slow.wav"}, 0, False)["input_values"].numpy()
    expected = tone(16000)
    assert len(waveform) == len(expected)
    assert np.abs(waveform - expected)[200:-200].max() < 1e-2


def test_a_file_other_than_wav_names_the_extra_without_soundfile(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sound_files, "find_spec", lambda name: None)
    (tmp_path / "a.flac").write_bytes(b"fLaC\0\0")
    with pytest.raises(TrainingError, match=r"a\.flac cannot be read as a \.wav") as caught:
        Sound("file", Waves(), tmp_path)({"file": "a.flac"}, 0, False)
    assert "[audio]" in str(caught.value.hint)


def test_soundfile_reads_every_kind_where_it_is_installed(tmp_path: Path, monkeypatch) -> None:
    stereo = np.stack([tone(16000), np.zeros_like(tone(16000))], 1)
    reader = ModuleType("soundfile")
    reader.read = lambda file, dtype, always_2d: (stereo, 16000)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "soundfile", reader)
    monkeypatch.setattr(sound_files, "find_spec", lambda name: object())
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    waveform = Sound("file", Waves(normalise=False), tmp_path)({"file": "a.mp3"}, 0, False)["input_values"]
    assert np.allclose(waveform.numpy(), tone(16000) / 2)


def test_raw_sounds_are_cut_after_ten_seconds_unless_the_recipe_says_otherwise() -> None:
    long = np.zeros(200_000, np.float32) + 0.1
    assert len(Sound("s", Waves(), Path())({"s": long}, 0, False)["input_values"]) == 160_000
    assert len(Sound("s", Waves(longest=70), Path())({"s": long}, 0, False)["input_values"]) == 70


def test_a_recipe_overrides_the_mask(tmp_path: Path) -> None:
    assert Sound("s", Waves(), Path(), UNKNOWN).names == ["input_values", "attention_mask"]
    assert Sound("s", Waves(mask=False), Path(), UNKNOWN).names == ["input_values"]


def whisper(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=10, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_mel_bins=80, max_source_positions=50,
        num_labels=2, classifier_proj_size=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    transformers.WhisperForAudioClassification(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder)
    return folder


def test_whisper_is_fine_tuned_from_wav_files(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        pitch, kind = ((300, "low"), (3000, "high"))[number % 2]
        time = np.arange(8000) / 16000
        wavfile.write(tmp_path / f"{number}.wav", 16000, np.sin(2 * np.pi * (pitch + number) * time).astype(np.float32))
        rows.append(f"{number}.wav,{kind}")
    (tmp_path / "t.csv").write_text("\n".join(["file,kind", *rows]) + "\n")
    model = surgeon.load(whisper(tmp_path / "whisper"))
    settings = {
        "data": {"source": "table", "path": str(tmp_path / "t.csv"), "audio": "file", "targets": {"labels": "kind"}},
        "epochs": 2,
        "batch_size": 4,
    }
    from surgeon.recipe.train_settings import TrainSettings
    from surgeon.training.session import train

    train(model, TrainSettings.model_validate(settings), quiet=True)
    assert surgeon.record_of(model).preprocessing["sounds"]["config"]["feature_size"] == 80


CUT_BY_THEMSELVES = {
    "whisper": (lambda: transformers.WhisperFeatureExtractor(chunk_length=1), 16000),
    "ast": (lambda: transformers.ASTFeatureExtractor(max_length=64), 400 + 64 * 160 - 1),
    "clap": (lambda: transformers.ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc"), 48000),
    "wav2vec2": (lambda: transformers.Wav2Vec2FeatureExtractor(), 160_000),
    "seamless": (lambda: transformers.SeamlessM4TFeatureExtractor(), None),
}


@pytest.mark.parametrize("name", CUT_BY_THEMSELVES)
def test_the_longest_sound_is_known_where_the_extractor_cuts_it(name: str, tmp_path: Path) -> None:
    make, most = CUT_BY_THEMSELVES[name]
    make().save_pretrained(tmp_path)
    sound = Sound("sound", Waves(), Path(), preprocessing_of(record_with(tmp_path), {"sounds"}))
    assert sound.most == most
    if name in ("whisper", "ast"):
        samples = np.random.default_rng(0).normal(size=most + 400).astype(np.float32)
        whole, cut, less = (sound({"sound": samples[:size]}, 0, False)[sound.names[0]] for size in (None, most, -600))
        assert torch.allclose(whole, cut)
        assert not torch.allclose(whole, less)
