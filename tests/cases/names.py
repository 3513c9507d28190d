"""Class names of the network and of the data: equal sets map by name, others are refused with both lists (13.1)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cases.harness import Outcome, case, either, equal, expect, refuses, right, succeed, surgeon_command
from cases.material import FAST, Material, colour_of, paint, reviews

PLACES = ("digit", "flower", "icon", "temple")


def head(classes: Any, **more: Any) -> dict[str, Any]:
    """A new head."""
    return {"op": "replace_head", "classes": classes, **more}


def fine_tuned(material: Material, model: Path, operations: Sequence[dict[str, Any]], data: Any, **train: Any) -> Path:
    """Train by a recipe, from the command line; the artifact."""
    recipe = material.recipe(operations, train={"data": data, **FAST, **train})
    out = material.folder / "out"
    succeed("apply", recipe, model, "-o", out, "--quiet")
    return out


def rows_of(artifact: Path, *data: object, options: Sequence[object] = ()) -> list[dict[str, Any]]:
    """What ``surgeon predict`` says of each sample."""
    rows: list[dict[str, Any]] = succeed("predict", artifact, *data, "--json", *options).data()["rows"]
    return rows


def named_as(rows: Sequence[dict[str, Any]], truth: Callable[[dict[str, Any]], str]) -> Outcome:
    """All rows but one in twenty have the class that ``truth`` says."""
    hits = sum(str(row["class"]) == truth(row) for row in rows)
    expect(rows and hits >= 0.95 * len(rows), f"{hits} of {len(rows)} named right: {rows[:2]}")
    return right(f"{hits} of {len(rows)} named right")


def its_folder(row: dict[str, Any]) -> str:
    """The folder of a picture."""
    return Path(row["sample"]).parent.name


ORDERS = {
    "reversed": ["temple", "icon", "flower", "digit"],
    "shuffled": ["icon", "digit", "temple", "flower"],
    "alphabetical": list(PLACES),
}


@case("13.1", of=ORDERS, quick=["reversed"])
def folders_in_another_order(material: Material, classes: list[str]) -> Outcome:
    pictures = material.pictures(PLACES)
    out = fine_tuned(material, material.vit(), [head(classes)], {"source": "images", "path": str(pictures)})
    config = json.loads((out / "config.json").read_text())
    equal([config["id2label"][str(number)] for number in range(4)], classes, "id2label")
    return named_as(rows_of(out, pictures), its_folder)


def review_table(material: Material, good: Any = "positive", bad: Any = "negative", name: str = "films.csv") -> Path:
    """A table of reviews with a verdict."""
    return material.table(
        name, ["review", "verdict"], [(text, good if is_good else bad) for text, is_good in reviews(80)]
    )


def texts(path: Path, label: Any = "verdict", text: str = "review", **more: Any) -> dict[str, Any]:
    """A source of texts."""
    return {"source": "table", "path": str(path), "text": text, "targets": {"labels": label}, **more}


@case("13.1")
def text_labels_in_another_order(material: Material) -> Outcome:
    import transformers

    table = review_table(material)
    out = fine_tuned(material, material.bert(), [head(["positive", "negative"])], texts(table))
    pipe = transformers.pipeline("text-classification", model=str(out), device="cpu")
    answers = [
        (answer["label"], good)
        for answer, (_, good) in zip(pipe([t for t, _ in reviews(80)]), reviews(80), strict=True)
    ]
    hits = sum((label == "positive") == good for label, good in answers)
    expect(hits >= 76, f"the pipeline names {hits} of 80 right")
    return right(f"the stock pipeline names {hits} of 80 right")


@case("13.1")
def kept_named_head(material: Material) -> Outcome:
    labels = {0: "positive", 1: "negative"}
    model = material.bert(id2label=labels, label2id={name: number for number, name in labels.items()})
    table = review_table(material)
    out = fine_tuned(material, model, [{"op": "freeze", "sites": "bert.pooler"}], texts(table))
    bare = material.table("bare.csv", ["review"], [(text,) for text, _ in reviews(80)])
    truth = ["positive" if good else "negative" for _, good in reviews(80)]
    rows = rows_of(out, bare)
    hits = sum(row["class"] == name for row, name in zip(rows, truth, strict=True))
    expect(hits >= 76, f"{hits} of 80 named right")
    return right(f"{hits} of 80 named right")


@case("13.1", slow=True)
def count_over_numbered_folders(material: Material) -> Outcome:
    names = [str(number) for number in range(1, 12)]
    pictures = material.pictures(names, per=8)
    out = fine_tuned(material, material.vit(), [head(11)], {"source": "images", "path": str(pictures)}, epochs=40)
    config = json.loads((out / "config.json").read_text())
    equal([config["id2label"][str(number)] for number in range(11)], names, "id2label")
    return named_as(rows_of(out, pictures), its_folder)


@case("13.1", slow=True)
def multi_label_columns_in_another_order(material: Material) -> Outcome:
    import numpy as np

    rng = np.random.default_rng(0)
    rows = []
    for _ in range(120):
        toxic, insult = bool(rng.random() < 0.5), bool(rng.random() < 0.3)
        rows.append((f"the {'bad' if toxic else 'good'} film {'dull' if insult else 'fine'}", int(toxic), int(insult)))
    table = material.table("t.csv", ["text", "toxic", "insult"], rows)
    operations = [head(["insult", "toxic"], problem_type="multi_label_classification")]
    out = fine_tuned(
        material, material.bert(), operations, texts(table, ["toxic", "insult"], "text"), epochs=30, learning_rate=1e-3
    )
    predicted = rows_of(out, material.table("bare.csv", ["text"], [(row[0],) for row in rows]))
    probabilities = np.array([[row["probabilities"][name] for name in ("toxic", "insult")] for row in predicted])
    agreement = np.corrcoef(probabilities.T, np.array([row[1:] for row in rows]).T)[:2, 2:].round(2)
    expect(agreement.diagonal().min() > 0.5, f"agreement of predictions (rows) with labels: {agreement.tolist()}")
    return right(f"agreement of predictions with their own labels {agreement.diagonal().tolist()}")


NUMBERED = {
    "1 to 3": lambda number: number + 1,
    "zero-padded": lambda number: f"{number + 1:02d}",
    "10, 20, 30": lambda number: 10 * (number + 1),
    "codes": lambda number: ("E11", "E9", "E100")[number],
    "true names": lambda number: ("cat", "dog", "rabbit")[number],
}


def picture_table(material: Material, labels: Callable[[int], Any], kinds: int = 3, per: int = 12) -> Path:
    """A table of pictures with a label for each."""
    names = [f"k{number}" for number in range(kinds)]
    material.pictures(names, per=per)
    files = [(f"pictures/{name}/{i:03d}.png", labels(number)) for number, name in enumerate(names) for i in range(per)]
    return material.table("t.csv", ["file", "cls"], files)


def pictures_in(table: Path, label: Any = "cls", **more: Any) -> dict[str, Any]:
    """A source of a table of pictures."""
    return {"source": "table", "path": str(table), "image": "file", "targets": {"labels": label}, **more}


@case("13.1", of=NUMBERED, quick=["1 to 3", "zero-padded"])
def labels_of_a_table(material: Material, label: Callable[[int], Any]) -> Outcome:
    table = picture_table(material, label)
    out = fine_tuned(material, material.vit(), [head(3)], pictures_in(table))
    return named_as(rows_of(out, material.folder / "pictures"), lambda row: str(label(int(its_folder(row)[1:]))))


REVERSED_NUMBERS = {"0 to 2": ["2", "1", "0"], "1 to 3": ["3", "1", "2"]}


@case("13.1", of=REVERSED_NUMBERS, quick=["1 to 3"])
def whole_numbers_under_names_that_are_numbers(material: Material, classes: list[str]) -> Outcome:
    """A head whose names are the numbers of the data, in another order: by name."""
    first = min(map(int, classes))
    table = picture_table(material, lambda number: number + first)
    out = fine_tuned(material, material.vit(), [head(classes)], pictures_in(table))
    return named_as(rows_of(out, material.folder / "pictures"), lambda row: str(int(its_folder(row)[1:]) + first))


DIFFERING = {
    "another name": ["digit", "flower", "icon", "tample"],
    "one missing": ["digit", "flower", "icon"],
    "other case": ["Digit", "Flower", "Icon", "Temple"],
    "numbers": ["0", "1", "2", "3"],
}


@case("13.1", of=DIFFERING)
def differing_sets(material: Material, classes: list[str]) -> Outcome:
    pictures = material.pictures(PLACES, per=4)
    recipe = material.recipe([head(classes)], train={"data": {"source": "images", "path": str(pictures)}, **FAST})
    ran = surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out")
    return refuses(ran, "temple", classes[-1])


@case("13.1")
def head_with_one_name_more_than_the_data(material: Material) -> Outcome:
    """A class of which the data have no sample: named aloud or refused, and the others keep their names."""
    pictures = material.pictures(PLACES)
    classes = ["statue", "temple", "icon", "flower", "digit"]

    def attempt() -> Outcome:
        out = fine_tuned(material, material.vit(), [head(classes)], {"source": "images", "path": str(pictures)})
        return named_as(rows_of(out, pictures), its_folder)

    return either(attempt, "statue")


@case("13.1")
def texts_with_blanks_and_case(material: Material) -> Outcome:
    labels = ("yes", " yes", "no", "No")
    rows = [(text, labels[number % 4]) for number, (text, _) in enumerate(reviews(40))]
    table = material.table("t.csv", ["review", "verdict"], rows)
    recipe = material.recipe([head(["no", "yes"])], train={"data": texts(table), **FAST})
    ran = surgeon_command("apply", recipe, material.bert(), "-o", material.folder / "out")
    return refuses(ran, "' yes'", "No")


@case("13.1", of={"true first": ["True", "False"], "false first": ["False", "True"]}, quick=["true first"])
def booleans_by_name(material: Material, classes: list[str]) -> Outcome:
    table = review_table(material, True, False)
    out = fine_tuned(material, material.bert(), [head(classes)], texts(table))
    rows = rows_of(out, material.table("bare.csv", ["review"], [(text,) for text, _ in reviews(80)]))
    hits = sum(row["class"] == str(good) for row, (_, good) in zip(rows, reviews(80), strict=True))
    expect(hits >= 76, f"{hits} of 80 named right")
    return right(f"{hits} of 80 named right")


@case("13.1")
def booleans_under_other_names(material: Material) -> Outcome:
    table = review_table(material, True, False)
    recipe = material.recipe([head(["no", "yes"])], train={"data": texts(table), **FAST})
    return refuses(surgeon_command("apply", recipe, material.bert(), "-o", material.folder / "out"), "True", "yes")


def report_of(material: Material, model: Path, operations: Any, data: Any, **train: Any) -> dict[str, Any]:
    """What a training by a recipe reports."""
    recipe = material.recipe(operations, train={"data": data, **FAST, **train})
    ran = succeed("apply", recipe, model, "-o", material.folder / "out", "--json")
    report: dict[str, Any] = ran.data()["training"]
    return report


@case("13.1", of={"counted": 3, "named": ["rabbit", "cat", "dog"]}, quick=["named"])
def held_out_folder_that_lacks_a_class(material: Material, classes: Any) -> Outcome:
    pictures = material.pictures(["cat", "dog", "rabbit"])
    for number, name in ((1, "dog"), (2, "rabbit")):
        paint(material.folder / "held" / name, colour_of(number), 6)
    data = {"source": "images", "path": str(pictures), "test_path": str(material.folder / "held")}
    accuracy = report_of(material, material.vit(), [head(classes)], data)["after"]["logits_accuracy"]
    expect(accuracy >= 0.95, f"accuracy {accuracy}")
    return right(f"accuracy {accuracy:.2f}")


@case("13.1", of={"counted": 3, "named": ["rabbit", "cat", "dog"]})
def held_out_folder_with_one_class_more(material: Material, classes: Any) -> Outcome:
    pictures = material.pictures(["cat", "dog", "rabbit"])
    held = material.pictures(["ant", "cat", "dog", "rabbit"], per=4, root="held")
    data = {"source": "images", "path": str(pictures), "test_path": str(held)}
    recipe = material.recipe([head(classes)], train={"data": data, **FAST})
    return refuses(surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out"), "ant")


@case("13.1")
def tags_of_words_in_another_order(material: Material) -> Outcome:
    """Tags by name, a list for each text, under a head that has the names in another order."""
    import transformers

    tags = {"good": "B-PER", "bad": "I-PER"}
    rows = []
    for text, _ in reviews(80):
        rows.append({"text": text, "tags": ["O", *(tags.get(word, "O") for word in text.split()), "O"]})
    table = material.lines("t.jsonl", rows)
    operations = [head(["I-PER", "O", "B-PER"])]

    def attempt() -> Outcome:
        out = fine_tuned(
            material, material.bert("BertForTokenClassification"), operations, texts(table, "tags", "text")
        )
        pipe = transformers.pipeline("token-classification", model=str(out), device="cpu", ignore_labels=[])
        tagged = {(token["word"], token["entity"]) for row in rows for token in pipe(row["text"])}
        wrong = [pair for pair in tagged if pair[1] != tags.get(pair[0], "O")]
        expect(not wrong and tagged, f"the pipeline says {wrong}")
        return right(f"the stock pipeline tags all {len(tagged)} words right")

    return either(attempt)


@case("13.1", slow=True)
def class_labels_of_a_saved_dataset(material: Material) -> Outcome:
    """A dataset whose own numbering of names is not the head's."""
    import datasets

    features = datasets.Features(
        {"review": datasets.Value("string"), "verdict": datasets.ClassLabel(names=["negative", "positive"])}
    )
    values = {"review": [text for text, _ in reviews(80)], "verdict": [int(good) for _, good in reviews(80)]}
    datasets.Dataset.from_dict(values, features=features).save_to_disk(str(material.folder / "saved"))
    data = {**texts(material.folder / "saved"), "source": "saved"}
    out = fine_tuned(material, material.bert(), [head(["positive", "negative"])], data)
    rows = rows_of(out, material.table("bare.csv", ["review"], [(text,) for text, _ in reviews(80)]))
    hits = sum(
        row["class"] == ("positive" if good else "negative") for row, (_, good) in zip(rows, reviews(80), strict=True)
    )
    expect(hits >= 76, f"{hits} of 80 named right")
    return right(f"{hits} of 80 named right")


@case("13.1", slow=True)
def tasks_in_another_order(material: Material) -> Outcome:
    table = picture_table(material, lambda number: ("cat", "dog", "rabbit")[number])
    operations = [
        {
            "op": "multitask",
            "original": "drop",
            "tasks": {"kind": {"classes": ["rabbit", "dog", "cat"], "label": "kind"}},
        }
    ]
    data = {**pictures_in(table), "targets": {"kind": "cls"}}
    out = fine_tuned(material, material.vit(), operations, data)
    rows = rows_of(out, material.folder / "pictures", options=("--of", "kind"))
    return named_as(rows, lambda row: ("cat", "dog", "rabbit")[int(its_folder(row)[1:])])


@case("13.1", of={"counted": 3, "named": ["rabbit", "cat", "dog"]}, slow=True)
def two_sources_of_which_each_lacks_a_class(material: Material, classes: Any) -> Outcome:
    """Sources that are put together have one numbering."""
    kinds = ("cat", "dog", "rabbit")
    for root, lacking in (("a", 2), ("b", 0)):
        for number, name in enumerate(kinds):
            if number != lacking:
                paint(material.folder / root / name, colour_of(number), 12, prefix=root)
    data = [{"source": "images", "path": str(material.folder / root)} for root in "ab"]

    out = fine_tuned(material, material.vit(), [head(classes)], data)
    return named_as(rows_of(out, material.folder / "a", material.folder / "b"), its_folder)
