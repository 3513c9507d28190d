"""The first command of the README, as a newcomer types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The artifact that the quickstart writes, and what it prints."""
    out = tmp_path_factory.mktemp("quickstart") / "out"
    command = [
        *(sys.executable, "-m", "surgeon", "apply"),
        *(str(RECIPES / "quickstart.yaml"), str(RECIPES / "digits.pt"), "-o", str(out)),
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return out, process.stdout


def held_out_accuracy(model: torch.nn.Module) -> float:
    from surgeon.data.digits import load_data
    from surgeon.recipe.train_settings import Digits

    test = load_data(Digits(classes=[5, 6, 7, 8, 9])).test.columns
    with torch.no_grad():
        return (model.eval()(test["pixel_values"]).argmax(1) == test["labels"]).float().mean().item()


@pytest.mark.timeout(600)
def test_the_artifact_reaches_the_accuracy_that_was_printed(quickstart):
    import surgeon

    out, printed = quickstart
    accuracy = held_out_accuracy(surgeon.load(out))
    assert f"{100 * accuracy:.1f}" in printed


@pytest.mark.timeout(600)
def test_fine_tuning_beats_the_same_network_from_scratch(quickstart):
    import surgeon

    out, printed = quickstart
    report = surgeon.load(out).surgeon_record.training[-1]["report"]
    assert report["accuracy_before"] < 0.4
    assert report["accuracy_after"] >= report["accuracy_baseline"] + 0.1
    for accuracy in (report["accuracy_before"], report["accuracy_after"], report["accuracy_baseline"]):
        assert f"{100 * accuracy:.1f}" in printed
