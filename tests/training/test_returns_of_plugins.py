"""What a plugin's code returns is checked where it comes in: whose it is, what was expected, what came."""

from __future__ import annotations

import re
from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from families import build
from small import by_sgd, make, splits
from torch import nn

import surgeon
from surgeon.data.columns import Columns
from surgeon.data.combine import load_source
from surgeon.errors import OperationError, PluginError, SurgeonError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.checked_provider import CheckedProvider
from surgeon.interfaces.data import Source
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.operation import Operation, training_requests
from surgeon.interfaces.returned import described, origin_of
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective, Penalty
from surgeon.plugins import Plugins, load
from surgeon.training.session import train

HERE = "test_returns_of_plugins.py"


def plugins_with(losses=None, providers=(), operations=()) -> Plugins:
    class Bundle:
        @hookimpl
        def surgeon_losses(self):
            return losses or {}

        @hookimpl
        def surgeon_architectures(self):
            return list(providers)

        @hookimpl
        def surgeon_operations(self):
            return list(operations)

    plugins = load(installed=False)
    plugins.register(Bundle(), "bundle")
    return plugins


LOSSES = {
    "a float": (lambda prediction, target: 0.5, "the float 0.5"),
    "nothing": (lambda prediction, target: None, "None"),
    "the mean": (lambda prediction, target: prediction.mean(), r"a Tensor of shape \(\), float32"),
    "a matrix": (lambda prediction, target: prediction, r"a Tensor of shape \(\d+, 3\), float32"),
    "whole numbers": (lambda prediction, target: target, r"a Tensor of shape \(\d+,\), int64"),
    "an array": (lambda prediction, target: np.zeros(len(target)), r"a ndarray of shape \(\d+,\), float64"),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_that_gives_no_value_a_sample_is_refused_before_training(kind):
    loss, came = LOSSES[kind]
    settings = by_sgd(epochs=1, objectives=[Objective(output="logits", loss="odd")])
    expected = rf"the loss 'odd' of .*returned {came}; expected a tensor of shape \(\d+,\), one value for each sample"
    with pytest.raises(PluginError, match=expected) as refused:
        train(make(), settings, plugins=plugins_with({"odd": loss}), data=splits(), quiet=True)
    assert HERE in str(refused.value)
    assert "bug in surgeon" not in str(refused.value)


TERMS = {
    "a vector": (lambda outputs, batch: outputs["logits"].mean(0), r"a Tensor of shape \(3,\), float32"),
    "a float": (lambda outputs, batch: 0.5, "the float 0.5"),
    "nothing": (lambda outputs, batch: None, "None"),
}


@pytest.mark.parametrize("kind", TERMS)
def test_a_penalty_that_is_not_a_number_is_refused(kind):
    term, came = TERMS[kind]

    class Odd(Penalty):
        def begin(self, run):
            return term

    with pytest.raises(PluginError, match=rf"the term of Odd of .*{HERE} returned {came}; expected a tensor of shape"):
        train(make(), by_sgd(epochs=1), penalties=[Odd()], data=splits(), quiet=True)


def test_a_penalty_that_begins_with_no_function_is_refused():
    class Odd(Penalty):
        def begin(self, run):
            return 0.5

    with pytest.raises(PluginError, match=r"Odd\.begin\(run\) of .* returned the float 0\.5; expected a function"):
        train(make(), by_sgd(epochs=1), penalties=[Odd()], data=splits(), quiet=True)


@pytest.mark.parametrize("method", ["objectives", "schedules", "penalties", "unfreezing"])
@pytest.mark.parametrize(
    ("value", "came"),
    [
        ("logits", "the str 'logits'"),
        (None, "None"),
        ({"loss": "mse"}, "a dict"),
        ([{"output": "logits"}], "a list of dict"),
        (7, "the int 7"),
    ],
    ids=["text", "nothing", "mapping", "mappings", "number"],
)
def test_requests_to_training_are_lists_of_their_kind(method, value, came):
    odd = type("Odd", (Operation,), {method: lambda self: value, "__module__": __name__})
    with pytest.raises(PluginError, match=rf"Odd\.{method}\(\) of {HERE} returned {came}; expected a list of"):
        training_requests([odd()])


def test_an_objective_outside_a_list_is_refused_with_the_fix():
    class Odd(Operation):
        def objectives(self):
            return Objective(output="logits")

    with pytest.raises(PluginError, match=r"put it into a list: \[\.\.\.\]"):
        training_requests([Odd()])


def test_what_a_request_raises_names_the_operation():
    class Odd(Operation):
        def objectives(self):
            raise KeyError("tasks")

    with pytest.raises(PluginError, match=rf"Odd\.objectives\(\) of {HERE} raised KeyError: 'tasks'"):
        training_requests([Odd()])


def _rows(*values):
    return [{"x": torch.zeros(6), "labels": value} for value in values]


SPLITS = {
    "nothing": (None, r"load\(seed\) of .* returned None; expected Splits"),
    "a tuple": ((1, 2), "expected Splits"),
    "an iterator": (Splits(iter([]), splits().test, inputs=("x",)), "a dataset with a length"),
    "pairs": (
        Splits([(torch.zeros(6), 1)], [], inputs=("x",)),
        r"train\[0\].*a tuple of Tensor, int; expected a mapping",
    ),
    "a text": (
        Splits(_rows("cat"), [], inputs=("x",)),
        "column 'labels' of .* returned the str 'cat'; expected a tensor",
    ),
    "an array": (Splits(_rows(np.zeros(1)), [], inputs=("x",)), r"a ndarray of shape \(1,\), float64"),
    "other columns": (Splits(_rows(1), [], inputs=("pixel_values",)), "'pixel_values' is not among 'x', 'labels'"),
    "a wrong test part": (Splits(splits().train, [3], inputs=("x",)), r"test\[0\].*the int 3; expected a mapping"),
    "a collate": (
        Splits(splits().train, [], inputs=("x",), collate=lambda samples: samples),
        "a mapping of column names",
    ),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_a_source_loads_splits_of_samples_by_column(kind):
    value, message = SPLITS[kind]

    class Odd(Source):
        source: Literal["odd"] = "odd"

        def load(self, seed):
            return value

    with pytest.raises(PluginError) as refused:
        load_source(Odd())
    assert re.search(message, str(refused.value))
    assert HERE in str(refused.value)


def test_a_source_of_numbers_and_tensors_is_loaded():
    class Good(Source):
        source: Literal["good"] = "good"

        def load(self, seed):
            return Splits(_rows(1, 2, 3), Columns(x=torch.zeros(2, 6), labels=torch.zeros(2)), inputs=("x",))

    assert len(load_source(Good()).train) == 3


class Odd(ArchitectureProvider):
    """Answers with whatever it was made with."""

    scheme = "odd"

    def __init__(self, **answers):
        self.answers = answers

    def names(self):
        return self.answers.get("names", ["net"])

    def build(self, architecture):
        return self.answers["build"] if "build" in self.answers else nn.Linear(2, 3)

    def locate(self, name, *, weights=True):
        return self.answers["locate"] if "locate" in self.answers else super().locate(name, weights=weights)

    def of_module(self, module):
        return self.answers.get("of_module")

    def identify(self, checkpoint):
        return self.answers.get("identify")

    def complete(self, architecture, checkpoint):
        return self.answers.get("complete", [architecture])

    def namings(self, skeleton, names):
        return self.answers.get("namings", [])

    def leftovers(self, architecture, names):
        return self.answers.get("leftovers", ())


NET = Architecture(scheme="odd", name="net")
ANSWERS = {
    "names": ("net", CheckedProvider.names),
    "build": ({"layer": 1}, partial(CheckedProvider.build, architecture=NET)),
    "locate": (NET, partial(CheckedProvider.locate, name="net")),
    "of_module": ("net", partial(CheckedProvider.of_module, module=nn.Linear(1, 1))),
    "identify": (True, partial(CheckedProvider.identify, checkpoint=None)),
    "complete": (NET, partial(CheckedProvider.complete, architecture=NET, checkpoint=None)),
    "namings": ({"a": "b"}, lambda provider: list(provider.namings(nn.Linear(1, 1), []))),
    "leftovers": ("weight", partial(CheckedProvider.leftovers, architecture=NET, names=[])),
}


@pytest.mark.parametrize("method", ANSWERS)
def test_a_provider_s_answers_are_of_their_kind(method):
    value, ask = ANSWERS[method]
    provider = plugins_with(providers=[Odd(**{method: value})]).architectures()["odd"]
    with pytest.raises(PluginError, match=rf"Odd\.{method}\(.*\) of {HERE} returned .*; expected "):
        ask(provider)


@pytest.mark.parametrize("value", [None, nn.Linear, "resnet"], ids=["nothing", "a class", "a text"])
def test_a_provider_that_builds_no_network_is_named_to_who_opens_one(value):
    plugins = plugins_with(providers=[Odd(build=value)])
    with pytest.raises(
        SurgeonError, match=rf"Odd\.build\(odd/net\) of {HERE} returned .*; expected a network"
    ) as refused:
        surgeon.plan("odd/net", [surgeon.ReplaceHead(classes=2)], plugins=plugins)
    assert "bug in surgeon" not in str(refused.value)


def test_a_provider_that_answers_rightly_is_used():
    plugins = plugins_with(providers=[Odd()])
    assert surgeon.plan("odd/net", [surgeon.Reinit(sites=".")], plugins=plugins).parameters == 9


@pytest.mark.parametrize("family", ["resnet", "bert"])
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda surgery: surgery.new(lambda: "layer"), r"which surgery\.new calls, of .* returned the str 'layer'"),
        (lambda surgery: surgery.recall("largest", lambda: torch.zeros(2)), r"the answer to 'largest' is a Tensor of"),
        (lambda surgery: surgery.recall("sites", lambda: {1, 2}), "cannot be recorded"),
    ],
    ids=["new", "recall a tensor", "recall a set"],
)
def test_what_an_operation_gives_to_surgery_is_checked(family, act, message):
    class Act(Operation):
        def apply(self, model, surgery):
            act(surgery)
            return surgery.model

    with pytest.raises(SurgeonError, match=message):
        surgeon.plan(build(family), [Act()])


def test_a_factory_that_makes_another_module_the_second_time_is_refused():
    widths = iter([nn.Linear(512, 5), nn.Sequential(nn.Linear(512, 5))])

    class Act(Operation):
        def apply(self, model, surgery):
            surgery.replace("fc", surgery.new(lambda: next(widths, nn.Sequential(nn.Linear(512, 5)))))
            return surgery.model

    with pytest.raises(OperationError, match="a factory is called twice, and must make the same module both times"):
        surgeon.apply(build("resnet"), [Act()])


def test_values_are_described_shortly_and_things_by_where_they_come_from():
    assert described(torch.zeros(2, 3)) == "a Tensor of shape (2, 3), float32"
    assert described(object()) == "a object"
    assert described([]) == "a list"
    assert origin_of(nn.Linear).startswith("torch 2.")
    assert origin_of(Odd) == HERE
