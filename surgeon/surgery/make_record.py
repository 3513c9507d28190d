"""Write down how a network came about, as a :class:`~surgeon.interfaces.record.Record`."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.architectures.preprocessing import stated_by
from surgeon.architectures.source import Source
from surgeon.checkpoint.companions import Companion, read_companions
from surgeon.interfaces.record import Record, Surgeries


def make_record(source: Source, surgeries: Surgeries | None, companions: Sequence[Companion] | None = None) -> Record:
    """Write down how the network came about: what its source says of itself, and the recipe just applied.

    Args:
        source: What was operated on.
        surgeries: The recipe; None where nothing was applied.
        companions: What belongs beside the weights of the result; as it lies beside the source's if left out.
    """
    if source.record is not None:
        record = source.record.model_copy(deep=True)
    else:
        record = Record(
            architecture=source.architecture,
            source=source.location,
            fingerprint=source.checkpoint.fingerprint() if source.checkpoint else None,
            notes=list(source.notes),
            preprocessing=stated_by(source),
        )
    record.carry(companions_of(source, check=False) if companions is None else companions)
    if surgeries is not None:
        record.surgeries.append(surgeries)
    return record


def companions_of(source: Source, *, check: bool = True) -> list[Companion]:
    """Read what belongs beside the weights of ``source``: in its folder, or that from which a module was loaded.

    Args:
        source: Where the weights come from.
        check: Also look whether JSON and texts are whole.

    Raises:
        CheckpointError: A file is damaged or unreadable; it names the file.
    """
    if source.module is not None:
        return list(source.record.companions) if source.record is not None else []
    if source.checkpoint is None or source.checkpoint.folder is None:
        return []
    return read_companions(source.checkpoint.folder, check=check)
