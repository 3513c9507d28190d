"""Write a network as an ONNX file with torch's exporter."""

from __future__ import annotations

import traceback
import warnings
from pathlib import Path

import torch

from surgeon.errors import ExportError
from surgeon.pipeline.exports.call import Call, first_line
from surgeon.pipeline.exports.program import Dynamic, trace_program

LARGEST = 2**31 - 2**20
"""The most bytes of tensors in one ONNX file, a protobuf message of at most 2 GB."""


def write_onnx(call: Call, path: Path, dynamic: Dynamic) -> None:
    """Write one ``.onnx`` file whose inputs and outputs have the network's names.

    Raises:
        ExportError: The network cannot be traced, has an operation that ONNX lacks, or exceeds 2 GB.
    """
    state = call.network.state_dict()
    size = sum(tensor.nbytes for tensor in {tensor.data_ptr(): tensor for tensor in state.values()}.values())
    if size > LARGEST:
        raise ExportError(
            f"it has {size / 1e9:.1f} GB of tensors, and an ONNX file holds 2 GB at most", hint="use --to torch-export"
        )
    program = trace_program(call, dynamic)
    outputs = list(call.run(call.traced))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program_file = torch.onnx.export(
                program, dynamo=True, input_names=list(call.names), output_names=outputs, verbose=False
            )
        assert program_file is not None  # the dynamo exporter returns the program
        program_file.save(path, external_data=False)
    except Exception as error:
        raise ExportError(
            f"ONNX cannot express it: {_reason(error)}",
            where=_site(error),
            hint="use --to torch-export, which keeps torch's own operations",
        ) from error


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost error: torch adds advice about how to report it."""
    return first_line(_chain(error)[-1])


def _site(error: BaseException) -> str | None:
    """Return the module that could not be translated, from the graph's node in the traceback."""
    site = None
    for cause in _chain(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            node = frame.f_locals.get("node")
            stack = node.meta.get("nn_module_stack") if isinstance(node, torch.fx.Node) else None
            if stack:
                site = str(list(stack.values())[-1][0]).removeprefix("model.")
    return site
