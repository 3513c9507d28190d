"""convert: weights of other dtypes become what training needs; ties, frozen parts and reloading follow."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5

import surgeon
from surgeon.errors import OperationError


def weights(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = shufflenet_v2_x0_5(num_classes=5).state_dict()
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_torchvision_file_of_another_dtype_is_converted_saved_and_loaded(tmp_path, dtype):
    state = weights(dtype)
    torch.save(state, tmp_path / "model.pt")
    made = surgeon.apply(tmp_path / "model.pt", [surgeon.Convert(dtype="float32")])
    assert all(torch.equal(made.state_dict()[name], value.float()) for name, value in state.items() if value.ndim)
    assert made(torch.rand(1, 3, 64, 64)).dtype == torch.float32
    surgeon.save(made, tmp_path / "out")
    again = surgeon.load(tmp_path / "out")
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in again.state_dict().items())
    assert surgeon.verify(tmp_path / "out")
    assert again.stage2[0].branch1[1].num_batches_tracked.dtype == torch.int64


def test_the_plan_says_it_in_one_line(tmp_path):
    torch.save(weights(torch.float16), tmp_path / "model.pt")
    step = surgeon.plan(tmp_path / "model.pt", [surgeon.Convert(dtype="float32")]).steps[0]
    assert [edit.what for edit in step.edits] == ["float16 → float32"]
    assert "float16 to float32" in step.notes[0]


def test_a_converted_checkpoint_trains(tmp_path):
    torch.save(weights(torch.float16), tmp_path / "model.pt")
    recipe = """
operations:
  - {op: convert, dtype: float32}
  - {op: replace_head, classes: 3}
train:
  data: {source: digits, classes: [0, 1, 2], per_class: 4}
  epochs: 1
"""
    (tmp_path / "recipe.yaml").write_text(recipe)
    model, report = surgeon.finetune(tmp_path / "model.pt", tmp_path / "recipe.yaml")
    assert next(model.parameters()).dtype == torch.float32
    assert report.after["logits_loss"] > 0


def test_a_transformers_folder_loads_by_from_pretrained_in_the_new_dtype_with_its_ties(tmp_path):
    import transformers as tf

    torch.manual_seed(0)
    config = tf.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40, n_positions=16)
    tf.GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(tmp_path / "source")
    made = surgeon.apply(str(tmp_path / "source"), [surgeon.Convert(dtype="float32")])
    assert made.lm_head.weight is made.transformer.wte.weight
    surgeon.save(made, tmp_path / "out")
    stock = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert stock.dtype == torch.float32
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in stock.state_dict().items())


def test_frozen_parameters_stay_frozen_and_a_network_in_memory_stays_as_it_was():
    network = shufflenet_v2_x0_5(num_classes=5).double()
    network.conv1.requires_grad_(False)
    made = surgeon.apply(network, [surgeon.Convert(dtype="float32")])
    assert not made.conv1[0].weight.requires_grad
    assert made.fc.weight.requires_grad
    assert network.fc.weight.dtype == torch.float64


def test_values_that_would_become_infinite_are_refused():
    network = shufflenet_v2_x0_5(num_classes=5)
    with torch.no_grad():
        network.fc.bias[2] = 1e6
    with pytest.raises(OperationError, match="1e\\+06 is too large for float16"):
        surgeon.apply(network, [surgeon.Convert(dtype="float16")])


def test_what_is_of_the_dtype_already_is_kept_byte_for_byte(tmp_path):
    torch.save(weights(torch.float32), tmp_path / "model.pt")
    plan = surgeon.plan(tmp_path / "model.pt", [surgeon.Convert(dtype="float32")])
    assert not plan.steps[0].edits
    assert "all are float32 already" in plan.steps[0].notes
