"""progressive: freeze the network, and add a new column that reads its features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector
from surgeon.interfaces.training import Objective
from surgeon.operations._shared.head_options import Classes, Name, output_name

if TYPE_CHECKING:
    from torch import nn

    from surgeon.nn.lateral import Adapter, Kind
    from surgeon.nn.progressive import ProgressiveNetwork
    from surgeon.surgery.context import Surgery
    from surgeon.surgery.features import Features

LATERALS = 6
"""The most sites that ``at: auto`` takes, unless there are more stages."""


class Progressive(Operation):
    """Add a column for a new task, which reads the features of the frozen network.

    This makes a progressive neural network (Rusu et al. 2016, arXiv:1606.04671). The current network becomes the first
    column. It is frozen, always in eval mode and without gradients, so that its outputs stay bit for bit the same.
    Lateral connections take its output at a site, scaled by a learnt α, resampled and projected, and add it to the
    new column's output there, and so to the next layer's input (eq. 1; eq. 2 for the mlp). Applied again, the operation
    adds a column that reads the features of all earlier ones.

    The result returns the outputs ``{first_task: …, task: …}``. Sites are called ``columns.0.…``,
    ``columns.1.…``; the roles (@head, @blocks) are those of the newest column, all of which trains.
    """

    freezes_what_it_finds: ClassVar[bool] = True

    task: Name = Field(examples=["task2"])
    """The name of the new column's output."""
    first_task: Name = "task1"
    """The name of the current network's output, if it has no columns yet."""
    column: Literal["copy", "reinit"] | None = None
    """How to initialise the new column: with the last column's weights (copy), or as its architecture does (reinit).
    Default: copy; with arch, reinit."""
    arch: Name | None = None
    """Another architecture for the new column, for example a narrower one: torchvision/shufflenet_v2_x0_5."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the builder of arch, such as num_classes."""
    classes: Classes | None = None
    """The number of classes of the new column, or their names. Default: its head is not changed."""
    at: Literal["auto"] | Annotated[list[Selector], Field(min_length=1)] = "auto"
    """The sites of the new column that lateral connections add to, by their names inside it; auto takes the ends of
    its stages. An earlier column is read at the site of the same name, else (and with auto) at the same depth."""
    adapter: Literal["auto", "linear", "conv", "mlp"] = "auto"
    """The lateral connections: one matrix over the channels (linear), a 1×1 convolution (conv), a bottleneck
    with a ReLU (mlp). auto takes conv for channels-first feature maps, else linear."""
    hidden: PositiveInt | None = None
    """The width of the mlp's bottleneck. Default: a quarter of its input's."""
    alpha: PositiveFloat = 0.01
    """The initial value of the learnt scale α of a lateral connection: near 0, a copy's outputs hardly change."""
    loss: Name | None = "cross_entropy"
    """The loss that trains the new column's output; null if the recipe's own objectives train it."""
    label: Name = "labels"
    """The column of the batch that holds the new task's targets."""

    @field_validator("task", "first_task")
    @classmethod
    def _names_an_output(cls, name: str) -> str:
        return output_name(name)

    @model_validator(mode="after")
    def _fits_together(self) -> Progressive:
        if self.task == self.first_task:
            raise ValueError(f"task and first_task are both {self.task!r}: give each column's output its own name")
        if self.arch is not None and self.column == "copy":
            raise ValueError("column: copy takes the last column's weights, which do not fit another arch")
        if self.arch is None and self.options:
            raise ValueError("options needs arch")
        if self.hidden is not None and self.adapter != "mlp":
            raise ValueError("hidden is the width of adapter: mlp")
        return self

    def objectives(self) -> list[Objective]:
        """Ask for the new task's loss."""
        if self.loss is None:
            return []
        return [Objective(output=self.task, loss=self.loss, label=self.label, weight=1.0)]

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Wrap the network unless it has columns, add one and connect it; see :class:`Operation`."""
        from torch import nn

        from surgeon.graph.sites import Site
        from surgeon.operations.progressive.column import new_column

        network = _with_columns(surgery, self.first_task)
        if self.task in network.tasks:
            raise OperationError(
                f"a column {self.task!r} already exists", hint=f"columns so far: {', '.join(network.tasks)}"
            )
        index, last = len(network.tasks), network.role_root
        column, architecture = new_column(
            surgery, network, arch=self.arch, options=self.options, redraw_values=self.column == "reinit"
        )
        surgery.freeze([Site(name, network.get_submodule(name)) for name in (last, f"laterals.{index - 1}")])
        surgery.attach("columns", str(index), column)
        surgery.attach("laterals", str(index), nn.ModuleList())
        with surgery.bookkeeping():
            network.tasks.append(self.task)
            network.architectures.append(architecture)
            if self.classes is not None:
                self._replace_head(surgery, column)
            network.sites.append(self._sites(surgery, network, index))
            self._feed(surgery, network, index)
            if aux := surgery.role("aux"):
                surgery.freeze([Site(name, network.get_submodule(name)) for name in aux])
                surgery.note("the new column's main output is its task's: its auxiliary heads do not train")
            network.train(network.training)
        return surgery.model

    def _sites(self, surgery: Surgery, network: ProgressiveNetwork, index: int) -> list[str]:
        """List the sites of a column that lateral connections add to, by their names inside it."""
        from surgeon.graph.sites import select

        if self.at == "auto":
            return _stage_ends(surgery, f"columns.{index}")

        def inside(role: str) -> list[str]:
            return [site.removeprefix(f"columns.{index}.") for site in surgery.role(role)]

        return [site.name for site in select(network.columns[index], ", ".join(self.at), inside)]

    def _replace_head(self, surgery: Surgery, column: nn.Module) -> None:
        from surgeon.operations._shared.labels import is_vocabulary_head, set_labels
        from surgeon.operations.replace_head.operation import ReplaceHead

        assert self.classes is not None  # checked by the caller
        prefix = f"{surgery.model.role_root}."
        heads = [site.removeprefix(prefix) for site in surgery.role("head")]
        if not heads or any(is_vocabulary_head(column, column.get_submodule(head)) for head in heads):
            raise OperationError(
                f"the column is a {type(column).__name__}, which has no classification head",
                hint="leave classes out, and add a head to the result with multitask",
            )
        ReplaceHead.model_validate({"classes": self.classes}).apply(surgery.model, surgery)
        set_labels(column, self.classes, None, surgery.families)

    def _feed(self, surgery: Surgery, network: ProgressiveNetwork, index: int) -> None:
        """Connect the sites of the new column to every earlier column."""
        from surgeon.nn.grafts import hook
        from surgeon.nn.lateral import Lateral
        from surgeon.surgery.features import features_at

        laterals = []
        for position, site in enumerate(network.sites[index]):
            target = features_at(surgery, f"columns.{index}.{site}")
            adapters: list[Adapter] = []
            taps = []
            for earlier in range(index):
                read = f"columns.{earlier}.{self._counterpart(network, earlier, index, position)}"
                adapters.append(self._adapter(surgery, features_at(surgery, read), target))
                taps.append(surgery.tap(read))
            laterals.append(Lateral(taps, adapters))
        # attach them after the loop, so that one trace is enough
        for position, (site, lateral) in enumerate(zip(network.sites[index], laterals, strict=True)):
            surgery.attach(f"laterals.{index}", str(position), lateral)
            hook(network.columns[index].get_submodule(site), lateral.add)

    def _counterpart(self, network: ProgressiveNetwork, earlier: int, index: int, position: int) -> str:
        """Find the site of an earlier column to read for the new column's site at ``position``."""
        sites, column = network.sites[index], network.columns[earlier]
        names = {name for name, _ in column.named_modules()}
        if self.at != "auto" and sites[position] in names:
            return sites[position]
        candidates = [name for name in network.sites[earlier] if name in names]
        if not candidates:
            raise OperationError(
                f"the column {network.tasks[earlier]!r} has no {sites[position]}, and no stages to read instead",
                hint="name sites that it has: at: [SITE, …]",
            )
        depth = (position + 1) / len(sites)
        return candidates[max(0, round(depth * len(candidates)) - 1)]

    def _adapter(self, surgery: Surgery, source: Features, target: Features) -> Adapter:
        from surgeon.nn.lateral import Adapter, Layout

        if source.shape[0] != target.shape[0]:
            raise OperationError(
                f"{target.site} cannot read {source.site}: for one batch they produce {target.shape[0]} and "
                f"{source.shape[0]} rows",
                hint="name sites whose first dimension is the batch: at: [SITE, …]",
            )
        maps = 1 <= target.dims <= 3 and target.axis == 1
        kind: Kind = ("conv" if maps else "linear") if self.adapter == "auto" else self.adapter
        if kind == "conv" and not 1 <= target.dims <= 3:
            raise OperationError(
                f"{target.site} produces {list(target.shape)}, not feature maps", hint="use adapter: linear"
            )
        layouts = [Layout(features.width, features.dims, features.axis == -1) for features in (source, target)]
        hidden = self.hidden or max(1, source.width // 4)
        neighbour = surgery.model.get_submodule(target.site.rpartition(".")[0])
        return cast("Adapter", surgery.new(Adapter, *layouts, kind, hidden, self.alpha, like=neighbour))


def _with_columns(surgery: Surgery, first_task: str) -> ProgressiveNetwork:
    """Get the root as a progressive network; wrap it if it is none yet."""
    from surgeon.nn.progressive import ProgressiveNetwork

    model = surgery.model
    if any(c.__module__.startswith("torchvision.models.detection") for c in type(model).__mro__):
        raise OperationError(
            f"{type(model).__name__} returns boxes in eval mode and losses in training mode, which a column cannot "
            "name as one output",
            hint="apply it to a classification, segmentation or token model",
        )
    if not isinstance(model, ProgressiveNetwork):
        network = ProgressiveNetwork(model, first_task, _stage_ends(surgery, ""))
        return surgery.wrap(network)  # type: ignore[return-value]
    if getattr(model, "exit", None) is not None:
        raise OperationError(
            "the network ends inside one of its columns, so a later one would not run",
            hint="put truncate before the first progressive, or leave it out",
        )
    return model


def _stage_ends(surgery: Surgery, column: str) -> list[str]:
    """List the last block of each stack, and, if there are few stacks, more blocks at even distances.

    In a network without stacks of blocks (VGG), take the longest sequence of layers as a stack. Sites are relative to
    the column.
    """
    blocks = surgery.role("blocks")
    ends = surgery.recall("stages", lambda: _ends(surgery, column, blocks), subject=column)
    return [site.removeprefix(f"{column}.") for site in ends]


def _ends(surgery: Surgery, column: str, blocks: list[str]) -> list[str]:
    from surgeon.graph.edit import CONTAINERS

    traced = surgery.trace()
    stacks: dict[str, list[str]] = {}
    for block in blocks:
        if traced.features(block):
            stacks.setdefault(block.rpartition(".")[0], []).append(block)
    if not stacks:
        root = surgery.model.get_submodule(column)
        containers: list[tuple[str, nn.Module]] = [
            (n, m) for n, m in root.named_modules(prefix=column) if isinstance(m, CONTAINERS)
        ]
        sequences = [[f"{n}.{layer}".lstrip(".") for layer in m._modules] for n, m in containers or [(column, root)]]
        stacks = {"": max(([s for s in layers if traced.features(s)] for layers in sequences), key=len)}
    per_stack = max(1, LATERALS // len(stacks))
    ends = []
    for stack in stacks.values():
        count = min(per_stack, len(stack))
        ends += [stack[(i + 1) * len(stack) // count - 1] for i in range(count)]
    return ends
