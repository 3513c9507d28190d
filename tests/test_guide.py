"""The guide for plugin authors: every block runs, every hook has an example, every method of Surgery is named."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from benchmarks import bad_plugins
from torch import nn
from torchvision.models import VisionTransformer

import surgeon
import surgeon.testing as kit
from surgeon import cli
from surgeon.checkpoint.formats import memory_checkpoint
from surgeon.interfaces.import_plugin import HOOKS
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.registered import registered
from surgeon.surgery.context import Surgery
from surgeon.testing import pytest_plugin
from surgeon.testing.promises import PROMISES, SLOW_PROMISES
from surgeon.training.objectives import check_options
from surgeon.training.schedules import curve_of

GUIDE = Path(__file__).resolve().parents[1] / "plugins" / "README.md"
TEXT = GUIDE.read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
IMAGES = (torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(scope="module")
def guide() -> ModuleType:
    """The names of all blocks, in a module of their own, as in one file of an author's."""
    module = sys.modules["guide_of_plugins"] = ModuleType("guide_of_plugins")
    for block in PYTHON:
        exec(compile(block, str(GUIDE), "exec"), vars(module))
    return module


def build() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)


def section(hook: str) -> str:
    return TEXT.partition(f"### `{hook}`")[2].partition("\n### ")[0].partition("\n## ")[0]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_with_an_example(hook):
    assert section(hook), f"plugins/README.md has no section on {hook}"
    assert any(f"@hookimpl\ndef {hook}(" in block for block in PYTHON)


def test_every_public_method_of_surgery_is_named():
    table = TEXT.partition("### `Surgery`")[2].partition("\n###")[0]
    named = set(re.findall(r"`(?:surgery\.)?(\w+)`", table))
    public = {name for name in dir(Surgery) if not name.startswith("_")} | {"model", "architecture"}
    assert public - named == set()
    assert "`surgery.model`" in table


def test_every_check_of_the_kit_and_method_of_an_operation_is_named():
    assert {name for name in kit.__all__ if f"`{name}`" not in TEXT} == set()
    methods = [n for n, m in vars(Operation).items() if inspect.isfunction(m) or isinstance(m, classmethod)]
    public = {n for n in methods if not n.startswith("_")} - {"describe", "documentation"}
    assert {name for name in public if f"{name}(" not in TEXT and f"`{name}`" not in TEXT} == set()


def test_the_commands_of_the_guide_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^```\n(surgeon .*?)^```$", TEXT, re.M | re.S)
    assert commands
    for line in "".join(commands).splitlines():
        assert cli.run(line.split()[1:]) == 0
    assert (tmp_path / "surgeon-soft-gates/pyproject.toml").is_file()


def test_the_operations_of_the_guide_keep_surgeons_promises(guide):
    for operation in (guide.Calm(), guide.Halve(), guide.Factor(), guide.Auxiliary(classes=2), guide.Fade(factor=0.5)):
        kit.check_operations(build, [operation], IMAGES)


def test_the_test_of_the_guide_passes_and_catches_a_value_that_would_be_lost(guide, monkeypatch):
    guide.test_calm()

    def apply(self: Operation, model: nn.Module, surgery: Surgery) -> nn.Module:
        for site in surgery.select(self.at):
            layer = surgery.new(nn.LayerNorm, surgery.shape(site)[-1], like=site)
            nn.init.constant_(layer.weight, self.scale)  # a skeleton has no values yet: surgery.fill
            surgery.insert(site, layer, name="calm")
        return surgery.model

    monkeypatch.setattr(guide.Calm, "apply", apply)
    with pytest.raises(surgeon.OperationError, match=r"surgery\.fill"):
        guide.test_calm()


@pytest.mark.parametrize("promise", ["modules", "batches", "artifact"])
def test_the_three_lines_of_the_guide_check_a_promise_each(guide, promise):
    assert guide.pytest_plugins == [pytest_plugin.__name__]
    guide.test_each_promise(pytest_plugin._check_of(promise), pytest_plugin.SmallNetwork(build, IMAGES))


def test_every_promise_is_in_the_guide():
    assert {name for name in (*PROMISES, *SLOW_PROMISES) if f"`{name}`" not in TEXT} == set()


def test_the_recorded_fields_of_an_earlier_version_are_migrated(guide):
    assert guide.Fade.migrate({"percent": 50}, 1) == {"factor": 0.5}


TESTS = {hook: re.findall(r"^Test: `(check_\w+\(.*\))`$", section(hook), re.M) for hook in HOOKS}
"""The call of the kit in the section of each hook; commands have none."""


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "surgeon_commands"])
def test_the_example_of_every_hook_passes_the_check_that_its_section_names(hook, guide):
    assert TESTS[hook], f"the section on {hook} names no check of surgeon.testing"
    for call in TESTS[hook]:
        eval(call, {**vars(guide), **{name: getattr(kit, name) for name in kit.__all__}})


def test_the_penalty_and_the_second_provider_of_the_guide_pass_their_checks(guide):
    samples = [{"x": IMAGES[0][i % 2], "labels": torch.tensor(i % 2)} for i in range(4)]
    data = surgeon.Splits(samples, samples, inputs=("x",))
    objectives = [surgeon.Objective(output="logits")]
    kit.check_penalty(guide.SmallWeights(), build, data, batch_size=2, objectives=objectives)
    kit.check_provider(guide.Catalog())


def test_the_options_of_a_loss_are_used_and_others_are_refused(guide):
    prediction, labels = torch.tensor([[1.0, 0.4], [0.1, 2.0]]), torch.tensor([0, 0])
    mild, strict = (guide.hinge(prediction, labels, margin=margin) for margin in (0.1, 1.0))
    assert (mild < strict).all()
    within, beside = (
        surgeon.Objective(output="logits", **written)
        for written in ({"loss": {"hinge": {"margin": 0.5}}}, {"loss": "hinge", "options": {"margin": 0.5}})
    )
    assert within == beside
    with pytest.raises(surgeon.TrainingError, match=r"takes no option 'marge'[\s\S]*margin"):
        check_options(surgeon.Objective(output="logits", loss={"hinge": {"marge": 1}}), guide.hinge)


def test_the_metric_and_the_schedule_of_the_guide_are_used(guide):
    assert guide.top_share(torch.eye(4), torch.arange(4).roll(1), k=1) == 0
    metrics = [{"metric": "top_share", "k": 1}]
    objectives = [surgeon.Objective(output="logits")]
    settings = surgeon.TrainSettings(epochs=1, batch_size=4, baseline="none", metrics=metrics, objectives=objectives)
    samples = [{"x": IMAGES[0][i % 2], "labels": torch.tensor(i % 2)} for i in range(8)]
    data = surgeon.Splits(samples, samples, inputs=("x",))
    plugins = surgeon.load_plugins()
    plugins.register(guide, "guide")
    _, report = surgeon.finetune(
        build(), [surgeon.Freeze(up_to="@stem")], settings=settings, data=data, plugins=plugins
    )
    measured = report.tasks["logits"]["all"]
    assert measured["top_share"] == pytest.approx(measured["accuracy"])
    value = curve_of(
        surgeon.Schedule(buffer="b", kind="warm", peak=4, options={"until": 0.5}), guide.surgeon_schedules()
    )
    assert [value(0), value(0.25), value(1)] == [0, 2, 4]


def test_a_file_of_the_catalogue_is_identified_with_its_classes(guide):
    provider = guide.Catalog()
    network = provider.build(surgeon.Architecture(scheme="catalog", name="wide", options={"classes": 5}))
    match = provider.identify(memory_checkpoint(network.state_dict()))
    assert (match.architecture.name, match.architecture.options) == ("wide", {"classes": 5})


def test_what_the_operation_asks_of_training_is_used(guide):
    objectives = [surgeon.Objective(output="logits")]
    settings = surgeon.TrainSettings(epochs=2, batch_size=4, baseline="none", objectives=objectives)
    samples = [{"x": IMAGES[0][i % 2], "labels": torch.tensor(i % 2)} for i in range(8)]
    data = surgeon.Splits(samples, samples, inputs=("x",))
    with registered(guide.Auxiliary):
        model, _ = surgeon.finetune(build(), [guide.Auxiliary(classes=5)], settings=settings, data=data)
    assert model.get_buffer("grafts.auxiliary.head.mix") == 1


def test_what_the_guide_says_of_bad_plugins_is_what_surgeon_does():
    row = bad_plugins.table(sys.executable, bad_plugins.HOSTS[:1]).splitlines()[-1]
    assert row in TEXT.splitlines()


def test_a_command_of_the_guide_runs(tmp_path, capsys):
    block = next(block for block in PYTHON if "def surgeon_commands" in block)
    (tmp_path / "greeting.py").write_text(block, encoding="utf-8")
    assert cli.run(["greet", "--name", "you", "--plugin", str(tmp_path / "greeting.py")]) == 0
    assert "hello you" in capsys.readouterr().out
