"""Find stacks of blocks: containers that hold blocks of one class and run them in order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from surgeon.errors import OperationError
from surgeon.families.registry import config_of
from surgeon.families.stack import Stack

if TYPE_CHECKING:
    from surgeon.families.config import NetworkConfig
    from surgeon.graph.trace import Trace
    from surgeon.interfaces.family import Family

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# A stage contains blocks but is not a block; a convolution with its norm is one layer, as in a feature extractor.
NO_BLOCK = re.compile(
    r"Stage|BasicLayer$|ConvLayer$|ConvModule$|Embeddings?(\dD)?$|LayerGroup$|MLP$|FeedForward$|PatchMerger$|FusionLayer$|ReassembleLayer$|MaxVitBlock$"
)


def declared_stacks(
    model: nn.Module, sites: Sequence[str], evidence: str, families: Sequence[Family] = (), *, named: bool = False
) -> list[Stack]:
    """List the stacks in the containers ``sites``; those of ``sites`` that are blocks themselves form one stack.

    Args:
        model: The network.
        sites: Containers of blocks, or blocks.
        evidence: Who says so.
        families: The families that the network belongs to.
        named: Whether a user names them: then a site without blocks inside is a block whatever its class, and a lone
            container holds blocks whatever theirs.
    """
    stacks, loose = [], []
    modules = dict(model.named_modules())
    for site in sites:
        module = modules[site]
        contains = isinstance(module, CONTAINERS)
        blocks = _repeated(module, _config(modules, site, families)) if contains or not is_block(module) else []
        if not blocks and named and contains and len(sites) == 1:
            blocks = [name for name, child in module._modules.items() if child is not None]
        if blocks:
            stacks.append(Stack(site, [_join(site, name) for name in blocks], evidence=evidence))
        elif named or is_block(module):
            loose.append(site)
    if loose:
        stacks.append(Stack(loose[0].rpartition(".")[0], loose, evidence=evidence))
    return stacks


def traced_stacks(model: nn.Module, trace: Callable[[], Trace], families: Sequence[Family] = ()) -> list[Stack]:
    """Find stacks in the module tree and confirm them with a trace; in executed order."""
    counted = Counter(
        type(child)
        for module in model.modules()
        if isinstance(module, CONTAINERS)
        for child in module.children()
        if is_block(child)
    )
    stacks = list(_walk(model, "", {cls for cls, count in counted.items() if count > 1}, None, families))
    try:
        traced = trace()
    except OperationError as error:
        return [replace(s, evidence=f"{s.evidence}; not seen to run: {error.message}") for s in stacks]
    # of two kinds of block one may not have run: cross-attention, if the traced inputs had no images
    narrowed = [stack if _in_order(stack, traced) else _of_one_kind(model, stack) for stack in stacks]
    ran = [stack for stack in narrowed if _in_order(stack, traced)]
    return sorted(ran, key=lambda stack: traced.visits[stack.sites[0]].started)


def is_block(module: nn.Module) -> bool:
    """Return whether a module may be a block: it has children and parameters, and is not a mere container."""
    return (
        not isinstance(module, CONTAINERS)
        and next(module.children(), None) is not None
        and next(module.parameters(), None) is not None
        and NO_BLOCK.search(type(module).__name__) is None
    )


def _walk(
    module: nn.Module,
    name: str,
    classes: set[type[nn.Module]],
    config: NetworkConfig | None,
    families: Sequence[Family],
) -> Iterator[Stack]:
    """Yield the outermost stacks: modules that repeat inside a block (experts, heads) are a part of it."""
    blocks: list[str] = []
    config = config_of(module, families) or config
    if isinstance(module, CONTAINERS):
        blocks = _repeated(module, config)
        kinds = Counter(type(module._modules[child]) for child in blocks)
        if kinds.keys() & classes:
            evidence = ", ".join(f"{count} × {kind.__name__}" for kind, count in kinds.items())
            yield Stack(name, [_join(name, child) for child in blocks], evidence=evidence)
        else:
            blocks = []
    for child, sub in module._modules.items():
        # search a block outside of any stack, such as a network inside another, but not the blocks of a stack
        if sub is not None and child not in blocks:
            yield from _walk(sub, _join(name, child), classes, config, families)


def _repeated(module: nn.Module, config: NetworkConfig | None) -> list[str]:
    """List the children of the most frequent class of block; all of them, if the config counts them as one stack."""
    children = {name: type(child) for name, child in module._modules.items() if child is not None and is_block(child)}
    if not children:
        return []
    uniform = len(children) == len(module._modules) and config is not None and config.counts_together(len(children))
    kind = Counter(children.values()).most_common(1)[0][0]
    return [name for name, cls in children.items() if cls is kind or uniform]


def _config(modules: Mapping[str, nn.Module], site: str, families: Sequence[Family]) -> NetworkConfig | None:
    """Get the config of the innermost module around ``site`` that has one."""
    names = [site[:end] for end in range(len(site), 0, -1) if end == len(site) or site[end] == "."]
    configs = (config_of(modules[name], families) for name in [*names, ""])
    return next((config for config in configs if config is not None), None)


def _of_one_kind(model: nn.Module, stack: Stack) -> Stack:
    """Keep only the blocks of the most frequent class in the stack."""
    kinds = {site: type(model.get_submodule(site)) for site in stack.sites}
    kind, count = Counter(kinds.values()).most_common(1)[0]
    sites = [site for site, cls in kinds.items() if cls is kind]
    return replace(stack, sites=sites, evidence=f"{count} × {kind.__name__}")


def _in_order(stack: Stack, traced: Trace) -> bool:
    if any(site not in traced.visits for site in stack.sites):
        return False
    started = [traced.visits[site].started for site in stack.sites]
    return started == sorted(started)


def _join(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child
