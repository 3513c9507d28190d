"""Exports: what others load without surgeon gives the outputs that the network gives."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import families
import pytest
import safetensors.torch
import torch
from torch import nn

import surgeon
from surgeon import cli
from surgeon.pipeline.exports import comparison, exporter

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the extra surgeon-torch[onnx] is not installed")
SMALL = {"inputs": [[2, 3, 64, 64]]}


def early_end() -> nn.Module:
    return surgeon.apply(families.build("resnet"), [surgeon.Truncate(after="layer2")], **SMALL)


def unbuilt_end() -> nn.Module:
    return surgeon.apply(families.build("vgg"), [surgeon.Truncate(after="features.3")], **SMALL)


def branch() -> nn.Module:
    return surgeon.apply(families.build("bert"), [surgeon.Multitask(tasks={"domain": {"classes": 3}})])


def columns() -> nn.Module:
    return surgeon.apply(families.build("resnet"), [surgeon.Progressive(task="new", classes=3)], **SMALL)


def foreign() -> nn.Module:
    network = branch()
    network.bert.encoder.layer[1].output.dropout = Judge()
    return network


def stock() -> nn.Module:
    return surgeon.apply(families.build("bert"), [surgeon.ReplaceHead(classes=4)])


NETWORKS = {"early end": early_end, "branch": branch, "columns": columns, "stock": stock}


SIBLINGS = ("early end", "stock")
"""An early end has a branch's form, and a stock class is exported by its path on the command line below."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name in SIBLINGS else name for name in NETWORKS],
)
def network(request) -> nn.Module:
    return NETWORKS[request.param]()


def names(network: nn.Module) -> set[str]:
    """The outputs of a network, by a call of its own."""
    if hasattr(network, "config"):
        return set(network(torch.ones(2, 8, dtype=torch.int64)).keys())
    output = network(torch.zeros(2, 3, 64, 64))
    return {"output"} if isinstance(output, torch.Tensor) else set(output)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_program_runs_without_surgeon_on_any_batch(network, tmp_path):
    exported = surgeon.export(network, tmp_path / "net.pt2", to="torch-export")
    assert "batch" in exported.dynamic
    assert exported.cases >= 3
    assert set(exported.outputs) == names(network)
    assert files(tmp_path) == ["net.pt2"]


@needs_onnx
def test_a_graph_runs_without_surgeon_on_any_batch(network, tmp_path):
    exported = surgeon.export(network, tmp_path / "net.onnx", to="onnx")
    assert "batch" in exported.dynamic
    assert set(exported.outputs) == names(network)
    assert files(tmp_path) == ["net.onnx"]


def test_a_state_dict_is_loaded_by_torch_alone_and_filled_with_it_the_network_gives_its_outputs(network, tmp_path):
    exported = surgeon.export(network, tmp_path / "net.pt", to="state-dict")
    assert set(exported.outputs) == names(network)
    tensors = torch.load(tmp_path / "net.pt", weights_only=True)
    assert tensors.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())


def test_a_stock_class_is_loaded_by_transformers_alone(tmp_path, capfd):
    network = stock()
    exported = surgeon.export(network, tmp_path / "net", to="hf")
    assert "Writing model shards" not in capfd.readouterr().err
    assert exported.outputs == ("logits",)
    assert files(tmp_path / "net") == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "net" / "config.json").read_text())["architectures"] == [type(network).__name__]


@pytest.mark.parametrize(
    ("make", "site"),
    [
        (unbuilt_end, "exit: an early end.*only classes of transformers and what torchvision's builders"),
        (lambda: families.build("vgg"), "torchvision.models.vgg.VGG: not a transformers class"),
        (foreign, r"bert.encoder.layer.1.output.dropout: a test_export.Judge, whose source the export does not have"),
    ],
)
def test_what_no_stock_class_has_is_named_and_nothing_is_written(make, site, tmp_path):
    with pytest.raises(surgeon.ExportError, match=site) as caught:
        surgeon.export(make(), tmp_path / "net", to="hf")
    assert "--to torch-export" in caught.value.hint
    assert files(tmp_path) == []


def test_the_mask_of_a_text_network_is_an_input(tmp_path):
    exported = surgeon.export(stock(), tmp_path / "net.pt2", to="torch-export")
    assert set(exported.inputs) == {"input_ids", "attention_mask"}
    assert exported.dynamic == ("batch", "length")
    assert set(exported.shapes.values()) == {("batch", "length")}


def test_a_mask_that_does_not_fit_the_network_is_not_an_input(tmp_path):
    exported = surgeon.export(families.build("hf_vit"), tmp_path / "net.pt2", to="torch-export")
    assert exported.inputs == ("pixel_values",)
    assert exported.dynamic == ("batch",)
    size = families.build("hf_vit").config.image_size
    assert exported.shapes == {"pixel_values": ("batch", 3, size, size)}


def test_an_exported_program_has_one_of_several_stems_and_the_network_does_not_change(tmp_path):
    network = surgeon.apply(families.build("resnet"), [surgeon.Stems(stems=["latin", "greek"])], **SMALL).train()
    exported = surgeon.export(network, tmp_path / "net.pt2", to="torch-export")
    assert exported.notes == ("of the parts latin, greek it includes latin only",)
    assert network.training


def test_an_artifact_is_exported_by_its_path_on_the_command_line(tmp_path, capsys):
    surgeon.save(stock(), tmp_path / "artifact")
    capsys.readouterr()
    arguments = [
        "export",
        str(tmp_path / "artifact"),
        "--to",
        "torch-export",
        "-o",
        str(tmp_path / "net.pt2"),
        "--json",
    ]
    assert cli.run(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(tmp_path / "net.pt2")
    assert printed["outputs"] == ["logits"]


def test_the_output_says_how_to_load_it(tmp_path, capsys):
    surgeon.save(stock(), tmp_path / "artifact")
    assert cli.run(["export", str(tmp_path / "artifact"), "--to", "hf", "-o", str(tmp_path / "net")]) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert "transformers.BertForSequenceClassification.from_pretrained" in printed
    assert "logits:comparedwithoutsurgeonon" in printed


class Moody(nn.Module):
    """Goes one way or another by what it sees, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.judge = Judge()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.judge(self.first(features))


class Judge(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features if features.sum() > 0 else -features


class Fixed(nn.Module):
    """Takes a batch of two only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features.reshape(2, 4))


def test_the_site_that_cannot_be_traced_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(surgeon.ExportError, match=r"torch\.export cannot trace it") as caught:
        surgeon.export(Moody(), tmp_path / "net.pt2", to="torch-export")
    assert caught.value.where == "judge"
    assert files(tmp_path) == []


def test_a_state_dict_in_safetensors_is_read_by_that_alone_and_holds_tied_tensors_twice(tmp_path):
    tied = families.build("gpt2")
    assert tied.lm_head.weight is tied.transformer.wte.weight
    exported = surgeon.export(tied, tmp_path / "net.safetensors", to="state-dict")
    assert exported.outputs
    tensors = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert tensors.keys() == tied.state_dict().keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in tied.state_dict().items())


def test_a_state_dict_of_what_cannot_be_traced_says_that_only_tensors_were_compared(tmp_path):
    exported = surgeon.export(Moody(), tmp_path / "net.pt", to="state-dict")
    assert exported.outputs == ()
    assert "only tensors were compared, not outputs: judge" in exported.notes[0]


def test_a_network_of_one_batch_size_is_exported_with_that_and_a_note(tmp_path):
    exported = surgeon.export(Fixed(), tmp_path / "net.pt2", to="torch-export")
    assert exported.dynamic == ()
    assert exported.notes[0].startswith("a fixed batch size")


def test_other_outputs_are_an_error_and_what_was_there_stays(tmp_path, monkeypatch):
    (tmp_path / "net.pt2").write_text("precious")
    compared = comparison.compare_outputs

    def wrong(form: str, expected: Any, folder: Path) -> float:
        return compared(form, [{name: t + 0.01 for name, t in case.items()} for case in expected], folder)

    monkeypatch.setattr(comparison, "compare_outputs", wrong)
    with pytest.raises(surgeon.VerificationError, match=r"(?s)differs from the network's.*stays as it was"):
        surgeon.export(nn.Linear(4, 2), tmp_path / "net.pt2", to="torch-export", force=True)
    assert (tmp_path / "net.pt2").read_text() == "precious"


def test_a_state_dict_with_another_value_is_an_error(tmp_path, monkeypatch):
    def wrong(call: Any, path: Path) -> None:
        torch.save({name: tensor + 1 for name, tensor in call.network.model.state_dict().items()}, path)

    monkeypatch.setattr(exporter, "write_state_dict_file", wrong)
    with pytest.raises(surgeon.VerificationError, match="holds other tensors than the network: bias, weight"):
        surgeon.export(nn.Linear(4, 2), tmp_path / "net.pt", to="state-dict")
    assert files(tmp_path) == []


def test_the_consumers_process_cannot_import_surgeon(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code = f"import runpy, sys; sys.argv = ['consumer', 'hf', {str(tmp_path)!r}, {str(tmp_path)!r}]\n"
    code += f"sys.path.insert(0, {str(Path(surgeon.__file__).parents[1])!r})\n"
    consumer = str(comparison.CONSUMER)
    code += f"try: runpy.run_path({consumer!r}, run_name='__main__')\nexcept (KeyError, OSError): import surgeon.nn"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "the export asks for surgeon, which is not available without surgeon" in process.stderr


@pytest.mark.parametrize(
    ("form", "name", "suggested"),
    [("onnx", "net", "net.onnx"), ("torch-export", "net.pt", "net.pt2"), ("hf", "net.pt", "net")],
)
def test_a_place_that_does_not_look_like_the_form_is_refused_with_one_that_does(form, name, suggested, tmp_path):
    with pytest.raises(surgeon.OutputError) as caught:
        surgeon.export(nn.Linear(4, 2), tmp_path / name, to=form)
    assert caught.value.hint == f"-o {tmp_path / suggested}"


def test_an_unknown_form_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(surgeon.ExportError, match="nearest: onnx"):
        surgeon.export(nn.Linear(4, 2), tmp_path / "net.onnx", to="onx")  # type: ignore[arg-type]


def test_what_lies_at_the_output_is_kept_without_force(tmp_path):
    (tmp_path / "net.pt").write_text("precious")
    with pytest.raises(surgeon.OutputError, match="exists"):
        surgeon.export(nn.Linear(4, 2), tmp_path / "net.pt", to="state-dict")


def test_a_folder_of_something_else_is_not_replaced_even_with_force(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "thesis.tex").write_text("precious")
    with pytest.raises(surgeon.OutputError, match="does not replace"):
        surgeon.export(stock(), tmp_path / "net", to="hf", force=True)


def test_without_the_extra_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("surgeon.data.requirements.find_spec", lambda name: None)
    with pytest.raises(surgeon.ExportError, match="--to onnx needs onnx, onnxruntime, onnxscript") as caught:
        surgeon.export(nn.Linear(4, 2), tmp_path / "net.onnx", to="onnx")
    assert "pip install 'surgeon-torch[onnx]'" in caught.value.hint


class Sorted(nn.Module):
    """Holds an operation that ONNX lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.spectrum = Spectrum()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.spectrum(self.first(features))


class Spectrum(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(features)


@needs_onnx
def test_the_site_that_onnx_cannot_express_is_named(tmp_path):
    with pytest.raises(surgeon.ExportError, match="ONNX cannot express it") as caught:
        surgeon.export(Sorted(), tmp_path / "net.onnx", to="onnx")
    assert caught.value.where == "spectrum"
    assert files(tmp_path) == []
