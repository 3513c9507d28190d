"""The page about how two networks differ."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from surgeon.pages.document import Page, render_page, table_section
from surgeon.pages.drawing import Extras, Status, draw_network
from surgeon.pipeline.difference import Diff, GroupDiff, figure
from surgeon.pipeline.network_view import NetworkView

HEAD = ("moved", "relative", "cosine", "largest", "other form", "state")


def diff_page(compared: Diff, a: NetworkView | None, b: NetworkView | None) -> str:
    """Draw both networks, each site tinted by how far it moved, with the movement of blocks and sites.

    Args:
        compared: The comparison.
        a: What was compared; None where surgeon cannot build it.
        b: With what.
    """
    sites = {group.name: group for group in (*compared.sites, *compared.blocks)}
    most = max((_relative(group) for group in sites.values()), default=0.0) or 1.0
    columns = {
        "moved": {name: f"{group.moved} of {group.compared}" for name, group in sites.items()},
        "relative": {name: figure(group.movement.relative) for name, group in sites.items() if group.movement},
        "cosine": {name: figure(group.movement.cosine) for name, group in sites.items() if group.movement},
    }
    heat = {name: _relative(group) / most for name, group in sites.items()}
    drawings = {}
    if a is not None:
        only_in_a = {tensor.name_a for tensor in compared.with_status("only in A") if tensor.name_a}
        drawings["A"] = draw_network(a, Extras(_status(only_in_a, "cut")))
    if b is not None:
        only_in_b = {tensor.name for tensor in compared.with_status("only in B")}
        drawings["B"] = draw_network(b, Extras(_status(only_in_b, "new"), columns, heat))
    whole = compared.whole
    facts = [
        ("result", "equal" if compared.equal else "they differ"),
        ("tensors", f"{len(compared.tensors):,}, of which {sum(t.moved for t in compared.tensors):,} moved"),
        ("only in A", str(len(compared.with_status("only in A")))),
        ("only in B", str(len(compared.with_status("only in B")))),
        ("relative movement", figure(whole.movement.relative) if whole.movement else ""),
    ]
    wrong = [f"frozen, and moved: {tensor.name}" for tensor in compared.frozen_moved]
    sections = [
        table_section("Blocks", ("block", *HEAD), [_row(group) for group in compared.blocks]),
        table_section("Sites", ("site", *HEAD), [_row(group) for group in compared.sites]),
    ]
    unseen = [f"{name}: surgeon cannot build this network, so it is not drawn" for name, view in
              ((compared.a, a), (compared.b, b)) if view is None]  # fmt: skip
    title = f"{compared.a} and {compared.b}"
    subtitle = " and ".join(str(name or "?") for name in (compared.architecture_a, compared.architecture_b))
    return render_page(Page(title, subtitle, facts, drawings, sections, [*wrong, *unseen, *compared.notes]))


def _relative(group: GroupDiff) -> float:
    relative = group.movement.relative if group.movement else None
    return relative if relative is not None and relative == relative else 0.0  # NaN has no colour


def _row(group: GroupDiff) -> tuple[object, ...]:
    movement = group.movement
    numbers = (movement.relative, movement.cosine, movement.largest) if movement else (None, None, None)
    return (group.name, f"{group.moved} of {group.compared}", *map(figure, numbers), group.other or "", group.state)


def _status(names: set[str], word: str) -> Status:
    """Make the function that gives ``word`` to modules all of whose tensors are among ``names``."""

    def status(site: str, module: nn.Module) -> str:
        inside: Mapping[str, object] = module.state_dict()
        tensors = [f"{site}.{name}".lstrip(".") for name in inside]
        return word if tensors and all(name in names for name in tensors) else "kept"

    return status
