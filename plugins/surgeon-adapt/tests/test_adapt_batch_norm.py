"""domain_batch_norm and keep_domain: statistics of each domain, and which are used outside of training."""

from __future__ import annotations

import json

import pytest
import torch
from adapt_data import network, samples, trained
from pydantic import ValidationError
from surgeon_adapt import MMD, DomainBatchNorm, KeepDomain
from surgeon_adapt.domain_norm import DomainNorm
from torch import nn

import surgeon
from surgeon.errors import TrainingError
from surgeon.testing import check_composition, check_operations

DOMAINS = ["plain", "photo"]
IMAGES = (torch.randn(4, 1, 6, 6),)


def norms(**fields: str) -> DomainBatchNorm:
    return DomainBatchNorm(domains=DOMAINS, **fields)


def test_each_domain_has_a_batch_of_its_own_in_training():
    torch.manual_seed(0)
    plain, photo, alone = (nn.BatchNorm2d(3) for _ in range(3))
    part = DomainNorm([plain, photo], DOMAINS, "photo").train()
    x, domain = torch.randn(7, 3, 4, 4), torch.tensor([1, 0, 0, 1, 1, 0, 1])
    part.domain = domain
    outputs = part(x)
    for number, norm in enumerate((plain, photo)):
        alone.reset_running_stats()
        torch.testing.assert_close(outputs[domain == number], alone(x[domain == number]))
        torch.testing.assert_close(norm.running_mean, alone.running_mean)
        torch.testing.assert_close(norm.running_var, alone.running_var)
    part.eval()
    torch.testing.assert_close(part(x), photo(x))


def test_a_single_value_is_normalised_by_running_statistics_and_a_reshaped_batch_is_refused():
    part = DomainNorm([nn.BatchNorm1d(3), nn.BatchNorm1d(3)], DOMAINS, "photo").train()
    part.norms[1].running_mean.fill_(2.0)
    part.domain = torch.tensor([0, 0, 1])
    x = torch.randn(3, 3)
    torch.testing.assert_close(part(x)[2], (x[2] - 2) / (1 + 1e-5) ** 0.5)
    with pytest.raises(surgeon.OperationError, match="6 rows for a batch of 3"):
        part(torch.randn(6, 3))


@pytest.mark.parametrize("affine", ["shared", "own"])
def test_it_keeps_what_surgeon_promises_of_every_operation(affine):
    check_operations(network, [norms(affine=affine)], IMAGES)
    check_operations(network, [norms(affine=affine), KeepDomain(domain="plain")], IMAGES)


def test_it_goes_with_other_operations():
    worked = check_composition(network, [norms()], IMAGES)
    assert {"replace_head, domain_batch_norm", "domain_batch_norm, replace_head"} <= set(worked)


def test_the_network_computes_what_it_did_before_training():
    model = network().train()
    model(*IMAGES)
    edited = surgeon.apply(model.eval(), [norms(affine="own")]).eval()
    assert torch.equal(edited(*IMAGES), model(*IMAGES))


@pytest.mark.parametrize("affine", ["shared", "own"])
def test_training_gives_each_domain_its_statistics_and_a_file_says_which_are_used(affine, tmp_path):
    model, report = trained([norms(affine=affine)], epochs=8)
    part = model[1]
    for number, domain in enumerate(DOMAINS):
        of_domain = samples(shifted=domain == "photo")
        torch.testing.assert_close(
            part.norms[number].running_mean, model[0](of_domain).mean((0, 2, 3)), atol=0.3, rtol=0.2
        )
    assert (part.norms[0].weight is part.norms[1].weight) == (affine == "shared")
    assert set(report.tasks["logits"]) == {"all", "plain", "photo"}
    surgeon.save(model, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "surgeon.json").read_text())
    assert '"predict": "photo"' in json.dumps(record)
    loaded = surgeon.load(tmp_path / "out", arch=network)
    x = samples(shifted=True)
    assert torch.equal(loaded(x), model(x))
    assert "predict=photo" in repr(loaded)
    assert (loaded[1].norms[0].weight is loaded[1].norms[1].weight) == (affine == "shared")


def test_predictions_use_the_statistics_of_the_target_unless_another_domain_is_named():
    x = samples(shifted=True)
    outputs = {}
    for predict in (None, "photo", "plain"):
        operation = norms() if predict is None else norms(predict=predict)
        model = surgeon.apply(network(), [operation]).eval()
        for number, norm in enumerate(model[1].norms):
            norm.running_mean.fill_(number)
        alone = nn.Sequential(*model)
        alone[1] = model[1].norms[DOMAINS.index(predict or "photo")]
        assert torch.equal(model(x), alone(x))
        outputs[predict] = model(x)
    assert torch.equal(outputs[None], outputs["photo"])
    assert not torch.equal(outputs["plain"], outputs["photo"])
    notes = surgeon.plan(network(), [norms()]).steps[0].notes
    assert "outside of training, 1 norms use the statistics of photo" in notes


@pytest.mark.parametrize("domain", [None, "plain"])
def test_one_domain_is_kept_in_plain_norms(domain, tmp_path):
    model, _ = trained([norms(affine="own"), MMD()], epochs=2)
    surgeon.save(surgeon.apply(model, [KeepDomain(domain=domain)]), tmp_path / "one")
    one = surgeon.load(tmp_path / "one", arch=network)
    assert type(one[1]) is nn.BatchNorm2d
    assert one.state_dict().keys() == network().state_dict().keys()
    model[1].predict = domain or "photo"
    x = samples(shifted=True)
    assert torch.equal(one(x), model(x))


def test_a_stock_class_of_transformers_is_one_again(tmp_path):
    from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3, num_channels=1)
    ResNetForImageClassification(config).save_pretrained(tmp_path / "stock")
    surgeon.run_recipe(tmp_path / "stock", [norms(affine="own")], tmp_path / "both", train=False)
    surgeon.run_recipe(tmp_path / "both", [KeepDomain()], tmp_path / "one", train=False)
    one = AutoModelForImageClassification.from_pretrained(tmp_path / "one").eval()
    x = torch.randn(2, 1, 32, 32)
    both = surgeon.load(tmp_path / "both")
    assert torch.equal(one(x).logits, both(x).logits)


def test_what_cannot_be_is_refused_with_what_to_do():
    for fields, message in (
        ({"domains": ["a"]}, "at least 2"),
        ({"domains": ["a", "a"]}, "there twice"),
        ({"domains": DOMAINS, "predict": "phto"}, "none of the domains: plain, photo"),
    ):
        with pytest.raises(ValidationError, match=message):
            DomainBatchNorm(**fields)
    for build, operation, message in (
        (network, norms(at="0"), "no BatchNorm"),
        (lambda: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten()), norms(), "without running"),
        (lambda: surgeon.apply(network(), [norms()]), norms(), "norms by domain already"),
        (network, KeepDomain(), "no norms by domain"),
        (lambda: surgeon.apply(network(), [norms()]), KeepDomain(domain="phto"), "no domain 'phto'"),
    ):
        with pytest.raises(surgeon.OperationError, match=message):
            surgeon.plan(build(), [operation])
    with pytest.raises(TrainingError, match=r"(?s)1 distinguishes the domains plain, photo, and the data have none"):
        trained([norms()], domains=(), epochs=1)
    with pytest.raises(TrainingError, match="and the data have 'sketch'"):
        trained([norms()], domains=("plain", "sketch"), epochs=1)
    with pytest.raises(TrainingError, match="use domain_bn: mixed"):
        trained([norms()], epochs=1, domain_bn="separate")
