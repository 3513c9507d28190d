from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from sources import SIZES, bert, check_values
from torch import nn

from surgeon.architectures.source import open_source
from surgeon.checkpoint.contents import Checkpoint
from surgeon.errors import ArchitectureError, CheckpointError, SurgeonError
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.record import ATTRIBUTE, Record, Surgeries
from surgeon.plugins import Plugins, load


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5)


def test_a_bare_state_dict_is_identified_and_mapped(tmp_path: Path, plugins: Plugins, resnet: nn.Module) -> None:
    path = tmp_path / "model.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in resnet.state_dict().items()}}, path)
    source = open_source(path, plugins=plugins)
    assert source.architecture == Architecture(scheme="torchvision", name="resnet18", options={"num_classes": 5})
    assert set(source.mapping or ()) == set(source.skeleton().state_dict())
    assert not source.missing
    assert any("module." in note for note in source.notes)
    check_values(source, resnet)


def test_each_skeleton_is_a_new_one(tmp_path: Path, plugins: Plugins, resnet: nn.Module) -> None:
    torch.save(resnet.state_dict(), tmp_path / "model.pth")
    source = open_source(tmp_path / "model.pth", plugins=plugins)
    first, second = source.skeleton(), source.skeleton()
    assert first is not second
    assert {p.device.type for p in first.parameters()} == {"meta"}
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_a_builder_without_weights_has_no_checkpoint(plugins: Plugins) -> None:
    source = open_source("torchvision/resnet18", plugins=plugins)
    assert source.checkpoint is None
    assert source.mapping is None
    assert source.skeleton().fc.out_features == 1000
    torch.manual_seed(3)
    first = source.initialised().conv1.weight
    torch.manual_seed(3)
    assert torch.equal(first, torchvision.models.resnet18().conv1.weight)


@pytest.fixture
def own_nets(tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """Plugins that trust a module of the user's."""
    functions = [f"def {name}():\n    return models.{name}()\n" for name in ("squeezenet1_1", "resnet18")]
    (tmp_path / "own_nets.py").write_text("\n".join(["from torchvision import models", *functions]))
    monkeypatch.syspath_prepend(str(tmp_path))
    return plugins.trusting(["own_nets"])


def test_a_users_function_is_a_source(own_nets: Plugins) -> None:
    source = open_source("python:own_nets:squeezenet1_1", plugins=own_nets)
    assert str(source.architecture) == "python:own_nets:squeezenet1_1"
    assert source.skeleton().num_classes == 1000


def test_a_file_is_fitted_to_a_users_function(tmp_path: Path, own_nets: Plugins) -> None:
    model = torchvision.models.squeezenet1_1()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    arch = "python:own_nets:squeezenet1_1"
    source = open_source(tmp_path / "model.safetensors", arch=arch, plugins=own_nets)
    assert str(source.architecture) == arch
    check_values(source, model)
    with pytest.raises(ArchitectureError, match="does not fit python:own_nets:resnet18"):
        open_source(tmp_path / "model.safetensors", arch="python:own_nets:resnet18", plugins=own_nets)


def test_an_architecture_and_a_builder_are_one_too_many(plugins: Plugins) -> None:
    with pytest.raises(ArchitectureError, match="give only one"):
        open_source("torchvision/resnet18", arch="torchvision/resnet34", plugins=plugins)


def test_a_module_is_its_own_source(plugins: Plugins, resnet: nn.Module) -> None:
    source = open_source(resnet, plugins=plugins)
    assert str(source.architecture) == "torchvision/resnet18"
    assert source.module is resnet
    assert source.mapping == {name: name for name in resnet.state_dict()}
    assert source.skeleton() is not resnet
    check_values(source, resnet)


def test_a_module_of_its_authors_own_has_no_architecture(plugins: Plugins) -> None:
    source = open_source(nn.Sequential(nn.Linear(2, 3)), plugins=plugins)
    assert source.architecture is None
    assert source.skeleton()[0].weight.is_meta


def test_a_module_that_surgeon_made_brings_its_past(plugins: Plugins) -> None:
    model = torchvision.models.resnet18(num_classes=3)
    del model.layer4[1]
    past = Surgeries(operations=[{"op": "truncate", "after": "layer3"}], seed=4)
    record = Record(architecture=Architecture(scheme="torchvision", name="resnet18"), source="x", surgeries=[past])
    setattr(model, ATTRIBUTE, record)
    source = open_source(model, plugins=plugins)
    assert source.surgeries == [past]
    assert str(source.architecture) == "torchvision/resnet18"


@pytest.mark.parametrize("safe", [True, False])
def test_a_hugging_face_folder_is_what_its_config_says(tmp_path: Path, plugins: Plugins, safe: bool) -> None:
    model = bert(num_labels=5)
    model.save_pretrained(tmp_path)
    if not safe:
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    source = open_source(tmp_path, plugins=plugins)
    assert str(source.architecture) == "hf/BertForSequenceClassification"
    assert not source.missing
    assert source.skeleton().classifier.out_features == 5
    check_values(source, model)


def test_a_tied_weight_that_the_file_leaves_out_is_not_missing(tmp_path: Path, plugins: Plugins) -> None:
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, bos_token_id=1, eos_token_id=2)
    )
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    source = open_source(tmp_path, plugins=plugins)
    assert not source.missing
    assert source.mapping["lm_head.weight"] == source.mapping["transformer.wte.weight"]  # type: ignore[index]
    check_values(source, model)


def test_a_base_models_file_fits_a_class_with_a_head(tmp_path: Path, plugins: Plugins) -> None:
    bert("BertModel").save_pretrained(tmp_path)
    source = open_source(tmp_path, arch="hf/BertForSequenceClassification", plugins=plugins)
    assert source.missing == ["classifier.weight", "classifier.bias"]
    assert source.mapping["bert.pooler.dense.weight"] == "pooler.dense.weight"  # type: ignore[index]


def test_a_file_with_a_head_fits_the_base_model_and_the_head_is_noted(tmp_path: Path, plugins: Plugins) -> None:
    bert().save_pretrained(tmp_path)
    source = open_source(tmp_path, arch="hf/BertModel", plugins=plugins)
    assert not source.missing
    assert sorted(source.unexpected) == ["classifier.bias", "classifier.weight"]
    assert source.mapping["pooler.dense.weight"] == "bert.pooler.dense.weight"  # type: ignore[index]
    assert any("classifier.weight" in note for note in source.notes)


def rewrite(folder: Path, rename: object) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")  # type: ignore[operator]


def test_names_of_tensorflows_days_are_read_without_loading(tmp_path: Path, plugins: Plugins) -> None:
    model = bert()
    model.save_pretrained(tmp_path)
    rewrite(
        tmp_path,
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    )
    source = open_source(tmp_path, plugins=plugins)
    assert source.checkpoint.format != "memory"  # type: ignore[union-attr]
    assert any("renamed" in note for note in source.notes)
    check_values(source, model)


EXPERTS = {"num_key_value_heads": 1, "moe_intermediate_size": 8}
REARRANGED = {
    "experts stacked and their two projections fused": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**SIZES, num_key_value_heads=1, num_local_experts=12)
    ),
    "some layers dense": lambda: transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(**SIZES, **EXPERTS, num_experts=4, mlp_only_layers=[0])
    ),
    "a projection split in three": lambda: transformers.NomicBertModel(transformers.NomicBertConfig(**SIZES)),
}


@pytest.mark.parametrize("kind", REARRANGED)
def test_a_layout_that_transformers_rearranges_is_rearranged_tensor_by_tensor(
    kind: str, tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = REARRANGED[kind]()
    model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) != set(model.state_dict())  # the hub's layout is another
    read: list[str] = []
    whole = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: (read.append(name), whole(self, name))[1])
    source = open_source(tmp_path, plugins=plugins)
    assert not read  # a plan needs names and shapes
    assert any("rearranged" in note for note in source.notes)
    assert not source.missing
    check_values(source, model)


def test_an_infinite_number_in_a_config_is_read(tmp_path: Path, plugins: Plugins) -> None:
    model = transformers.Mamba2Model(
        transformers.Mamba2Config(hidden_size=16, num_hidden_layers=1, vocab_size=32, head_dim=8, num_heads=4)
    )
    assert model.config.time_step_limit[1] == float("inf")
    model.save_pretrained(tmp_path)
    check_values(open_source(tmp_path, plugins=plugins), model)


def test_old_buffers_are_left_out_quietly(tmp_path: Path, plugins: Plugins) -> None:
    model = bert()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["bert.embeddings.position_ids"] = torch.arange(512)[None]
    save_file(tensors, tmp_path / "model.safetensors")
    source = open_source(tmp_path, plugins=plugins)
    assert source.unexpected == ["bert.embeddings.position_ids"]


def test_a_layer_too_many_is_not_dropped(tmp_path: Path, plugins: Plugins) -> None:
    bert().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(ArchitectureError, match=r"16 unexpected \(bert.encoder.layer.1"):
        open_source(tmp_path, plugins=plugins)


def test_a_head_of_another_size_than_the_config_says_is_refused(tmp_path: Path, plugins: Plugins) -> None:
    bert(num_labels=5).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArchitectureError, match="2 of another shape"):
        open_source(tmp_path, plugins=plugins)


def artifact(folder: Path, model: nn.Module, record: object) -> Path:
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "surgeon.json").write_text(json.dumps({"format": 1, "record": record}))
    return folder


def test_an_artifact_brings_its_architecture_and_surgeries(tmp_path: Path, plugins: Plugins) -> None:
    past = Surgeries(operations=[{"op": "replace_head", "classes": 3}], seed=7)
    record = Record(
        architecture=Architecture(scheme="torchvision", name="resnet18"),
        source="torchvision/resnet18",
        surgeries=[past],
    )
    folder = artifact(tmp_path / "out", torchvision.models.resnet18(num_classes=3), record.model_dump(mode="json"))
    source = open_source(folder, plugins=plugins)
    assert source.architecture == record.architecture
    assert source.surgeries == [past]
    assert source.mapping is None
    assert source.skeleton().fc.out_features == 1000  # before surgery


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"architecture": None, "source": "memory"}, "--arch python"),
        ({"architecture": {"scheme": "timm", "name": "x"}, "source": "x"}, "no provider of 'timm'"),
        ({"source": 3}, "manifest is damaged"),
        (
            {"architecture": None, "source": "x", "surgeries": [{"operations": [], "roles": {"head": None}}]},
            "manifest is damaged: surgeries.0.roles",
        ),
        (None, "manifest is damaged"),
    ],
)
def test_an_artifact_that_cannot_be_rebuilt_says_why(
    tmp_path: Path, plugins: Plugins, record: object, message: str
) -> None:
    folder = artifact(tmp_path / "out", nn.Linear(2, 2), record)
    with pytest.raises(SurgeonError, match=message):
        open_source(folder, plugins=plugins).skeleton()


def test_what_is_neither_a_reference_nor_a_file_is_missing(tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        open_source(tmp_path / "absent.pt", plugins=plugins)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("resnet18", "torchvision/resnet18"),
        ("ResNet18@DEFAULT", "torchvision/resnet18@DEFAULT"),
        ("torchvison/resnet18", "torchvision/resnet18"),
        ("Torchvision/resnet18", "torchvision/resnet18"),
        ("pyton:package.module:net", "python:package.module:net"),
    ],
)
def test_a_misspelt_reference_or_one_without_its_scheme_is_answered_with_the_nearest(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such file") as caught:
        open_source(given, plugins=plugins)
    assert caught.value.hint == f"did you mean {meant}?"


def test_an_architecture_without_its_scheme_is_answered_with_it(
    tmp_path: Path, plugins: Plugins, resnet: nn.Module
) -> None:
    torch.save(resnet.state_dict(), tmp_path / "net.pt")
    with pytest.raises(ArchitectureError, match=r"did you mean torchvision/resnet18\?"):
        open_source(tmp_path / "net.pt", arch="resnet18", plugins=plugins)


def test_a_file_that_is_not_there_is_answered_with_its_neighbours(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"in \.: net\.pt"):
        open_source("net.pth", plugins=plugins)


def test_a_config_alone_is_an_architecture_where_that_is_said(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bert(num_labels=3).save_pretrained("whole")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"hf:\./alone is the untrained network"):
        open_source("alone", plugins=plugins)
    alone = open_source("hf:./alone", plugins=plugins)
    assert alone.checkpoint is None
    assert alone.skeleton().num_labels == 3
    assert "has no weights" in alone.notes[0]
    check_values(open_source("hf:./whole", plugins=plugins), bert(num_labels=3))
    (tmp_path / "alone" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        open_source("hf:./alone", plugins=plugins)
