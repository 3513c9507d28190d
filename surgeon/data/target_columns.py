"""Read the label columns of a source over all of its parts."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from surgeon.data.class_names import order_columns
from surgeon.data.inputs import tag_columns
from surgeon.data.label_columns import LabelColumn, read_labels
from surgeon.data.network import Network
from surgeon.data.readers import Read, TableSource, called, target_columns
from surgeon.data.tag_columns import is_of_tags, read_tags
from surgeon.errors import TrainingError


def read_columns(
    source: TableSource, data: Read, network: Network
) -> dict[str, dict[str, LabelColumn | list[LabelColumn]]]:
    """Read the label columns of every part; the kind of a column is determined over all parts."""
    import pyarrow

    names = list(data.parts)
    sizes = [len(part) for part in data.parts.values()]
    numbers = np.concatenate([part.numbers for part in data.parts.values()])
    ends = np.cumsum([0, *sizes])
    na = getattr(source, "na", None)

    tagged = set(tag_columns(source, data, network).values())

    def column(name: str, loss: str | None) -> list[LabelColumn]:
        chunks = []
        for part in data.parts.values():
            chunks.append(part.rows.select_columns([name]).with_format("arrow")[:][name])
        if len({chunk.type for chunk in chunks}) > 1:
            try:
                chunks = [chunk.cast(chunks[0].type) for chunk in chunks]
            except pyarrow.ArrowInvalid as error:
                kinds = " and ".join(str(chunk.type) for chunk in chunks)
                raise TrainingError(f"the parts of {called(source)} hold {kinds} in {name!r}") from error
        whole = pyarrow.chunked_array([piece for chunk in chunks for piece in chunk.chunks], type=chunks[0].type)
        feature = data.parts["train"].rows.features[name]
        for other in names[1:]:
            if getattr(feature, "names", None) != getattr(data.parts[other].rows.features[name], "names", None):
                raise TrainingError(f"{called(source)}: the classes of {name!r} differ between train and {other}")
        reader = read_tags if name in tagged and is_of_tags(whole.type) else partial(read_labels, loss=loss)
        made = reader(whole, name, feature=feature, text=data.text, na=na, rows=numbers, where=called(source))
        return [
            dataclasses.replace(made.take(np.arange(start, end)), where=data.places[part])
            for part, start, end in zip(names, ends[:-1], ends[1:], strict=True)
        ]

    labels: dict[str, dict[str, LabelColumn | list[LabelColumn]]] = {name: {} for name in names}
    for target, given in target_columns(source).items():
        head = network.head(target)
        if isinstance(given, list):
            ordered = [column(name, head.loss) for name in order_columns(target, given, head)]
            for position, name in enumerate(names):
                labels[name][target] = [parts[position] for parts in ordered]
                if odd := [parts[position] for parts in ordered if parts[position].kind == "list"]:
                    raise TrainingError(f"{odd[0].name!r} contains lists, so it cannot be part of a list of columns")
        else:
            for name, part in zip(names, column(given, head.loss), strict=True):
                labels[name][target] = part
    return labels
