"""Find the exact names of the modules that an adapter is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import nn

from surgeon.errors import OperationError

if TYPE_CHECKING:
    from surgeon import Site
    from surgeon.surgery.context import Surgery


def adaptable(sites: Sequence[Site], *, norms: bool) -> list[str]:
    """List sites, and in the place of a container its layers that are usually adapted.

    Args:
        sites: The sites that a selector named.
        norms: Whether norm layers are adapted instead of linear and convolution layers.

    Raises:
        OperationError: A container has none.
    """
    names: dict[str, None] = {}
    for site in sites:
        if not any(True for _ in site.module.children()):
            names[site.name] = None
            continue
        inside = [
            f"{site.name}.{name}".lstrip(".")
            for name, module in site.module.named_modules()
            if name and _is_adaptable(module, norms)
        ]
        if not inside:
            noun = "norm layers" if norms else "linear or convolution layers"
            raise OperationError(f"{site} has no {noun} to adapt", hint="name other modules with targets:")
        names.update(dict.fromkeys(inside))
    return list(names)


def _is_adaptable(module: nn.Module, norms: bool) -> bool:
    if any(True for _ in module.children()):
        return False
    name = type(module).__name__
    if norms:
        return name.endswith("Norm") or isinstance(module, nn.LayerNorm)
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return module.groups == 1  # a depthwise one has few weights, and peft takes it only where ranks divide
    return isinstance(module, nn.Linear) or name == "Conv1D"


def refuse_ambiguous(model: nn.Module, names: Iterable[str], field: str) -> None:
    """Refuse a name that peft, which compares ends of names, would find elsewhere too.

    Raises:
        OperationError: There is one.
    """
    targets = set(names)
    for site, _ in model.named_modules():
        for name in targets:
            if site not in targets and site.endswith(f".{name}"):
                raise OperationError(
                    f"{field}: peft would take {site} for {name} too, since its name ends alike",
                    hint=f"add {site} to {field}:, or leave {name} out",
                )


def saved_modules(surgery: Surgery, selector: str | None, *, targets: object) -> list[str]:
    """List the modules that train in full: those that a selector names, and new ones of earlier operations."""
    names = [site.name for site in surgery.select(selector)] if selector is not None else []
    selected = set(names)
    new_sites: list[str] = []
    for site, module in surgery.model.named_modules():
        tensors = list(module.parameters(recurse=False))
        if not tensors or not all(surgery.is_made(tensor) for tensor in tensors):
            continue
        above = any(site == name or site.startswith(f"{name}.") for name in names)
        if not above and not (isinstance(targets, list) and site in targets):
            new_sites.append(site)
    if new_sites:
        surgery.note(f"{', '.join(new_sites)}: new, so it trains in full and is saved with the adapter")
    if "" in selected:
        raise OperationError("modules_to_save: the whole network cannot be saved with an adapter", hint="name a head")
    return [*names, *new_sites]
