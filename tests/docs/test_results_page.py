"""The page about using results without surgeon: its commands and its Python run, the Python where surgeon is not."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases.material import save_vit
from torchvision.models import resnet18

import surgeon.docs
from surgeon.cli import run

PAGE = Path(surgeon.docs.__path__[0], "results.md")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
RECIPES = {
    "head.yaml": "operations:\n  - {op: replace_head, classes: [cat, dog, rabbit]}\n",
    "cut.yaml": "operations:\n  - {op: truncate, after: layer1}\n  - {op: replace_head, classes: 3}\n",
    "cut_vit.yaml": "operations:\n  - {op: truncate, after: '@blocks[0]'}\n  - {op: replace_head, classes: 3}\n",
}
ALONE = """
import sys

class NoSurgeon:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "surgeon":
            raise ImportError(name)

sys.meta_path.insert(0, NoSurgeon())
"""


def test_the_page_keeps_its_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    for name, text in RECIPES.items():
        Path(name).write_text(text, encoding="utf-8")
    torch.save(resnet18().state_dict(), "resnet18.pth")
    save_vit(tmp_path / "vit", num_hidden_layers=2)
    for line in "".join(text for language, text in BLOCKS if not language).splitlines():
        assert run([*shlex.split(line)[1:], "-q"]) == 0, line
    script = ALONE + "".join(text for language, text in BLOCKS if language == "python")
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "{0: 'cat', 1: 'dog', 2: 'rabbit'}" in process.stdout
    assert "replace_head" in process.stdout
