"""What a command came to, as people see it."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

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


TASKS = {
    output: {
        domain: {"samples": 359, "loss": 0.25, "accuracy": 0.915, "f1": 0.9, "per_class": {"a": {}}, "confusion": [[1]]}
        for domain in ("all", "photographs", "drawings")
    }
    for output in ("species_of_the_animal", "age_group_of_the_animal")
}


def several() -> TrainReport:
    """A report of two tasks in two domains."""
    names = [f"{output}_{measure}" for output in TASKS for measure in ("loss", "accuracy")]
    values = dict.fromkeys(names, 0.5)
    return dataclasses.replace(report(None), before=values, after=values, baseline=values, tasks=TASKS)


@pytest.mark.parametrize("width", [80, 200])
def test_headers_and_values_of_several_tasks_are_whole_at_any_width(width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    console.print(render_training(several()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    for word in ("species of the animal loss", "age group of the animal accuracy", "before training", "from scratch"):
        assert word in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 200])
def test_each_task_and_domain_has_its_measures_as_in_the_file(width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    console.print(render_training(several()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for output, domains in TASKS.items():
        assert f"{output}, after training" in text
        for domain in domains:
            assert domain in text
    assert text.count("91.5 %") == 6
    assert "per class" not in text


def test_one_task_in_one_domain_has_no_table_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    show(render_training(dataclasses.replace(report(None), tasks={"logits": {"all": {"samples": 3, "f1": 0.9}}})))
    assert "f1" not in capsys.readouterr().out


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
    assert "2 tensors and 1 output of a forward are byte-identical" in out
    assert "1.50 kB" in out
    assert ("from_pretrained" in out) is stock


def test_what_was_not_compared_after_loading_again_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(render_saved(tmp_path, Reload(2, 3, None, "no forward past 134 MB")))
    assert "2 of 3 tensors are byte-identical (no forward past 134 MB)" in capsys.readouterr().out


def test_an_artifact_of_a_plugin_in_a_file_is_loaded_with_that_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surgery = {"plugins": {"operation widen": "widen.py", "operation gates": "surgeon-gates 1.0"}}
    (tmp_path / "surgeon.json").write_text(json.dumps({"record": {"surgeries": [surgery, surgery]}}))
    show(render_saved(tmp_path, None))
    assert f'surgeon.load("{tmp_path}", plugins=["widen.py"])' in capsys.readouterr().out
