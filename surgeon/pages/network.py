"""Pages about one network: as it is, and before and after a plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from surgeon.graph.costs import Costs
from surgeon.pages.document import Page, Section, render_page, table_section, text_section
from surgeon.pages.drawing import Drawing, Extras, draw_network
from surgeon.pages.numbers import count, size
from surgeon.pages.status import status_after, status_before
from surgeon.pages.training import training_sections
from surgeon.pipeline.network_view import NetworkView
from surgeon.surgery.plan import Plan


def network_page(view: NetworkView) -> str:
    """Draw a network; of an artifact, its training and its recipes as well.

    Args:
        view: What :func:`surgeon.inspect` shows of it.
    """
    drawing = draw_network(view)
    surgeries = view.record.surgeries if view.record else ()
    recipes = [text_section("Recipe", surgery.text) for surgery in surgeries if surgery.text]
    training = training_sections(view.record, Path(view.source)) if view.record else []
    return render_page(
        Page(
            view.architecture or type(view.model).__name__,
            f"from {view.source}",
            list(_counts(view, drawing)),
            {"network": drawing},
            [*training, _outputs(view), _roles(view), *recipes],
            view.notes,
        )
    )


def plan_page(before: NetworkView, after: NetworkView, plan: Plan, recipe: str = "") -> str:
    """Draw the network before and after a plan, with its edits.

    Args:
        before: The network that the operations are applied to.
        after: The skeleton after them.
        plan: What they change.
        recipe: The recipe as its author wrote it.
    """
    drawings = {
        "before": draw_network(before, Extras(status=status_before(plan, after.model))),
        "after": draw_network(after, Extras(status=status_after(plan))),
    }
    facts = [
        ("parameters", f"{plan.parameters_before:,} → {plan.parameters:,}"),
        ("trainable", f"{plan.trainable:,}"),
        ("tensors", plan.counts),
        ("to read", size(plan.bytes_read)),
        ("to write", size(plan.bytes_written)),
        *_prices(drawings["before"].costs, drawings["after"].costs),
        *_inputs(after),
    ]
    edits = [
        (step.operation if number == 0 else "", edit.mark, edit.site or ".", edit.what, edit.parameters or "")
        for step in plan.steps
        for number, edit in enumerate(step.edits)
    ]
    sections = [table_section("What changes", ("operation", "", "site", "what", "parameters"), edits), _outputs(after)]
    if plan.reaches:
        sections.append(table_section("What the recipe reaches for", ("what",), [(str(r),) for r in plan.reaches]))
    if recipe:
        sections.append(text_section("Recipe", recipe))
    notes = [note for step in plan.steps for note in step.notes] + list(plan.notes)
    return render_page(Page(plan.architecture, f"from {plan.source}", facts, drawings, sections, notes))


def _counts(view: NetworkView, drawing: Drawing) -> Iterator[tuple[str, str]]:
    parameters = list(view.model.parameters())
    yield "class", type(view.model).__name__
    yield "parameters", f"{sum(p.numel() for p in parameters):,}"
    yield "trainable", f"{sum(p.numel() for p in parameters if p.requires_grad):,}"
    yield from _prices(None, drawing.costs)
    yield from _inputs(view)


def _inputs(view: NetworkView) -> Iterator[tuple[str, str]]:
    """Say what the shapes, the FLOPs and the memory are for."""
    if view.trace is None:
        return
    inputs = view.trace.inputs
    shapes = [
        (name, getattr(value, "shape", None)) for name, value in [*enumerate(inputs.args), *inputs.kwargs.items()]
    ]
    texts = [f"{name} ".lstrip("0123456789 ") + " × ".join(map(str, shape)) for name, shape in shapes if shape]
    if texts:
        yield "traced input", ", ".join(texts)


def _prices(before: Costs | None, after: Costs | None) -> Iterator[tuple[str, str]]:
    if after is None:
        return
    flops = [count(price.flops[""]) for price in (before, after) if price]
    yield "FLOPs a sample", " → ".join(dict.fromkeys(flops))
    if after.training_bytes is not None:
        memory = [size(price.training_bytes) for price in (before, after) if price and price.training_bytes]
        yield f"training, batch {after.samples}, AdamW", " → ".join(dict.fromkeys(memory))


def _outputs(view: NetworkView) -> Section:
    rows = [(name, " × ".join(map(str, shape))) for name, shape in view.outputs.items()]
    return table_section("Outputs", ("name", "shape"), rows)


def _roles(view: NetworkView) -> Section:
    rows = [
        (f"@{role}", item.site or ".", item.evidence)
        for role, items in view.roles.items()
        if role != "norms"
        for item in items
    ]
    return table_section("Roles", ("role", "site", "evidence"), rows)
