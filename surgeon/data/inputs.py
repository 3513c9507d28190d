"""Make the inputs of a source's rows, and check all of them before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.data.audio import Sound
from surgeon.data.boxes import BoxedPictures, DetectionPictures, detection_pictures, unlike
from surgeon.data.files import Encoder, OpenedPictures, more_rows, picture_problem, problems
from surgeon.data.labels import IGNORED
from surgeon.data.masks import MaskedPictures
from surgeon.data.network import BOXES, CLASS_LOSS, CROWD, LABELS, MASKS, SIZES, Network
from surgeon.data.numbers import Numbers, open_numbers
from surgeon.data.pictures import Picture
from surgeon.data.readers import Part, Read, TableSource, target_columns, text_columns
from surgeon.data.requirements import require
from surgeon.data.rows import Collate
from surgeon.data.tag_columns import is_of_tags
from surgeon.data.texts import Texts, open_texts
from surgeon.data.word_texts import WORD_IDS, TextPairs, Words, holds_words
from surgeon.errors import TrainingError, counted

SHOWN = 3


def undecoded(source: TableSource, part: Part) -> Part:
    """Return pictures and sounds undecoded, so that decoding errors can name the row."""
    rows = part.rows
    for column in (getattr(source, name, None) for name in ("image", "mask", "audio")):
        if column is not None and hasattr(rows.features[column], "decode"):
            rows = rows.cast_column(column, dataclasses.replace(rows.features[column], decode=False))
    return Part(rows, part.numbers, part.ids)


def make_inputs(
    source: TableSource, data: Read, network: Network, seed: int, *, trains: bool = True, labelled: bool = True
) -> tuple[list[Encoder], tuple[str, ...], Collate, dict[str, Any]]:
    """Return the encoders of a source's inputs, the inputs' names, the collate function, and the preprocessing used.

    With ``trains``, the rows are training rows, which determine the categories. With ``labelled``, boxes are read too.
    """
    collate, stated = Collate(), network.preprocessing
    used: dict[str, Any] = {}
    where = data.places["train"]
    if source.kind == "coco" or (network.detector is not None and (source.kind == "images" or source.image)):
        if source.kind != "coco" and trains:
            raise TrainingError(
                "the network detects boxes, and the data have none",
                where="train.data",
                hint="give a COCO file: data: {source: coco, path: FILE.json, images: FOLDER}",
            )
        return _for_detector(source, data, network, seed, labelled=labelled)
    if source.kind == "images":
        picture = Picture("image", source.pixels, Path(), seed, stated)
        collate.pictures, collate.fill = tuple(picture.names), picture.transform.fills
        used["pictures"] = picture.used
        return [OpenedPictures(picture, "image", Path(), where)], tuple(picture.names), collate, used
    encoders: list[Encoder] = []
    inputs: list[str] = []
    if source.image is not None:
        picture = Picture(source.image, source.pixels, data.folder, seed, stated)
        collate.pictures, collate.fill = tuple(picture.names), picture.transform.fills
        if source.mask is not None:
            encoders.append(
                MaskedPictures(picture, source.image, source.mask, LABELS, source.mask_values, data.folder, where)
            )
            collate.masks = (LABELS,)
        else:
            encoders.append(OpenedPictures(picture, source.image, data.folder, where))
        used["pictures"] = picture.used  # masks may have changed how their numbers are read
        inputs += picture.names
    if source.text is not None:
        texts = _texts(source, data, network)
        encoders.append(texts)
        collate.padding |= texts.padding
        used["texts"] = {"max_length": texts.max_length, "pad_token_id": texts.tokenizer.pad_token_id}
        inputs += texts.names
        if isinstance(texts, Words):
            used["texts"]["words"] = True
            collate.padding |= dict.fromkeys(tag_columns(source, data, network), IGNORED) | {WORD_IDS: -1}
    if source.audio is not None:
        sound = Sound(source.audio, source.waves, data.folder, stated)
        used["sounds"] = sound.used
        encoders.append(sound)
        inputs += sound.names
        collate.padding |= sound.padding
    for name in source.numbers:
        recorded = stated.numbers.get(name)
        numbers = open_numbers(source, name, data.parts["train"].rows, recorded, where, whole=trains)
        encoders.append(numbers)
        inputs.append(name)
        if numbers.used:
            used.setdefault("numbers", {})[name] = numbers.used
    return encoders, tuple(inputs), collate, used


def _for_detector(
    source: TableSource, data: Read, network: Network, seed: int, *, labelled: bool
) -> tuple[list[Encoder], tuple[str, ...], Collate, dict[str, Any]]:
    """Return the encoder of a detector's pictures, with boxes if there are any and they are wanted."""
    if (network.detector is None or network.refusal is not None) and network.heads and labelled:
        raise unlike(network)
    boxed = source.kind == "coco" and labelled
    masks = boxed and source.masks
    if masks:
        require("detection", "reading segmentations")
    if boxed and network.detector is not None and masks != network.masks:
        raise TrainingError(
            "the network predicts masks, and none are read" if network.masks else "the network predicts no masks",
            where="train.data.masks",
            hint="masks: true" if network.masks else "leave masks out",
        )
    rows = {name: part.rows for name, part in data.parts.items()}
    most = max(len(boxes) for some in rows.values() for boxes in some["boxes"][:]) if boxed else None
    column = "image" if source.kind == "images" else source.image
    encode = detection_pictures(source, column, data.folder, data.places["train"], network, seed, most)
    names = tuple(encode.picture.names)
    collate = Collate(pictures=(*names, MASKS) if masks else names, fill=True)
    if isinstance(encode, BoxedPictures):
        collate.padding = {LABELS: IGNORED, BOXES: 0.0, CROWD: 0}
        used = {name: {c for some in part["categories"][:] for c in some} for name, part in rows.items()}
        encode.listed = data.classes
        encode.used = tuple(name for name in data.classes if name in used["train"])
        encode.elsewhere = tuple(sorted(set().union(*used.values()) - used["train"]))
    return [encode], (*names, SIZES), collate, {"pictures": encode.picture.used}


def _texts(source: TableSource, data: Read, network: Network) -> Texts:
    """Return the encoder of a source's texts: one text per row, a pair, or a list of words."""
    first, *rest = text_columns(source)
    texts = open_texts(first, source.tokenizer, source.max_length, network)
    if rest:
        return TextPairs.of(texts, rest[0])
    if holds_words(data.parts["train"].rows, first):
        return Words.of(texts, list(dict.fromkeys(tag_columns(source, data, network).values())))
    return texts


def tag_columns(source: TableSource, data: Read, network: Network) -> dict[str, str]:
    """Return the labels that have one class per word, by their names in a batch, with their columns."""
    if source.kind == "images" or not isinstance(source.text, str):
        return {}
    rows = data.parts["train"].rows
    if not holds_words(rows, source.text):
        return {}
    schema = rows.features.arrow_schema
    of_classes = {t: c for t, c in target_columns(source).items() if network.head(t).loss in (CLASS_LOSS, None)}
    return {t: c for t, c in of_classes.items() if isinstance(c, str) and is_of_tags(schema.field(c).type)}


def check_inputs(
    source: TableSource, data: Read, encoders: Sequence[Encoder], network: Network, *, trains: bool = False
) -> list[str]:
    """Check every input of every row; leave out damaged rows or raise, as the source's ``on_error`` says."""
    notes = [note for encode in encoders if isinstance(encode, MaskedPictures) for note in encode.notes()]
    for name, part in data.parts.items():
        bad: dict[int, str] = {}
        for encode in encoders:
            bad = _problems(encode, part, source, data, network) | bad
        if bad and source.on_error == "fail":
            position = min(bad)
            raise TrainingError(
                f"{data.places[name]}, row {int(part.numbers[position])}: {bad[position]}{more_rows(len(bad) - 1)}",
                where="train.data",
                hint="repair it, or leave out rows that cannot be read: on_error: skip",
            )
        if bad:
            readable = [position for position in range(len(part)) if position not in bad]
            if not readable:
                raise TrainingError(f"{data.places[name]}: no row can be read: {bad[min(bad)]}")
            reasons = "; ".join(list(dict.fromkeys(bad[position] for position in sorted(bad)))[:SHOWN])
            rows = counted(len(bad), f"{name} row" if len(data.parts) > 1 else "row")
            notes.append(f"{data.places[name]}: left out {rows} that cannot be read ({reasons})")
            data.parts[name] = part.select(np.array(readable))
        for encode in encoders:
            if isinstance(encode, Texts):
                notes += encode.notes(
                    data.parts[name].rows.select_columns(encode.columns), data.places[name], trains=trains
                )
            elif isinstance(encode, Numbers):
                notes += encode.notes(data.parts[name].rows, data.places[name])
            elif isinstance(encode, Sound):
                notes += encode.notes(len(data.parts[name]), data.places[name])
    return notes


def _problems(encode: Encoder, part: Part, source: TableSource, data: Read, network: Network) -> dict[int, str]:
    if isinstance(encode, MaskedPictures):
        masks, count = encode, network.head(encode.target).count
        rows = part.rows.select_columns([encode.column, encode.mask])
        return problems(list(rows), lambda row, place: masks.problem(row, int(part.numbers[place]), count))
    if isinstance(encode, DetectionPictures):
        detection, names = encode, [encode.column, *(name for name in getattr(source, "boxes", ()))]
        rows = part.rows.select_columns(names)
        return problems(list(rows), lambda row, place: detection.problem(row, int(part.numbers[place])))
    if isinstance(encode, OpenedPictures):
        folder = encode.folder
        return problems(part.rows[encode.column][:], lambda value, _: picture_problem(value, folder))
    if isinstance(encode, Texts):
        return encode.problems(part.rows.select_columns(encode.columns), network.vocabulary)
    if isinstance(encode, Numbers):
        return encode.problems(part.rows)
    assert isinstance(encode, Sound)
    sound = encode
    sound.cut.clear()

    def check(value: Any, position: int) -> str | None:
        number = int(part.numbers[position])
        try:
            samples = sound.read(value, number)
            sound.encode(samples, number)
            if sound.most is not None and len(samples) > sound.most:
                sound.cut.add(position)
        except TrainingError as error:
            text = error.message.removeprefix(f"row {number} ").removeprefix("has ")
            return text if error.hint is None else f"{text} ({error.hint})"
        return None

    return problems(part.rows[sound.column][:], check)
