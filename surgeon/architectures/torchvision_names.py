"""Read older names of torchvision's tensors as today's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    pass


ALWAYS = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}


# An option of surgeon's own: BatchNorm2d in a detector's backbone is built as FrozenBatchNorm2d with this
# eps. torchvision's detectors do so only where they download weights, of which some need eps 0.
FROZEN_NORM = "frozen_norm_eps"


EPS = 1e-5


REPLACED = "replaced"
"""An option of surgeon's own: the path of a module → the layers that stand in its place, as lists of plain values."""


# Names in files from before a module was rearranged; torchvision renames them as it loads.
LEGACY_NAMES: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)"), lambda m: m[1]),
    (re.compile(r"(\.mlp)\.linear_([12])(?=\.)"), lambda m: f"{m[1]}.{3 * (int(m[2]) - 1)}"),
    (re.compile(r"^rpn\.head\.conv(?=\.(?:weight|bias)$)"), lambda m: "rpn.head.conv.0.0"),
    (re.compile(r"(mask_head)\.mask_fcn(\d)(?=\.)"), lambda m: f"{m[1]}.{int(m[2]) - 1}.0"),
    (
        re.compile(r"^(head\.\w+_head\.conv)\.([0246])(?=\.(?:weight|bias)$)"),
        lambda m: f"{m[1]}.{int(m[2]) // 2}.0",
    ),
]


def readings(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Name in a file → name in the network: as it is and, where it makes a difference, brought up to date."""
    current = {name: name for name in names}
    yield current
    modern = {name: modern_name(name) for name in current}
    if modern != current:
        yield modern


def unseen(architecture: Architecture) -> list[str]:
    """Options of ``architecture`` that no tensor shows, and what was assumed of them."""
    notes = []
    if FROZEN_NORM in architecture.options:
        notes.append(
            f"its frozen BatchNorm is taken to have eps {EPS}; torchvision's COCO_V1 weights need 0: name them"
        )
    if architecture.name in ALWAYS and "transform_input" not in architecture.options:
        notes.append("transform_input is taken to be off; torchvision's own weights need it on: name them")
    return notes


def modern_name(name: str) -> str:
    """``name`` as the current release of torchvision writes it."""
    for pattern, replacement in LEGACY_NAMES:
        name = pattern.sub(replacement, name)
    return name
