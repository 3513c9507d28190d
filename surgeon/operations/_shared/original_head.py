"""Keep or drop a network's original output and head when outputs are added."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.edit import exit_site
from surgeon.nn.grafts import TRUNK_OUTPUT
from surgeon.operations._shared.labels import is_vocabulary_head, untie
from surgeon.surgery.features import logits_branch, scoring_layer, tapped_site

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

FEATURES_OUTPUT = "features"


def keep_original(surgery: Surgery, added: Collection[str]) -> None:
    """Keep the network's original output, under the name ``features`` if it has no head, before others are added.

    Raises:
        OperationError: One of the new outputs has the name of an original one.
    """
    headless = exit_site(surgery.model) is not None or not surgery.role("head")
    names = surgery.recall("outputs of network", lambda: list(surgery.trace().outputs))
    model = surgery.graft()
    if headless and model.network_output == TRUNK_OUTPUT:
        model.network_output = FEATURES_OUTPUT
    present = {model.network_output or name if name == "output" else name for name in names}
    clash = sorted(present & set(added))
    if clash:
        raise OperationError(f"the network already has an output {clash[0]!r}", hint="give the new one another name")


def drop_original(surgery: Surgery, added: Collection[str], heads: Sequence[str] | None = None) -> None:
    """Remove the network's original output and its head.

    Args:
        surgery: The surgery.
        added: The outputs that replace it.
        heads: The original heads, if a branch has the role ``head`` now.
    """
    model = surgery.graft()
    if TRUNK_OUTPUT not in added:
        drop_logits_branch(surgery)
    if model.network_output is None:
        return
    model.network_output = None
    if exit_site(surgery.model) is not None:
        return
    originals = surgery.role("head") if heads is None else heads
    sites = [scoring_layer(surgery.model, head) for head in originals]
    module = surgery.model.get_submodule(sites[0]) if len(sites) == 1 else None
    if not isinstance(module, (nn.Linear, nn.Identity)):
        _end_after_branches(surgery)
        return
    drop_auxiliary(surgery)
    if is_vocabulary_head(surgery.model, module):
        with surgery.bookkeeping():
            untie(surgery.model, surgery.families)
    if isinstance(module, nn.Linear):
        surgery.replace(sites[0], surgery.new(nn.Identity))


def drop_logits_branch(surgery: Surgery) -> None:
    """Remove the head that an earlier operation added to features, if there is one."""
    branch = logits_branch(surgery.model)
    if branch is not None:
        surgery.untap(branch.tap)
        surgery.remove(f"grafts.{TRUNK_OUTPUT}")


def drop_auxiliary(surgery: Surgery) -> None:
    """Remove the auxiliary heads, and leave the network as torchvision and transformers build it without them."""
    model = surgery.model
    for name in dict.fromkeys(site.split(".")[0] for site in surgery.role("aux")):
        surgery.remove(name, optional=True)  # the forward tests whether it is None
    if hasattr(model, "aux_logits"):
        with surgery.bookkeeping():
            model.aux_logits = False  # type: ignore[assignment]


def _end_after_branches(surgery: Surgery) -> None:
    """End the forward pass at the last site that a branch reads."""
    model = surgery.graft()
    sites = {tapped_site(surgery.model, branch) for branch in model.grafts.values()}  # type: ignore[arg-type]

    def last() -> str:
        return max(sites, key=surgery.trace().order.index)

    surgery.cut(surgery.recall("last read", last))
