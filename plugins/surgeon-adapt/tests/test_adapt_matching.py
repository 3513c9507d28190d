"""mmd and coral: the distances against plain references, what a training does with them, and what it leaves behind."""

from __future__ import annotations

import math

import pytest
import torch
from adapt_data import hooks, network, samples, trained
from surgeon_adapt import MMD, Coral
from surgeon_adapt.distances import coral, mean_over_pairs, squared_mmd

import surgeon
from surgeon.errors import TrainingError
from surgeon.testing import check_composition, check_operations


def points(count: int, width: int = 3, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count)) + shift


def textbook_mmd(one: torch.Tensor, other: torch.Tensor, widths: list[float]) -> float:
    """The double sums, pair by pair, in plain Python."""
    every = [*one.tolist(), *other.tolist()]
    apart = [math.dist(a, b) ** 2 for i, a in enumerate(every) for j, b in enumerate(every) if i != j]
    median = sorted(apart)[(len(apart) - 1) // 2]

    def kernel(a: list[float], b: list[float]) -> float:
        return sum(math.exp(-(math.dist(a, b) ** 2) / (width * median)) for width in widths) / len(widths)

    def mean(some: list[list[float]], others: list[list[float]]) -> float:
        return sum(kernel(a, b) for a in some for b in others) / (len(some) * len(others))

    x, y = one.tolist(), other.tolist()
    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@pytest.mark.parametrize("widths", [[1.0], [0.25, 0.5, 1.0, 2.0, 4.0]])
@pytest.mark.parametrize("shift", [0.0, 1.0, 1000.0])
def test_mmd_is_the_textbook_double_sum(widths, shift):
    one, other = points(7, shift=shift), points(5, shift=shift + 0.5)
    assert squared_mmd(one, other, widths).item() == pytest.approx(textbook_mmd(one, other, widths), rel=2e-3, abs=1e-6)


def test_mmd_is_zero_for_equal_samples_grows_with_a_shift_and_sees_more_than_the_mean():
    widths = [0.5, 1.0, 2.0]
    x, y = points(64), points(65)
    values = [squared_mmd(x, y + shift, widths).item() for shift in (0.0, 1.0, 3.0)]
    assert squared_mmd(x, x, widths).abs() < 1e-6
    assert values == sorted(values)
    assert squared_mmd(x, y * 3, widths) > 5 * squared_mmd(x, y, widths)
    assert squared_mmd(torch.zeros(3, 2), torch.zeros(3, 2), widths) == 0


def test_the_gradient_of_mmd_is_that_of_its_values():
    one, other = points(4).requires_grad_(True), points(5) + 1
    (gradient,) = torch.autograd.grad(squared_mmd(one, other, [1.0]), one)
    moved = one.detach() - 0.05 * gradient / gradient.norm()
    assert squared_mmd(moved, other, [1.0]) < squared_mmd(one, other, [1.0])
    assert gradient.isfinite().all()


def covariance(x: torch.Tensor) -> torch.Tensor:
    """Sun & Saenko 2016, eq. 2."""
    n, ones = len(x), torch.ones(1, len(x))
    return (x.T @ x - (ones @ x).T @ (ones @ x) / n) / (n - 1)


def test_coral_is_its_equation():
    one, other = points(7), points(6) * 2 + 1
    expected = (covariance(one) - covariance(other)).square().sum() / (4 * 3**2)
    torch.testing.assert_close(coral(one, other), expected)
    torch.testing.assert_close(coral(one, one + 5), torch.zeros(()), atol=1e-6, rtol=0)


def test_domains_are_compared_in_pairs_and_a_lone_one_gives_zero_with_a_gradient():
    x = points(9).requires_grad_(True)
    domain = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])
    parts = [x[:3], x[3:5], x[5:8]]  # the last domain has one sample
    expected = (coral(parts[0], parts[1]) + coral(parts[0], parts[2]) + coral(parts[1], parts[2])) / 3
    torch.testing.assert_close(mean_over_pairs(x, domain, coral), expected)
    lone = mean_over_pairs(x, torch.zeros(9), coral)
    lone.backward()
    assert lone == 0
    assert not x.grad.any()


@pytest.mark.parametrize("operation", [MMD(), MMD(at=["0", "3"]), Coral(), Coral(at="@head")])
def test_it_keeps_what_surgeon_promises_of_every_operation(operation):
    check_operations(network, [operation], (torch.randn(4, 1, 6, 6),))


@pytest.mark.parametrize("operation", [MMD(), Coral(at="@head")])
def test_it_goes_with_other_operations(operation):
    worked = check_composition(network, [operation], (torch.randn(4, 1, 6, 6),))
    assert {f"replace_head, {operation.name}", f"{operation.name}, replace_head"} <= set(worked)


@pytest.fixture(scope="module")
def plain():
    """The network, trained without a term."""
    return trained([])[0]


@pytest.mark.parametrize("operation", [MMD(weight=3.0), Coral(weight=30.0), MMD(at=["0", "3"], schedule="dann")])
def test_domains_come_closer_and_nothing_is_left_in_the_network(operation, plain):
    def gap(model):
        near, far = (model[:-1](samples(shifted=shifted)) for shifted in (False, True))
        return squared_mmd(near, far, [1.0]).item() if isinstance(operation, MMD) else coral(near, far).item()

    model, report = trained([operation])
    assert gap(model) < 0.7 * gap(plain)
    assert report.history[-1]["penalty_loss"] > 0
    assert hooks(model) == 0
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert type(model) is type(plain)


@pytest.mark.parametrize("operation", [MMD(), Coral()])
def test_labels_of_the_target_are_never_read(operation):
    right, wrong = (trained([operation], wrong=wrong, epochs=3)[0].state_dict() for wrong in (False, True))
    assert all(torch.equal(right[name], wrong[name]) for name in right)


def test_the_result_is_saved_without_a_trace_and_loads_with_equal_outputs(tmp_path):
    model, _ = trained([MMD()], epochs=1)
    surgeon.save(model, tmp_path / "out")
    loaded = surgeon.load(tmp_path / "out", arch=network)
    x = torch.randn(4, 1, 6, 6)
    assert torch.equal(loaded(x), model(x))
    plan = surgeon.plan(network(), [MMD(at=["0", "@head"])])
    assert not [edit for step in plan.steps for edit in step.edits]
    assert sum("maximum mean discrepancy" in note for step in plan.steps for note in step.notes) == 2


def test_the_weight_rises_with_the_schedule():
    weights = [MMD(schedule=kind).rise(p) for kind in ("fixed", "linear", "dann") for p in (0.0, 0.5, 1.0)]
    assert weights == pytest.approx([1, 1, 1, 0, 0.5, 1, 0, 2 / (1 + math.exp(-5)) - 1, 2 / (1 + math.exp(-10)) - 1])


def test_what_cannot_be_is_refused_with_what_to_do():
    with pytest.raises(surgeon.SiteError, match="no module matches"):
        surgeon.plan(network(), [MMD(at="nothing")])
    with pytest.raises(TrainingError, match=r"(?s)mmd needs samples of at least two domains.*domain: plain"):
        trained([MMD()], domains=())
    with pytest.raises(ValueError, match="widths"):
        MMD(widths=[0.0])
    frozen = surgeon.Freeze(up_to="4")
    with pytest.raises(TrainingError, match="no gradient reaches the features"):
        trained([MMD(at="0"), frozen])
