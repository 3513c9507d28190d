"""Half precision leaves no trace in the network: not in its forward, its dtype, its copies or its artifact."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from small import X, by_sgd, make, splits
from transformers import ViTConfig, ViTForImageClassification

import surgeon
from surgeon import cli
from surgeon.errors import TrainingError
from surgeon.training.callbacks import ProgressCallback
from surgeon.training.session import train

HALF = {"bf16": True}


def inside(model: torch.nn.Module) -> torch.dtype:
    seen = []
    handle = model.a.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.no_grad():
        model(X)
    handle.remove()
    return seen[0]


def test_a_network_comes_back_in_full_precision_and_pickles_and_copies():
    model = make()
    train(model, by_sgd(epochs=1, arguments=HALF), data=splits(), quiet=True)
    assert "forward" not in model.__dict__
    assert not [name for name in model.__dict__ if name.startswith(("_original", "_is_accelerate"))]
    assert inside(model) == torch.float32
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(X), model(X))
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in zeroed.parameters():
            parameter.zero_()
    assert zeroed(X).abs().max() == 0


def test_it_comes_back_in_full_precision_where_training_ends_with_an_exception(monkeypatch):
    model = make()
    monkeypatch.setattr(ProgressCallback, "on_step_end", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(TrainingError, match="ZeroDivisionError"):
        train(model, by_sgd(epochs=1, arguments=HALF), data=splits(), quiet=True)
    assert "forward" not in model.__dict__
    assert inside(model) == torch.float32


def test_a_later_training_is_in_full_precision(monkeypatch):
    model = make()
    train(model, by_sgd(epochs=1, arguments=HALF), data=splits(), quiet=True)
    plain, after = make(), make()
    after.load_state_dict(model.state_dict())
    plain.load_state_dict(model.state_dict())
    train(model, by_sgd(epochs=2), data=splits(), quiet=True)
    train(plain, by_sgd(epochs=2), data=splits(), quiet=True)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


def test_training_does_compute_in_half_precision():
    model = make()
    seen = set()
    model.a.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    train(model, by_sgd(epochs=1, arguments=HALF), data=splits(), quiet=True)
    assert torch.bfloat16 in seen


def test_a_compiled_network_comes_back_as_it_was():
    model = make()
    before = set(vars(model))
    arguments = {"torch_compile": True, "torch_compile_backend": "eager"}
    train(model, by_sgd(epochs=1, arguments=arguments), data=splits(), quiet=True)
    assert set(vars(model)) == before
    pickle.loads(pickle.dumps(model))


def test_gradient_checkpointing_and_the_cache_are_as_before():
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8,
                       patch_size=4, num_channels=1, num_labels=3)  # fmt: skip
    model = ViTForImageClassification(config)
    before = dict(model.config.to_dict())
    data = splits(torch.randn(48, 1, 8, 8), name="pixel_values")
    train(model, by_sgd(epochs=1, arguments={"gradient_checkpointing": True}), data=data, quiet=True)
    assert not model.is_gradient_checkpointing
    assert model.config.to_dict() == before


RECIPE = """
operations:
  - {op: replace_head, classes: 3}
train:
  data: {source: digits, classes: [0, 1, 2], per_class: 4, canvas: 8, size: 32, channels: 3, test_fraction: 0.1}
  epochs: 1
  batch_size: 6
  arguments: {bf16: true}
"""


def test_apply_trains_in_half_precision_on_the_cpu_and_its_artifact_is_checked(tmp_path: Path):
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=5).state_dict(), tmp_path / "net.pt")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out = tmp_path / "out"
    assert cli.run(["apply", str(tmp_path / "recipe.yaml"), str(tmp_path / "net.pt"), "-q", "-o", str(out)]) == 0
    model = surgeon.load(out)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_what_cannot_checkpoint_its_gradients_is_refused_at_the_start():
    with pytest.raises(TrainingError, match="gradient_checkpointing"):
        train(make(), by_sgd(epochs=1, arguments={"gradient_checkpointing": True}), data=splits(), quiet=True)
