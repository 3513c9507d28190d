from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from surgeon.data.labels import present
from surgeon.errors import TrainingError
from surgeon.training.losses import surgeon_losses

LOSSES = surgeon_losses()
NAN = float("nan")


def batch(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    if name == "cross_entropy":
        return torch.randn(4, 3), torch.tensor([0, 2, 1, 0])
    return torch.randn(4, 3), torch.rand(4, 3)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cross_entropy", lambda p, t: F.cross_entropy(p, t)),
        ("bce", lambda p, t: F.binary_cross_entropy_with_logits(p, t)),
        ("mse", lambda p, t: F.mse_loss(p, t)),
        ("huber", lambda p, t: F.huber_loss(p, t)),
        ("cosine", lambda p, t: (1 - F.cosine_similarity(p, t)).mean()),
    ],
)
def test_the_mean_over_samples_is_the_loss_of_torch(name, reference):
    prediction, target = batch(name)
    values = LOSSES[name](prediction, target)
    assert values.shape == (4,)
    torch.testing.assert_close(values.mean(), reference(prediction, target))


@pytest.mark.parametrize("name", ["bce", "mse", "huber"])
def test_missing_elements_are_left_out_of_their_samples_mean(name):
    prediction, target = batch(name)
    target[1, 2] = NAN
    expected = LOSSES[name](prediction[1:2, :2], target[1:2, :2])
    torch.testing.assert_close(LOSSES[name](prediction, target)[1:2], expected)


def test_cross_entropy_of_pixels_averages_over_the_labelled_ones():
    prediction, target = torch.randn(2, 5, 4, 4), torch.randint(5, (2, 4, 4))
    target[0, :2] = -100
    expected = F.cross_entropy(prediction[:1, :, 2:], target[:1, 2:])
    torch.testing.assert_close(LOSSES["cross_entropy"](prediction, target)[0], expected)


def test_cross_entropy_of_tokens_takes_the_classes_from_the_last_dimension():
    prediction, target = torch.randn(2, 7, 5), torch.randint(5, (2, 7))
    expected = F.cross_entropy(prediction.flatten(0, 1), target.flatten())
    torch.testing.assert_close(LOSSES["cross_entropy"](prediction, target).mean(), expected)


@pytest.mark.parametrize("name", ["bce", "mse", "huber"])
def test_a_column_of_one_goes_with_a_plain_vector_and_is_not_broadcast(name):
    prediction, target = torch.randn(4, 1), torch.rand(4)
    torch.testing.assert_close(LOSSES[name](prediction, target), LOSSES[name](prediction[:, 0], target))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_shapes_that_do_not_go_together_are_refused_with_both(name):
    target = torch.zeros(4, 2, dtype=torch.long) if name == "cross_entropy" else torch.zeros(4, 2)
    with pytest.raises(TrainingError, match=r"\(4, 3\).*\(4, 2\)"):
        LOSSES[name](torch.randn(4, 3), target)


def test_a_whole_number_is_missing_at_minus_100_and_a_real_one_only_at_nan():
    assert present(torch.tensor([1, -100])).tolist() == [True, False]
    assert present(torch.tensor([-100.0, NAN])).tolist() == [True, False]


def test_cross_entropy_refuses_real_numbers():
    with pytest.raises(TrainingError, match="whole numbers"):
        LOSSES["cross_entropy"](torch.randn(4, 3), torch.rand(4))
