"""The conformance kit refuses each mistake, and says what the author did and how to mend it."""

from __future__ import annotations

import pytest
import torch
from bad_modules import (
    Attached,
    Behind,
    ByHash,
    HooksTheNetwork,
    InitialisesNow,
    Network,
    PatchesTheNetwork,
    WritesNow,
    build,
)
from torch import nn

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.testing import check_compilation, check_composition, check_operations
from surgeon.testing.conformance import check_promise

MISTAKES = {
    "HiddenBuffer": r"hidden\.added\.module\.mean is a buffer that training changes.*persistent=True",
    "PlainTensor": r"hidden\.added\.module\.offset holds a plain tensor.*register_buffer",
    "ClosureHook": r"a hook on hidden\.added\.module is _double.*surgery\.hook",
    "PatchedForward": r"the forward of hidden\.added\.module is replaced.*Write a class",
    "Unpicklable": r"hidden\.added\.module\.activation cannot be pickled.*instead of a lambda",
    "Local": r"hidden\.added\.module is a Local, a class that is defined inside a function.*top of its module",
    "FixedBatch": r"not on a batch of 1.*x\.shape\[0\]",
    "Mixing": r"mixes the samples of a batch.*Reduce over features",
    "WithoutGradient": r"hidden\.added\.module\.factors gets no gradient, though its module runs",
    "Detached": r"no gradient reaches hidden\.bias, hidden\.weight any more.*detach\(\).*surgery\.freeze",
    "HidesNan": r"hides NaN.*nan_to_num",
    "DropoutLeftOn": r"in eval mode, behind makes outputs random.*training=self\.training",
    "EvalLeftOn": r"hidden\.added\.module is in eval mode, though the network is in train mode.*surgery\.freeze",
    "NeverTrains": r"after train\(\), hidden\.added\.module is in eval mode",
    "TensorInObject": r"hidden\.added\.module\.states holds a plain tensor.*register_buffer",
    "TensorOutside": r"moved to another device.*register_buffer",
    "PythonNumbers": r"moved to another device.*numpy",
    "KeepsItsInput": r"hidden\.added\.module\.last holds a plain tensor.*register_buffer",
    "Counts": r"hidden\.added\.module\.steps was 0 before training and is 1 after a step.*register_buffer",
    "Locked": r"hidden\.added\.module\.lock cannot be pickled",
    "PartialHook": r"a hook on hidden\.added\.module is partial.*surgery\.hook",
    "BatchSoftmax": r"mixes the samples of a batch.*Reduce over features",
    "WithoutStatistics": r"mixes the samples of a batch.*Reduce over features",
    "ExpandsToTwo": r"for one sample, behind gives an output of 2 rows.*x\.shape\[0\]",
    "TimesZero": r"the gradient of hidden\.added\.module\.factors is zero.*multiplied by zero",
    "DeadChild": r"hidden\.added\.module\.spare\.bias, .* never plays a part",
    "NoGrad": r"no gradient reaches hidden\.bias, hidden\.weight any more.*no_grad\(\)",
    "NanByWhere": r"hides NaN.*nan_to_num",
    "DropoutModuleLeftOn": r"hidden\.added\.module\.dropout is in train mode, though the network is in eval mode",
    "Seeds": r"seeds torch's random numbers.*Generator",
    "GradientsLeftOff": r"changes torch's global state \(the mode of gradients: True → False\).*as a context",
    "OnlyFloat32": r"runs in bfloat16, the edited one does not.*dtype=x\.dtype",
}


def inputs():
    return (torch.randn(2, 6, generator=torch.Generator().manual_seed(1)),)


def test_a_module_without_a_mistake_passes():
    assert isinstance(check_operations(build, [Behind(module="Good")], inputs()), Network)


@pytest.mark.parametrize("module", sorted(MISTAKES))
def test_a_module_with_a_mistake_is_refused(module):
    with pytest.raises(AssertionError, match=MISTAKES[module]):
        check_operations(build, [Behind(module=module)], inputs())


def test_a_module_that_nothing_calls_is_refused():
    with pytest.raises(AssertionError, match=r"hidden\.extra\.bias, .* never plays a part.*surgery\.insert"):
        check_operations(build, [Attached()], inputs())


def test_what_does_not_compile_any_more_is_refused():
    check_operations(build, [Behind(module="Branches")], inputs())
    with pytest.raises(AssertionError, match=r"the original network compiles in one graph.*torch\.where"):
        check_compilation(build, [Behind(module="Branches")], inputs())


def test_what_does_not_export_any_more_is_refused():
    check_promise("export", build, [Behind(module="Good")], inputs())
    with pytest.raises(AssertionError, match=r"the original network exports.*torch\.where"):
        check_promise("export", build, [Behind(module="Branches")], inputs())


def test_a_module_without_a_mistake_compiles_and_exports():
    check_compilation(build, [Behind(module="Good")], inputs())


def test_a_result_that_hash_seeds_decide_is_refused():
    with pytest.raises(AssertionError, match=r"by_hash gives another network in another process.*Sort sets"):
        check_promise("hash_seeds", build, [ByHash()], inputs())


def test_values_that_the_seed_does_not_determine_are_refused():
    with pytest.raises((AssertionError, OperationError)):
        check_operations(build, [Behind(module="OwnRandomness")], inputs())


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (InitialisesNow(), r"wrote values into hidden\..*weight[\s\S]*surgery\.fill"),
        (WritesNow(), r"wrote values into head\.weight[\s\S]*surgery\.fill"),
        (PatchesTheNetwork(), r"hidden\.forward[\s\S]*surgery\.replace"),
        (HooksTheNetwork(), r"the hooks of hidden[\s\S]*surgery\.hook"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_engine_refuses_says_how_to_mend_it(operation, message):
    with pytest.raises(OperationError, match=message):
        check_operations(build, [operation], inputs())


def random_network() -> nn.Module:
    torch.manual_seed(0)
    model = Network()
    model.hidden = nn.Sequential(nn.Linear(6, 8), Noise())
    return model


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def test_what_the_network_did_before_is_not_held_against_the_operation():
    check_operations(random_network, [Behind(module="Good", at="blocks.0")], inputs())


class KnowsTheHead(Operation):
    """Widen what is called ``head``, whatever it is."""

    def apply(self, model, surgery):
        surgery.replace("head", surgery.new(nn.Linear, 8, 7))
        surgery.replace("blocks.1", surgery.new(nn.Linear, 8, 8))
        return surgery.model


class KeepsTheStrongest(Operation):
    """Keep the block with the larger weights, where a plan assumes the first one."""

    def apply(self, model, surgery):
        def strongest():
            sizes = [float(surgery.weight(block.weight).norm()) for block in model.blocks]
            return [sizes.index(max(sizes))]

        surgery.keep_children("blocks", surgery.choose("kept", strongest, plan=[0]))
        return surgery.model


class Breaks(Operation):
    """Raise where it is not first."""

    def apply(self, model, surgery):
        if hasattr(model, "grafts"):
            raise KeyError("head")
        return surgery.model


def test_orders_with_surgeons_operations_are_tried():
    worked = check_composition(build, [Behind(module="Good")], inputs())
    assert {"replace_head, behind", "behind, replace_head", "behind, multitask"} <= set(worked)
    assert check_composition(build, [KnowsTheHead()], inputs())


def test_an_order_that_raises_is_refused_by_name():
    with pytest.raises(AssertionError, match=r"multitask, breaks: .*KeyError"):
        check_composition(build, [Breaks()], inputs())


def test_what_was_kept_is_compared_with_what_was_chosen_rather_than_what_a_plan_assumes():
    def strong():
        model = build()
        with torch.no_grad():
            model.blocks[1].weight.mul_(3)
        return model

    edited = check_operations(strong, [KeepsTheStrongest()], inputs())
    assert torch.equal(edited.blocks[0].weight, strong().blocks[1].weight)
