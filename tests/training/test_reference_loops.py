"""What training computes, beside loops in plain torch and beside transformers' own losses."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from small import Tagger, X, Y, by_sgd, difference, make, splits
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from surgeon.data.columns import Columns
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.session import train


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences of very different numbers of labelled tokens."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(12, 7, 6, generator=generator)
    labels = torch.randint(0, 5, (12, 7), generator=generator)
    labels[torch.arange(7)[None] >= torch.arange(12)[:, None] % 7 + 1] = -100
    return x, labels


@pytest.mark.parametrize(("size", "parts"), [(12, 1), (4, 3), (5, 3)])
def test_the_loss_of_tokens_is_the_mean_over_all_of_them_also_over_accumulated_batches(size, parts):
    x, labels = tokens()
    model = make(Tagger)
    reference = copy.deepcopy(model)
    train_settings = by_sgd(batch_size=size, arguments={"gradient_accumulation_steps": parts})
    report = train(model, train_settings, data=splits(x, labels), quiet=True)
    optimizer = torch.optim.SGD(reference.parameters(), 0.1)
    for epoch in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(reference(x).flatten(0, 1), labels.flatten())
        if not epoch and parts == 1:
            assert report.history[0]["loss"] == pytest.approx(loss.item(), abs=1e-6)
        loss.backward()
        optimizer.step()
    assert difference(model, reference) < 1e-6
    final = F.cross_entropy(reference(x).flatten(0, 1), labels.flatten()).item()
    assert report.after["logits_loss"] == pytest.approx(final, abs=1e-6)


def test_the_mean_may_be_taken_over_samples_instead():
    x, labels = tokens()
    train_settings = by_sgd(epochs=1, objectives=[Objective(output="logits", mean="samples")])
    model = make(Tagger)
    report = train(model, train_settings, data=splits(x, labels), quiet=True)
    fresh = make(Tagger)(x)
    losses = [F.cross_entropy(fresh[row], labels[row]).item() for row in range(12)]
    assert report.before["logits_loss"] == pytest.approx(sum(losses) / 12, abs=1e-6)


def test_the_loss_of_token_classification_is_that_of_transformers():
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20,
                        num_labels=4)  # fmt: skip
    torch.manual_seed(0)
    model = BertForTokenClassification(config).eval()
    _, labels = tokens()
    labels = labels.clamp(max=3)
    ids = torch.randint(0, 20, labels.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(input_ids=ids, labels=labels).loss.item()
    data = Columns(input_ids=ids, labels=labels)
    report = train(model, by_sgd(epochs=1, batch_size=12), data=Splits(data, data, ("input_ids",)), quiet=True)
    assert report.before["logits_loss"] == pytest.approx(expected, abs=1e-6)


def test_a_language_model_learns_the_next_token_as_in_transformers():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8)).eval()
    ids = torch.randint(0, 20, (12, 7), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[torch.arange(7)[None] >= torch.arange(12)[:, None] % 6 + 2] = -100
    with torch.no_grad():
        expected = model(input_ids=ids, labels=labels).loss
    data = Columns(input_ids=ids, labels=labels)
    report = train(model, by_sgd(epochs=1, batch_size=5), data=Splits(data, data, ("input_ids",)), quiet=True)
    assert report.before["logits_loss"] == pytest.approx(expected.item(), abs=1e-6)
    assert report.tasks["logits"]["all"]["perplexity"] == pytest.approx(
        torch.tensor(report.after["logits_loss"]).exp().item(), rel=1e-5
    )


@pytest.mark.parametrize("parts", [1, 3])
def test_class_weights_and_label_smoothing_are_those_of_torch(parts):
    weights = [0.5, 2.0, 1.0]
    labels = Y.clone()
    labels[::5] = -100
    model = make()
    reference = copy.deepcopy(model)
    for network in (model, reference):
        network.n = nn.Identity()  # whose statistics differ by batch
    arguments = {"gradient_accumulation_steps": parts}
    train_settings = by_sgd(batch_size=48 // parts, class_weights=weights, label_smoothing=0.1, arguments=arguments)
    train(model, train_settings, data=splits(X, labels), quiet=True)
    optimizer = torch.optim.SGD(reference.parameters(), 0.1)
    for _ in range(8):
        optimizer.zero_grad()
        F.cross_entropy(reference(X), labels, torch.tensor(weights), label_smoothing=0.1).backward()
        optimizer.step()
    assert difference(model, reference) < 1e-6


def test_the_loss_that_is_evaluated_is_not_a_mean_of_the_means_of_batches():
    seen = {}
    x, labels = tokens()
    model = make(Tagger)
    train_settings = by_sgd(epochs=1, batch_size=5, arguments={"eval_strategy": "epoch"})
    data = splits(x, labels)
    report = train(model, train_settings, data=dataclasses.replace(data, validation=data.test), quiet=True)
    seen = report.history[-1]
    assert seen["eval_loss"] == pytest.approx(report.after["logits_loss"], abs=1e-6)


def test_options_of_a_loss_may_be_written_within_it():
    objective = Objective.model_validate({"output": "logits", "loss": {"cross_entropy": {"label_smoothing": 0.1}}})
    assert (objective.loss, objective.options) == ("cross_entropy", {"label_smoothing": 0.1})
    report = train(make(), by_sgd(epochs=1, objectives=[objective]), data=splits(), quiet=True)
    expected = F.cross_entropy(make().eval()(X), Y, label_smoothing=0.1).item()
    assert report.before["logits_loss"] == pytest.approx(expected, abs=1e-6)


def test_settings_survive_being_written_and_read():
    train_settings = TrainSettings.model_validate(
        {
            "objectives": [{"output": "logits", "loss": {"huber": {"delta": 2.0}}}],
            "class_weights": {"a": 2},
            "baseline": {"epochs": 3},
            "mix": {"mixup": 0.2},
            "average": {"kind": "swa"},
        }
    )
    assert TrainSettings.model_validate(train_settings.model_dump(mode="json")) == train_settings
