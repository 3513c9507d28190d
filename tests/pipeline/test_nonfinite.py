"""NaN and infinite values of a source are named by tensor, by ``apply`` and by ``check``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import vgg

import surgeon
from surgeon.cli.app import run
from surgeon.pipeline.nonfinite import count_nonfinite


@pytest.mark.parametrize("form", ["out", "out.safetensors", "out.pt"])
def test_apply_and_check_name_the_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    state = vgg().state_dict()
    state["features.0.weight"][0] = float("nan")
    state["features.3.bias"][1] = float("inf")
    torch.save(state, "net.pt")
    Path("recipe.yaml").write_text("operations: [{op: replace_head, classes: 2}]\n")
    command = ["apply", "recipe.yaml", "net.pt", "--arch", "python:families:vgg", "-o", form]
    assert run(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "NaN or infinite values in features.0.weight (27), features.3.bias (1)" in shown
    assert run(["check", form, "--trust-code", "families"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "features.0.weight (27)" in shown
    assert "features.3.bias (1)" in shown
    assert run([*command, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reloaded"]["nonfinite"] == {
        "features.0.weight": 27,
        "features.3.bias": 1,
    }
    assert surgeon.verify(form, trust_code="families").nonfinite["features.3.bias"] == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.complex64])
def test_every_kind_of_number_is_looked_at(dtype: torch.dtype) -> None:
    tensor = torch.tensor([1.0, float("nan")]).to(dtype)
    tensors = {"a": tensor, "whole": torch.ones(2, dtype=torch.int64), "good": torch.ones(2).to(dtype)}
    assert count_nonfinite(tensors.items()) == {"a": 1}
