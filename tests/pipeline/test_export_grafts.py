"""Grafted networks exported for transformers: they come back by AutoModel, without surgeon, and train on."""

from __future__ import annotations

import json
from pathlib import Path

import companion_folders
import families
import pytest
import torch
import torchvision
import transformers
from torch import nn

import surgeon
from surgeon import cli
from surgeon.pipeline.exports.grafts.code import file_of


def branch() -> nn.Module:
    return surgeon.apply(families.build("bert"), [surgeon.Multitask(tasks={"domain": {"classes": 3}})])


def frozen_reversal() -> nn.Module:
    operations = [surgeon.Freeze(up_to="@blocks[0]"), surgeon.GradientReversal(at="@blocks[1]")]
    return surgeon.apply(families.build("hf_vit"), operations)


def early_end() -> nn.Module:
    return surgeon.apply(families.build("bert"), [surgeon.Truncate(after="bert.encoder.layer.1")])


def adapters() -> nn.Module:
    return surgeon.apply(families.build("bert"), [surgeon.Insert(at="@blocks", kind="adapter")])


def columns() -> nn.Module:
    return surgeon.apply(families.build("bert"), [surgeon.Progressive(task="new", classes=3)])


NETWORKS = (branch, frozen_reversal, early_end, adapters, columns)


@pytest.mark.parametrize(
    "make", [pytest.param(make, marks=pytest.mark.slow) if make in (branch, early_end) else make for make in NETWORKS]
)
def test_a_grafted_network_comes_back_without_surgeon_and_with_the_same_outputs(make, tmp_path):
    exported = surgeon.export(make(), tmp_path / "net", to="hf")  # in a process that cannot import surgeon
    assert exported.outputs
    assert exported.difference < 1e-5  # other kernels may run on the tensors of a file, which lie elsewhere in memory
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_grafted.GraftedNetwork"
    for file in (tmp_path / "net").glob("*.py"):
        assert "import surgeon" not in file.read_text().replace("import surgeons_", "")
        assert "from surgeon." not in file.read_text()


def torchvision_network(*operations: surgeon.Operation, name: str = "squeezenet1_1", channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, num_classes=5).eval()
    return surgeon.apply(network, operations, inputs=[[2, channels, 64, 64]])


TORCHVISION = {
    "branches": lambda: torchvision_network(surgeon.Multitask(tasks={"domain": {"classes": 3}})),
    "an early end": lambda: torchvision_network(surgeon.Truncate(after="features.5")),
    "columns": lambda: torchvision_network(surgeon.Progressive(task="new", classes=3)),
    "columns of two builders": lambda: torchvision_network(
        surgeon.Progressive(task="new", classes=3, arch="torchvision/shufflenet_v2_x0_5")
    ),
    "another head, frozen": lambda: torchvision_network(
        surgeon.ReplaceHead(classes=["a", "b"]), surgeon.Freeze(up_to="stage2"), name="shufflenet_v2_x0_5"
    ),
    "fewer blocks": lambda: torchvision_network(surgeon.Truncate(keep_blocks=0.5), name="shufflenet_v2_x0_5"),
    "channels": lambda: torchvision_network(surgeon.AdaptInput(channels=1), channels=1),
}


SIBLINGS = ("another head, frozen", "fewer blocks", "channels", "branches", "columns")
"""Stock structures with other sizes go the way of an early end, and parts of one builder that of two builders."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SIBLINGS else case for case in TORCHVISION]
)
def test_a_network_of_torchvision_comes_back_without_surgeon_and_with_the_same_outputs(case, tmp_path):
    exported = surgeon.export(TORCHVISION[case](), tmp_path / "net", to="hf")
    assert exported.outputs
    assert exported.difference < 1e-5  # other kernels may run on the tensors of a file, which lie elsewhere in memory
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_grafted.GraftedNetwork"


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """One place for the code of all folders: Python looks for parts of a package only where it first found some."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("modules")
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
        yield folder


@pytest.mark.usefixtures("modules")
def test_an_artifact_of_a_network_of_torchvision_trains_on_without_surgeon(tmp_path):
    network = TORCHVISION["another head, frozen"]()
    surgeon.save(network, tmp_path / "artifact")
    assert cli.run(["export", str(tmp_path / "artifact"), "--to", "hf", "-o", str(tmp_path / "net")]) == 0
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "net", trust_remote_code=True).train()
    frozen = {f"network.{name}" for name, p in network.named_parameters() if not p.requires_grad}
    assert {name for name, p in loaded.named_parameters() if not p.requires_grad} == frozen != set()
    loaded(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all((p.grad is None) == (name in frozen) for name, p in loaded.named_parameters())


@pytest.mark.usefixtures("modules")
def test_it_trains_saves_and_loads_as_any_network_of_transformers(tmp_path):
    network = frozen_reversal()
    surgeon.export(network, tmp_path / "net", to="hf")
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "net", trust_remote_code=True)
    frozen = {f"network.{name}" for name, p in network.named_parameters() if not p.requires_grad}
    assert {name for name, p in loaded.named_parameters() if not p.requires_grad} == frozen != set()
    before = {name: p.detach().clone() for name, p in loaded.named_parameters()}
    optimizer = torch.optim.SGD([p for p in loaded.parameters() if p.requires_grad], 0.1)
    pictures = torch.randn(2, 3, loaded.network.config.image_size, loaded.network.config.image_size)
    outputs = loaded.train()(pictures)
    (outputs["domain"].square().sum() + outputs["logits"].square().sum()).backward()
    optimizer.step()
    moved = {name for name, p in loaded.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not moved & frozen
    loaded.eval().save_pretrained(tmp_path / "again")
    again = transformers.AutoModel.from_pretrained(tmp_path / "again", trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(again(pictures)["domain"], loaded(pictures)["domain"])


def test_what_lies_beside_the_weights_is_exported_with_them(tmp_path, capsys):
    companion_folders.bert(tmp_path / "bert")
    edited = surgeon.apply(str(tmp_path / "bert"), [surgeon.Multitask(tasks={"domain": {"classes": 3}})])
    surgeon.save(edited, tmp_path / "artifact")
    command = ["export", str(tmp_path / "artifact"), "--to", "hf", "-o", str(tmp_path / "net")]
    assert cli.run(command) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "trust_remote_code=True" in printed
    assert {"tokenizer.json", "LICENSE", "README.base.md"} <= {file.name for file in (tmp_path / "net").iterdir()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "net")
    assert (
        tokenizer("abc def")["input_ids"]
        == transformers.AutoTokenizer.from_pretrained(tmp_path / "bert")("abc def")["input_ids"]
    )
    assert cli.run([*command, "--force"]) == 0


def test_files_of_the_code_are_named_after_the_modules_that_they_hold():
    assert file_of("surgeon.nn.grafts") == "surgeons_nn_grafts"
    assert Path(f"{file_of('surgeon.errors')}.py").name == "surgeons_errors.py"
