"""The notebook runs from its first cell to its last, quickly, and shows tables where it promises them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

RECIPES = Path(__file__).parents[1] / "recipes"
TOUR = RECIPES / "tour.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(TOUR, as_version=4)


def test_it_is_stored_without_outputs(notebook: nbformat.NotebookNode) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}


def test_it_runs_from_the_first_cell_to_the_last(notebook: nbformat.NotebookNode) -> None:
    done = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(RECIPES)}}).execute()
    shown = {cell.source: cell.outputs for cell in done.cells if cell.cell_type == "code"}
    texts = {source: "".join(out.get("text", "") for out in outputs) for source, outputs in shown.items()}
    tables = "".join(
        out.data["text/html"] for outputs in shown.values() for out in outputs if "text/html" in out.get("data", {})
    )
    commands = [text for source, text in texts.items() if "-m surgeon" in source]
    assert [len(re.findall(word, text)) > 0 for word, text in zip(
        ("246 of 338 tensors kept", "after training", "matches its manifest"), commands, strict=True
    )] == [True] * 3  # fmt: skip
    for word in ("replace_head", "@blocks", "accuracy", "true \\ predicted", "probability", "partly frozen", "widened"):
        assert word in tables, word
    assert tables.count("<table") >= 5
    assert "unknown key" in "".join(texts.values())
    assert "nearest: share" in "".join(texts.values())
    assert "ShuffleNetV2" in shown[done.cells[-1].source][-1].data["text/plain"]
