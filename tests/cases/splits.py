"""Which files are read, which class they have, and which part they belong to: by stated rules (13.3)."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cases.harness import Outcome, case, equal, expect, refuses, right, surgeon_command
from cases.material import Material, colour_of, numbers, paint, picture
from cases.names import head


def splits_of(source: dict[str, Any], seed: int = 0) -> Any:
    """What a source of a recipe holds, without a network."""
    import surgeon

    settings = surgeon.TrainSettings.model_validate({"data": source})
    return settings.data.load(seed)


def counted(splits: Any, column: str = "labels") -> dict[str, Counter[str]]:
    """The number of samples by part and class name."""
    parts = {"train": splits.train, "test": splits.test, "validation": splits.validation}
    names = splits.names.get(column, ())

    def name(label: Any) -> str:
        return names[int(label)] if names else str(label)

    return {
        part: Counter(name(samples[number][column]) for number in range(len(samples)))
        for part, samples in parts.items()
        if samples is not None
    }


def total(splits: Any) -> dict[str, int]:
    """The number of samples by class, over all parts."""
    return dict(sum(counted(splits).values(), Counter()))


def images(folder: Path, **more: Any) -> dict[str, Any]:
    """A source of a folder of pictures."""
    return {"source": "images", "path": str(folder), "pixels": {"size": 32}, **more}


NAMED_LIKE_SPLITS = {
    "train and test in file names": lambda material: [
        paint(material.folder / "pictures" / name, colour_of(number), 6, prefix=prefix)
        for number, name in enumerate(("cat", "dog"))
        for prefix in ("train_", "test_")
    ],
    "words of splits in folders": lambda material: [
        paint(material.folder / "pictures" / name, colour_of(number), 12)
        for number, name in enumerate(("train-station", "blood test", "x-ray"))
    ],
    "a class called train": lambda material: [
        paint(material.folder / "pictures" / name, colour_of(number), 12)
        for number, name in enumerate(("bus", "train"))
    ],
    "a class called test": lambda material: [
        paint(material.folder / "pictures" / name, colour_of(number), 12)
        for number, name in enumerate(("exam", "test", "validation"))
    ],
    "upper-case endings": lambda material: [
        paint(material.folder / "pictures" / name, colour_of(number), 12, ext=ext)
        for number, (name, ext) in enumerate((("chat noir", "JPG"), ("käse", "Png"), ("猫", "WEBP")))
    ],
    "brackets and percent": lambda material: [
        paint(material.folder / "pictures" / name, colour_of(number), 12)
        for number, name in enumerate(("[a]", "50%", "x*"))
    ],
}


@case("13.3", of=NAMED_LIKE_SPLITS)
def every_folder_at_the_top_is_a_class(material: Material, make: Callable[[Material], object]) -> Outcome:
    make(material)
    folder = material.folder / "pictures"
    expected = {path.name: 12 for path in folder.iterdir()}
    equal(total(splits_of(images(folder))), expected, "samples by class")
    return right(f"{12 * len(expected)} of {len(expected)} classes, none dropped")


PARTS = {
    "train test": {"train": 8, "test": 4},
    "train val test": {"train": 8, "val": 2, "test": 4},
    "train valid": {"train": 8, "valid": 3},
    "train validation test": {"train": 8, "validation": 2, "test": 4},
    "Train Test": {"Train": 8, "Test": 4},
}


@case("13.3", of=PARTS)
def split_folders_at_the_top(material: Material, parts: dict[str, int]) -> Outcome:
    for part, per in parts.items():
        material.pictures(("cat", "dog"), per=per, root=f"data/{part}")
    counts = {part: sum(count.values()) for part, count in counted(splits_of(images(material.folder / "data"))).items()}
    expected = {}
    for part, per in parts.items():
        expected[{"val": "validation", "valid": "validation"}.get(part.lower(), part.lower())] = 2 * per
    if "test" not in expected:
        expect(counts["train"] + counts["test"] + counts.get("validation", 0) == 22, counts)
        expect(counts.get("validation") == 6, f"the valid/ folder is the validation part: {counts}")
        return right(f"{counts}, the test part held out of train/")
    equal({part: count for part, count in counts.items() if count}, expected, "samples by part")
    return right(counts)


@case("13.3")
def nested_folders_belong_to_their_class(material: Material) -> Outcome:
    folder = material.pictures(("cat", "dog"))
    paint(folder / "cat" / "persian" / "young", colour_of(0), 6)
    paint(folder / "dog" / "test", colour_of(1), 3)
    equal(total(splits_of(images(folder))), {"cat": 18, "dog": 15}, "samples by class")
    return right("18 cats, 15 dogs")


@case("13.3")
def junk_is_left_out_with_a_count(material: Material) -> Outcome:
    folder = material.pictures(("cat", "dog"))
    (folder / ".ipynb_checkpoints").mkdir()
    shutil.copy(folder / "cat/000.png", folder / ".ipynb_checkpoints/000-checkpoint.png")
    (folder / "cat/.DS_Store").write_text("x")
    (folder / "dog/Thumbs.db").write_bytes(b"\xd0\xcf")
    (folder / "__MACOSX/cat").mkdir(parents=True)
    (folder / "__MACOSX/cat/._000.png").write_bytes(b"\0\5\26\7")
    (folder / "readme.txt").write_text("x")
    splits = splits_of(images(folder))
    equal(total(splits), {"cat": 12, "dog": 12}, "samples by class")
    notes = " ".join(splits.notes)
    expect(re.search(r"left out", notes), f"notes: {notes}")
    return right(notes)


@case("13.3")
def an_empty_folder_of_a_class(material: Material) -> Outcome:
    folder = material.pictures(("cat", "dog"), per=4)
    (folder / "bird").mkdir()
    recipe = material.recipe([head(2)], train={"data": images(folder), "epochs": 1})
    ran = surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out")
    if ran.code:
        return refuses(ran, "bird")
    expect("bird" in ran.said, f"nothing is said of the empty folder: {ran.said[-300:]}")
    return right("the empty folder is named")


@case("13.3")
def what_was_read_is_said(material: Material) -> Outcome:
    folder = material.pictures(("cat", "dog"))
    notes = " ".join(splits_of(images(folder)).notes)
    expect("24" in notes and "2 classes" in notes, f"notes: {notes}")
    return right(notes)


def unbalanced(material: Material, counts: Sequence[int] = (200, 200, 200, 6, 6)) -> Path:
    """A table of numbers with classes of very different sizes."""
    labels = np.repeat([f"c{number}" for number in range(len(counts))], counts)
    return material.table(
        "t.csv", ["a", "y", "who"], [(number % 7, label, number // 3) for number, label in enumerate(labels)]
    )


def numbers_in(table: Path, **more: Any) -> dict[str, Any]:
    """A source of a table of numbers."""
    return {"source": "table", "path": str(table), "numbers": {"x": ["a"]}, "targets": {"labels": "y"}, **more}


@case("13.3")
def splits_are_stratified(material: Material) -> Outcome:
    table = unbalanced(material)
    for seed in range(20):
        parts = counted(splits_of(numbers_in(table, samples=60), seed))
        for part in ("train", "test"):
            equal(len(parts[part]), 5, f"classes in {part} with seed {seed}")
    return right("5 classes on both sides in 20 of 20 seeds, 60 samples of 612")


@case("13.3")
def groups_are_on_one_side(material: Material) -> Outcome:
    table = unbalanced(material, (60, 60))
    splits = splits_of({**numbers_in(table, group="who"), "numbers": {"x": ["a", "who"]}})
    groups = {
        part: {float(samples[number]["x"][1]) for number in range(len(samples))}
        for part, samples in (("train", splits.train), ("test", splits.test))
    }
    expect(not groups["train"] & groups["test"], f"in both parts: {groups['train'] & groups['test']}")
    expect(len(groups["test"]) > 1, groups)
    return right(f"{len(groups['train'])} and {len(groups['test'])} groups, none in both")


@case("13.3")
def folds_test_each_sample_once(material: Material) -> Outcome:
    table = material.table("t.csv", ["a", "y"], [(number, f"c{number % 3}") for number in range(31)])
    tested: Counter[float] = Counter()
    for index in range(5):
        splits = splits_of(numbers_in(table, folds={"count": 5, "index": index}))
        tested.update(float(splits.test[number]["x"]) for number in range(len(splits.test)))
    equal(sorted(tested), [float(number) for number in range(31)], "samples tested on")
    equal(set(tested.values()), {1}, "times that each is tested on")
    return right("31 samples, each in one of 5 test folds")


@case("13.3")
def the_same_folder_twice_is_refused(material: Material) -> Outcome:
    folder = material.pictures(("cat", "dog"), per=4)
    recipe = material.recipe([head(2)], train={"data": images(folder, test_path=str(folder)), "epochs": 1})
    return refuses(surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out"), "test_path")


@case("13.3", of={"same path, other spelling": "link", "the same files copied": "copy"})
def the_same_samples_twice(material: Material, how: str) -> Outcome:
    """Test samples that are training samples under another name: refused, or said."""
    folder = material.pictures(("cat", "dog"), per=4)
    copy = material.folder / "other"
    if how == "link":
        copy.symlink_to(folder)
    else:
        shutil.copytree(folder, copy)
    recipe = material.recipe([head(2)], train={"data": images(folder, test_path=str(copy)), "epochs": 1})
    ran = surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out")
    if ran.code:
        return refuses(ran, "test")
    expect("other" in ran.said and ("same" in ran.said or "8 " in ran.said), f"nothing is said: {ran.said[-400:]}")
    return right("said")


@case("13.3", slow=True)
def choices_are_made_by_validation(material: Material) -> Outcome:
    """Coin-flip labels under early stopping: what is reported is what the network does on fresh samples."""
    import surgeon

    rng, reported, fresh = np.random.default_rng(0), [], []
    for seed in range(12):
        x, y = torch.tensor(rng.normal(size=(700, 6)), dtype=torch.float32), torch.tensor(rng.integers(0, 2, 700))
        columns = ["a", "b", "c", "d", "e", "f"]
        rows = [[*map(float, values), f"c{int(label)}"] for values, label in zip(x[:200], y[:200], strict=True)]
        table = material.table(f"{seed}.csv", [*columns, "y"], rows)
        model = numbers(2, seed)
        settings = surgeon.TrainSettings.model_validate(
            {
                "data": {"source": "table", "path": str(table), "numbers": {"x": columns}, "targets": {"labels": "y"}},
                "epochs": 40,
                "learning_rate": 0.01,
                "callbacks": [{"callback": "early_stopping", "patience": 10, "metric": "logits_accuracy"}],
            }
        )
        report = surgeon.train(model, settings, seed=seed, quiet=True, output_dir=material.folder / f"out{seed}")
        reported.append(report.accuracy_after)
        with torch.no_grad():
            fresh.append((model.eval()(x[200:]).argmax(1) == y[200:]).float().mean().item())
    gap = float(np.mean(reported) - np.mean(fresh))
    expect(abs(gap) < 0.045, f"reported {np.mean(reported):.3f}, on fresh samples {np.mean(fresh):.3f}")
    return right(f"reported {np.mean(reported):.3f}, on fresh samples {np.mean(fresh):.3f}")


@case("13.3")
def the_split_is_recorded(material: Material) -> Outcome:
    import json

    folder = material.pictures(("cat", "dog"))
    recipe = material.recipe([head(2)], train={"data": images(folder), "epochs": 1})
    out = material.folder / "out"
    report = surgeon_command("apply", recipe, material.vit(), "-o", out, "--json").data()
    manifest = (out / "surgeon.json").read_text()
    digest = report["training"]["data"]["split"]["held_out"]["test"]
    expect(str(digest) in manifest, f"{digest} is not in the manifest")
    expect(json.loads(manifest), "manifest")
    picture(colour_of(0), 99).save(folder / "cat" / "new.png")
    again = surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out2", "--json").data()
    expect(again["training"]["data"]["split"]["held_out"]["test"] != digest, "another folder has the same digest")
    return right("a digest of the held-out samples, in report and manifest")
