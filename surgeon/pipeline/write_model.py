"""Write a network in memory as an artifact, with its record and a forward that was run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from surgeon.checkpoint.artifact import check_output, write
from surgeon.checkpoint.pieces import Piece
from surgeon.graph.tensors import tensors_of
from surgeon.interfaces.record import Record
from surgeon.pipeline.manifest import contents
from surgeon.pipeline.reference_outputs import Reference
from surgeon.plugins import Plugins


def write_model(
    model: nn.Module,
    record: Record,
    path: Path,
    plugins: Plugins,
    *,
    force: bool,
    reference: Reference | None,
    check: Callable[[Path], object] | None,
) -> Path:
    """Write ``model`` to ``path``; see :func:`surgeon.save`.

    Args:
        model: The network.
        record: How it was made.
        path: A folder, or a file that ends in ``.safetensors`` or ``.pt``.
        plugins: The plugins, whose providers know the configs of their libraries.
        force: Replace what exists there.
        reference: A forward of it, to be recorded.
        check: Inspects what was written before it takes its place.

    Raises:
        OutputError: The place exists or cannot be written to.
    """
    check_output(path, force=force, inputs=[])
    pieces = [
        Piece(name, tensor.dtype, tuple(tensor.shape), tensor.nbytes, (), lambda t=tensor: t)  # type: ignore[misc]
        for name, tensor in tensors_of(model)
    ]
    write(
        path,
        contents(model, pieces, record, plugins.architectures(), reference),
        force=force,
        check=check,
        keep_rejected=True,
    )
    return path
