"""Add domain adaptation to surgeon: ``mmd``, ``coral``, ``cdan``, ``mdd``, ``domain_batch_norm``, ``keep_domain``.

Read ``matching.py`` first: distances between features of domains, computed in ``distances.py``. ``adversarial.py`` has
layers that learn against the network, from ``layers.py`` and ``conditioning.py``; ``batch_norm.py`` norms by domain,
with the module of ``domain_norm.py``; ``fields.py`` the keys that operations share. Importing the package does not
import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgeon import hookimpl
from surgeon_adapt.adversarial import CDAN, MDD
from surgeon_adapt.batch_norm import DomainBatchNorm, KeepDomain
from surgeon_adapt.matching import MMD, Coral

if TYPE_CHECKING:
    from surgeon import Operation

__all__ = ["CDAN", "MDD", "MMD", "Coral", "DomainBatchNorm", "KeepDomain"]


@hookimpl
def surgeon_operations() -> list[type[Operation]]:
    """Return the operations of this plugin."""
    return [MMD, Coral, CDAN, MDD, DomainBatchNorm, KeepDomain]
