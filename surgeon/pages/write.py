"""Write a page about a network, about what operations would change, or about how two networks differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon.architectures.trust import TrustCode
from surgeon.errors import OperationError, SurgeonError, name_nearest_option
from surgeon.pages.comparison import diff_page
from surgeon.pages.network import network_page, plan_page
from surgeon.pages.place import check_page, save_page
from surgeon.pipeline.comparison import diff
from surgeon.pipeline.difference import Diff
from surgeon.pipeline.network_view import NetworkView, inspect, view_network
from surgeon.pipeline.planning import prepare_plan
from surgeon.pipeline.prepare import Operations, Prepared
from surgeon.plugins import Plugins, as_plugins
from surgeon.surgery.inspection import inspection_of
from surgeon.surgery.opened import Model


@name_nearest_option
def write_page(
    path: str | Path,
    model: Model,
    operations: Operations | None = None,
    *,
    other: Model | None = None,
    arch: str | None = None,
    seed: int | None = None,
    roles: Mapping[str, Any] | None = None,
    inputs: Any = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
) -> Path:
    """Write one self-contained HTML page: the network as a graph that folds, its layers, and what is known of it.

    No weight is read, except those that are compared with ``other``.

    Args:
        path: The file to write. A page of surgeon that is there already is replaced; any other file is not.
        model: The network.
        operations: Show what these would change: the network before and after them.
        other: Show how this network differs from ``model``.
        arch: What builds the network, where the source does not say.
        seed: The seed of new values, instead of the recipe's.
        roles: Roles of sites, as ``{"head": "fc"}``, beside the recipe's and instead of those of the same name.
        inputs: The inputs to trace with, instead of the recipe's.
        key: Which of several state dicts in the source to take.
        trust_pickle: Let pickles in the source run code.
        trust_code: Modules that the recipe or a manifest names (``python:package.module:function``) and that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        OperationError: Both ``operations`` and ``other`` are given.
        OutputError: The file exists and is not a page that surgeon wrote, or cannot be written.
        SurgeonError: The network, the recipe or an operation is at fault; the class of the error says which.
    """
    path = check_page(path)
    plugins = as_plugins(plugins)
    if operations is not None and other is not None:
        raise OperationError("a page shows either what operations change or how two networks differ, not both")
    opening: dict[str, Any] = {"trust_pickle": trust_pickle, "trust_code": trust_code, "plugins": plugins}
    if other is not None:
        compared = diff(model, other, arch_a=arch, key_a=key, **opening)
        return save_page(path, page_of_diff(compared, model, other, arch_a=arch, key_a=key, **opening))
    opening |= {"arch": arch, "key": key}
    if operations is None:
        return save_page(path, network_page(inspect(model, **opening)))
    prepared = prepare_plan(model, operations, seed=seed, roles=roles, inputs=inputs, **opening)
    return save_page(path, page_of_plan(prepared, model, **opening))


def page_of_plan(prepared: Prepared, model: Model, **opening: Any) -> str:
    """Draw a plan: the network before and after it.

    Args:
        prepared: The edited skeleton, with its plan.
        model: What the operations were applied to.
        **opening: How it was opened; as for :func:`surgeon.inspect`.
    """
    record = prepared.record
    after = view_network(
        inspection_of(prepared.model, prepared.plugins, record.surgeries),
        prepared.plan.architecture,
        prepared.plan.source,
        (),
    )
    return plan_page(inspect(model, **opening), after, prepared.plan, record.surgeries[-1].text)


def page_of_diff(compared: Diff, a: Model, b: Model, **opening: Any) -> str:
    """Draw a comparison: both networks, where surgeon can build them, with how far each site moved.

    Args:
        compared: The comparison.
        a: What was compared.
        b: With what.
        **opening: How they were opened; as for :func:`surgeon.diff`.
    """
    shared = {name: opening[name] for name in ("trust_pickle", "trust_code", "plugins") if name in opening}
    views: list[NetworkView | None] = []
    for model, side in ((a, "a"), (b, "b")):
        try:
            views.append(inspect(model, arch=opening.get(f"arch_{side}"), key=opening.get(f"key_{side}"), **shared))
        except SurgeonError:  # tensors can be compared without a network
            views.append(None)
    return diff_page(compared, views[0], views[1])
