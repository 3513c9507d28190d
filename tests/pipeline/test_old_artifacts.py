"""Artifacts that surgeon 0.1.0 wrote before answers had stable names and files had hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import surgeon
from surgeon.surgery import inspection

OLD = Path(__file__).parent / "old_artifacts"
OUTPUTS = json.loads((OLD / "outputs.json").read_text())


def inputs(name: str) -> dict[str, torch.Tensor]:
    """What the outputs were recorded for."""
    if name == "squeezenet":
        image = torch.arange(2 * 3 * 64 * 64, dtype=torch.float32).reshape(2, 3, 64, 64).remainder(17) / 17
        return {"x": image}
    return {"input_ids": torch.arange(14).reshape(2, 7)}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_artifact_of_an_earlier_surgeon_loads_and_gives_the_recorded_outputs(name: str) -> None:
    model = surgeon.load(OLD / name).float()
    arguments = inputs(name)
    outputs = model(*arguments.values()) if name == "squeezenet" else model(**arguments)
    for key, expected in OUTPUTS[name].items():
        assert torch.allclose(outputs[key], torch.tensor(expected), atol=1e-5), key


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_replay_of_an_earlier_artifact_takes_its_recorded_answers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        traced.append(arguments)
        raise AssertionError("traced, though every answer is recorded")

    monkeypatch.setattr(inspection, "trace", refuse)
    surgeon.load(OLD / name)
    assert traced == []
