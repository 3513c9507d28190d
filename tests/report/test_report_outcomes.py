"""What a command came to, as people see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.cli.render.consoles import show
from surgeon.cli.render.outcomes import render_saved, render_training
from surgeon.pipeline.reload_check import Reload
from surgeon.training.report import TrainReport


def report(baseline: dict[str, float] | None) -> TrainReport:
    return TrainReport(
        before={"logits_loss": 1.6094, "logits_accuracy": 0.2},
        after={"logits_loss": 0.0321, "logits_accuracy": 0.915},
        baseline=baseline,
        history=(),
        seconds=2.34,
        samples_per_second=4321.0,
        trainable=53_000,
        train_samples=100,
        test_samples=359,
        device="cpu",
        seed=0,
    )


def test_the_scores_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    show(render_training(report({"logits_loss": 1.4, "logits_accuracy": 0.5})))
    assert capsys.readouterr().out == (
        "\n"
        "on 359 test samples   loss  accuracy\n"
        "before training       1.61    20.0 %\n"
        "after training       0.032    91.5 %\n"
        "from scratch          1.40    50.0 %\n"
        "trained 53.0 k parameters on 100 samples in 2.3 s (4,321 samples/s, cpu)\n"
    )


def test_without_a_baseline_there_is_no_line_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    show(render_training(report(None)))
    assert "scratch" not in capsys.readouterr().out


@pytest.mark.parametrize("stock", [True, False])
def test_the_artifact_is_shown_with_the_ways_to_load_it(
    tmp_path: Path, stock: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1500))
    if stock:
        (tmp_path / "config.json").write_text("{}")
    show(render_saved(tmp_path, Reload(2, 2, 1)))
    out = capsys.readouterr().out
    assert f'surgeon.load("{tmp_path}")' in out
    assert "2 tensors and 1 output of a forward are the same to the byte" in out
    assert "1.50 kB" in out
    assert ("from_pretrained" in out) is stock


def test_what_was_not_compared_after_loading_again_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(render_saved(tmp_path, Reload(2, 3, None, "no forward past 134 MB")))
    assert "2 of 3 tensors are the same to the byte (no forward past 134 MB)" in capsys.readouterr().out
