"""The recipe of this folder: pruned on data, and distilled back from the network before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import surgeon

FOLDER = Path(__file__).parents[1]
DIGITS = FOLDER.parents[1] / "recipes" / "digits.pt"


def test_the_recipe_prunes_and_distils():
    recipe = surgeon.load_recipe(FOLDER / "recipe.yaml", overrides=["train.epochs=4"])
    network, report = surgeon.finetune(DIGITS, recipe.operations, settings=recipe.train, quiet=True)
    whole = surgeon.load(DIGITS, arch="torchvision/shufflenet_v2_x0_5")
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in whole.parameters())
    assert report.after["logits_accuracy"] > report.before["logits_accuracy"]


def test_the_installed_operations_are_listed_without_torch():
    code = "import sys, surgeon_prune; sys.exit('torch' in sys.modules or 'torch_pruning' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    listing = subprocess.run([sys.executable, "-m", "surgeon", "ops"], capture_output=True, text=True, check=True)
    for name in ("prune_heads", "prune_mlp", "prune_channels", "prune_blocks"):
        assert name in listing.stdout
