"""Pages, opened in a real browser where one is installed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import families
import pytest
import torch
from torchvision import models
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

import surgeon
from pages.browser import CHROMIUM, run_in_page
from surgeon.cli.app import run
from surgeon.errors import OperationError, OutputError, SiteError
from surgeon.pages.drawing import draw_network
from surgeon.pages.write import write_page
from surgeon.pipeline.network_view import inspect

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def small_bert() -> BertForSequenceClassification:
    config = BertConfig(
        num_hidden_layers=4, hidden_size=32, num_attention_heads=2, intermediate_size=64, vocab_size=100
    )
    with torch.device("meta"):
        return BertForSequenceClassification(config)


def status_of(path: Path, view: str) -> dict[str, str]:
    """The status of each site in a page's data."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])[view]  # type: ignore[index]
    waiting, out = [data["root"]], {}
    while waiting:
        node = waiting.pop()
        out[node["site"]] = node.get("status", "kept")
        waiting += node.get("children", [])
    return out


@pytest.fixture(scope="module")
def plan_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    operations = [surgeon.Truncate(after="layer3"), surgeon.ReplaceHead(classes=7), surgeon.Freeze(up_to="layer2")]
    return write_page(tmp_path_factory.mktemp("plan") / "plan.html", models.resnet18(), operations)


def test_a_page_refers_to_nothing_outside_itself(plan_page: Path) -> None:
    text = plan_page.read_text()
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert "import(" not in text.split('id="elk"')[0]


def test_cut_parts_new_parts_and_frozen_parts_are_marked(plan_page: Path) -> None:
    before, after = status_of(plan_page, "before"), status_of(plan_page, "after")
    assert {before[site] for site in ("layer4", "layer4.1.conv2", "layer4.0.relu", "fc")} == {"cut"}
    assert {before[site] for site in ("conv1", "layer1.0.relu", "layer3.1.bn2")} == {"kept"}
    assert {after[site] for site in ("conv1", "layer1.0.relu", "layer2")} == {"kept"}
    assert after[next(site for site in after if site.endswith("head.layers"))] == "new"
    assert '"frozen":"all"' in plan_page.read_text()


def test_blocks_that_moved_are_kept_under_their_old_names(tmp_path: Path) -> None:
    page = write_page(tmp_path / "page.html", small_bert(), surgeon.Truncate(keep_blocks=2))
    before = status_of(page, "before")
    kept = [number for number in range(4) if before[f"bert.encoder.layer.{number}.intermediate.dense"] == "kept"]
    assert len(kept) == 2
    assert {before[f"bert.encoder.layer.{n}.output.dropout"] for n in kept} == {"kept"}
    assert {before[f"bert.encoder.layer.{n}.output.dropout"] for n in set(range(4)) - set(kept)} == {"cut"}


def test_equal_blocks_are_one_group() -> None:
    data = draw_network(inspect(small_bert())).data
    node = data["root"]
    for name in ("bert", "encoder", "layer"):
        node = next(child for child in node["children"] if child["name"] == name)
    assert node["groups"] == [[0, 4]]


def test_names_in_a_page_are_escaped(tmp_path: Path) -> None:
    model = torch.nn.Sequential()
    model.add_module("</script><b>", torch.nn.Linear(4, 4))
    page = write_page(tmp_path / "page.html", model)
    assert "</script><b>" not in page.read_text()


def test_a_file_that_is_not_a_page_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<html>my own</html>")
    with pytest.raises(OutputError, match="not a page that surgeon wrote"):
        write_page(tmp_path / "mine.html", models.resnet18())
    assert (tmp_path / "mine.html").read_text() == "<html>my own</html>"
    with pytest.raises(OutputError, match="does not exist"):
        write_page(tmp_path / "none" / "page.html", models.resnet18())


def test_a_page_is_replaced_by_a_page(tmp_path: Path) -> None:
    page = write_page(tmp_path / "page.html", torch.nn.Linear(2, 2))
    before = page.read_text()
    assert write_page(page, torch.nn.Linear(2, 3)).read_text() != before
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_operations_and_another_network_are_not_both_shown(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match="not both"):
        write_page(tmp_path / "p.html", models.resnet18(), surgeon.Freeze(up_to="layer1"), other=models.resnet18())


@browser
def test_a_plan_opens_folds_and_finds_sites(plan_page: Path) -> None:
    said = run_in_page(
        plan_page,
        """
        const count = () => pane.querySelectorAll(".node").length;
        const first = count(), views = [...document.querySelectorAll("#views button")].map((b) => b.textContent);
        const turn = Number(document.body.dataset.ready);
        const folding = pane.querySelector('[data-id="layer1:"]');
        const was = folding.getAttribute("aria-expanded");
        folding.focus();
        folding.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
        await settled(turn + 1);
        const now = pane.querySelector('[data-id="layer1:"]').getAttribute("aria-expanded");
        await search("layer2.1.conv2");
        const lit = [...pane.querySelectorAll(".node.lit")].map((node) => node.dataset.id);
        const rows = document.querySelectorAll("#layers tr").length;
        await search("no.such.site");
        return { first, views, was, now, lit, rows, wrong: document.getElementById("matches").textContent };
        """,
    )
    assert said["faults"] == []
    value = said["value"]
    assert value["views"] == ["before", "after"]
    assert value["was"] != value["now"]
    assert value["lit"] == ["layer2.1.conv2:"]
    assert value["rows"] > 20
    assert "no module matches no.such.site" in value["wrong"]


SELECTORS = (
    ".", "bert", "@head", "@blocks[1]", "@blocks[-2:]", "@blocks[:2].attention.self.query", "bert.encoder.layer[1:3]",
    "bert.encoder.layer.*.output.dense", "**.dropout", "type:Linear", "type:*Norm*", "re:.*layer\\.[12]\\..*dense",
    "bert.encoder.layer.{0,3}.attention", "{classifier,bert.pooler.dense}", "type:Linear, !**.query, !classifier",
    "!type:Linear", "bert.encoder.layer[-1]", "bert.encoder.layer[::2]", "bert.encoder.layer.[0-1].output",
    "nothing.here", "@aux", "bert.encoder.layer[9]",
)  # fmt: skip


@browser
def test_the_page_resolves_selectors_as_surgeon_does(tmp_path: Path) -> None:
    model = small_bert()
    page = write_page(tmp_path / "page.html", model)
    view = inspect(model)
    script = f"""
        return {json.dumps(SELECTORS)}.map((selector) => {{
          try {{ return selectSites(current().data, current().nodes, selector); }} catch (error) {{ return null; }}
        }});
    """
    said = run_in_page(page, script)
    assert said["faults"] == []
    for selector, matches in zip(SELECTORS, said["value"], strict=True):
        try:
            expected = [
                site.site.removeprefix(".") if site.site == "." else site.site for site in view.select(selector)
            ]
        except SiteError:
            expected = None
        assert matches == expected, selector


@browser
def test_a_plan_of_seventy_billion_parameters_opens_quickly(tmp_path: Path) -> None:
    config = LlamaConfig(
        num_hidden_layers=80, hidden_size=8192, intermediate_size=28672, num_attention_heads=64,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    page = write_page(tmp_path / "page.html", model, surgeon.Truncate(keep_blocks=40))
    said = run_in_page(page, "return current().count();")
    assert said["faults"] == []
    assert said["value"] < 60
    assert page.stat().st_size < 3_000_000


def test_a_training_is_reported_in_the_terminal_and_in_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "out", tmp_path / "page.html"
    quick = ["--set", "train.epochs=1", "--set", "train.baseline=none", "-q"]
    assert run(["apply", str(RECIPES / "quickstart.yaml"), str(RECIPES / "digits.pt"), "-o", str(out), *quick]) == 0
    assert run(["train-report", str(out), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert f"page written to {page}" in said
    assert "after training" in said
    assert re.search(r"\\ predicted\s+5\s+6\s+7\s+8\s+9", said)
    text = page.read_text()
    assert "true \\ predicted" in text
    assert "data:image/svg+xml" in text
    assert "op: replace_head" in text
    assert run(["train-report", str(RECIPES / "digits.pt")]) != 0


def test_two_networks_are_compared_in_a_page(tmp_path: Path) -> None:
    first = models.resnet18()
    second = models.resnet18()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        second.layer4[1].conv2.weight.mul_(1.5)
    page = write_page(tmp_path / "page.html", first, other=second)
    text = page.read_text()
    assert "they differ" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])["B"]  # type: ignore[index]
    waiting, heat = [data["root"]], {}
    while waiting:
        node = waiting.pop()
        heat[node["site"]] = node.get("heat", 0)
        waiting += node.get("children", [])
    assert heat["layer4.1.conv2"] == 1
    assert heat["layer1.0.conv1"] == 0


def test_a_plan_with_a_page_plans_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surgeon.pipeline import planning

    calls = []
    prepare = planning.prepare
    monkeypatch.setattr(planning, "prepare", lambda *args, **options: calls.append(args) or prepare(*args, **options))
    page = tmp_path / "plan.html"
    assert run(["plan", str(RECIPES / "quickstart.yaml"), str(RECIPES / "digits.pt"), "--html", str(page), "-q"]) == 0
    assert len(calls) == 1
    assert "op: replace_head" in page.read_text(encoding="utf-8")


@browser
def test_a_printed_graph_is_whole_on_the_first_page(tmp_path: Path) -> None:
    page = write_page(tmp_path / "page.html", small_bert())
    said = run_in_page(
        page,
        """
        const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]);
        const print = rules.find((rule) => rule.conditionText === "print" || rule.media?.mediaText === "print");
        const copy = document.createElement("style");
        copy.textContent = [...print.cssRules].map((rule) => rule.cssText).join("\\n");
        document.head.append(copy);
        const drawn = pane.querySelector("svg").getBoundingClientRect();
        return { height: drawn.height, width: drawn.width, natural: state.size[0] };
        """,
    )
    assert said["faults"] == []
    assert said["value"]["height"] <= 17 / 2.54 * 96 + 1
    assert said["value"]["width"] <= said["value"]["natural"] + 1


@browser
def test_what_moved_is_tinted_and_folded_blocks_say_how_far_they_moved(tmp_path: Path) -> None:
    first, second = families.build("bert"), families.build("bert")
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for number, layer in enumerate(second.bert.encoder.layer):
            for parameter in layer.parameters():
                parameter.mul_(1.1 + number / 10)
    said = run_in_page(
        write_page(tmp_path / "page.html", first, other=second),
        """
        const tints = [...document.querySelectorAll("svg rect.heat")].map((rect) => getComputedStyle(rect).fill);
        const cells = (row) => [...row.cells].map((cell) => cell.textContent);
        return { tints, rows: [...document.querySelectorAll("tbody tr")].map(cells) };
        """,
    )
    assert said["faults"] == []
    assert set(said["value"]["tints"]) == {"rgb(224, 90, 30)"}
    (blocks,) = (row for row in said["value"]["rows"] if re.fullmatch(r"▸0 – \d+", row[0]))
    assert re.fullmatch(r"0\.1 … 0\.\d+", blocks[8])
