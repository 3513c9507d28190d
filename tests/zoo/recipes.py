"""The operations that the sweep puts a network through."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

import surgeon
from surgeon.graph.trace import Trace, TraceError
from zoo.subjects import Subject

CLASSES = 3
DEPTHS = (0.25, 0.5, 0.75)
HEAD_COUNTS = {"RAFT": 2}
"""Heads whose outputs are counted in something else than classes: the two directions of a flow."""
DENSE = {"_DenseLayer"}
"""Blocks that read the outputs of all before them, so that none can go without the next ones' weights."""


@dataclass(frozen=True)
class Case:
    """One operation on one network.

    Attributes:
        operations: The recipe.
        ends_at: The site whose features come out in the end, to the bit.
        later: Sites at which other cases end.
        keeps: The network's own outputs stay as they were, to the bit.
        first_task: The name that a progressive network gives its first column's output.
    """

    operations: list[surgeon.Operation]
    ends_at: str | None = None
    later: tuple[str, ...] = ()
    keeps: bool = False
    first_task: str | None = None


class NoMeaningError(Exception):
    """The operation has no meaning for this network; the message says why."""


def case(subject: Subject, operation: str) -> Case:
    """What ``operation`` comes to on a network.

    Raises:
        NoMeaningError: There is nothing that it could do.
    """
    if operation.startswith("truncate"):
        site = at_depth(subject, int(operation.split()[1]) / 100)
        later = tuple({at_depth(subject, share) for share in DEPTHS} - {site})
        return Case([surgeon.Truncate(after=site)], ends_at=site, later=later)
    if operation == "keep half of the blocks":
        assert subject.trace is not None
        if not subject.roles or not any(len(stack.sites) > 1 for stack in subject.roles.blocks):
            raise NoMeaningError("the network has no stack of blocks")
        if any(len({_shape(subject.trace, s) for s in stack.sites}) > 1 for stack in subject.roles.blocks):
            raise NoMeaningError("blocks change the shape along the way, so that half of them do not fit together")
        if DENSE & {type(subject.module.get_submodule(s)).__name__ for k in subject.roles.blocks for s in k.sites}:
            raise NoMeaningError("every block reads the outputs of all before it")
        return Case([surgeon.Truncate(keep_blocks=0.5)])
    if operation == "replace head":
        return Case([_replace_head(subject)])
    middle = at_depth(subject, 0.5)
    if operation == "freeze half":
        return Case([surgeon.Freeze(up_to=middle)], keeps=True)
    if operation == "reversal":
        return Case([surgeon.GradientReversal(at=middle)], keeps=True)
    if operation == "multitask":
        tasks = {"first": {"classes": CLASSES}, "second": {"classes": 2, "at": middle, "kind": "multilabel"}}
        if _has_no_head_features(subject):
            tasks["first"]["at"] = at_depth(subject, 1.0)
        return Case([surgeon.Multitask.model_validate({"tasks": tasks})], keeps=True)
    if operation == "progressive":
        if _is_detector(subject.module):
            raise NoMeaningError("a detector returns boxes or losses, so that its columns have no output to name")
        return Case([surgeon.Progressive(task="new", first_task="old")], keeps=True, first_task="old")
    if operation == "recipe":
        cut, early = at_depth(subject, 0.75), at_depth(subject, 0.25)
        operations = [
            surgeon.Truncate(after=cut),
            surgeon.ReplaceHead(classes=CLASSES),
            surgeon.Freeze(up_to=early) if early != cut else surgeon.Freeze(all_but="head"),
        ]
        return Case(operations)
    raise KeyError(operation)


def at_depth(subject: Subject, share: float) -> str:
    """The block, in executed order, that ends the given share of them.

    Raises:
        NoMeaningError: Nothing in the network runs one after the other.
    """
    sites = depth_sites(subject)
    if not sites:
        raise NoMeaningError("the network has no blocks or layers that run one after the other")
    return sites[max(0, round(share * len(sites)) - 1)]


def depth_sites(subject: Subject) -> list[str]:
    """The blocks; for a network without any (AlexNet, VGG) the layers of its longest sequence that run."""
    assert subject.roles is not None
    assert subject.trace is not None
    blocks = [s for s in subject.roles.block_sites if _ends_once(subject.trace, s)]
    if len(blocks) > 1:
        return blocks
    modules = dict(subject.module.named_modules())
    sequences = [
        [f"{name}.{child}".lstrip(".") for child in module._modules]
        for name, module in modules.items()
        if isinstance(module, (nn.Sequential, nn.ModuleList))
    ]
    ran = [[s for s in sequence if _ends_once(subject.trace, s)] for sequence in sequences]
    longest = max(ran, key=len, default=[])
    if len(longest) > 1:
        return longest
    return blocks or [s for s in subject.trace.order if s and "." not in s and _ends_once(subject.trace, s)]


def _shape(trace: Trace, site: str) -> tuple[int, ...] | None:
    """The shape of what a block produces, if that is one tensor above all."""
    try:
        return trace.shape(site)
    except TraceError:
        return None


def _ends_once(trace: Trace, site: str) -> bool:
    try:
        return trace.calls(site) == 1 and len(trace.shape(site)) > 1
    except surgeon.SurgeonError:
        return False


def _replace_head(subject: Subject) -> surgeon.Operation:
    count = next((n for c, n in HEAD_COUNTS.items() if type(subject.module).__name__ == c), CLASSES)
    assert subject.roles is not None
    heads = subject.roles.sites("head")
    embeddings = getattr(subject.module, "get_output_embeddings", lambda: None)()
    if embeddings is not None and any(subject.module.get_submodule(head) is embeddings for head in heads):
        return surgeon.ReplaceHead(classes=count, at=", ".join(heads))  # the vocabulary is meant to go
    return surgeon.ReplaceHead(classes=count)


def _has_no_head_features(subject: Subject) -> bool:
    """A head in several parts, or a detector: the features that it reads are not one site's."""
    assert subject.roles is not None
    return _is_detector(subject.module) or len(subject.roles.sites("head")) > 1


def _is_detector(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torchvision.models.detection")
