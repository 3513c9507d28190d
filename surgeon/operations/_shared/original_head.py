"""What becomes of a network's own output when others come beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.edit import drop_tap, exit_site
from surgeon.nn.grafts import TRUNK_OUTPUT
from surgeon.operations._shared.labels import is_vocabulary_head, untie
from surgeon.surgery.features import logits_branch, scoring_layer, tapped_site

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

FEATURES_OUTPUT = "features"


def keep_original(surgery: Surgery, added: Collection[str]) -> None:
    """Keep the network's own output, under a name that says what it is, before others come beside it.

    Raises:
        OperationError: One of the outputs to come has a name that the network gives its own.
    """
    headless = exit_site(surgery.model) is not None or not surgery.role("head")
    names = surgery.recall("outputs of network", lambda: list(surgery.trace().outputs))
    model = surgery.graft()
    if headless and model.network_output == TRUNK_OUTPUT:
        model.network_output = FEATURES_OUTPUT
    own = {model.network_output or name if name == "output" else name for name in names}
    clash = sorted(own & set(added))
    if clash:
        raise OperationError(f"the network has an output {clash[0]!r} already", hint="give the new one another name")


def drop_original(surgery: Surgery, added: Collection[str], heads: Sequence[str] | None = None) -> None:
    """Let the network's own output go, and its head with it.

    Args:
        surgery: The surgery.
        added: The outputs that stay in its place.
        heads: Its heads, where one of the branches has taken over the role.
    """
    model = surgery.graft()
    if TRUNK_OUTPUT not in added:
        drop_logits_branch(surgery)
    if model.network_output is None:
        return
    model.network_output = None
    if exit_site(surgery.model) is not None:
        return
    own = surgery.role("head") if heads is None else heads
    sites = [scoring_layer(surgery.model, head) for head in own]
    module = surgery.model.get_submodule(sites[0]) if len(sites) == 1 else None
    if not isinstance(module, (nn.Linear, nn.Identity)):
        _end_after_branches(surgery)
        return
    drop_auxiliary(surgery)
    if is_vocabulary_head(surgery.model, module):
        untie(surgery.model, surgery.families)
    if isinstance(module, nn.Linear):
        surgery.replace(sites[0], surgery.new(nn.Identity))


def drop_logits_branch(surgery: Surgery) -> None:
    """Let the head go that an earlier operation put on top of features, if there is one."""
    branch = logits_branch(surgery.model)
    if branch is not None:
        drop_tap(surgery.model, branch.tap)
        surgery.remove(f"grafts.{TRUNK_OUTPUT}")


def drop_auxiliary(surgery: Surgery) -> None:
    """Let the auxiliary heads go, as torchvision's and transformers' networks without them are built."""
    model = surgery.model
    for name in dict.fromkeys(site.split(".")[0] for site in surgery.role("aux")):
        surgery.remove(name)
        model.register_module(name, None)  # the forward asks whether it is there
    if hasattr(model, "aux_logits"):
        model.aux_logits = False  # type: ignore[assignment]


def _end_after_branches(surgery: Surgery) -> None:
    """End the forward at the last site that a branch reads."""
    model = surgery.graft()
    sites = {tapped_site(surgery.model, branch) for branch in model.grafts.values()}  # type: ignore[arg-type]

    def last() -> str:
        return max(sites, key=surgery.trace().order.index)

    surgery.cut(surgery.recall("last read", last))
