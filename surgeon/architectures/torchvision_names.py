"""Update older names of torchvision's tensors to the current ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    pass


ALWAYS = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}


# surgeon's option: build BatchNorm2d in a detector's backbone as FrozenBatchNorm2d with this eps. torchvision does so
# only when it downloads weights, some of which need eps 0.
FROZEN_NORM = "frozen_norm_eps"


EPS = 1e-5


REPLACED = "replaced"
"""surgeon's option: module path → the layers that replace it, as lists of plain values."""


# names from before a module was restructured; torchvision renames them on loading
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
    """Yield maps from names in a file to names in the network: unchanged and, if different, updated."""
    current = {name: name for name in names}
    yield current
    modern = {name: modern_name(name) for name in current}
    if modern != current:
        yield modern


def unseen(architecture: Architecture) -> list[str]:
    """Return notes about options of ``architecture`` that tensors do not show, and what is assumed."""
    notes = []
    if FROZEN_NORM in architecture.options:
        notes.append(f"assumed eps {EPS} for frozen BatchNorm; torchvision's COCO_V1 weights need 0: give them by name")
    if architecture.name in ALWAYS and "transform_input" not in architecture.options:
        notes.append("assumed transform_input: false; torchvision's weights need true: give them by name")
    return notes


def modern_name(name: str) -> str:
    """Return ``name`` as the current release of torchvision writes it."""
    for pattern, replacement in LEGACY_NAMES:
        name = pattern.sub(replacement, name)
    return name
