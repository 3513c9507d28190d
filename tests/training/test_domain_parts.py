"""What penalties and modules of plugins get from the loop: features of a site, progress, the domain of each sample."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from two_heads import NEW, TwoHeads, data, settings

import surgeon
from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Penalty
from surgeon.training.anatomy import Anatomy
from surgeon.training.calls import Call
from surgeon.training.penalties import Run
from surgeon.training.session import train


class ByDomain(nn.Module):
    takes_domain: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.domains = ("b", "a")
        self.domain: Tensor | None = None
        self.seen: list[tuple[bool, Tensor | None]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((self.training, self.domain))
        return x


def run_of(model: nn.Module) -> Run:
    return Run(model, Call.of(model, ["pixel_values"]), Anatomy(model, None), {}, set(), lambda source: data(), 0)


def test_features_are_those_that_the_head_reads_or_a_sites_and_are_read_once():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x = torch.randn(3, 1, 8, 8)
    run = run_of(model)
    last, maps = run.features(), run.features("0")
    model(x)
    torch.testing.assert_close(last({}), model[:4](x))
    torch.testing.assert_close(maps({}), model[0](x).mean((2, 3)))
    assert (last.width, maps.width) == (4, 4)
    maps({})
    with pytest.raises(TrainingError, match="does not run in training"):
        maps({})
    run.ending.close()
    assert not any(module._forward_hooks for module in model.modules())


def test_padding_is_left_out_of_features_of_tokens():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
    )
    model = BertForSequenceClassification(config).eval()
    read = run_of(model).features("bert.encoder.layer[0].output")
    ids, mask = torch.randint(1, 30, (2, 5)), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    whole = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(read({"attention_mask": mask}), torch.stack([whole[0, :3].mean(0), whole[1].mean(0)]))


def test_frozen_features_and_unknown_sites_are_refused():
    model = TwoHeads()
    run = run_of(model)
    with pytest.raises(TrainingError, match="no module matches"):
        run.features("nothing")
    model.trunk.requires_grad_(False)
    read = run.features("trunk")
    model(torch.randn(2, 4))
    with pytest.raises(TrainingError, match="no gradient reaches the features of trunk"):
        read({})


def test_progress_rises_from_0_towards_1_and_two_penalties_do_not_learn_under_one_name():
    seen = []

    class Watch(Penalty):
        def begin(self, run):
            value = run.learn("scale", torch.ones(()))

            def term(outputs, batch):
                seen.append(run.progress())
                return value * outputs["new"].sum() * 0

            return term

    train(TwoHeads(), settings(), objectives=NEW, penalties=[Watch()], data=data(), quiet=True)
    assert seen == [step / 8 for step in range(8)]
    with pytest.raises(TrainingError, match="two penalties learn 'scale'"):
        train(TwoHeads(), settings(), objectives=NEW, penalties=[Watch(), Watch()], data=data(), quiet=True)


def two_domains(count: int = 16) -> Splits:
    def split(seed: int) -> Columns:
        x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
        return Columns(pixel_values=x, labels=(x[:, 0] > 0).long(), domain=(x[:, 1] > 0).long())

    return Splits(split(0), split(1), domains=("a", "b"))


def test_modules_get_the_domain_of_each_sample_by_their_own_numbers_and_in_training_only():
    part = ByDomain()
    torch.manual_seed(0)
    model = nn.Sequential(part, nn.Linear(4, 2))
    batches = []

    class Look(Penalty):
        def begin(self, run):
            return lambda outputs, batch: (batches.append(batch["domain"]), outputs["logits"].sum() * 0)[1]

    train(model, settings(), penalties=[Look()], data=two_domains(), quiet=True)
    given = [domain for training, domain in part.seen if training]
    assert len(given) == len(batches) == 4
    assert all(torch.equal(mine, 1 - theirs) for mine, theirs in zip(given, batches, strict=True))
    assert all(domain is None for training, domain in part.seen if not training)
    assert part.domain is None


@pytest.mark.parametrize(
    ("domains", "message"),
    [((), "distinguishes the domains b, a, and the data have none"), (("a", "c"), "and the data have 'c'")],
)
def test_data_without_the_domains_of_a_module_are_refused(domains, message):
    splits = dataclasses.replace(two_domains(), domains=domains)
    with pytest.raises(TrainingError, match=message):
        train(nn.Sequential(ByDomain(), nn.Linear(4, 2)), settings(), data=splits, quiet=True)


def test_an_operation_can_ask_for_the_features_of_the_head_or_of_a_site():
    class Look(surgeon.Operation):
        at: surgeon.Selector | None = None

        def apply(self, model, surgery):
            features = surgery.features(self.at)
            surgery.note(f"{features.site} {features.shape} {features.width}")
            return surgery.model

    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    notes = [surgeon.plan(model, [operation]).steps[0].notes for operation in (Look(), Look(at="0"))]
    assert any("3 (2, 4) 4" in note for note in notes[0])
    assert any("0 (2, 4, 62, 62) 4" in note for note in notes[1])
