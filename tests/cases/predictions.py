"""predict is the inference of what was trained: its preprocessing, all samples, a row for each by name (13.2)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cases.harness import Outcome, case, equal, expect, refused, right, succeed
from cases.material import Material, colour_of, paint, picture, reviews
from cases.names import fine_tuned, head, its_folder, named_as, picture_table, pictures_in, review_table, rows_of, texts

KINDS = ("cat", "dog", "rabbit")


def trained_on_pictures(material: Material) -> Path:
    """An artifact that knows three colours, at a size and a normalisation that the recipe chose."""

    def make(path: Path) -> None:
        pictures = material.pictures(KINDS, root="learnt")
        pixels = {"size": 32, "mean": [0.1, 0.2, 0.3], "std": [0.6, 0.5, 0.4]}
        data = {"source": "images", "path": str(pictures), "pixels": pixels}
        shutil.copytree(fine_tuned(material, material.vit(), [head(list(reversed(KINDS)))], data), path)

    return material.shared("trained-pictures", make)


def flat(material: Material) -> Path:
    """Pictures of all kinds in one folder."""
    folder = material.folder / "flat"
    folder.mkdir()
    for number in range(9):
        picture(colour_of(number % 3), number).save(folder / f"{number}_{KINDS[number % 3]}.png")
    return folder


def its_name(row: dict[str, Any]) -> str:
    """The kind that stands in the name of a file."""
    return Path(row["sample"]).stem.split("_")[1]


GIVEN: dict[str, Callable[[Material], list[object]]] = {
    "one picture": lambda material: [flat(material) / "4_dog.png"],
    "a flat folder": lambda material: [flat(material)],
    "a pattern": lambda material: [str(flat(material) / "*_dog.png")],
    "several": lambda material: [flat(material) / "0_cat.png", flat_again(material) / "1_dog.png"],
}


def flat_again(material: Material) -> Path:
    """The folder that ``flat`` has made."""
    return material.folder / "flat"


@case("13.2", of=GIVEN)
def pictures_as_people_have_them(material: Material, given: Callable[[Material], list[object]]) -> Outcome:
    return named_as(rows_of(trained_on_pictures(material), *given(material)), its_name)


@case("13.2")
def a_folder_by_class_is_predicted_whole(material: Material) -> Outcome:
    pictures = material.pictures(KINDS, per=7, root="more")
    rows = rows_of(trained_on_pictures(material), pictures)
    equal(len(rows), 21, "rows")
    return named_as(rows, its_folder)


@case("13.2")
def split_folders_are_predicted_whole(material: Material) -> Outcome:
    """train/ and test/ below the folder: all of it unless a part is named."""
    for part, per in (("train", 4), ("test", 2)):
        material.pictures(KINDS, per=per, root=f"data/{part}")
    artifact = trained_on_pictures(material)
    equal(len(rows_of(artifact, material.folder / "data")), 18, "rows of the whole")
    equal(len(rows_of(artifact, material.folder / "data", options=("--part", "test"))), 6, "rows of the test part")
    return named_as(rows_of(artifact, material.folder / "data"), its_folder)


@case("13.2")
def a_folder_of_a_class_that_the_head_lacks(material: Material) -> Outcome:
    """Pictures below folders with other names can be predicted; their folders are no labels of the head."""
    folder = material.folder / "shots"
    for number, name in enumerate(("monday", "tuesday", "friday")):
        paint(folder / name, colour_of(number), 3)
    days = dict(zip(("monday", "tuesday", "friday"), KINDS, strict=True))

    return named_as(rows_of(trained_on_pictures(material), folder), lambda row: days[its_folder(row)])


@case("13.2")
def probabilities_are_those_of_the_network(material: Material) -> Outcome:
    """The same numbers as the network gives for the picture as training prepared it."""
    import numpy as np
    from PIL import Image

    import surgeon

    artifact, folder = trained_on_pictures(material), flat(material)
    rows = {Path(row["sample"]).name: row for row in rows_of(artifact, folder)}
    model = surgeon.load(artifact).eval()
    worst = 0.0
    for path in folder.iterdir():
        pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1).float() / 255
        pixels = (pixels - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.6, 0.5, 0.4])[:, None, None]
        with torch.no_grad():
            expected = model(pixels[None]).logits.softmax(-1)[0]
        probabilities = rows[path.name]["probabilities"]
        worst = max(worst, max(abs(probabilities[name] - expected[i].item()) for i, name in enumerate(reversed(KINDS))))
    expect(worst < 1e-4, f"probabilities differ by {worst}")
    return right(f"largest difference {worst:.1e}")


@case("13.2")
def the_processor_of_the_checkpoint(material: Material) -> Outcome:
    """A stock network that surgeon never saw: what the transformers pipeline says."""
    import transformers

    model, folder = material.vit(id2label=dict(enumerate(KINDS))), flat(material)
    pipe = transformers.pipeline("image-classification", model=str(model), device="cpu")
    worst = 0.0
    for row in rows_of(model, folder):
        for answer in pipe(str(folder / row["sample"])):
            worst = max(worst, abs(row["probabilities"][answer["label"]] - answer["score"]))
    expect(worst < 1e-5, f"probabilities differ from the pipeline's by {worst}")
    return right(f"largest difference to the pipeline {worst:.1e}")


@case("13.2", slow=True)
def texts_without_targets(material: Material) -> Outcome:
    """A table without labels, a text file, and JSON lines: the same classes for the same texts."""
    out = fine_tuned(material, material.bert(), [head(["positive", "negative"])], texts(review_table(material)))
    said = [text for text, _ in reviews(20)]
    bare = material.table("bare.csv", ["review"], [(text,) for text in said])
    plain = material.folder / "plain.txt"
    plain.write_text("\n".join(said) + "\n", encoding="utf-8")
    lines = material.lines("bare.jsonl", [{"review": text} for text in said])
    classes = [[row["class"] for row in rows_of(out, path)] for path in (bare, plain, lines)]
    equal(classes[0], ["positive" if good else "negative" for _, good in reviews(20)], "classes of the table")
    equal(classes[1], classes[0], "classes of the text file")
    equal(classes[2], classes[0], "classes of the lines")
    return right("20 of 20, alike from three files")


@case("13.2", slow=True)
def one_logit_is_a_yes_or_no(material: Material) -> Outcome:
    rows = [(text, int(good)) for text, good in reviews(80)]
    table = material.table("t.csv", ["review", "good"], rows)
    operations = [head(["good"], problem_type="multi_label_classification")]
    out = fine_tuned(material, material.bert(), operations, texts(table, ["good"]), epochs=20)
    predictions = rows_of(out, material.table("bare.csv", ["review"], [(row[0],) for row in rows]))
    hits = sum(
        (row["probabilities"]["good"] > 0.5) == bool(good) for row, (_, good) in zip(predictions, rows, strict=True)
    )
    expect(hits >= 76, f"{hits} of 80: {predictions[:2]}")
    return right(f"{hits} of 80 by a sigmoid")


@case("13.2", slow=True)
def regression_is_a_number(material: Material) -> Outcome:
    rows = [(text, 5.5 if good else -2.5) for text, good in reviews(80)]
    table = material.table("t.csv", ["review", "score"], rows)
    operations = [head(1, problem_type="regression")]
    out = fine_tuned(material, material.bert(), operations, texts(table, "score"), epochs=30, learning_rate=0.01)
    predictions = rows_of(out, material.table("bare.csv", ["review"], [(row[0],) for row in rows]))
    values = [
        next(value for value in row.values() if isinstance(value, float)) if "values" not in row else row["values"]
        for row in predictions
    ]
    flat_values = [next(iter(value.values())) if isinstance(value, dict) else value for value in values]
    error = sum(abs(value - row[1]) for value, row in zip(flat_values, rows, strict=True)) / 80
    expect(error < 1.5, f"mean error {error}: {predictions[:2]}")
    return right(f"mean error {error:.2f} for values 8 apart")


@case("13.2")
def the_library_says_what_the_command_says(material: Material) -> Outcome:
    import surgeon

    artifact, folder = trained_on_pictures(material), flat(material)
    equal(surgeon.predict(artifact, folder).rows, rows_of(artifact, folder), "rows")
    return right("surgeon.predict gives the rows of surgeon predict")


@case("13.2")
def evaluation_by_name(material: Material) -> Outcome:
    """Confusion and accuracy of pictures whose folders are named wrongly on purpose."""
    folder = material.folder / "held"
    for number, name in ((0, "cat"), (1, "dog"), (1, "rabbit")):
        paint(folder / name, colour_of(number), 5)
    report = succeed("evaluate", trained_on_pictures(material), folder, "--json").data()
    measures, names = report["measures"]["logits"]["all"], report["names"]["logits"]
    equal(names, list(reversed(KINDS)), "names")
    equal(measures["confusion"], [[0, 5, 0], [0, 5, 0], [0, 0, 5]], "confusion")
    expect(abs(measures["balanced_accuracy"] - 2 / 3) < 1e-9, measures)
    return right("dogs in the folder of rabbits are counted as such")


@case("13.2", slow=True)
def multi_label_measures_are_sklearns(material: Material) -> Outcome:
    import sklearn.metrics

    import surgeon

    rows = [(text, int(good), number % 3 == 0) for number, (text, good) in enumerate(reviews(60))]
    table = material.table(
        "t.csv", ["review", "good", "third"], [(text, good, int(third)) for text, good, third in rows]
    )
    operations = [head(["third", "good"], problem_type="multi_label_classification")]
    source = texts(table, ["good", "third"])
    out = fine_tuned(material, material.bert(), operations, source, epochs=2)
    measures = surgeon.evaluate(out, source).main
    probabilities = [
        row["probabilities"] for row in rows_of(out, material.table("bare.csv", ["review"], [(r[0],) for r in rows]))
    ]
    for name, column in (("good", 1), ("third", 2)):
        truth = [bool(row[column]) for row in rows]
        expected = sklearn.metrics.roc_auc_score(truth, [row[name] for row in probabilities])
        auroc = measures["per_label"][name]["auroc"]
        expect(abs(auroc - expected) < 1e-6, f"AUROC of {name}: {auroc}, and not {expected}")
    return right("AUROC of each label as scikit-learn has it")


@case("13.2")
def an_unreadable_picture_is_named(material: Material) -> Outcome:
    import surgeon

    folder = flat(material)
    (folder / "5_rabbit.png").write_bytes(b"<html>404</html>")
    rows = surgeon.predict(trained_on_pictures(material), folder, on_error="skip")
    equal(len(rows), 8, "rows with skip")
    expect(any("5_rabbit" in note or "1 " in note for note in rows.notes), f"notes: {rows.notes}")
    return refused(lambda: surgeon.predict(trained_on_pictures(material), folder), "5_rabbit.png")


@case("13.2")
def labels_in_the_output(material: Material) -> Outcome:
    """The label of a labelled table stands beside the class, by name."""
    table = picture_table(material, lambda number: KINDS[number], per=4)
    table.write_text(table.read_text().replace("file,cls", "image,label"))
    rows = rows_of(trained_on_pictures(material), table)
    hits = sum(row["label"] == row["class"] for row in rows)
    expect(hits == 12, f"{hits} of 12: {rows[:2]}")
    return right("12 of 12 labels by name")


@case("13.2", slow=True)
def an_artifact_of_a_table_predicts_a_folder(material: Material) -> Outcome:
    """Training read a table at 32 pixels; a folder of larger pictures is prepared by the same rule."""
    table = picture_table(material, lambda number: KINDS[number])
    out = fine_tuned(material, material.vit(), [head(3)], pictures_in(table, pixels={"size": 32}))
    for number, name in enumerate(KINDS):
        paint(material.folder / "large" / name, colour_of(number), 4, size=90)
    return named_as(rows_of(out, material.folder / "large"), its_folder)
