"""Files, pictures, texts and numbers are checked before the first step, all of them (13.5)."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from cases.harness import Outcome, case, either, equal, expect, refuses, right, succeed, surgeon_command
from cases.material import Material, picture, reviews
from cases.names import fine_tuned, head, review_table, texts
from cases.splits import counted, images, splits_of, total


def jpeg(size: int = 32) -> bytes:
    """The bytes of a picture."""
    out = io.BytesIO()
    picture((10, 200, 10), 0, size).save(out, "JPEG")
    return out.getvalue()


def gif() -> bytes:
    """A GIF, whatever it is called."""
    out = io.BytesIO()
    Image.new("P", (32, 32), 3).save(out, "GIF")
    return out.getvalue()


DAMAGED = {
    "cut in half": jpeg()[: len(jpeg()) // 2],
    "empty": b"",
    "a web page": b"<html>404</html>",
    "noise": bytes(range(256)) * 4,
    "header only": jpeg()[:20],
    "zeros behind": jpeg()[: len(jpeg()) // 2] + b"\0" * (len(jpeg()) - len(jpeg()) // 2),
}


@case("13.5", of=DAMAGED)
def a_picture_that_cannot_be_read(material: Material, content: bytes) -> Outcome:
    folder = material.pictures(("cat", "dog"), ext="jpg", per=8)
    (folder / "dog/003.jpg").write_bytes(content)
    data = images(folder)
    recipe = material.recipe([head(2)], train={"data": data, "epochs": 1})
    outcome = refuses(surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out"), "003.jpg")
    skipping = splits_of({**data, "on_error": "skip"})
    equal(total(skipping), {"cat": 8, "dog": 7}, "samples with on_error: skip")
    expect("1" in " ".join(skipping.notes), skipping.notes)
    return outcome


@case("13.5")
def a_picture_that_is_not_there(material: Material) -> Outcome:
    rows = [(f"{number}.png", "ab"[number % 2]) for number in range(12)]
    for name, _ in rows:
        picture((9, 9, 9), 0).save(material.folder / name)
    table = material.table("t.csv", ["file", "y"], [*rows, ("nope.png", "a")])
    recipe = material.recipe(
        [head(2)],
        train={
            "data": {"source": "table", "path": str(table), "image": "file", "targets": {"labels": "y"}},
            "epochs": 1,
        },
    )
    return refuses(surgeon_command("apply", recipe, material.vit(), "-o", material.folder / "out"), "nope.png")


MODES: dict[str, Callable[[], Image.Image]] = {
    "16 bits": lambda: Image.fromarray(np.full((32, 32), 32768, "uint16")),
    "float tif": lambda: Image.fromarray(np.full((32, 32), 0.5, "float32")),
    "alpha": lambda: Image.fromarray(np.dstack([np.full((32, 32, 3), 128), np.full((32, 32, 1), 255)]).astype("uint8")),
    "grey": lambda: Image.fromarray(np.full((32, 32), 128, "uint8")),
    "grey and alpha": lambda: Image.fromarray(np.full((32, 32), 128, "uint8")).convert("LA"),
    "palette": lambda: Image.fromarray(np.full((32, 32, 3), 128, "uint8")).quantize(4),
}


@case("13.5", of=MODES)
def pictures_of_other_modes(material: Material, make: Callable[[], Image.Image]) -> Outcome:
    """Half-way grey is 0.5 whatever the mode; else the file is refused by name."""
    folder = material.folder / "pictures"
    ending = "tif" if make().mode == "F" else "png"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            make().save(folder / name / f"{number}.{ending}")

    def attempt() -> Outcome:
        pixels = {"size": 32, "mean": [0.0] * 3, "std": [1.0] * 3}
        values = splits_of(images(folder, pixels=pixels)).train[0]["pixel_values"]
        equal(tuple(values.shape), (3, 32, 32), "shape")
        expect((values - 0.5).abs().max() < 0.01, f"half-way grey is {values.min():.3f} to {values.max():.3f}")
        return right(f"{values.mean():.3f}")

    return either(attempt, f".{ending}")


@case("13.5")
def a_phone_held_upright(material: Material) -> Outcome:
    """EXIF turns pictures in folders and in tables alike."""
    stored = np.zeros((32, 32, 3), "uint8")
    stored[:16] = 255
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (material.folder / "p" / name).mkdir(parents=True)
        for number in range(4):
            image.save(material.folder / "p" / name / f"{number}.jpg", exif=exif, quality=95)
    rows = [(f"p/{name}/{number}.jpg", name) for name in "ab" for number in range(4)]
    table = material.table("t.csv", ["file", "y"], rows)
    pixels = {"size": 32, "mean": [0.0] * 3, "std": [1.0] * 3}
    by_folder = splits_of(images(material.folder / "p", pixels=pixels)).train[0]["pixel_values"][0]
    source = {"source": "table", "path": str(table), "image": "file", "targets": {"labels": "y"}, "pixels": pixels}
    by_table = splits_of(source).train[0]["pixel_values"][0]
    for values in (by_folder, by_table):
        expect(values[:, -8:].mean() > 0.9 and values[:, :8].mean() < 0.1, "the picture is not turned")
    return right("the bright half is at the right in both")


LONG = " ".join(["good"] + ["film"] * 200)


@case("13.5")
def a_text_longer_than_the_positions(material: Material) -> Outcome:
    """Positions for 32 tokens, a tokenizer that allows any number: cut to the positions."""
    rows = [(text, "yes" if good else "no") for text, good in reviews(40)]
    table = material.table("t.csv", ["review", "verdict"], [*rows, (LONG, "yes")])
    out = fine_tuned(material, material.bert(), [head(["no", "yes"])], texts(table), epochs=1)
    predictions = succeed("predict", out, material.table("bare.csv", ["review"], [(LONG,)]), "--json").data()["rows"]
    equal(len(predictions), 1, "rows")
    return right("cut in training and in prediction")


@case("13.5")
def roberta_positions_begin_behind_the_padding(material: Material) -> Outcome:
    """34 positions of which two are taken by padding: 32 tokens fit."""
    import transformers

    from cases.material import BERT, save_tokenizer

    model = material.folder / "roberta"
    config = transformers.RobertaConfig(**{**BERT, "pad_token_id": 1, "max_position_embeddings": 34})
    transformers.RobertaForSequenceClassification(config).save_pretrained(model)
    save_tokenizer(model)
    table = material.table("t.csv", ["review", "verdict"], [(LONG, "yes"), (LONG, "no")] * 8)
    fine_tuned(material, model, [head(["no", "yes"])], texts(table), epochs=1)
    return right("cut to the positions that are left")


@case("13.5")
def a_length_that_does_not_fit(material: Material) -> Outcome:
    recipe = material.recipe(
        [head(["negative", "positive"])], train={"data": texts(review_table(material), max_length=64), "epochs": 1}
    )
    return refuses(surgeon_command("apply", recipe, material.bert(), "-o", material.folder / "out"), "64", "32")


@case("13.5")
def tokens_that_the_embedding_lacks(material: Material) -> Outcome:
    """A tokenizer with words of its own behind the end of the embedding."""
    from cases.material import FILL, save_bert, save_tokenizer

    model = material.folder / "model"
    save_bert(model, "BertForSequenceClassification", vocab_size=16)
    save_tokenizer(model, [*FILL, "good", "great", "fine", "bad", "dull", "boring"])
    recipe = material.recipe(
        [head(["negative", "positive"])], train={"data": texts(review_table(material)), "epochs": 1}
    )
    return refuses(surgeon_command("apply", recipe, model, "-o", material.folder / "out"), "16")


@case("13.5")
def lists_of_differing_lengths(material: Material) -> Outcome:
    """Sounds given as lists of differing length beside numbers given as lists: reported by row."""
    rows = [{"x": [0.1] * (6 if number != 9 else 5), "y": number % 2} for number in range(20)]
    table = material.lines("t.jsonl", rows)
    source = {"source": "table", "path": str(table), "numbers": {"x": ["x"]}, "targets": {"labels": "y"}}

    def attempt() -> Outcome:
        raise AssertionError(f"read: {counted(splits_of(source))}")

    return either(attempt, "x")


HOLES: dict[str, Any] = {"a word": "red", "an empty cell": "", "nan": math.nan}


@case("13.5", of=HOLES)
def numbers_with_a_hole(material: Material, hole: Any) -> Outcome:
    rows = [(hole if number == 7 else number * 0.1, number % 2) for number in range(20)]
    table = material.table("t.csv", ["a", "y"], rows)
    source = {"source": "table", "path": str(table), "numbers": {"x": ["a"]}, "targets": {"labels": "y"}}

    def attempt() -> Outcome:
        from torch import nn

        import surgeon

        class Small(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(1, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.layer(x)

        settings = surgeon.TrainSettings.model_validate({"data": source, "epochs": 1})
        raise AssertionError(f"trained: {surgeon.train(Small(), settings, quiet=True).after}")

    return either(attempt, "a")
