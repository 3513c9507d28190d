"""Missing is what the user says is missing; labels are checked before the first step (13.4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cases.harness import Outcome, case, either, equal, expect, refuses, right, succeed, surgeon_command
from cases.material import FAST, Material, colour_of, picture
from cases.names import fine_tuned, head
from cases.splits import splits_of


def column(material: Material, labels: Sequence[Any], **more: Any) -> Any:
    """The splits of a table of numbers with these labels in turn, 60 rows."""
    rows = [(number % 7, labels[number % len(labels)]) for number in range(60)]
    table = material.table("t.csv", ["a", "y"], rows)
    return splits_of(
        {"source": "table", "path": str(table), "numbers": {"x": ["a"]}, "targets": {"labels": "y"}, **more}
    )


def samples_by_class(splits: Any) -> dict[str, int]:
    """Samples by class, without those whose label is missing."""
    names = splits.names["labels"]
    counts: dict[str, int] = {}
    for part in (splits.train, splits.test, splits.validation):
        for number in range(len(part) if part is not None else 0):
            label = int(part[number]["labels"])
            if label >= 0:
                counts[names[label]] = counts.get(names[label], 0) + 1
    return counts


def counted_missing(splits: Any) -> int:
    """How many missing labels the notes count, over all parts."""
    return sum(int(count) for count in re.findall(r"(\d+) of \d+ \w+ rows have no", " ".join(splits.notes)))


@case("13.4", of=("NA", "None", "null", "N/A", "NULL", "NaT"))
def a_name_that_looks_missing(material: Material, name: str) -> Outcome:
    equal(samples_by_class(column(material, [name, "yes", "no"])), {name: 20, "yes": 20, "no": 20}, "samples by class")
    return right(f"{name!r} is a class")


@case("13.4")
def names_that_are_declared_missing(material: Material) -> Outcome:
    splits = column(material, ["NA", "yes", "no", "unknown"], na=["NA", "unknown"])
    equal(samples_by_class(splits), {"yes": 15, "no": 15}, "samples by class")
    equal(counted_missing(splits), 30, "missing labels that are counted aloud")
    return right("30 missing labels counted")


@case("13.4")
def empty_cells_are_counted(material: Material) -> Outcome:
    splits = column(material, ["yes", "", "no"])
    equal(samples_by_class(splits), {"yes": 20, "no": 20}, "samples by class")
    equal(counted_missing(splits), 20, "missing labels that are counted aloud")
    return right("20 missing labels counted")


@case("13.4")
def null_and_nan_of_json_lines(material: Material) -> Outcome:
    rows = [{"a": number, "y": ["yes", None, "no", "None"][number % 4]} for number in range(60)]
    table = material.lines("t.jsonl", rows)
    splits = splits_of({"source": "table", "path": str(table), "numbers": {"x": ["a"]}, "targets": {"labels": "y"}})
    equal(samples_by_class(splits), {"yes": 15, "no": 15, "None": 15}, "samples by class")
    return right("null is missing, 'None' is a name")


@case("13.4")
def nothing_beside_parquet(material: Material) -> Outcome:
    import pandas

    path = material.folder / "t.parquet"
    pandas.DataFrame({"a": range(60), "y": [["yes", None, "NA"][number % 3] for number in range(60)]}).to_parquet(path)
    splits = splits_of({"source": "table", "path": str(path), "numbers": {"x": ["a"]}, "targets": {"labels": "y"}})
    equal(samples_by_class(splits), {"yes": 20, "NA": 20}, "samples by class")
    return right("null is missing, 'NA' is a name")


SIGNS = {"minus 100": -100, "minus 1 declared": -1}


@case("13.4", of=SIGNS)
def whole_numbers_with_a_sign_for_missing(material: Material, sign: int) -> Outcome:
    """Labels 0 and 1 with -100, or a declared -1, among them: three values are not three classes."""

    def attempt() -> Outcome:
        splits = column(material, [0, 1, sign], **({"na": [-1]} if sign == -1 else {}))
        labels = {int(splits.train[number]["labels"]) for number in range(len(splits.train))}
        expect(labels <= {0, 1, -100}, f"labels {labels}")
        expect(splits.classes.get("labels", 2) == 2, f"classes {splits.classes}")
        return right(f"labels {sorted(labels)}")

    return either(attempt, str(sign), "na")


def chexpert(material: Material) -> tuple[Path, list[tuple[Any, ...]]]:
    """Findings that are 1, 0, uncertain (-1) or not there."""
    rng = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = []
    for number in range(90):
        kind = number % 3
        picture(colour_of(kind), number).save(material.folder / f"{number}.png")
        truth = [1.0 if kind == finding else 0.0 for finding in range(3)]
        hidden = ["" if rng.random() < 0.2 else -1.0 if rng.random() < 0.2 else value for value in truth]
        rows.append((f"{number}.png", *hidden, *truth))
    findings = ["Cardiomegaly", "Edema", "Effusion"]
    return material.table("t.csv", ["Path", *findings, "t0", "t1", "t2"], rows), rows


@case("13.4", slow=True)
def uncertain_findings_that_are_declared(material: Material) -> Outcome:
    table, rows = chexpert(material)
    findings = ["Cardiomegaly", "Edema", "Effusion"]
    data = {"source": "table", "path": str(table), "image": "Path", "targets": {"labels": findings}, "na": [-1]}
    operations = [head(findings, problem_type="multi_label_classification")]
    out = fine_tuned(material, material.vit(), operations, data, epochs=25)
    probabilities = {
        Path(row["sample"]).name: row["probabilities"]
        for row in succeed("predict", out, material.folder / "*.png", "--json").data()["rows"]
    }
    hits = sum(
        probabilities[row[0]][name] > 0.5 == bool(row[4 + k]) or (probabilities[row[0]][name] > 0.5) == bool(row[4 + k])
        for row in rows
        for k, name in enumerate(findings)
    )
    expect(hits >= 0.95 * 270, f"{hits} of 270 findings right")
    return right(f"{hits} of 270 findings right")


@case("13.4")
def uncertain_findings_that_are_not_declared(material: Material) -> Outcome:
    table, _ = chexpert(material)
    findings = ["Cardiomegaly", "Edema", "Effusion"]
    data = {"source": "table", "path": str(table), "image": "Path", "targets": {"labels": findings}}
    recipe = material.recipe([head(findings, problem_type="multi_label_classification")], train={"data": data, **FAST})
    return refuses(surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out"), "-1", "row")


def numbers_run(material: Material, y: Any, objective: dict[str, Any] | None, **data: Any) -> dict[str, Any]:
    """Train a network of plain numbers on a table with the column or columns ``y``."""
    import surgeon
    from cases.material import numbers

    rng = np.random.default_rng(0)
    columns = list("abcdef")
    names = list(y)
    values = [[*map(float, rng.normal(size=6)), *(y[name][number] for name in names)] for number in range(40)]
    table = material.table("n.csv", [*columns, *names], values)
    target = names[0] if len(names) == 1 else names
    settings = {
        "data": {
            "source": "table",
            "path": str(table),
            "numbers": {"x": columns},
            "targets": {"labels": target},
            **data,
        },
        "epochs": 1,
    }
    if objective:
        settings["objectives"] = [{"output": "logits", "label": "labels", **objective}]
    model = numbers(1 if objective and len(names) == 1 else max(3, len(names)) if not objective else len(names))
    report = surgeon.train(model, surgeon.TrainSettings.model_validate(settings), quiet=True)
    return dict(report.after)


OUT_OF_RANGE: dict[str, tuple[dict[str, list[Any]], dict[str, Any] | None, tuple[str, ...]]] = {
    "bce with 2": ({"y": [0, 1, 0, 1] * 9 + [0, 1, 2, 1]}, {"loss": "bce"}, ("2",)),
    "bce with a vector of -100": (
        {"y": [0.0, 1.0] * 20, "z": [0.0, 1.0, 0.0, -100.0] * 10},
        {"loss": "bce"},
        ("-100",),
    ),
    "a float column with -100": ({"y": [0.5, 1.5, 2.5, -100.0] * 10}, {"loss": "mse"}, ("-100",)),
    "a class out of range": ({"y": [0, 1, 2, 1] * 9 + [0, 1, 7, 2]}, None, ("7",)),
    "a negative class": ({"y": [0, 1, 2, 1] * 9 + [0, 1, -3, 2]}, None, ("-3",)),
    "an infinite value": ({"y": [0.5, 1.5, 2.5, "inf"] * 10}, {"loss": "mse"}, ("inf",)),
}


@case("13.4", of=OUT_OF_RANGE)
def labels_out_of_range(material: Material, how: tuple[Any, Any, tuple[str, ...]]) -> Outcome:
    y, objective, facts = how

    def attempt() -> Outcome:
        after = numbers_run(material, y, objective)
        losses = [value for name, value in after.items() if name.endswith("loss")]
        if "y" in y and y["y"].count(-100.0) == 10 and all(loss < 50 for loss in losses):
            return right(f"-100 is missing: {after}")
        raise AssertionError(f"trained: {after}")

    return either(attempt, *facts)


@case("13.4")
def minus_100_as_a_value(material: Material) -> Outcome:
    """``na: []`` says that -100 is a temperature."""
    after = numbers_run(material, {"y": [1.5, -100.0] * 20}, {"loss": "mse"}, na=[])
    loss = after["logits_loss"]
    expect(loss > 1000, f"-100 was left out: {after}")
    return right(f"loss {loss:.0f}")
