"""Averages of weights in bfloat16 and float16 are kept in float32 and cast once, also over an interruption."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from small import Pictures, X, Y, by_sgd, make, splits
from torch import nn

from surgeon.recipe.train_settings import AverageSettings
from surgeon.training.calls import Call
from surgeon.training.checkpoints import EXTRA, last_checkpoint
from surgeon.training.session import train
from surgeon.training.weight_averages import Averaging

LOW = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
DECAY = 0.999


def averaging(model: nn.Module, **settings: object) -> Averaging:
    return Averaging(model, AverageSettings(**settings), Call.of(model, ("x",)))  # type: ignore[arg-type]


def walk(model: nn.Module, step: int) -> dict[str, torch.Tensor]:
    """Change every weight, as an optimizer would, and return the weights in float32."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((0.01 + 0.02 * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype))
    return {name: parameter.detach().float().clone() for name, parameter in model.named_parameters()}


def average_of(history: list[dict[str, torch.Tensor]], kind: str) -> dict[str, torch.Tensor]:
    """Average the weights of all steps by hand."""
    averages = dict(history[0])
    for number, weights in enumerate(history[1:], start=1):
        decay = min(DECAY, (1 + number) / (10 + number)) if kind == "ema" else number / (number + 1)
        averages = {name: decay * value + (1 - decay) * weights[name] for name, value in averages.items()}
    return averages


@LOW
@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_of_low_precision_is_that_of_float32_cast_at_the_end(kind, dtype):
    model = make(Pictures).to(dtype)
    average = averaging(model, kind=kind, **({"decay": DECAY} if kind == "ema" else {}))
    history = []
    for step in range(400):
        history.append(walk(model, step))
        average._update()
    expected = average_of(history, kind)
    for name, value in average.averages.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
    exact = {name: value.to(dtype) for name, value in average.averages.items()}
    average.on_train_end(None, None, None)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, exact[name]), "cast once"
        # the two float32 averages may round to neighbours
        torch.testing.assert_close(parameter.float(), expected[name], rtol=torch.finfo(dtype).eps, atol=1e-4)


@LOW
def test_evaluating_with_the_average_leaves_the_weights_as_they_were(dtype):
    model = make(Pictures).to(dtype)
    average = averaging(model, kind="ema", decay=DECAY)
    for step in range(5):
        latest = walk(model, step)
        average._update()
    with average.installed():
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, average.averages[name].to(dtype))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.float(), latest[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_averages_of_other_floats_keep_their_dtype(dtype):
    model = make(Pictures).to(dtype)
    average = averaging(model, kind="ema", decay=DECAY)
    for step in range(3):
        walk(model, step)
        average._update()
    assert {value.dtype for value in average.averages.values()} == {dtype}


def test_a_network_of_several_dtypes_is_averaged():
    model = make()
    model.a.to(torch.bfloat16)
    model.head.double()
    average = averaging(model, kind="ema", decay=DECAY)
    history = []
    for step in range(50):
        history.append(walk(model, step))
        average._update()
    expected = average_of(history, "ema")
    assert average.averages["a.weight"].dtype == torch.float32
    assert average.averages["head.weight"].dtype == torch.float64
    for name, value in expected.items():
        torch.testing.assert_close(average.averages[name].float(), value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_a_low_precision_run_is_resumed_to_the_same_average(tmp_path, kind):
    average = {"kind": "ema", "decay": 0.9} if kind == "ema" else {"kind": "swa", "start": 0.0}
    settings = by_sgd(epochs=12, learning_rate=0.02, average=average)
    data = splits(X[:, :4].bfloat16(), Y, "pixel_values")

    def network() -> nn.Module:
        return make(Pictures, side=2).bfloat16()

    whole, cut = network(), network()
    train(whole, settings, data=data, quiet=True)
    run = {"data": data, "output_dir": tmp_path, "checkpoints": True}

    def stop(step: int, *_: object) -> None:
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, settings, progress=stop, **run)
    stored = load_file(last_checkpoint(tmp_path) / EXTRA)
    assert stored["average.layer.weight"].dtype == torch.float32
    cut = network()
    train(cut, settings, quiet=True, resume=True, **run)
    for one, two in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(one, two)
