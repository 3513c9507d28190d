from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from surgeon.nn.heads import CosineLinear, Head, conv_layers, head_layers, last_layer
from surgeon.nn.pooling import Pool, fit_mask
from surgeon.nn.reversal import Reversal

LAYOUTS = {
    "maps": (1, (2, 6, 3, 4)),
    "maps-last": (-1, (2, 3, 4, 6)),
    "tokens": (-1, (2, 5, 6)),
    "video": (1, (2, 6, 2, 3, 3)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_pool_gives_one_vector_in_every_layout(layout: str) -> None:
    axis, shape = LAYOUTS[layout]
    features = torch.rand(shape)
    positions = features.movedim(axis, -1).reshape(2, -1, 6)
    assert torch.allclose(Pool("avg", axis)(features), positions.mean(1))
    assert torch.equal(Pool("mean", axis)(features), Pool("avg", axis)(features))
    assert torch.equal(Pool("max", axis)(features), positions.amax(1))
    assert torch.equal(Pool("cls", axis)(features), positions[:, 0])
    assert torch.allclose(Pool("gem", axis)(features), (positions**3).mean(1) ** (1 / 3), atol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "max", "gem"])
def test_padding_never_reaches_a_masked_pool(kind: str) -> None:
    tokens, mask = torch.rand(2, 5, 6), torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    pool = Pool(kind, -1, masked=True)
    pooled = pool(tokens, mask)
    assert torch.allclose(pooled[0], pool(tokens[:1, :3])[0], atol=1e-6)
    assert torch.allclose(pooled[1], pool(tokens[1:, 1:])[0], atol=1e-6)
    changed = tokens.clone()
    changed[0, 3:], changed[1, 0] = 99.0, -99.0
    assert torch.equal(pool(changed, mask), pooled)


def test_a_sample_that_is_all_padding_gives_numbers() -> None:
    for kind in ("mean", "max", "gem"):
        assert Pool(kind, -1, masked=True)(torch.rand(1, 3, 4), torch.zeros(1, 3)).isfinite().all()


def test_a_mask_over_samples_is_fitted_to_the_frames() -> None:
    mask = torch.tensor([[1] * 60 + [0] * 40, [1] * 100])
    assert fit_mask(mask, 10).sum(1).tolist() == [6, 10]


def test_gem_learns_its_exponent_and_keeps_half_precision() -> None:
    pool = Pool("gem", 1).to(torch.bfloat16)
    pooled = pool(torch.rand(2, 3, 4, 4, dtype=torch.bfloat16))
    pooled.sum().backward()
    assert pooled.dtype == torch.bfloat16
    assert pool.exponent.grad is not None
    assert pool.exponent.grad.abs() > 0


def test_a_pool_can_keep_dimensions_of_one() -> None:
    assert Pool("gem", 1, keep=2)(torch.rand(2, 3, 4, 4)).shape == (2, 3, 1, 1)


def test_cosine_scores_are_scaled_angles() -> None:
    layer = CosineLinear(6, 3)
    features = torch.randn(2, 6)
    expected = 10 * torch.cosine_similarity(features[:, None], layer.weight[None], dim=-1)
    assert torch.allclose(layer(features), expected, atol=1e-5)
    assert torch.allclose(layer(features * 7), expected, atol=1e-5)


def test_a_plain_linear_head_is_a_lone_linear_layer() -> None:
    assert type(head_layers(6, 3)) is nn.Linear
    assert type(conv_layers(6, 3)) is nn.Conv2d


def test_hidden_layers_and_dropout_come_before_the_last_layer() -> None:
    head = head_layers(6, 3, kind="mlp", hidden=[8, 4], dropout=0.5)
    names = [type(m).__name__ for m in head.children()]
    assert names == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert last_layer(head).weight.shape == (3, 4)
    assert [type(m).__name__ for m in head_layers(6, 3, dropout=0.5).children()] == ["Dropout", "Linear"]
    assert head_layers(6, 3, kind="mlp")[0].weight.shape == (6, 6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["linear", "mlp", "cosine", "conv"])
def test_a_head_without_pool_keeps_the_positions(kind: str, layout: str) -> None:
    axis, shape = LAYOUTS[layout]
    hidden = [4] if kind in ("mlp", "conv") else []
    head = Head(6, 3, kind=kind, hidden=hidden, axis=axis, dims=len(shape) - 2)
    expected = list(shape)
    expected[axis] = 3
    assert list(head(torch.rand(shape)).shape) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_linear_score_pooled_last_is_the_score_of_the_pooled(kind: str, layout: str) -> None:
    axis, shape = LAYOUTS[layout]
    head = Head(6, 3, kind=kind, pool="mean", axis=axis, dims=len(shape) - 2)
    features = torch.rand(shape)
    layer = last_layer(head)
    weight = layer.weight.flatten(1)
    expected = features.movedim(axis, -1).reshape(2, -1, 6).mean(1) @ weight.T + layer.bias
    assert torch.allclose(head(features), expected, atol=1e-5)


def test_reversal_is_the_identity_whose_gradient_is_minus_strength_times_as_large() -> None:
    features = torch.randn(4, 3, requires_grad=True)
    weight = torch.randn(3)
    out = Reversal(0.25)(features)
    assert torch.equal(out, features)
    (out @ weight).sum().backward()
    assert torch.equal(features.grad, -0.25 * weight.expand(4, 3))


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(ValueError, match="sign"):
        Reversal(-1.0)


def test_reversal_takes_its_strength_from_the_buffer_and_saves_it() -> None:
    module = Reversal(0.0)
    module.strength.fill_(2.0)
    twin = Reversal(0.5)
    twin.load_state_dict(module.state_dict())
    features = torch.ones(3, requires_grad=True)
    copy.deepcopy(twin)(features).sum().backward()
    assert features.grad.tolist() == [-2.0, -2.0, -2.0]


def test_reversal_compiles_whole_and_keeps_half_precision() -> None:
    module = torch.compile(Reversal(0.5), fullgraph=True, backend="aot_eager")
    features = torch.ones(3, requires_grad=True, dtype=torch.bfloat16)
    module(features).sum().backward()
    assert features.grad.dtype == torch.bfloat16
    assert features.grad.tolist() == [-0.5, -0.5, -0.5]


def test_reversal_exports() -> None:
    exported = torch.export.export(nn.Sequential(nn.Linear(3, 2), Reversal(0.5)), (torch.ones(1, 3),))
    assert exported.module()(torch.ones(1, 3)).shape == (1, 2)
