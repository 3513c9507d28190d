"""``surgeon train``: artifacts and recipes, interruption and resumption, two processes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import surgeon
from surgeon import cli
from surgeon.training.callbacks import ProgressCallback

RECIPE = """
seed: 3
operations:
  - {op: multitask, tasks: {parity: {classes: 3, label: labels}}}
  - {op: freeze, up_to: stage2}
  - {op: unfreeze, stages: [{epoch: 1, sites: [stage4]}]}
  - {op: conserve, method: l2_sp}
train:
  data: {source: digits, classes: [0, 1, 2], per_class: 4, canvas: 8, size: 32, test_fraction: 0.1}
  epochs: 3
  batch_size: 6
  task_weights: uncertainty
  arguments: {lr_scheduler_type: cosine}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=3).state_dict(), path)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def weights(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


def manifest(path: Path) -> dict:
    return json.loads((path / "surgeon.json").read_text())


def killed_after(steps: int, arguments: list[str]) -> int:
    """Run the command line in a process of its own that dies, as by a power cut, after so many steps."""
    code = (
        "import os, sys, torch; torch.set_num_threads(1)\n"
        "from surgeon import cli\n"
        "from surgeon.training.callbacks import ProgressCallback\n"
        "step = ProgressCallback.on_step_begin\n"
        "def die(self, args, state, control, **kwargs):\n"
        f"    os._exit(77) if state.global_step == {steps} else None\n"
        "ProgressCallback.on_step_begin = die\n"
        "sys.exit(cli.run(sys.argv[1:]))\n"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode


def stopped_after(steps: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line until somebody presses Ctrl-C after so many steps."""

    def stop(self, args, state, control, **kwargs):
        if state.global_step == steps:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ProgressCallback, "on_step_begin", stop)
        return cli.run(arguments)


def test_an_interrupted_and_resumed_training_ends_with_the_same_bytes(checkpoint, recipe, tmp_path):
    run = ["train", str(recipe), str(checkpoint), "-q", "-o"]
    assert cli.run([*run, str(tmp_path / "whole")]) == 0
    cut = tmp_path / "cut"
    assert killed_after(5, [*run, str(cut)]) == 77, "in the third epoch, after all parts have begun to train"
    assert not cut.exists()
    assert cli.run([*run, str(cut)]) == 8, "an interrupted training is not overwritten"
    assert cli.run([*run, str(cut), "--resume"]) == 0
    assert weights(cut) == weights(tmp_path / "whole")
    assert manifest(cut)["record"]["training"] == manifest(tmp_path / "whole")["record"]["training"]
    assert not (tmp_path / "cut.checkpoints").exists()
    assert (tmp_path / "cut.svg").exists()


def test_a_training_is_resumed_in_the_midst_of_an_epoch(checkpoint, recipe, tmp_path, monkeypatch):
    recipe.write_text(RECIPE.replace("arguments: {", "arguments: {save_strategy: steps, save_steps: 1, "))
    run = ["train", str(recipe), str(checkpoint), "-q", "-o"]
    assert cli.run([*run, str(tmp_path / "whole")]) == 0
    cut = tmp_path / "cut"
    assert stopped_after(3, [*run, str(cut)], monkeypatch) == 130
    assert cli.run([*run, str(cut), "--resume"]) == 0
    assert weights(cut) == weights(tmp_path / "whole")
    kept = sorted(path.name for path in (tmp_path / "cut.checkpoints").iterdir())
    assert kept == [f"checkpoint-{step}" for step in range(1, 7)], "what was asked for stays"


def test_another_run_is_not_resumed(checkpoint, recipe, tmp_path, capfd, monkeypatch):
    run = ["train", str(recipe), str(checkpoint), "-q", "-o", str(tmp_path / "out")]
    assert cli.run([*run, "--resume"]) == 9
    assert "no interrupted training" in capfd.readouterr().err
    assert stopped_after(3, run, monkeypatch) == 130
    assert cli.run([*run, "--resume", "--seed", "4"]) == 9
    shown = capfd.readouterr().err
    assert "the seed (was 3, is 4); the initial weights" in shown


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("train.epochs=4", "train.epochs was 3.0 and is 4.0"),
        ("train.arguments.weight_decay=0.1", "train.arguments.weight_decay was nothing and is 0.1"),
        ("train.data.per_class=5", "train.data.per_class was 4 and is 5"),
    ],
)
def test_a_resume_names_the_key_that_has_changed(checkpoint, recipe, tmp_path, capfd, monkeypatch, setting, shown):
    run = ["train", str(recipe), str(checkpoint), "-q", "-o", str(tmp_path / "out")]
    assert stopped_after(3, run, monkeypatch) == 130
    capfd.readouterr()
    assert cli.run([*run, "--resume", "--set", setting]) == 9
    assert shown in capfd.readouterr().err


def test_a_resume_may_log_and_load_otherwise(checkpoint, recipe, tmp_path, monkeypatch):
    run = ["train", str(recipe), str(checkpoint), "-q", "-o", str(tmp_path / "out")]
    assert stopped_after(3, run, monkeypatch) == 130
    assert cli.run([*run, "--resume", "--set", "train.arguments.logging_first_step=true"]) == 0


def test_an_interrupt_says_what_is_kept_and_how_to_go_on(checkpoint, recipe, tmp_path, capfd, monkeypatch):
    out = tmp_path / "out"
    run = ["train", str(recipe), str(checkpoint), "-q", "-o", str(out), "--force"]
    assert stopped_after(3, run, monkeypatch) == 130
    shown = capfd.readouterr().err
    assert f"kept: {out}.checkpoints/checkpoint-2" in shown
    command = next(line for line in shown.splitlines() if "resume with:" in line).partition("surgeon ")[2]
    assert "--force" not in command
    assert cli.run(command.split()) == 0, "the command that is suggested works"
    assert out.exists()


def test_an_interrupt_before_the_first_checkpoint_says_so(checkpoint, recipe, tmp_path, capfd, monkeypatch):
    run = ["train", str(recipe), str(checkpoint), "-q", "-o", str(tmp_path / "out")]
    assert stopped_after(1, run, monkeypatch) == 130
    assert "no checkpoint was made yet" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_other_signals_are_taken_as_ctrl_c(checkpoint, recipe, tmp_path, name):
    code = (
        "import os, signal, sys, torch; torch.set_num_threads(1)\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)  # nohup lets a process ignore SIGHUP, which surgeon respects\n"
        "from surgeon import cli\n"
        "from surgeon.training.callbacks import ProgressCallback\n"
        "def stop(self, args, state, control, **kwargs):\n"
        f"    os.kill(os.getpid(), signal.{name}) if state.global_step == 3 else None\n"
        "ProgressCallback.on_step_begin = stop\n"
        "cli.main()\n"
    )
    arguments = ["train", str(recipe), str(checkpoint), "-q", "-o", str(tmp_path / "out")]
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 128 + getattr(signal, name), process.stderr
    assert "resume with:" in process.stderr
    assert "Traceback" not in process.stderr


def test_an_artifact_is_trained_by_its_own_recipe_or_by_another(checkpoint, recipe, tmp_path, capfd):
    made = tmp_path / "made"
    assert cli.run(["apply", str(recipe), str(checkpoint), "-q", "--no-train", "-o", str(made)]) == 0
    whole, own_folder, given = tmp_path / "whole", tmp_path / "own", tmp_path / "given"
    assert cli.run(["apply", str(recipe), str(checkpoint), "-q", "-o", str(whole)]) == 0
    assert cli.run(["train", str(made), "-q", "-o", str(own_folder)]) == 0
    assert weights(own_folder) == weights(whole) != weights(made)
    assert len(manifest(own_folder)["record"]["training"]) == 1
    assert len(manifest(own_folder)["record"]["surgeries"]) == 1
    recipe.write_text(RECIPE.replace("epochs: 3", "epochs: 2"))
    assert cli.run(["train", str(recipe), str(made), "--json", "-o", str(given)]) == 0
    assert len(json.loads(capfd.readouterr().out)["training"]["history"]) == 2
    assert len(manifest(given)["record"]["surgeries"]) == 1, "the artifact has been through these operations"
    assert surgeon.record_of(surgeon.load(given)).training[0]["settings"]["epochs"] == 2


def test_an_artifact_in_one_file_is_trained_too(checkpoint, recipe, tmp_path):
    made = tmp_path / "made.safetensors"
    assert cli.run(["apply", str(recipe), str(checkpoint), "-q", "--no-train", "-o", str(made)]) == 0
    assert cli.run(["train", str(made), "-q", "--set", "train.epochs=2", "-o", str(tmp_path / "out.pt")]) == 0
    assert len(surgeon.record_of(surgeon.load(tmp_path / "out.pt")).training) == 1


def test_a_recipe_without_a_train_section_is_refused(checkpoint, tmp_path, capfd):
    (tmp_path / "r.yaml").write_text("operations: [{op: freeze, all_but: head}]")
    assert cli.run(["train", str(tmp_path / "r.yaml"), str(checkpoint)]) == 3
    assert "no train: section" in capfd.readouterr().err


PLAIN = """
model: net.pt
arch: "python:small_network:build"
operations:
  - {op: freeze, sites: "0"}
  - {op: unfreeze, stages: [{epoch: 1, sites: ["3"]}]}
  - {op: conserve, method: l2_sp}
train:
  task_weights: uncertainty
  data:  # half of the labels are missing, and not as many in each process's batch
    - {source: digits, classes: [0, 1], per_class: 8, canvas: 8, size: 8, channels: 1}
    - {source: digits, classes: [0, 1], per_class: 8, canvas: 8, size: 8, channels: 1, seed: 1, labels: hidden}
  epochs: 2
  learning_rate: 0.01
"""
NETWORK = """
from torch import nn
def build():
    head = [nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 2)]
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), *head)
"""


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "small_network.py").write_text(NETWORK)
    (tmp_path / "recipe.yaml").write_text(PLAIN)
    torch.save(importlib.import_module("small_network").build().state_dict(), tmp_path / "net.pt")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = ["-m", "surgeon", "train", "recipe.yaml", "--json", "--set"]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29641"]
    reports = []
    for before, size, parts in (([], 8, 1), (launcher, 2, 2)):
        more = ["--set", f"train.arguments.gradient_accumulation_steps={parts}", "-o", f"out{size}"]
        line = [sys.executable, *before, *command, f"train.batch_size={size}", *more]
        process = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        reports.append(json.loads(process.stdout))  # one JSON document: only the first process prints
    one, two = (report["training"] for report in reports)
    assert [entry["loss"] for entry in two["history"]] == pytest.approx([e["loss"] for e in one["history"]], rel=1e-5)
    assert [entry["logits_labels"] for entry in two["history"]] == [16, 16]
    assert two["after"] == pytest.approx(one["after"], rel=1e-5)
    first, second = (surgeon.load(tmp_path / f"out{size}").state_dict() for size in (8, 2))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-6)
