"""Plans, trees and numbers as people see them: on a terminal, and in a pipe."""

from __future__ import annotations

import io
from math import prod

import pytest
import torchvision
from rich.console import Console, RenderableType

from surgeon.cli.render.consoles import show
from surgeon.cli.render.mistakes import error_dict, render_error
from surgeon.cli.render.plans import render_plan
from surgeon.cli.render.runs import merged, ranges
from surgeon.cli.render.trees import render_tree
from surgeon.errors import RecipeError, SurgeonError
from surgeon.graph.trace import trace
from surgeon.pages.numbers import count, shape, share, size
from surgeon.recipe.catalog import type_of
from surgeon.surgery.plan import Edit, Plan, Step, TensorFact


def drawn(renderable: RenderableType, width: int = 80, *, terminal: bool = True) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=terminal, color_system=None, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def tensor(name: str, *sizes: int, by: str | None = None, trainable: bool = True) -> TensorFact:
    origin = "new" if by else "kept"
    return TensorFact(name, sizes, "float32", 4 * prod(sizes), origin, None if by else name, by, True, trainable)


def plan(*steps: Step, outputs: dict[str, tuple[int, ...]] | None = None) -> Plan:
    tensors = (tensor("conv.weight", 100, 10, trainable=False), tensor("fc.weight", 10, 100, by="replace_head"))
    dropped = (tensor("fc.weight", 50, 100),)
    shapes = outputs or {"logits": (2, 10)}
    return Plan("pets.pt", "torchvision/resnet18", steps, tensors, dropped, shapes, ("a note",), bytes_read=4000)


HEAD = Step(
    "replace_head classes=10",
    (
        Edit("-", "fc", "Linear(in_features=100, out_features=50, bias=True)", 5050),
        Edit("+", "fc", "Linear(in_features=100, out_features=10, bias=True)", 1010),
    ),
    ("pooled by avg",),
)


def test_a_plan_reads_like_a_diff_with_the_sums_at_the_end() -> None:
    assert drawn(render_plan(plan(HEAD))) == (
        "torchvision/resnet18  from pets.pt\n"
        "\n"
        "1  replace_head  classes=10\n"
        "   − fc  Linear(100 → 50)  −5.05 k\n"
        "   + fc  Linear(100 → 10)  +1.01 k\n"
        "   · pooled by avg\n"
        "\n"
        "parameters  6.00 k → 2.00 k, 1.00 k of them trainable (50.0 %)\n"
        "tensors     1 of 2 tensors kept, 1 new by replace_head\n"
        "bytes       4.00 kB to read, 8.00 kB to write\n"
        "outputs     logits (2 × 10)\n"
        "notes       a note"
    )


def test_edits_that_differ_only_in_numbers_stand_in_one_line_with_their_sum() -> None:
    gone = tuple(Edit("-", f"encoder.layer.{i}", "BertLayer", 1000) for i in range(6, 12))
    moved = tuple(Edit("~", f"encoder.layer.{i}", f"was encoder.layer.{2 * i}") for i in range(1, 4))
    lines = drawn(render_plan(plan(Step("truncate keep_blocks=6", gone + moved)))).splitlines()
    assert "   − encoder.layer.6–11  6 × BertLayer                −6.00 k" in lines
    assert "   ~ encoder.layer.1–3   3 × was encoder.layer.2,4,6" in lines


def test_interleaved_edits_are_grouped_by_their_pattern() -> None:
    frozen = tuple(Edit("~", f"layer{a}.{b}.{n}", "frozen", 1) for a in (1, 2) for b in (0, 1) for n in ("conv", "bn"))
    text = drawn(render_plan(plan(Step("freeze", frozen))))
    assert "~ layer1–2.0–1.conv  4 × frozen  4" in text
    assert "~ layer1–2.0–1.bn    4 × frozen  4" in text


def test_a_very_long_step_is_cut_short_and_says_so() -> None:
    edits = tuple(Edit("~", f"part_{chr(97 + i % 26)}{'x' * (i // 26)}", "frozen", 1) for i in range(60))
    text = drawn(render_plan(plan(Step("freeze", edits))))
    assert "… and 36 more lines (--json lists all)" in text
    assert text.count("frozen") == 24


def test_an_operation_without_effect_says_so() -> None:
    assert "nothing changes" in drawn(render_plan(plan(Step("freeze sites='x'", ()))))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_addresses_stay_whole(width: int) -> None:
    long = Edit("+", "backbone.body.layer4.2.conv3.adapter.projection", "Conv2d", 7)
    text = drawn(render_plan(plan(HEAD, Step("insert", (long,)))), width)
    assert max(map(len, text.splitlines())) <= width
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("   + backbone"))
    folded = [line.split()[0] for line in lines[first + 1 : lines.index("", first)]]
    assert lines[first].split()[1] + "".join(folded) == "backbone.body.layer4.2.conv3.adapter.projection"


@pytest.mark.parametrize("width", [60, 80])
def test_a_long_description_is_folded_and_not_cut(width: int) -> None:
    numbers = ", ".join(map(str, range(60)))
    text = drawn(render_plan(plan(Step("insert", (Edit("+", "conv", f"Conv2d({numbers})", 7),)))), width)
    assert f"Conv2d({numbers})".replace(" ", "") in "".join(text.replace("+7", "").split())


@pytest.mark.parametrize("width", [50, 60, 80])
def test_numbers_are_whole_on_a_narrow_terminal_and_notes_hang(width: int) -> None:
    long = Edit("+", "backbone.body.layer4.2.conv3.adapter", f"Conv2d({', '.join(map(str, range(60)))})", 11_200_000)
    text = drawn(render_plan(plan(Step("insert", (long,), ("a note " * 12,)))), width)
    (line,) = [line for line in text.splitlines() if line.startswith("   + backbone.body")]
    assert line.endswith("+11.2 M")
    assert all(line.startswith(("     a", "     n")) for line in _after(text, "   · "))


def _after(text: str, start: str) -> list[str]:
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(start))
    return lines[first + 1 : lines.index("", first)]


def test_a_network_that_moved_as_a_whole_is_said_to_have_been_the_whole() -> None:
    text = drawn(render_plan(plan(Step("progressive", (Edit("~", "columns.0", "was "),)))))
    assert "~ columns.0  was the whole network" in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_tree_keeps_its_sites_shapes_and_numbers_whole_on_a_narrow_terminal(width: int) -> None:
    model = torchvision.models.resnet18(weights=None)
    text = drawn(render_tree(model, {"head": ["fc"], "stem": ["conv1"]}, trace(model)), width)
    assert max(map(len, text.splitlines())) <= width
    (line,) = [line for line in text.splitlines() if line.startswith("conv1 ")]
    assert "2 × 64 × 112 × 112" in line
    assert "9.41 k" in line
    assert "@stem" in line
    assert ("Conv2d" in line) is (width >= 72)


def test_the_name_of_a_class_is_whole_at_eighty_columns() -> None:
    model = torchvision.models.mobilenet_v2()
    text = drawn(render_tree(model, {"blocks": ["features.8"]}, trace(model)), 80)
    assert "3 × InvertedResidual " in text
    assert "…" not in text


def test_in_a_pipe_nothing_is_wrapped_coloured_or_padded(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {f"head_number_{i}": (2, 10) for i in range(30)}
    show(render_plan(plan(HEAD, outputs=outputs)))
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert any("head_number_0" in line and "head_number_29" in line for line in text.splitlines())
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (11_181_642, "11.2 M"), (999_600, "1.00 M"), (70_000_000_000, "70.0 G")],
)
def test_counts_have_three_figures(number: int, expected: str) -> None:
    assert count(number) == expected


def test_sizes_shares_and_shapes() -> None:
    assert size(44_670_000) == "44.7 MB"
    assert [share(0, 10), share(10, 10), share(1, 10**6), share(10**6 - 1, 10**6)] == [
        "0 %",
        "100 %",
        "< 0.01 %",
        "> 99.9 %",
    ]
    assert share(5130, 11_181_642) == "0.046 %"
    assert shape((1, 512, 7, 7)) == "1 × 512 × 7 × 7"


def test_sites_are_said_together() -> None:
    assert ranges({0, 1, 2, 5, 7, 8}) == "0–2,5,7–8"
    assert merged(["a.1.b2", "a.2.b2", "a.3.b2"]) == "a.1–3.b2"


def test_repeated_blocks_stand_once_in_a_tree() -> None:
    model = torchvision.models.vit_b_16(weights=None, num_classes=2)
    text = drawn(render_tree(model, {"head": ["heads.head"]}, None, depth=3), 120)
    (line,) = [line for line in text.splitlines() if "EncoderBlock" in line]
    assert line.startswith("encoder.layers.encoder_layer_0–11  12 × EncoderBlock")
    assert "heads.head" in text
    assert "@head" in text


def test_a_site_with_a_role_is_shown_below_the_depth() -> None:
    model = torchvision.models.resnet18(weights=None)
    text = drawn(render_tree(model, {"stem": ["layer4.1.conv2"]}, None, depth=1), 120)
    assert "layer4.1.conv2" in text
    assert "layer4.1.conv1" not in text


def test_an_error_says_what_where_and_what_next() -> None:
    error = SurgeonError("no module matches 'layer5'", where="pets.yaml:7:5", hint="nearest: layer4")
    assert drawn(render_error(error)) == "pets.yaml:7:5: no module matches 'layer5'\n    nearest: layer4"
    assert error_dict(error)["where"] == "pets.yaml:7:5"


def test_many_mistakes_are_counted() -> None:
    problems = [RecipeError(f"wrong {i}", where=f"r.yaml:{i}:1") for i in (1, 2)]
    error = RecipeError("2 mistakes in r.yaml", problems=problems)
    assert drawn(render_error(error)).splitlines() == [
        "r.yaml:1:1: wrong 1",
        "r.yaml:2:1: wrong 2",
        "2 mistakes in r.yaml",
    ]
    assert [problem["where"] for problem in error_dict(error)["problems"]] == ["r.yaml:1:1", "r.yaml:2:1"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"type": "integer"}, "whole number"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        (
            {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]},
            "whole number or list of text",
        ),
        ({"type": "array", "items": {"type": "integer"}}, "list of whole numbers"),
        ({"enum": ["a", "b"], "type": "string"}, "a | b"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "mapping to number"),
    ],
)
def test_types_are_said_in_words(field: dict[str, object], expected: str) -> None:
    assert type_of(field, {}) == expected
