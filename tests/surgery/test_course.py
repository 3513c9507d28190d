"""Carrying out operations: what they change has to be in the journal, and what they raise is named."""

from __future__ import annotations

import pytest
import torch
from families import build
from torch import nn

import surgeon
from surgeon.errors import OperationError, PluginError
from surgeon.interfaces.operation import Operation


class Sneaky(Operation):
    """Edits behind the surgery's back."""

    def apply(self, model, surgery):
        """Drop a layer without a word."""
        del model.fc
        return model


class Stray(Operation):
    """Brings a layer of its own."""

    def apply(self, model, surgery):
        """Replace the head by a layer that surgery knows nothing of."""
        surgery.replace("fc", nn.Linear(512, 2))
        return model


class Crash(Operation):
    """Raises."""

    def apply(self, model, surgery):
        """Raise."""
        raise KeyError("oops")


class FromNeighbour(Operation):
    """Derives a head from the weights it finds."""

    def apply(self, model, surgery):
        """Replace the head by the old one's first two rows, doubled."""
        old = surgery.site("fc").module
        new = surgery.new(nn.Linear, old.in_features, 2, like=old)
        surgery.derive(new.weight, [old.weight], lambda weight: weight[:2] * 2)
        surgery.derive(new.bias, [new.bias, old.bias], lambda values, bias: values * 0 + bias[:2])
        surgery.replace("fc", new)
        return model


class NewRoot(Operation):
    """Returns another network than the one that it was given."""

    def apply(self, model, surgery):
        """Wrap the network without a word."""
        return nn.Sequential(model)


def test_an_edit_outside_the_journal_is_refused_by_name():
    with pytest.raises(OperationError, match=r"sneaky: changed 2 tensors outside its journal: fc\.bias"):
        surgeon.apply(build("resnet"), [Sneaky()])


def test_a_tensor_from_nowhere_is_refused():
    with pytest.raises(OperationError, match="2 tensors have no origin"):
        surgeon.apply(build("resnet"), [Stray()])


def test_an_operation_that_raises_is_named():
    with pytest.raises(PluginError, match="crash: raised KeyError: 'oops'"):
        surgeon.apply(build("resnet"), [Crash()])


def test_derived_tensors_are_computed_from_their_sources():
    model = build("resnet")
    edited = surgeon.apply(model, [FromNeighbour()])
    assert torch.equal(edited.fc.weight, model.fc.weight[:2] * 2)
    assert torch.equal(edited.fc.bias, model.fc.bias[:2])
    counts = surgeon.plan(model, [FromNeighbour()]).counts
    assert counts == "120 of 122 tensors kept, 2 derived by from_neighbour"


def test_another_network_than_the_edited_one_is_refused_with_what_to_call():
    with pytest.raises(OperationError, match=r"new_root: apply returned Sequential") as caught:
        surgeon.apply(build("resnet"), [NewRoot()])
    assert "surgery.wrap" in str(caught.value)


def test_each_operation_has_its_own_notes_in_the_plan():
    class Noted(Operation):
        """Adds a line to the plan, twice."""

        line: str

        def apply(self, model, surgery):
            """Add the line."""
            surgery.note(self.line)
            surgery.note(self.line)
            return model

    steps = surgeon.plan(build("resnet"), [Noted(line="one"), Noted(line="two")]).steps
    assert [step.notes for step in steps] == [("one",), ("two",)]
