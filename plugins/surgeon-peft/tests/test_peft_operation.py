"""The operation ``peft``: what it checks, what it freezes, which values it gives, and what the plan says."""

from __future__ import annotations

import peft
import pytest
import torch
import torchvision
from peft_networks import IDS, bert, llama, logits, perturbed, quiet, saved, vit
from pydantic import ValidationError
from surgeon_peft import MergeAdapters, Peft, export_adapter
from surgeon_peft.config import restored

import surgeon
from surgeon.interfaces.record import record_of
from surgeon.testing import check_operations

LORA = Peft(targets="**.query, **.value", config={"r": 4}, modules_to_save="@head")


def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5)


@pytest.mark.parametrize(
    ("build", "operation", "inputs"),
    [
        (bert, LORA, IDS),
        (llama, Peft(method="dora", targets="@blocks", config={"r": 2}), IDS),
        (llama, Peft(method="ia3"), IDS),
        (vit, Peft(method="lokr", targets="all-linear", config={"r": 4}), torch.randn(2, 3, 32, 32)),
        (resnet, Peft(targets="layer2, layer4", config={"r": 4}, modules_to_save="fc"), torch.randn(2, 3, 64, 64)),
        (bert, Peft(method="ln_tuning", targets="@blocks[-1]"), IDS),
    ],
)
def test_it_keeps_what_surgeon_promises_of_every_operation(build, operation, inputs):
    check_operations(build, [operation], (inputs,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "lroa"}, "no method 'lroa'.*lora"),
        ({"config": {"lora_alhpa": 3}}, "no field 'lora_alhpa'.*lora_alpha"),
        ({"config": {"r": 0}}, "LoraConfig|r"),
        ({"config": {"target_modules": ["q"]}}, "targets:"),
        ({"config": {"task_type": "SEQ_CLS"}}, "leave it out"),
        ({"config": {"init_lora_weights": "pissa"}}, "changes the base's weights"),
        ({"method": "prompt_tuning"}, "virtual tokens"),
        ({"method": "xlora"}, "cannot be attached"),
    ],
)
def test_a_mistake_is_refused_with_what_to_do(fields, message):
    if fields.get("config") == {"r": 0}:
        with pytest.raises(surgeon.OperationError, match="should be a positive integer"):
            surgeon.plan(llama(), [Peft(**fields)])
        return
    with pytest.raises(ValidationError, match=message):
        Peft(**fields)


def test_a_mistake_in_a_recipe_is_reported_with_its_line(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("operations:\n  - op: peft\n    config: {lora_alhpa: 3}\n")
    with pytest.raises(surgeon.RecipeError, match=r"recipe.yaml:[23].*lora_alhpa"):
        surgeon.load_recipe(recipe)


@quiet
def test_only_the_adapter_and_saved_modules_train():
    edited = surgeon.apply(bert(), [LORA])
    training = {name for name, p in edited.named_parameters() if p.requires_grad}
    assert training
    assert all(".lora_" in name or "modules_to_save" in name for name in training)
    assert "classifier.modules_to_save.default.weight" in training
    assert isinstance(edited, type(bert()))


@quiet
def test_selectors_and_roles_become_exact_names():
    edited = surgeon.apply(bert(), [Peft(targets="@blocks[-1]", config={"r": 2})])
    names = edited.peft_config["default"].target_modules
    assert len(names) == 6
    assert all(name.startswith("bert.encoder.layer.1.") for name in names)


@quiet
def test_a_new_head_trains_in_full_without_being_named(tmp_path):
    edited = surgeon.apply(bert(), [surgeon.ReplaceHead(classes=7), Peft(targets="**.query", config={"r": 2})])
    assert edited.classifier.modules_to_save["default"].weight.requires_grad
    assert logits(edited).shape == (2, 7)
    assert torch.equal(edited.classifier.modules_to_save["default"].weight, edited.classifier.original_module.weight)


@quiet
def test_first_values_that_depend_on_weights_are_those_of_peft():
    edited = surgeon.apply(bert(), [Peft(method="dora", targets="**.query", config={"r": 2})])
    reference = peft.get_peft_model(bert(), peft.LoraConfig(r=2, use_dora=True, target_modules=["query"]))
    name = "bert.encoder.layer.1.attention.self.query.lora_magnitude_vector.default.weight"
    assert torch.equal(edited.state_dict()[name], reference.base_model.model.state_dict()[name])


@pytest.mark.parametrize("method", ["lora", "ia3", "loha", "lokr", "vera"])
@quiet
def test_first_values_that_are_computed_without_weights_do_not_depend_on_them(method):
    from surgeon_peft.initial import LayerValues

    model = surgeon.apply(bert(), [Peft(method=method, targets="**.query", config={})])
    layer = model.bert.encoder.layer[0].attention.self.query
    site = "bert.encoder.layer.0.attention.self.query"
    seed = torch.tensor([3])
    base = layer.base_layer
    for name in [name for name in layer.state_dict() if not name.startswith("base_layer")]:
        without = LayerValues(model.peft_config["default"], site, base, reads=False).of(name)(seed)
        with_weights = LayerValues(model.peft_config["default"], site, base, reads=True).of(name)(
            seed, *base.parameters()
        )
        assert torch.equal(without, with_weights), name


def test_the_plan_says_what_is_added_and_how_much_trains():
    (step,) = surgeon.plan(bert(), [LORA]).steps
    added = [edit.site for edit in step.edits if edit.mark == "+"]
    assert "bert.encoder.layer.0.attention.self.query" in added
    assert any("parameters train" in note for note in step.notes)


def test_names_that_peft_would_also_find_elsewhere_are_refused():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 4)
            self.inner = torch.nn.ModuleDict({"fc": torch.nn.Linear(4, 4)})

        def forward(self, x):
            return self.inner["fc"](self.fc(x))

    with pytest.raises(surgeon.OperationError, match=r"inner\.fc"):
        surgeon.plan(Twice(), [Peft(targets="fc", config={"r": 2})])


@quiet
def test_a_second_adapter_is_refused():
    with pytest.raises(surgeon.OperationError, match="adapted already"):
        surgeon.plan(bert(), [LORA, Peft(targets="**.key", config={"r": 2})])


@quiet
def test_an_adapter_is_attached_and_merged_in_one_recipe():
    merged = surgeon.apply(bert(), [LORA, MergeAdapters()])
    torch.testing.assert_close(logits(merged), logits(bert()))
    assert merged.state_dict().keys() == bert().state_dict().keys()


@quiet
def test_half_precision_bases_get_float32_adapters_as_in_peft(tmp_path):
    base = saved(llama().bfloat16(), tmp_path / "base")
    edited = perturbed(surgeon.apply(base, [Peft(targets="**.q_proj", config={"r": 2})]))
    layer = edited.model.layers[0].self_attn.q_proj
    assert layer.lora_A["default"].weight.dtype is torch.float32
    assert layer.base_layer.weight.dtype is torch.bfloat16
    artifact = surgeon.save(edited, tmp_path / "artifact")
    export_adapter(artifact, tmp_path / "adapter")
    again = surgeon.load(f"peft:{tmp_path / 'adapter'}")
    assert torch.equal(logits(again), logits(edited))


@quiet
def test_an_artifact_records_every_field_of_the_config_and_exact_names():
    edited = surgeon.apply(llama(), [Peft(config={"r": 2})])
    (answer,) = [value for key, value in record_of(edited).surgeries[-1].answers.items() if "config" in key]
    assert answer["lora_alpha"] == 8  # peft's default, which a later release may change
    assert "model.layers.0.self_attn.q_proj" in answer["target_modules"]
    with pytest.raises(surgeon.OperationError, match="no field 'lora_beta' of lora"):
        restored({**answer, "lora_beta": 8})
