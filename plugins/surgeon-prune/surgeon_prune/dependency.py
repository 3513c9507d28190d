"""Find which channels of which layers depend on each other, by the dependency graph of torch-pruning.

The graph (Fang et al. 2023, DepGraph) is built on a copy without values. It knows convolutions, linear layers and
norms, and follows their channels through additions, concatenations, splits and flattening. What it takes for an
element-wise operation may be none (a shuffle of channels); so ``probe.py`` checks every group before it is used.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree

from surgeon import OperationError
from surgeon.graph.edit import replace_module
from surgeon.graph.skeleton import skeleton_of
from surgeon_prune.calls import Arguments, Calls
from surgeon_prune.groups import READS, WRITES, Group, Slice, is_conv1d, is_linear

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

CONVS = nn.modules.conv._ConvNd
PER_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.PReLU)
"""Layers that treat every channel by itself, with tensors of one entry for each."""


def graphs(surgery: Surgery, calls: Calls) -> list[Dependencies]:
    """Build the graph of the network, or the graphs of its parts where torch-pruning does not know what joins them.

    Raises:
        OperationError: torch-pruning builds none.
    """
    built: list[Dependencies] = []
    refused: OperationError | None = None
    waiting = [""]
    while waiting:
        site = waiting.pop(0)
        module = surgery.model.get_submodule(site)
        if sum(isinstance(part, CONVS) or is_linear(part) for part in module.modules()) < 2:
            continue
        try:
            built.append(Dependencies(module, site, calls.of(site, calls.device), calls.device))
        except OperationError as error:
            refused = refused or error
            waiting += [f"{site}.{name}".strip(".") for name, _ in module.named_children()]
    if not built and refused is not None:
        raise refused
    return built


class Index(NamedTuple):
    """Name a channel of a layer, and the channel of the first layer that it depends on; as torch-pruning does."""

    idx: int
    root_idx: int


class Dependencies:
    """Hold the dependency graph of a network.

    Args:
        model: The network or a part of it, or its skeleton; it is not changed.
        site: Its site.
        arguments: What a forward of it takes.
        device: The device to run it on.

    Raises:
        OperationError: torch-pruning cannot build the graph.
    """

    def __init__(self, model: nn.Module, site: str, arguments: Arguments, device: str) -> None:
        self.site = site
        self.model = _copy_to_run(model, device)
        self.transposed = {name for name, module in model.named_modules() if is_conv1d(module)}
        self.names = {id(module): name for name, module in self.model.named_modules()}
        self._parameters = {id(parameter): name for name, parameter in self.model.named_parameters()}
        try:
            with _quiet(), torch.enable_grad():
                self._graph = _graph(self.model, *arguments)
        except Exception as error:  # torch-pruning raises anything on networks that it does not know
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise OperationError(
                f"torch-pruning finds no dependencies between the layers of {type(model).__name__}: {reason}",
                hint="give inputs that the network runs on with inputs:; see surgeon inspect",
            ) from error

    def group(self, site: str, *, reads: bool, within: str = "") -> Group | None:
        """Find the group of the channels that a layer reads, or of those that it writes.

        Args:
            site: The layer, below the part.
            reads: Whether to start at what it reads.
            within: The site, in the network, that all of its layers have to be in.

        Returns:
            The group; None if some of its channels cannot be removed: an output of the network, a norm over channels, a
            grouped convolution, an operation that rearranges channels.
        """
        layer = self.model.get_submodule(site)
        pruner = self._graph.get_pruner_of_module(layer)
        if pruner is None or layer not in self._graph.module2node:
            return None
        count = pruner.get_in_channels(layer) if reads else pruner.get_out_channels(layer)
        method = pruner.prune_in_channels if reads else pruner.prune_out_channels
        slices: dict[tuple[str, str, int], Slice] = {}
        for node, handler, indices in self._reached(self._graph.module2node[layer], method, count):
            if _rearranges(node):
                return None
            if type(node.module).__module__.startswith("torch_pruning."):
                continue
            writes = bool(self._graph.is_out_channel_pruning_fn(handler))
            entries = self._slices(node, writes, indices, count)
            if entries is None:
                return None
            for entry in entries:
                if within and not f"{self.site}.{entry.site}.".strip(".").startswith(f"{within}."):
                    return None
                key = (entry.site, entry.name, entry.axis)
                merged = _merged(slices[key], entry) if key in slices else entry
                if merged is None:
                    return None
                slices[key] = merged
        ordered = sorted(slices.values(), key=lambda entry: (entry.tensor, entry.axis))
        if not ordered:
            return None
        ordered = [replace(entry, site=f"{self.site}.{entry.site}".strip(".")) for entry in ordered]
        return Group(site=around([entry.site for entry in ordered]), count=count, slices=ordered, settings=[])

    def _reached(self, root: Any, method: Any, count: int) -> Iterator[tuple[Any, Any, Sequence[Index]]]:
        """Yield the nodes whose channels depend on those of ``root``, how, and the channels with those of the root.

        Like torch-pruning's ``get_pruning_group``, which lists all of them first: that does not end soon where channels
        reach an attention layer.
        """
        waiting: list[tuple[Any, Any, Sequence[Index]]] = [(root, method, [Index(i, i) for i in range(count)])]
        visited_by_node: dict[Any, set[Index]] = {}
        while waiting:
            node, handler, indices = waiting.pop()
            visited = visited_by_node.setdefault((id(node), handler), set())
            indices = sorted({Index(*index) for index in indices} - visited)
            if not indices:
                continue
            visited.update(indices)
            yield node, handler, indices
            for dependency in node.dependencies:
                if dependency.is_triggered_by(handler):
                    mapped: Sequence[Index] = indices
                    for mapping in dependency.index_mapping:
                        mapped = mapping(mapped) if mapping is not None else mapped
                    if mapped:
                        waiting.append((dependency.target, dependency.handler, mapped))

    def _slices(self, node: Any, writes: bool, indices: Sequence[Index], count: int) -> list[Slice] | None:
        """List the slices of one layer; None if its channels cannot be removed."""
        module: Any = node.module
        if isinstance(module, nn.Parameter):
            holder, _, last = self._parameters.get(id(module), "").rpartition(".")
            along = node.pruning_dim
            entry = _slice(holder, last, along, module.shape[along], indices, count, "")
            return None if entry is None or not last else [entry]
        site = self.names[id(module)]
        axis, role, names = 0, "", list(module.state_dict())
        if isinstance(module, CONVS):
            depthwise = module.groups == module.in_channels == module.out_channels and module.groups > 1
            if module.groups > 1 and not depthwise:
                return None
            if not depthwise:
                axis = int(writes is module.transposed)
                role = WRITES if writes else READS
        elif isinstance(module, nn.Linear):
            axis = int(writes is (site in self.transposed))
            role = WRITES if writes else READS
        elif isinstance(module, PER_CHANNEL):
            names = [name for name in names if getattr(module, name).dim() == 1 and getattr(module, name).numel() > 1]
        else:
            return None
        if role == READS:
            names = ["weight"]
        slices = []
        for name in names:
            along = axis if name == "weight" else 0
            shape = getattr(module, name).shape
            length = shape[::-1][along] if site in self.transposed else shape[along]
            entry = _slice(site, name, along, length, indices, count, role)
            if entry is None:
                return None
            slices.append(entry)
        return slices


def _slice(
    site: str, name: str, axis: int, length: int, indices: Sequence[Index], count: int, role: str
) -> Slice | None:
    """Make a slice, and describe its units by a size where that is enough; None if an entry belongs to two units."""
    units = [-1] * length
    for index, root in indices:
        if units[index] not in (-1, root):
            return None
        units[index] = root
    for size in (1, length // count if length % count == 0 else 1):
        if units == [i // size % count for i in range(length)]:
            return Slice(site, name, axis, size, None, role)
    return Slice(site, name, axis, 1, units, role)


def _merged(one: Slice, other: Slice) -> Slice | None:
    """Join two slices of one tensor; None if an entry belongs to two units."""
    if one == other:
        return one
    if one.units is None or other.units is None:
        return None
    if any(a not in (-1, b) and b != -1 for a, b in zip(one.units, other.units, strict=True)):
        return None
    units = [max(a, b) for a, b in zip(one.units, other.units, strict=True)]
    return replace(one, units=units)


def around(sites: Sequence[str]) -> str:
    """Return the deepest site that contains all of ``sites``."""
    paths = [site.split(".") for site in sites]
    common: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    if any(len(path) == len(common) for path in paths) and len(set(sites)) > 1 and common:
        return ".".join(common)
    return ".".join(common if len(set(sites)) > 1 else common[:-1])


def _rearranges(node: Any) -> bool:
    """Return whether an operation may not keep channels where they are, or returns them from the network."""
    import torch_pruning as tp

    if isinstance(node.module, (tp.ops._OutputOp, tp.ops._ExpandOp, tp.ops._UnbindOp)):
        return True
    if not isinstance(node.module, tp.ops._ReshapeOp):
        return False
    before = tuple(getattr(node.grad_fn, "_saved_self_sym_sizes", ()))
    after = tuple(node.grad_fn._input_metadata[0].shape)
    flattens = len(before) == 4 and after == (before[0], before[1] * before[2] * before[3])
    return not before or not (flattens or (before[-1] == after[-1] and max(len(before), len(after)) < 5))


def _copy_to_run(model: nn.Module, device: str) -> nn.Module:
    """Copy a network without values, on the meta device or with small random values where it does not run there.

    Transformers' Conv1D, which torch-pruning does not know, becomes a linear layer.
    """
    model = skeleton_of(model)
    for name, module in list(model.named_modules()):
        if is_conv1d(module):
            read, written = module.weight.shape
            replace_module(model, name, nn.Linear(int(read), int(written), device="meta"))
    generator = torch.Generator().manual_seed(0)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        if device == "meta" or not tensor.is_meta:
            return tensor.to(device)
        values = torch.rand(tensor.shape, generator=generator) * 0.1
        return values.to(tensor.dtype)

    model._apply(moved)  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model.eval()


def _graph(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    import torch_pruning as tp

    def tensors(output: Any) -> list[torch.Tensor]:
        leaves = _pytree.tree_leaves(output)
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.grad_fn is not None]

    return tp.DependencyGraph().build_dependency(
        model,
        example_inputs=(args, kwargs),
        forward_fn=lambda network, inputs: network(*inputs[0], **inputs[1]),
        output_transform=tensors,
        verbose=False,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch-pruning prints and warns of; what matters is checked."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
