"""Tables for notebooks: self-contained, whole, and nothing in them is read as HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build

import surgeon
from surgeon.advising.advice import Advice
from surgeon.advising.cases import Case, Worth
from surgeon.interfaces.html_table import MOST_ROWS, html_report, html_table
from surgeon.pipeline.reload_check import Reload
from surgeon.training.report import TrainReport

EVIL = "<script>alert('x')</script>&\""
ALLOWED = {"div", "p", "b", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li", "pre"}


class Reader(HTMLParser):
    """Collects the tags, attributes and text, and checks that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def plan() -> surgeon.Plan:
    plan = surgeon.plan(build("resnet"), [surgeon.Truncate(after="layer3"), surgeon.ReplaceHead(classes=3)])
    return dataclasses.replace(plan, architecture=EVIL, notes=(EVIL,))


def view() -> surgeon.NetworkView:
    return dataclasses.replace(surgeon.inspect(build("resnet")), architecture=EVIL, notes=(EVIL,))


def diff() -> surgeon.Diff:
    return dataclasses.replace(surgeon.diff(build("resnet"), build("resnet")), a=EVIL, notes=(EVIL,))


def report() -> TrainReport:
    tasks = {EVIL: {"all": {"samples": 20, "accuracy": 0.75, "per_class": {}}, "drawings": {"samples": 5}}}
    scores = {f"{EVIL}_accuracy": 0.5}
    return TrainReport(scores, scores, None, (), 2.0, 50.0, 1234, 100, 20, "cpu", 0, tasks)


def sites() -> Any:
    view = dataclasses.replace(surgeon.inspect(build("resnet")).sites[0], site=EVIL)
    return type(surgeon.inspect(build("resnet")).sites)([view])


def edited_model() -> surgeon.NetworkView:
    model = surgeon.apply(build("resnet"), [surgeon.ReplaceHead(classes=[EVIL, "b"]), surgeon.Freeze(up_to="layer1")])
    return surgeon.inspect(model)


def evaluation() -> surgeon.Evaluation:
    by_domain = {EVIL: {"samples": 3, "accuracy": 0.5}, "b": {"samples": 7, "accuracy": None}}
    measures = {"samples": 10, "accuracy": 0.25, "per_class": by_domain, "confusion": [[1, 2], [3, 4]]}
    return surgeon.Evaluation(1234, {"logits": {"all": measures, EVIL: {"samples": 5}}}, {"logits": (EVIL, "b")})


def predictions() -> surgeon.Predictions:
    files = tuple(f"{number}.png" for number in range(25))
    return surgeon.Predictions("logits", "class", (EVIL, "b", "c"), torch.eye(3)[[0] * 25], files, ["b"] * 25)


def run() -> surgeon.RunReport:
    return surgeon.RunReport(Path(EVIL), plan(), report(), Reload(62, 64, 1, "two are large"))


def verification() -> surgeon.Verification:
    return surgeon.Verification(64, 62, (EVIL,), (), {EVIL: (2, 5)}, 3, 1)


def advice() -> Advice:
    worths = [Worth(EVIL, 64, 0.1, (0.5, 0.7), (0.2, 0.3)), Worth("layer4", 512, 0.3, (0.8, 0.9), (0.2, 0.3))]
    case = Case("small", "similar", worths[1], worths[1], True, (EVIL,))
    return Advice(tuple(worths), case, "labels", 3, 3, 100, 100, 0.3, recipe=EVIL)


EVERY = (
    plan, view, sites, edited_model, diff, report, evaluation, predictions, run, verification, advice,
)  # fmt: skip


@pytest.mark.parametrize("make", EVERY)
def test_a_result_is_shown_as_tables_with_everything_escaped(make: Callable[[], Any]) -> None:
    html = make()._repr_html_()
    shown = Reader(html)
    assert shown.tags <= ALLOWED
    assert "table" in shown.tags
    assert shown.attributes <= {"style", "colspan"}
    assert EVIL.partition("'")[0] in shown.text  # fields of operations are shown with quotes escaped
    assert "<script" not in html


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (plan, ["replace_head", "layer4", "tensors kept"]),
        (view, ["layer1.0.conv1", "Conv2d", "@head"]),
        (diff, ["layer1.0", "0 of 12", "equal"]),
        (report, ["before training", "0.75", "drawings", "1,234"]),
        (sites, ["1 site", "ResNet", "parameters"]),
        (edited_model, ["replace_head", "up_to='layer1'", "partly frozen", "FrozenBatchNorm2d"]),
        (evaluation, ["1,234 samples", "true \\ predicted", "0.25"]),
        (predictions, ["25 samples", "the first 20 are shown", "100.0 %", "b 0.0 %"]),
        (run, ["saved to", "layer4", "before training", "62 of 64 tensors and 1 output", "two are large"]),
        (verification, ["62 byte-identical", "all trainable", "2 × 5", "1 tensor is"]),
        (advice, ["probe accuracy", "0.850 ± 0.050", "layer4"]),
    ],
)
def test_a_result_shows_what_it_is_about(make: Callable[[], Any], texts: list[str]) -> None:
    text = Reader(make()._repr_html_()).text
    assert [wanted for wanted in texts if wanted not in text] == []


def test_of_many_rows_the_first_are_shown_with_the_number_of_the_others() -> None:
    text = Reader(html_table(("row",), [(f"row {number}",) for number in range(MOST_ROWS + 7)])).text
    assert f"row {MOST_ROWS - 1}" in text
    assert f"row {MOST_ROWS}" not in text
    assert "7 more" in text


def test_numbers_stand_at_the_right_and_words_at_the_left() -> None:
    assert '<th style="text-align:right">n</th>' in html_table(("n",), [(1,), (None,)])
    assert '<th style="text-align:left">n</th>' in html_table(("n",), [(1,), ("a",)])
    assert '<td style="text-align:left">.</td>' in html_table(("site",), [(".",)])
    assert '<td style="text-align:right">1,234</td>' in html_table(("n",), [(1234,)])
    assert '<td style="text-align:left">layer1.0</td>' in html_table(("site",), [("layer1.0",)])
    assert "<ul" not in html_report("title")
