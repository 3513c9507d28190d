"""Say what surgery does to each module, from a plan: before it (kept or cut) and after it (kept, changed or new)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from surgeon.pages.drawing import Status
from surgeon.surgery.plan import Plan, Step

FLAGS = ("freeze", "unfreeze")
"""Operations that say what trains and change nothing else; a page shows that as a tint of its own."""


def status_before(plan: Plan, result: nn.Module) -> Status:
    """Make the function that says which modules of the source are cut.

    Args:
        plan: The plan.
        result: The skeleton after surgery.
    """
    moved = {fact.source: fact.name for fact in plan.tensors if fact.origin == "kept" and fact.source}
    operations = {_name(step) for step in plan.steps}
    for fact in plan.tensors:
        if fact.origin == "new" and fact.by not in operations:
            moved.setdefault(fact.name, fact.name)  # the initial values of a network without weights
    sites = _sites(moved)
    after = {name for name, _ in result.named_modules()}
    derived = {fact.name for fact in plan.tensors if fact.origin != "kept"}

    def status(site: str, module: nn.Module) -> str:
        names = [f"{site}.{name}".lstrip(".") for name, _ in [*module.named_parameters(), *module.named_buffers()]]
        if names:
            if any(name in moved for name in names):
                return "kept"
            return "changed" if any(name in derived for name in names) else "cut"
        around, _, last = site.rpartition(".")
        return "kept" if _join(sites.get(around, around), last) in after else "cut"

    return status


def status_after(plan: Plan) -> Status:
    """Make the function that says which modules of the result are new or changed."""
    operations = {_name(step) for step in plan.steps}
    # a network without weights gets its builder's initial values: no operation made these
    origins = {fact.name: fact.origin if fact.by in operations else "kept" for fact in plan.tensors}
    added = [edit.site for step in plan.steps for edit in step.edits if edit.mark == "+"]
    working = [step for step in plan.steps if _name(step) not in FLAGS]
    changed = {edit.site for step in working for edit in step.edits if edit.mark == "~"}

    def status(site: str, module: nn.Module) -> str:
        names = [f"{site}.{name}".lstrip(".") for name, _ in [*module.named_parameters(), *module.named_buffers()]]
        kinds = {origins[name] for name in names if name in origins}
        if kinds and kinds <= {"new"}:
            return "new"
        if not names and any(site == place or site.startswith(f"{place}.") for place in added):
            return "new"
        direct = [name for name in names if "." not in name[len(site) :].lstrip(".")]
        if site in changed or any(origins.get(name) in ("new", "derived") for name in direct):
            return "changed"
        return "kept"

    return status


def _sites(moved: Mapping[str, str]) -> dict[str, str]:
    """Map sites of the source to where they are in the result, from the names of tensors that moved."""
    sites: dict[str, str] = {"": ""}
    for source, name in moved.items():
        before, after = source.split("."), name.split(".")
        while before and after and before[-1] == after[-1]:
            before.pop()
            after.pop()
            sites.setdefault(".".join(before), ".".join(after))
    return sites


def _name(step: Step) -> str:
    """Return the name of a step's operation, without its fields."""
    return step.operation.partition(" ")[0]


def _join(site: str, name: str) -> str:
    return f"{site}.{name}" if site else name
