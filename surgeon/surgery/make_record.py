"""Write down how a network came about, as a :class:`~surgeon.interfaces.record.Record`."""

from __future__ import annotations

from surgeon.architectures.source import Source
from surgeon.interfaces.record import Record, Surgeries


def make_record(source: Source, surgeries: Surgeries | None) -> Record:
    """How the network came about: what its source tells of itself, and the recipe just applied."""
    if source.record is not None:
        record = source.record.model_copy(deep=True)
    else:
        record = Record(
            architecture=source.architecture,
            source=source.location,
            fingerprint=source.checkpoint.fingerprint() if source.checkpoint else None,
            notes=list(source.notes),
        )
    if surgeries is not None:
        record.surgeries.append(surgeries)
    return record
