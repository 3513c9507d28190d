"""Change what a folder, an index, a manifest, a recipe or a table says, value by value.

A value is left out, repeated, exchanged for one of another kind or size; or bytes are flipped. Each mutant ends in a
SurgeonError or is read: no traceback, no hang, no growth.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.file_mutants import flip
from faults.forked import Ended, forked, forked_each
from faults.kills import surgeon
from faults.places import unclear
from faults.tally import Tally

MEGABYTES = 500
SECONDS = 10
BATCH = 25
"""How many mutants share a process."""
WRONG: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 10**9, -(10**9), 1 << 63, 1 << 70, 0.5, 1e308, float("inf"), float("nan"),
    "", "x", "../../etc/passwd", "\\n", "[bold]", "\x00", "\ud800", "python:os:system", "hf:x/y", "1", [], [1], ["x"],
    [[]], [None] * 3,
    {}, {"x": 1}, {"": None}, {"op": "freeze"},
)  # fmt: skip
RECIPE = """
seed: 3
roles: {head: classifier.6}
inputs: [[2, 3, 64, 64]]
operations:
  - {op: replace_head, classes: [a, b, c], init: rows, rows: {a: 0, b: 1}}
  - {op: freeze, up_to: features.3, norms: train}
  - {op: multitask, tasks: {age: {kind: regression, classes: 1, hidden: [8]}}}
train:
  data: {source: digits, classes: [0, 1, 2], per_class: 4, canvas: 8, size: 32, test_fraction: 0.1}
  epochs: 3
  batch_size: 6
  optimizer: {decay_norms: false}
  arguments: {lr_scheduler_type: cosine}
"""


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    return [path for key, item in items for path in ((*at, key), *places(item, (*at, key)))]


def mutated(value: Any, dice: random.Random) -> Any:
    """Change one to three values."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        sites = places(value)
        if not sites:
            return dice.choice(WRONG)
        path = dice.choice(sites)
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        kind = dice.randrange(6)
        if kind == 0:
            del inner[path[-1]]
        elif kind == 1 and isinstance(inner, dict):
            inner[dice.choice(["x", "", "op", "class", "__class__", 3, "é"])] = inner.pop(path[-1])
        elif kind == 2 and isinstance(inner, list):
            inner.insert(path[-1], copy.deepcopy(inner[path[-1]]))
        elif kind == 3:
            other = value
            for key in dice.choice(sites)[:-1]:
                other = (
                    other[key]
                    if isinstance(other, (dict, list)) and (isinstance(other, list) or key in other)
                    else other
                )
            inner[path[-1]] = copy.deepcopy(other) if dice.random() < 0.5 else dice.choice(WRONG)
        else:
            inner[path[-1]] = copy.deepcopy(dice.choice(WRONG))
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()


def _scene(root: Path) -> Path:
    import torch
    from families import build, vgg

    folder = root / "scene"
    folder.mkdir()
    torch.manual_seed(0)
    torch.save(vgg().state_dict(), folder / "net.pt")
    (folder / "recipe.yaml").write_text("operations: [{op: replace_head, classes: [a, b, c]}]\n")
    build("bert").save_pretrained(folder / "hf", max_shard_size="8KB")  # type: ignore[operator]
    for form in ("good", "good.safetensors"):
        command = ["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-q", "-o", form]
        ended = forked(lambda: surgeon(command), folder=folder)  # noqa: B023
        assert not ended.status, ended.err
    return folder


def _manifest(folder: Path, dice: random.Random) -> list[list[str]]:
    from surgeon.checkpoint.digests import sealed

    path = folder / "good" / "surgeon.json"
    value = json.loads(_json(mutated(json.loads(path.read_text()), dice)))  # with text for keys, as a file has
    path.write_bytes(_json(sealed(value) if isinstance(value, dict) and dice.random() < 0.8 else value))
    verb = dice.choice((["inspect"], ["check"], ["plan", "recipe.yaml"]))
    return [[*verb, "good", "--trust-code", "families"]]


def _config(folder: Path, dice: random.Random) -> list[list[str]]:
    path = folder / "hf" / "config.json"
    path.write_bytes(_json(mutated(json.loads(path.read_text()), dice)))
    return [dice.choice((["inspect", "hf"], ["plan", "recipe.yaml", "hf"]))]


def _index(folder: Path, dice: random.Random) -> list[list[str]]:
    path = folder / "hf" / "model.safetensors.index.json"
    path.write_bytes(_json(mutated(json.loads(path.read_text()), dice)))
    return [["inspect", "hf"]]


def _bytes_of(*names: str) -> Callable[[Path, random.Random], list[list[str]]]:
    def change(folder: Path, dice: random.Random) -> list[list[str]]:
        path = folder / dice.choice(names)
        data = path.read_bytes()
        for _ in range(dice.choice((1, 1, 3))):
            data = flip(data, dice)
        path.write_bytes(data)
        return [
            ["check", "good", "--trust-code", "families"]
            if "good" in str(path.relative_to(folder))
            else ["inspect", "hf"]
        ]

    return change


def _recipe(folder: Path, dice: random.Random) -> list[list[str]]:
    from ruamel.yaml import YAML

    value = mutated(YAML(typ="safe").load(RECIPE), dice)
    data = _json(value)
    if dice.random() < 0.2:
        data = flip(RECIPE.encode(), dice)
    (folder / "mutant.yaml").write_bytes(data)
    return [["plan", "mutant.yaml", "net.pt", "--arch", "python:families:vgg"]]


ROWS = [{"x": 0.5, "z": 1, "y": "a", "when": "2020-01-01"}, {"x": 1.5, "z": 2, "y": "b", "when": "2021-01-01"}] * 4


def _table(suffix: str) -> Callable[[Path, random.Random], list[list[str]]]:
    def change(folder: Path, dice: random.Random) -> list[list[str]]:
        path = folder / f"table.{suffix}"
        rows = mutated(ROWS, dice) if dice.random() < 0.7 else copy.deepcopy(ROWS)
        data = _as_table(rows, suffix)
        if rows == ROWS or dice.random() < 0.2:
            data = flip(data, dice)
        path.write_bytes(data)
        return [["table", path.name]]

    return change


def _as_table(rows: Any, suffix: str) -> bytes:
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if suffix == "json":
        return _json(rows)
    if suffix == "jsonl":
        return b"\n".join(map(_json, rows))
    names = list(dict.fromkeys(str(key) for row in rows for key in row))
    if suffix == "csv":
        import csv

        text = io.StringIO()
        csv.writer(text).writerows([names, *[[row.get(name, "") for name in names] for row in rows]])
        return text.getvalue().encode(errors="surrogatepass")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    except Exception:
        table = pyarrow.table({name: [repr(row.get(name)) for row in rows] for name in names})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def _read_table(name: str) -> int:
    """Read a table as training does."""
    import sys

    from small_data import load

    from surgeon.errors import SurgeonError

    try:
        data = {
            "source": "table",
            "path": name,
            "test_fraction": 0.25,
            "numbers": {"x": ["x", "z"]},
            "targets": {"labels": "y"},
        }
        splits = load(data)
        for row in range(len(splits.train)):
            splits.train[row]
    except SurgeonError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


FORMATS: dict[str, Callable[[Path, random.Random], list[list[str]]]] = {
    "manifest": _manifest,
    "config": _config,
    "index": _index,
    "folder, by byte": _bytes_of("hf/config.json", "hf/model.safetensors.index.json"),
    "artifact, by byte": _bytes_of("good/surgeon.json", "good/recipe.yaml", "good/model.safetensors"),
    "recipe": _recipe,
    "csv": _table("csv"),
    "json": _table("json"),
    "jsonl": _table("jsonl"),
    "parquet": _table("parquet"),
}


def run(tally: Tally) -> None:
    """Try ten thousand mutants of each format, or a few."""
    with tempfile.TemporaryDirectory(prefix="surgeon-structure-") as name:
        root = Path(name)
        scene = _scene(root)
        for form in FORMATS:
            count = round(10_000 * tally.share) if tally.share else 6
            for first in range(0, count, BATCH):
                _try_several(tally, scene, root, form, range(first, min(first + BATCH, count)))
            print(f"{form}: {count} mutants tried", flush=True)  # the whole takes more than an hour


def _try_several(tally: Tally, scene: Path, root: Path, form: str, numbers: range) -> None:
    """Try mutants in one process; those with a fault, and those behind one that ended it, again alone."""
    runs = [lambda number=number: _run(scene, root / "case", form, number) for number in numbers]
    parts, whole = forked_each(runs, folder=root, seconds=4 * SECONDS)
    for index, number in enumerate(numbers):
        shutil.rmtree(root / "case", ignore_errors=True)
        if index < len(parts) and whole.megabytes <= MEGABYTES and not _wrong(parts[index]):
            tally.count(f"{form}: {'refused' if parts[index].status else 'read'}")
            continue
        ended = forked(lambda: _run(scene, root / "case", form, number), seconds=2 * SECONDS)  # noqa: B023
        wrong = _wrong(ended)
        tally.add(f"{form} {number}", f"{form}: {'refused' if ended.status else 'read'}, alone", wrong)


def _run(scene: Path, folder: Path, form: str, number: int) -> int:
    """Make one mutant and open it."""
    shutil.copytree(scene, folder)
    os.chdir(folder)
    try:
        for command in FORMATS[form](folder, random.Random(f"{form} {number}")):
            if code := _read_table(command[1]) if command[0] == "table" else surgeon(command):
                return code
        return 0
    finally:
        os.chdir(folder.parent)
        shutil.rmtree(folder)


def _wrong(ended: Ended) -> str | None:
    """What is wrong with how a mutant has ended."""
    if wrong := unclear(ended):
        return wrong
    if ended.busy > SECONDS:
        return f"took {ended.busy:.1f} s"
    return f"took {ended.megabytes} MB" if ended.megabytes > MEGABYTES else None
