"""Classify classes without training samples by their attributes."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from statistics import mean

from torch import nn

from methods.claims import Claim
from methods.measurement import accuracy_on
from methods.recipe_runs import RECIPES as FOLDER
from methods.recipe_runs import accuracy, plugins, run_recipe
from surgeon.data.sources import Digits
from surgeon.interfaces.splits import Splits
from surgeon.nn.attribute_table import AttributeTable, Row, read_table
from surgeon.nn.zero_shot import with_classes

TITLE = "Zero-shot"
RECIPES = ("zero_shot.yaml", "zero_shot_unseen.yaml", "zero_shot_segments.yaml")
ORDER = 70
SEGMENTS = dict(
    enumerate(
        ("1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111", "1010010", "1111111", "1111011")
    )
)
"""Which segments of a seven-segment display each digit lights, in the order of :data:`NAMES`."""
NAMES = ("top", "upper_left", "upper_right", "middle", "lower_left", "lower_right", "bottom")
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
NOTE = """Classes are combinations of digit, position and polarity: 64 are trained, 16 are never seen, and the unseen
ones are classified among themselves (chance: 6.2 %). Random attributes: each class, seen or not, has 16 random bits
in place of its own attributes. The hard case: plain digits, described by the segments of a seven-segment display; two
are never seen and are classified against each other (chance: 50 %), the mean over the pairs 0 1, 2 3, 4 5, 6 7, 8
9."""


def run(seed: int, folder: Path) -> dict[str, float]:
    """The accuracy on seen classes among the seen, and on unseen ones among the unseen."""
    tables = {which: read_table(FOLDER / f"zero_shot_{which}.csv") for which in ("seen", "unseen")}
    network, report = run_recipe("zero_shot.yaml", seed)
    flips = random.Random(seed)
    noise = {which: scrambled(table, flips) for which, table in tables.items()}
    written = write(noise["seen"], folder / "random.csv")
    fooled, fooled_report = run_recipe("zero_shot.yaml", seed, f"operations.1.attributes={written}")
    unseen = plugins().sources()["placed_digits"](source="placed_digits", classes="unseen").load(seed)
    return {
        "seen classes | attributes given": accuracy(report),
        "unseen classes | attributes given": among(network, tables["unseen"], unseen),
        "seen classes | random attributes": accuracy(fooled_report),
        "unseen classes | random attributes": among(fooled, noise["unseen"], unseen),
        "two unseen digits by seven segments": mean(two_digits(seed, pair) for pair in PAIRS),
    }


def two_digits(seed: int, pair: tuple[int, int]) -> float:
    """Train on the other eight digits, and tell the two apart."""
    seen = [digit for digit in range(10) if digit not in pair]
    rows = {str(digit): dict(zip(NAMES, row_of(digit), strict=True)) for digit in seen}
    attributes = ", ".join(
        f'"{name}": {{{", ".join(f"{k}: {v:g}" for k, v in row.items())}}}' for name, row in rows.items()
    )
    network, _ = run_recipe(
        "zero_shot_segments.yaml", seed, f"operations.1.attributes={{{attributes}}}", f"train.data.classes={seen}"
    )
    wider = with_classes(network, {str(digit): row_of(digit) for digit in pair}, only=True)
    return accuracy_on(wider, Digits(classes=list(pair), canvas=8, size=16, channels=1).load(seed))


def row_of(digit: int) -> list[float]:
    """The segments that a digit lights."""
    return [float(lit) for lit in SEGMENTS[digit]]


def among(network: nn.Module, table: AttributeTable, splits: Splits) -> float:
    """The accuracy on the classes of ``table``, classified among themselves."""
    rows: dict[str, Row] = dict(zip(table.classes, table.values, strict=True))
    return accuracy_on(with_classes(network, rows, only=True), splits)


def scrambled(table: AttributeTable, flips: random.Random) -> AttributeTable:
    """The table with coin flips for values."""
    values = tuple(tuple(float(flips.random() < 0.5) for _ in row) for row in table.values)
    return AttributeTable(table.classes, table.attributes, values)


def write(table: AttributeTable, path: Path) -> Path:
    """The table as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["class", *table.attributes])
        rows.writerows([name, *values] for name, values in zip(table.classes, table.values, strict=True))
    return path


CLAIMS = (
    Claim("unseen classes among themselves", lambda c: c["unseen classes | attributes given"], at_least=80.0),
    Claim("unseen classes with random attributes (chance: 6.2)", lambda c: c["unseen classes | random attributes"]),
    Claim("two unseen digits by seven segments − chance", lambda c: c["two unseen digits by seven segments"] - 50),
)
