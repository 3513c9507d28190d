"""Resolve selectors to modules: include and exclude terms, everything executed up to a site, or the last N blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from surgeon.errors import OperationError, SiteError
from surgeon.graph.sites import Site, split_terms

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery


def as_list(selectors: str | Sequence[str] | None) -> list[str]:
    """Convert one selector, several, or None to a list."""
    if selectors is None:
        return []
    return [selectors] if isinstance(selectors, str) else list(selectors)


def with_exceptions(surgery: Surgery, selectors: Sequence[str]) -> tuple[list[Site], list[Site]]:
    """List the sites at or below the included ones, without those at or below excluded ones; and the excluded ones."""
    terms = [term for selector in selectors for term in split_terms(selector)]
    chosen = [term for term in terms if not term.startswith("!")] or ["."]
    spared = [site for term in terms if term.startswith("!") for site in surgery.select(term[1:].strip())]
    return less(surgery, surgery.select(chosen), spared), spared


def less(surgery: Surgery, chosen: Sequence[Site], spared: Sequence[Site]) -> list[Site]:
    """List the modules at or below ``chosen`` that are not at or below ``spared``."""
    inside = {id(m) for site in chosen for m in site.module.modules()}
    inside -= {id(m) for site in spared for m in site.module.modules()}
    return [Site(name, module) for name, module in surgery.model.named_modules() if id(module) in inside]


def run_up_to(surgery: Surgery, selector: str) -> list[Site]:
    """List every site that runs up to and including one, in executed order.

    Raises:
        SiteError: That site does not run.
    """
    last = surgery.site(selector).name

    def ran() -> list[str]:
        return sorted(surgery.trace().used_before(last))

    names = surgery.recall("runs up to", ran, subject=last)
    if last not in names:
        raise SiteError(f"{last} does not run in a forward pass, so nothing runs up to it")
    modules = dict(surgery.model.named_modules())
    return [Site(name, modules[name]) for name in names if name in modules]


def last_blocks(surgery: Surgery, count: int) -> list[Site]:
    """List the last blocks in executed order, and everything that runs after the first of them: norms, pools, head.

    Raises:
        OperationError: The network has fewer blocks.
    """
    blocks = surgery.role("blocks")
    if count > len(blocks):
        raise OperationError(
            f"{type(surgery.model).__name__} has {len(blocks)} blocks, not {count}",
            hint="name the modules with sites; surgeon inspect shows the sites",
        )
    first = blocks[-count]
    ran = surgery.recall("runs before", lambda: sorted(surgery.trace().used_before_start(first)), subject=first)
    before = set(ran)
    return [Site(name, module) for name, module in surgery.model.named_modules() if name not in before]
