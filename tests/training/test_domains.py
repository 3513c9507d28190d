"""``domain_bn: separate``: each domain in a batch of its own where BatchNorm takes its statistics."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.domains import SeparateNorms
from surgeon.training.session import train


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


def test_each_domain_is_normalised_as_if_it_were_the_batch_in_the_order_of_the_batch():
    model, alone = network().train(), network().train()
    x = torch.randn(7, 1, 4, 4)
    domain = torch.tensor([1, 0, 0, 1, 1, 0, 2])
    norms = SeparateNorms(model)
    with norms.installed():
        norms.domain = domain
        output = model(x)
    for number in range(3):
        torch.testing.assert_close(output[domain == number], alone(x[domain == number]))
    torch.testing.assert_close(model[1].running_mean, alone[1].running_mean)
    assert model[1].num_batches_tracked == 3


def test_the_running_statistics_follow_the_domain_that_is_kept_alone():
    model, alone = network().train(), network().train()
    x = torch.randn(8, 1, 4, 4)
    domain = torch.arange(8) % 2
    norms = SeparateNorms(model, keep=1)
    with norms.installed():
        norms.domain = domain
        output = model(x)
    torch.testing.assert_close(output[domain == 1], alone(x[domain == 1]))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(model[1], name), getattr(alone[1], name))
    torch.testing.assert_close(output[domain == 0], alone(x[domain == 0]))
    assert model[1].track_running_stats


def test_nothing_of_it_is_left_behind():
    model = network().train()
    norms = SeparateNorms(model)
    with norms.installed():
        assert "forward" in model[1].__dict__
    assert "forward" not in model[1].__dict__
    x = torch.randn(4, 1, 4, 4)
    torch.testing.assert_close(model(x), copy.deepcopy(network().train())(x))


def test_a_lone_value_is_normalised_by_the_running_statistics():
    norm = nn.BatchNorm1d(3).train()
    norm.running_mean.fill_(2.0)
    norms = SeparateNorms(norm)
    x = torch.randn(3, 3)
    with norms.installed():
        norms.domain = torch.tensor([0, 0, 1])
        output = norm(x)
    torch.testing.assert_close(norm.running_mean, 1.8 + 0.1 * x[:2].mean(0))
    torch.testing.assert_close(output[2], (x[2] - norm.running_mean) / (norm.running_var + norm.eps).sqrt())


def domains(count: int = 40) -> Splits:
    """Two domains that differ by a shift, which separate statistics take out."""

    def split(seed: int) -> Columns:
        generator = torch.Generator().manual_seed(seed)
        domain = torch.arange(count) % 2
        x = torch.randn(count, 1, 4, 4, generator=generator)
        return Columns(
            pixel_values=x + 8 * domain.reshape(-1, 1, 1, 1), labels=(x.mean((1, 2, 3)) > 0).long(), domain=domain
        )

    return Splits(split(0), split(1))


@pytest.mark.parametrize("how", ["mixed", "separate"])
def test_the_setting_reaches_training_only(how):
    model = network()
    settings = TrainSettings(epochs=2, batch_size=8, domain_bn=how)
    train(model, settings, data=domains(), quiet=True)
    assert (model[1].num_batches_tracked == 2 * 5 * (2 if how == "separate" else 1)).item()
    assert "forward" not in model[1].__dict__


def test_the_network_is_left_with_the_statistics_of_the_domain_that_the_settings_name():
    data = dataclasses.replace(domains(), domains=("near", "far"))
    means = {}
    for keep in ("near", "far"):
        model = network()
        model[0].requires_grad_(False)
        settings = TrainSettings(epochs=8, batch_size=8, domain_bn="separate", domain_statistics=keep)
        train(model, settings, data=data, quiet=True)
        means[keep] = model[1].running_mean
    shift = 8 * network()[0].weight.sum((1, 2, 3))  # what lies between the domains, behind the convolution
    torch.testing.assert_close(means["far"] - means["near"], shift, atol=0.3, rtol=0.1)
    with pytest.raises(TrainingError, match=r"(?s)no source has the domain 'fra'.*far"):
        train(network(), settings.model_copy(update={"domain_statistics": "fra"}), data=data, quiet=True)
    with pytest.raises(ValueError, match="needs domain_bn: separate"):
        TrainSettings(domain_statistics="far")


def test_it_needs_domains_and_a_norm():
    settings = TrainSettings(epochs=1, domain_bn="separate")
    plain = domains().train.columns
    del plain["domain"]
    with pytest.raises(TrainingError, match="domain_bn: separate needs domains"):
        train(network(), settings, data=Splits(Columns(**plain), Columns(**plain)), quiet=True)
    with pytest.raises(TrainingError, match="no BatchNorm"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), settings, data=domains(), quiet=True)
