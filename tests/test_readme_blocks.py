"""Every block of code in the README runs as it stands; so do those of two pages of the site."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from cases.material import COLOURS, paint, save_vit
from readme import README
from signing_keys import write_key
from torchvision.models import resnet50

from surgeon.cli import run


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code in one language, without the output of commands."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^(<!-- output: .*? -->\n)?```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [code for _, name, code in fences if name == language]


def commands(page: Path) -> list[str]:
    """The commands of a page that no other test runs, with single blanks."""
    lines = "".join(blocks(page, "")).splitlines()
    typed = [" ".join(part.split()) for line in lines for part in line.split("#")[0].split("&&")]
    return [command for command in typed if command not in ELSEWHERE]


COMMAND_LINE, FINE_TUNING = (README.parent / "surgeon/docs" / name for name in ("command_line.md", "fine_tuning.md"))
YAML, PYTHON = blocks(README, "yaml"), blocks(README, "python")
ELSEWHERE = {
    "python -m pip install '.[train]'": "tests/test_quickstart.py",
    "surgeon apply recipes/quickstart.yaml recipes/digits.pt": "tests/test_quickstart.py",
    "python -m pip install -e '.[test]'": "this environment",
    "pytest": "this run",
}
"""Commands that other tests run, or that this one stands on."""
CODES = {"diff": 20, "push": 12}
"""Exit codes other than 0: the networks differ; there is no token here."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What its commands name: the first recipe, a ResNet-50, pictures, a test set, a key, as the working directory."""
    path = tmp_path_factory.mktemp("readme")
    torch.manual_seed(0)
    torch.save(resnet50().state_dict(), path / "resnet50.pth")
    (path / "recipe.yaml").write_text(YAML[0], encoding="utf-8")
    paint(path / "pictures", COLOURS[0], 2)
    for colour, name in zip(COLOURS, ("cat", "dog", "rabbit"), strict=False):
        paint(path / "test" / name, colour, 2)
        paint(path / "pets" / name, colour, 10)
    save_vit(path / "vit", num_hidden_layers=2)
    config = transformers.BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=12, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertForSequenceClassification(config).save_pretrained(path / "bert-base-uncased")
    if find_spec("model_signing") is not None:
        write_key(path, "ann")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.delenv("HF_TOKEN", raising=False)
        yield path


def test_the_blocks_are_found():
    assert (len(YAML), len(PYTHON)) == (2, 2)
    assert len(commands(README)) >= 6
    assert len(commands(COMMAND_LINE)) >= 12


def test_the_pages_show_the_recipes_of_the_readme():
    assert blocks(COMMAND_LINE, "yaml") == YAML[:1]
    assert yaml.safe_load(blocks(FINE_TUNING, "yaml")[0]) == yaml.safe_load(YAML[1])


def test_the_commands_run_one_after_the_other(folder: Path, capsys: pytest.CaptureFixture[str]):
    for command in dict.fromkeys([*commands(COMMAND_LINE), *commands(README)]):
        program, *arguments = shlex.split(command)
        assert program == "surgeon"
        if "onnx" in arguments and find_spec("onnxruntime") is None:
            continue
        if arguments[0] == "sign" and find_spec("model_signing") is None:
            continue
        code = run(arguments)
        printed = capsys.readouterr()
        assert code == CODES.get(arguments[0], 0), f"{command}: {printed.err}"
    assert (folder / "out/recipe/surgeon.json").exists()


def test_the_training_of_the_readme_trains(folder: Path):
    operations = "operations:\n  - {op: replace_head, classes: [cat, dog, rabbit]}\n"
    (folder / "pets.yaml").write_text(operations + YAML[1], encoding="utf-8")
    assert run(["apply", "pets.yaml", "vit", "-o", "out/pets", "--quiet"]) == 0
    assert run(["check", "out/pets", "--source", "vit", "--quiet"]) == 0


def test_the_first_python_runs(folder: Path):
    names: dict[str, object] = {}
    exec(compile(PYTHON[0], str(README), "exec"), names)
    assert len(transformers.AutoModel.from_pretrained("short-bert").encoder.layer) == 6


def test_the_plugin_is_used_at_once(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "widen.py").write_text(PYTHON[1], encoding="utf-8")
    (folder / "widen.yaml").write_text("operations:\n  - {op: widen, share: 0.2}\n", encoding="utf-8")
    assert run(["apply", "widen.yaml", "vit", "--plugin", "widen.py", "-o", "out/widened"]) == 0
    assert run(["plan", "widen.yaml", "vit", "--plugin", "widen.py"]) == 0
    assert "widened" in capsys.readouterr().out
