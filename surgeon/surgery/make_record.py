"""Record how a network was made, as a :class:`~surgeon.interfaces.record.Record`."""

from __future__ import annotations

from surgeon.architectures.source import Source
from surgeon.interfaces.record import Record, Surgeries


def make_record(source: Source, surgeries: Surgeries | None) -> Record:
    """Record how the network was made: the record of its source, and the recipe applied now."""
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
