"""recipes/digits.pt is what recipes/make_digits.py makes.

On the machine that made the file the rebuilt weights are equal bit for bit (also seen with other numbers of
threads). Processors and versions of PyTorch round differently, and training magnifies that, so what is asked for
everywhere is the same tensors, the same accuracy within a point, and the same prediction for 99 of 100 samples.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5

from surgeon.training.data import load_data
from surgeon.training.settings import Digits

RECIPES = Path(__file__).parents[2] / "recipes"


def predictions(path: Path) -> tuple[dict[str, tuple[torch.Size, torch.dtype]], torch.Tensor, float]:
    state = torch.load(path, weights_only=True)
    model = shufflenet_v2_x0_5(num_classes=5).eval()
    model.load_state_dict(state)
    test = load_data(Digits(classes=[0, 1, 2, 3, 4])).test.columns
    with torch.no_grad():
        predicted = model(test["pixel_values"]).argmax(1)
    facts = {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
    return facts, predicted, (predicted == test["labels"]).float().mean().item()


def test_the_shipped_checkpoint_is_small_bare_and_good():
    assert (RECIPES / "digits.pt").stat().st_size < 2_000_000
    _, _, accuracy = predictions(RECIPES / "digits.pt")
    assert accuracy > 0.95


@pytest.mark.timeout(900)
def test_the_script_rebuilds_the_shipped_checkpoint(tmp_path):
    subprocess.run([sys.executable, RECIPES / "make_digits.py", tmp_path / "digits.pt"], check=True)
    facts, predicted, accuracy = predictions(RECIPES / "digits.pt")
    again, predicted_again, accuracy_again = predictions(tmp_path / "digits.pt")
    assert again == facts
    assert (predicted == predicted_again).float().mean() >= 0.99
    assert abs(accuracy - accuracy_again) <= 0.01
