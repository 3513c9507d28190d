"""Poison fresh memory, and vary what must not matter: every operation gives the same bytes.

``apply`` lays tensors out as its source does, to copy them in long runs; ``save`` has no source. So each is compared
with itself, byte for byte, and the two with each other tensor by tensor.

Fresh memory holds whatever lay there before. Here glibc fills it with one pattern or another (``M_PERTURB``), and torch
with NaN (``fill_uninitialized_memory``); a byte of it that reached a file would differ. The same holds for the number
of threads and for ``PYTHONHASHSEED``.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.forked import forked
from faults.kills import contents, surgeon
from faults.tally import Tally

M_PERTURB = -6
ANIMALS = {"cat": [0, 1, 0], "dog": [1, 0, 1], "owl": [1, 1, 0]}
MORE: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "zero_shot": (
        "resnet",
        [{"op": "zero_shot", "attributes": ANIMALS}, {"op": "add_classes", "attributes": {"cow": [0, 0, 1]}}],
    ),
    "stems": ("resnet", [{"op": "stems", "stems": {"first": "copy", "second": "reinit"}}]),
    "append": ("resnet", [{"op": "append", "kind": "adapter", "hidden": 4}, {"op": "replace_head", "classes": 2}]),
    "stages": (
        "resnet",
        [{"op": "unfreeze", "stages": [{"epoch": 1, "sites": ["layer4"]}]}, {"op": "conserve", "method": "l2_sp"}],
    ),
    "one channel": ("resnet", [{"op": "adapt_input", "channels": 1}]),
    "half": ("resnet", [{"op": "convert", "dtype": "bfloat16"}, {"op": "replace_head", "classes": 2}]),
    "dropped": (
        "resnet",
        [
            {"op": "multitask", "tasks": {"age": {"classes": 3}, "kind": {"classes": 2}}},
            {"op": "drop_outputs", "outputs": ["age"]},
        ],
    ),
}
"""Operations that no golden case has: network and operations."""


def subjects() -> dict[str, tuple[str, list[dict[str, Any]], str | None]]:
    """Network, operations and donor of every case."""
    from golden.cases import CASES

    made: dict[str, tuple[str, list[dict[str, Any]], str | None]] = {
        name: (case.network, case.operations, case.donor) for name, case in CASES.items()
    }
    return made | {name: (network, operations, None) for name, (network, operations) in MORE.items()}


def _perturb(pattern: int) -> Callable[[], None]:
    return lambda: ctypes.CDLL(None).mallopt(M_PERTURB, pattern)


def _nan() -> None:
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def _threads() -> None:
    import torch

    torch.set_num_threads(3)


VARIANTS: dict[str, Callable[[], None]] = {
    "memory of 0x5a": _perturb(0xA5),
    "memory of 0xff": _perturb(0x01),
    "memory of NaN": _nan,
    "three threads": _threads,
}


def run(tally: Tally) -> None:
    """Try every case in every variant."""
    made = subjects()
    with tempfile.TemporaryDirectory(prefix="surgeon-poisoned-") as root:
        for name in tally.chosen(list(made), 3):
            folder = Path(root) / name
            folder.mkdir()
            _make(folder, *made[name])
            _try(tally, name, folder, made[name][0])
            shutil.rmtree(folder)


def _make(folder: Path, network: str, operations: list[dict[str, Any]], donor: str | None) -> None:
    import torch
    from golden.cases import build

    (folder / "recipe.json").write_text(json.dumps({"seed": 3, "operations": operations}))
    torch.save(build(network).state_dict(), folder / "net.pt")
    if donor:
        torch.save(build(donor, salt="donor").state_dict(), folder / "donor.pt")


def _try(tally: Tally, name: str, folder: Path, network: str) -> None:
    arch = f"python:families:{network}"
    command = ["apply", "recipe.json", "net.pt", "--arch", arch, "-q", "--force", "-o", "out"]
    wanted: dict[str, dict[str, bytes]] = {}
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for variant, change in {"plain": lambda: None, **VARIANTS}.items():
        for verb in ("apply", "save"):

            def child() -> int:
                change()  # noqa: B023
                if verb == "apply":  # noqa: B023
                    return surgeon(command)
                from surgeon import apply, save

                save(apply("net.pt", "recipe.json", arch=arch), "out", force=True)
                return 0

            ended = forked(child, folder=folder)
            if ended.status:
                tally.fault(f"{name}, {variant}, {verb}", ended.err)
                continue
            left = _weights(folder / "out")
            values = _tensors(left)
            wanted.setdefault(verb, left)
            tensors = tensors or values
            wrong = None if left == wanted[verb] else "gives other bytes"
            if values != tensors:
                odd = sorted(key for key in values.keys() | tensors.keys() if values.get(key) != tensors.get(key))
                wrong = f"gives other tensors: {odd[:5]}"
            tally.add(f"{name}, {variant}, {verb}", variant, wrong)
    for seed in ("1", "2") if tally.share else ("1",) if name == "resnet" else ():
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-m", "surgeon", *command], cwd=folder, env=environment, capture_output=True
        )
        same = not done.returncode and _weights(folder / "out") == wanted.get("apply")
        tally.add(f"{name}, hash seed {seed}", "hash seed", None if same else f"gives other bytes: {done.stderr!r}")


def _weights(folder: Path) -> dict[str, bytes]:
    """The files of weights in an artifact."""
    return {file: data for file, data in contents(folder).items() if file.endswith(".safetensors")}


def _tensors(files: dict[str, bytes]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The dtype, shape and bytes of every tensor in files of weights, wherever in them they lie."""
    import torch
    from safetensors.torch import load

    return {
        name: (str(tensor.dtype), tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for data in files.values()
        for name, tensor in load(data).items()
    }
