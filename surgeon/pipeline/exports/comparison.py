"""Run an export in a process without surgeon, and compare its outputs with the network's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surgeon.errors import VerificationError
from surgeon.pipeline.exports.call import Arguments, Call, leaves

CONSUMER = Path(__file__).with_name("consumer.py")
TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""The largest rounding difference, relative to the largest value of the output."""
ONNX_TOLERANCE = 1e-3
"""The same for float32 in onnxruntime, whose kernels sum in another order."""
TORCH_TOLERANCE = 1e-4


def run_consumer(form: str, export: Path, folder: Path) -> None:
    """Run the consumer's script on ``export``; it writes its results into ``folder``.

    Raises:
        VerificationError: The script cannot load or run the export.
    """
    command = [sys.executable, "-P", str(CONSUMER), form, str(export), str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        lines = [line for line in process.stderr.strip().splitlines() if line.strip()] or ["it printed nothing"]
        raise VerificationError(f"a process without surgeon cannot use it: {lines[-1].strip()[:300]}")


def check_outputs(form: str, export: Path, call: Call, cases: Sequence[Arguments], folder: Path) -> float:
    """Compare the outputs of an export with the network's on every case.

    Returns:
        The largest difference, relative to the largest value of its output.

    Raises:
        VerificationError: The export cannot be run, or an output differs.
    """
    expected = [call.run(case) for case in cases]
    write_inputs(form, call, cases, folder)
    run_consumer(form, export, folder)
    return compare_outputs(form, expected, folder)


def write_inputs(form: str, call: Call, cases: Sequence[Arguments], folder: Path) -> None:
    """Write the cases in the format that the consumer of ``form`` reads."""
    if form == "onnx":
        for number, case in enumerate(cases):
            arrays = dict(zip(call.names, (tensor.numpy() for tensor in leaves(case)), strict=True))
            np.savez(folder / f"inputs-{number}.npz", **arrays)  # type: ignore[arg-type]
    else:
        torch.save(list(cases), folder / "inputs.pt")


def compare_outputs(form: str, expected: Sequence[dict[str, torch.Tensor]], folder: Path) -> float:
    """Compare the consumer's outputs with the expected ones; see :func:`check_outputs`."""
    worst = 0.0
    results: list[dict[str, torch.Tensor]]
    if form == "onnx":
        paths = [folder / f"outputs-{number}.npz" for number in range(len(expected))]
        results = [{name: torch.from_numpy(array) for name, array in np.load(path).items()} for path in paths]
    else:
        results = torch.load(folder / "outputs.pt", weights_only=True)
    for outputs, references in zip(results, expected, strict=True):
        if differing := sorted(outputs.keys() ^ references.keys()):
            raise VerificationError(f"it has other outputs than the network: {', '.join(differing[:3])}")
        for name, tensor in references.items():
            worst = max(worst, _difference(form, name, outputs[name], tensor))
    return worst


def _difference(form: str, name: str, output: torch.Tensor, expected: torch.Tensor) -> float:
    if output.shape != expected.shape or output.dtype != expected.dtype:
        described, described_output = (f"{tensor.dtype} {list(tensor.shape)}" for tensor in (expected, output))
        raise VerificationError(f"its output {name} is {described_output}, the network's {described}")
    if not expected.is_floating_point():
        if not torch.equal(output, expected):
            raise VerificationError(f"its output {name} differs from the network's")
        return 0.0
    plain = ONNX_TOLERANCE if form == "onnx" else TORCH_TOLERANCE
    allowed = TOLERANCE.get(expected.dtype, plain)
    actual, reference = output.double(), expected.double()
    finite = reference.isfinite()
    same = bool((actual.isnan() == reference.isnan()).all()) and torch.equal(
        actual[reference.isinf()], reference[reference.isinf()]
    )
    scale = max(float(reference[finite].abs().max()) if finite.any() else 0.0, 1e-6)
    difference = float((actual - reference)[finite].abs().max()) / scale if finite.any() else 0.0
    if not same or not difference <= allowed:
        by = f"{difference:.2g} of the largest value, more than {allowed:g}"
        raise VerificationError(f"its output {name} differs from the network's by {by}")
    return difference


def read_digests(folder: Path) -> dict[str, Any]:
    """Read the digests of tensors that the consumer of a state dict wrote."""
    digests: dict[str, Any] = json.loads((folder / "digests.json").read_text())
    return digests
