"""Tables, labels and folders that are nearly right: read as they stand, or refused with the place (13.1, 13.3–13.5)."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cases.harness import Outcome, case, equal, expect, refused, right
from cases.material import Material, numbers, save_tokenizer
from cases.splits import images, splits_of, total

COLUMNS = list("abcdef")


def source(path: Path, **more: Any) -> dict[str, Any]:
    """A table with a number and a label."""
    return {"source": "table", "path": str(path), "numbers": {"x": ["a"]}, "targets": {"labels": "y"}, **more}


def two_columns(material: Material, labels: list[Any], name: str = "t.csv") -> Path:
    """A table of 24 rows with these labels in turn."""
    return material.table(name, ["a", "y"], [(row, labels[row % len(labels)]) for row in range(24)])


QUOTES = {
    "never closed": {5: '5,"c'},
    "closed by another cell": {5: '5,"c', 15: '15,"d'},
    "closed in another text": {5: '5,"so he said, c', 15: '15,and "left", c'},
}


@case("13.5", of=QUOTES)
def a_quote_that_swallows_rows(material: Material, changed: dict[int, str]) -> Outcome:
    rows = [changed.get(row, f"{row},{'cd'[row % 2]}") for row in range(24)]
    path = material.folder / "t.csv"
    path.write_text("\n".join(["a,y", *rows]) + "\n")
    return refused(lambda: total(splits_of(source(path))), "line 7" if len(changed) < 3 and 15 not in changed else "")


@case("13.4")
def cells_of_several_lines(material: Material) -> Outcome:
    rows = total(splits_of(source(two_columns(material, ["a\nb", 'say "c"']))))
    equal(rows, {"a\nb": 12, 'say "c"': 12}, "samples by class")
    return right("24 rows")


NAMES: dict[str, list[Any]] = {
    "exponents": ["1E5", "2E3", "3E2"],
    "beyond floats": [2**53, 2**53 + 1, 2**53 + 2],
    "padded": ["001", "01", "1"],
    "dates": ["2024-01-01", "2024-01-02", "2024-01-03"],
    "squares": ["10²", "2²", "①"],
}


@case("13.1", of=NAMES)
def labels_that_look_like_numbers(material: Material, labels: list[Any]) -> Outcome:
    """The names of the predictions are those in the file, to the letter."""
    import surgeon

    rows = [[*(float(row % 3 == k % 3) for k in range(6)), labels[row % 3]] for row in range(48)]
    table = material.table("t.csv", [*COLUMNS, "y"], rows)
    data = {"source": "table", "path": str(table), "numbers": {"x": COLUMNS}, "targets": {"labels": "y"}}
    training = {"data": data, "epochs": 30, "batch_size": 8, "learning_rate": 0.01}
    recipe = material.recipe([{"op": "replace_head", "at": "head", "classes": 3}], train=training)
    model, _ = surgeon.finetune(numbers(3), recipe, seed=0)
    said = surgeon.predict(model, table).classes
    equal(said, [str(row[-1]) for row in rows], "classes")
    return right(f"{labels} by name")


TAUGHT_NOTHING: dict[str, tuple[list[Any], str]] = {
    "no label at all": ([""], "no training row has a label"),
    "one class": (["cat"], "one class"),
}


@case("13.4", of=TAUGHT_NOTHING)
def labels_that_teach_nothing(material: Material, how: tuple[list[Any], str]) -> Outcome:
    import surgeon

    rows = [[*map(float, range(6)), how[0][0]] for _ in range(24)]
    table = material.table("t.csv", [*COLUMNS, "y"], rows)
    data = {"source": "table", "path": str(table), "numbers": {"x": COLUMNS}, "targets": {"labels": "y"}}
    settings = surgeon.TrainSettings.model_validate({"data": data, "epochs": 1})
    return refused(lambda: surgeon.train(numbers(1), settings, quiet=True).after, how[1])


ALIKE = {
    "case": ("Cat", "cat"),
    "a space": ("cat", "cat "),
    "Unicode form": ("café", unicodedata.normalize("NFD", "café")),
}


@case("13.1", of=ALIKE)
def classes_that_look_alike(material: Material, names: tuple[str, str]) -> Outcome:
    """They are two classes, and that is said."""
    splits = splits_of(images(material.pictures([*names, "dog"], per=4)))
    equal(total(splits), {names[0]: 4, names[1]: 4, "dog": 4}, "samples by class")
    expect(any("only" in note and "different classes" in note for note in splits.notes), f"not said: {splits.notes}")
    return right(splits.notes[-1])


@case("13.3")
def a_class_folder_that_links_to_another(material: Material) -> Outcome:
    folder = material.pictures(["cat", "dog"], per=4)
    (folder / "kitten").symlink_to(folder / "cat")
    notes = " ".join(splits_of(images(folder)).notes)
    expect("4 files are read twice, by links" in notes, f"not said: {notes}")
    return right("said")


@case("13.3", of=("jsonl", "parquet"))
def a_table_that_kept_its_date(material: Material, kind: str) -> Outcome:
    """Archives give all versions of a file one date."""
    import pandas

    path = material.folder / f"t.{kind}"
    for names in ("cd", "ef"):
        frame = pandas.DataFrame({"a": range(24), "y": list(names) * 12})
        if kind == "jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_parquet(path)
        os.utime(path, (315532800, 315532800))
        equal(total(splits_of(source(path))), dict.fromkeys(names, 12), "samples by class")
    return right("the second version is read")


def frames(path: Path) -> None:
    """A picture of two frames, red and green."""
    red, green = Image.new("RGB", (32, 32), (255, 0, 0)), Image.new("RGB", (32, 32), (0, 255, 0))
    red.save(path, save_all=True, append_images=[green])


def see_through(path: Path) -> None:
    """A palette whose first colour is transparent, at the left half; the right half is red."""
    made = Image.new("P", (32, 32), 0)
    made.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    made.paste(1, (16, 0, 32, 32))
    made.save(path, transparency=0)


FORMS: dict[str, tuple[str, Callable[[Path], object], tuple[float, float, float]]] = {
    "animated GIF": ("gif", frames, (1, 0, 0)),
    "animated WebP": ("webp", frames, (1, 0, 0)),
    "TIFF of several pages": ("tif", frames, (1, 0, 0)),
    "palette with transparency": ("png", see_through, (1, 0.5, 0.5)),
    "CMYK": ("jpg", lambda path: Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(path), (1, 0, 0)),
    "a PNG called jpg": ("jpg", lambda path: Image.new("RGB", (32, 32), (255, 0, 0)).save(path, "PNG"), (1, 0, 0)),
}


@case("13.5", of=FORMS)
def forms_of_pictures(material: Material, how: tuple[str, Callable[[Path], object], tuple[float, ...]]) -> Outcome:
    """The first frame counts, and what is transparent is white."""
    ext, write, colour = how
    for name in ("a", "b"):
        (material.folder / "p" / name).mkdir(parents=True)
        for number in range(3):
            write(material.folder / "p" / name / f"{number}.{ext}")
    pixels = {"size": 32, "mean": [0.0] * 3, "std": [1.0] * 3}
    seen = splits_of(images(material.folder / "p", pixels=pixels)).train[0]["pixel_values"].mean((1, 2))
    expect(
        torch.allclose(seen, torch.tensor(colour, dtype=torch.float32), atol=0.02), f"{seen.tolist()}, and not {colour}"
    )
    return right(f"{[round(value, 2) for value in seen.tolist()]}")


LARGE: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "an input": lambda row: (1e39 if row == 5 else row, "cd"[row % 2]),
    "a label": lambda row: (row, 1e39 if row == 5 else row + 0.5),
}


@case("13.4", of=LARGE)
def numbers_beyond_float32(material: Material, make: Callable[[int], tuple[Any, Any]]) -> Outcome:
    path = material.table("t.csv", ["a", "y"], [make(row) for row in range(24)])
    return refused(lambda: splits_of(source(path)), "row 5", "float32")


@case("13.5")
def texts_that_are_all_empty(material: Material) -> Outcome:
    save_tokenizer(material.folder / "words")
    path = material.table("t.csv", ["t", "y"], [(" " * (row % 2), "cd"[row % 2]) for row in range(24)])
    data = source(path, numbers={}, text="t", tokenizer=str(material.folder / "words"))
    return refused(lambda: splits_of(data), "every text in 't' is empty")


@case("13.17")
def layers_with_new_values_are_cut(material: Material) -> Outcome:
    """Their values are new by reinit, but no operation added them."""
    import surgeon

    operations = [{"op": "reinit", "sites": "."}, {"op": "truncate", "after": "second"}]
    made = surgeon.apply(numbers(3), material.recipe(operations))
    expect(not any(name.startswith("head.") for name in made.state_dict()), "the head is left")
    return right("the head is gone")
