"""cdan and mdd: their losses against plain loops, the layers that learn beside the network, and what is left behind."""

from __future__ import annotations

import math

import pytest
import torch
from adapt_data import hooks, network, samples, trained, two_domains
from surgeon_adapt import CDAN, MDD, MMD, Coral, DomainBatchNorm
from surgeon_adapt.conditioning import Multilinear, certainty, domain_loss, margin_loss
from surgeon_adapt.layers import Layers, reversed_gradient
from torch import nn

import surgeon
from surgeon.errors import TrainingError
from surgeon.testing import check_composition, check_operations, check_penalty
from surgeon.training.anatomy import Anatomy
from surgeon.training.objectives import Call
from surgeon.training.penalties import Run

OPERATIONS = [CDAN(hidden=[8]), CDAN(product="random", width=16, entropy=False), MDD(target="photo", hidden=[8])]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_outer_product_has_every_pair_of_a_feature_and_a_class():
    features, predictions = drawn(4, 5), drawn(4, 3, seed=1).softmax(1)
    combine = Multilinear(5, 3, None, 0)
    expected = [[f * g for f in row for g in p] for row, p in zip(features.tolist(), predictions.tolist(), strict=True)]
    torch.testing.assert_close(combine(features, predictions), torch.tensor(expected))
    assert combine.width == 15


def test_the_random_map_keeps_inner_products_of_the_outer_product():
    features, predictions = drawn(6, 5), drawn(6, 3, seed=1).softmax(1)
    full = Multilinear(5, 3, None, 0)(features, predictions)
    projected = Multilinear(5, 3, 200_000, 7)(features, predictions)
    torch.testing.assert_close(projected @ projected.T, full @ full.T, atol=0.05, rtol=0.05)
    one, same, other = (Multilinear(5, 3, 8, seed)(features, predictions) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_weighted_loss_of_domains_is_a_plain_loop():
    scores, predictions = drawn(7, 2), (3 * drawn(7, 4, seed=1)).softmax(1)
    domain = torch.tensor([0, 0, 1, 0, 1, 0, 0])
    weights = [1 + math.exp(sum(p * math.log(p) for p in row)) for row in predictions.tolist()]
    torch.testing.assert_close(certainty(predictions), torch.tensor(weights))
    totals = {0: [0.0, 0.0], 1: [0.0, 0.0]}
    for row, number, weight in zip(scores.tolist(), domain.tolist(), weights, strict=True):
        totals[number][0] -= weight * math.log(math.exp(row[number]) / sum(map(math.exp, row)))
        totals[number][1] += weight
    expected = sum(loss / mass for loss, mass in totals.values()) / 2
    assert domain_loss(scores, domain, torch.tensor(weights)).item() == pytest.approx(expected, rel=1e-5)
    assert certainty(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist() == pytest.approx([2.0, 1.5])


def test_the_margin_loss_is_a_plain_loop():
    scores, predicted = drawn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    target = torch.tensor([False, True, False, True, True, False])
    source_terms, target_terms = [], []
    for row, label, is_target in zip(scores.tolist(), predicted.tolist(), target.tolist(), strict=True):
        share = math.exp(row[label]) / sum(map(math.exp, row))
        (target_terms if is_target else source_terms).append(-math.log(1 - share if is_target else share))
    expected = 4 * sum(source_terms) / 3 + sum(target_terms) / 3
    assert margin_loss(scores, predicted, target, 4.0).item() == pytest.approx(expected, rel=1e-5)
    sure = torch.tensor([[50.0, -50.0], [50.0, -50.0]])  # a plain log(1 - p) would be infinite
    assert margin_loss(sure, torch.tensor([0, 0]), torch.tensor([False, True]), 4.0).isfinite()


def test_a_batch_of_one_domain_is_no_failure():
    scores = drawn(3, 2).requires_grad_(True)
    for target in (torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)):
        assert margin_loss(scores, torch.zeros(3, dtype=torch.long), target, 4.0).isfinite()
    assert domain_loss(scores, torch.zeros(3, dtype=torch.long), torch.ones(3)).isfinite()


def test_the_reversal_multiplies_the_gradient_alone():
    x = drawn(3, 2).requires_grad_(True)
    passed = reversed_gradient(x, 0.3)
    (passed * torch.arange(6.0).reshape(3, 2)).sum().backward()
    assert torch.equal(passed, x)
    torch.testing.assert_close(x.grad, -0.3 * torch.arange(6.0).reshape(3, 2))


def test_layers_beside_the_network_compute_what_linear_layers_do_and_have_names_of_their_own():
    model = network()
    run = Run(model, Call.of(model, ["pixel_values"]), Anatomy(model, None), {}, set(), dict, 3)
    one, two = Layers(run, "cdan", [4, 5, 2]), Layers(run, "cdan", [4, 5, 2])
    plain = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    for layer, (weight, bias) in zip((plain[0], plain[2]), one.layers, strict=True):
        layer.weight.data, layer.bias.data = weight.data, bias.data
        assert weight.abs().max() <= layer.in_features**-0.5
    x = drawn(3, 4)
    torch.testing.assert_close(one(x), plain(x))
    assert len(run.learnt) == 8
    assert one.layers[0][0] is not two.layers[0][0]


@pytest.mark.parametrize("operation", [*OPERATIONS, CDAN(at="3", schedule="dann")])
def test_it_keeps_what_surgeon_promises_of_every_operation(operation):
    check_operations(network, [operation], (torch.randn(4, 1, 6, 6),))


@pytest.mark.parametrize("operation", [*OPERATIONS, MMD(), Coral()])
def test_its_penalty_keeps_what_surgeon_promises_of_every_penalty(operation):
    (penalty,) = operation.penalties()
    check_penalty(penalty, network, two_domains(), epochs=1, batch_size=24)


def test_it_goes_with_other_operations():
    assert "replace_head, cdan, mdd" in check_composition(
        network, OPERATIONS[:1] + OPERATIONS[2:], (samples(shifted=False),)
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_labels_of_the_target_are_never_read_and_the_artifact_has_nothing_of_it(operation, tmp_path):
    (model, report), (other, _) = (trained([operation], wrong=wrong, epochs=3) for wrong in (False, True))
    right, wrong = model.state_dict(), other.state_dict()
    assert all(torch.equal(right[name], wrong[name]) for name in right)
    assert report.history[-1]["penalty_loss"] > 0
    assert hooks(model) == 0
    assert right.keys() == network().state_dict().keys()
    surgeon.save(model, tmp_path / "out")
    loaded, x = surgeon.load(tmp_path / "out", arch=network), samples(shifted=True)
    assert torch.equal(loaded(x), model(x))


def test_two_trainings_with_one_seed_agree_and_the_layers_learn():
    operation = CDAN(hidden=[8])
    first, second = (trained([operation], epochs=2)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    _, report = trained([CDAN(hidden=[8], strength=0.0)], epochs=12)
    # without a reversal nothing works against the discriminator, which learns to tell the domains apart
    assert report.history[-1]["penalty_loss"] < 0.55 < math.log(2)


def test_the_gradient_reaches_the_trunk_with_the_opposite_sign():
    def change(strength):
        start = network()[0].weight.detach()
        operation = CDAN(hidden=[8], strength=strength, weight=1e3)
        model, _ = trained(
            [operation], epochs=0.5, arguments={"optim": "sgd", "max_grad_norm": 0.0}, learning_rate=1e-4
        )
        return (model[0].weight.detach() - start).flatten()

    still = change(0.0)
    away, twice = change(1.0) - still, change(2.0) - still
    assert away.norm() > 0
    torch.testing.assert_close(twice, 2 * away, rtol=0.05, atol=1e-3 * away.norm().item())


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (CDAN(output="scores"), r"(?s)no output 'scores'.*output: logits"),
        (MDD(target="phto"), r"(?s)no source has the domain 'phto'.*plain, photo"),
        (MDD(target="photo", output="domain"), "no output 'domain'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(operation, message):
    with pytest.raises(TrainingError, match=message):
        trained([operation], epochs=1)
    with pytest.raises(ValueError, match="target"):
        MDD()


def test_it_goes_with_a_penalty_of_another_kind():
    _, report = trained([MMD(), CDAN(hidden=[8]), CDAN(at="3", hidden=[])], epochs=1)
    assert report.history[-1]["penalty_loss"] > 0


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    random = CDAN(product="random", width=16, schedule="dann", strength=0.5)
    operations = [DomainBatchNorm(domains=["plain", "photo"], affine="own"), random, MMD(schedule="linear")]

    def stop(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    whole, _ = trained(operations, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        trained(operations, epochs=3, run={"output_dir": tmp_path, "checkpoints": True, "progress": stop})
    resumed, _ = trained(operations, epochs=3, run={"output_dir": tmp_path, "checkpoints": True, "resume": True})
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
