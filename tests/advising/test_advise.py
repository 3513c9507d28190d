"""``surgeon advise``: what features are worth, the four cases, and a recipe that runs."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

import surgeon
from surgeon import cli
from surgeon.advising.cases import Worth, decide
from surgeon.advising.probes import Labels, logme, probe
from surgeon.errors import TrainingError
from surgeon.plugins import load
from surgeon.recipe.load import load_recipe


def evidence(features: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """The log evidence of a Bayesian linear model, written out: no decomposition, no iteration."""
    n, width = features.shape
    a = alpha * np.eye(width) + beta * features.T @ features
    mean = beta * np.linalg.solve(a, features.T @ y)
    rest = ((features @ mean - y) ** 2).sum()
    total = n / 2 * np.log(beta) + width / 2 * np.log(alpha) - n / 2 * np.log(2 * np.pi)
    return (total - beta / 2 * rest - alpha / 2 * mean @ mean - np.linalg.slogdet(a)[1] / 2) / n


@pytest.mark.parametrize("width", [4, 40], ids=["narrow", "wider than samples"])
def test_logme_is_the_maximum_of_the_evidence_over_both_precisions(width):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(30, width))
    y = features[:, 0] + 0.5 * draw.normal(size=30)
    score = logme(features, y[:, None])
    grid = [evidence(features, y, a, b) for a in np.geomspace(1e-2, 1e2, 60) for b in np.geomspace(1e-1, 1e2, 60)]
    assert score == pytest.approx(max(grid), abs=0.01)
    assert score >= max(grid) - 1e-4


def test_both_measures_prefer_features_that_predict_the_labels():
    draw = np.random.default_rng(0)
    labels = Labels(np.arange(60) % 3, 3)
    features = np.eye(3)[labels.values] @ draw.normal(size=(3, 8)) + 0.3 * draw.normal(size=(60, 8))
    noise = draw.normal(size=(60, 8))
    assert logme(features, labels.targets) > logme(noise, labels.targets)
    assert probe(features, labels).mean() > 0.9
    assert probe(noise, labels).mean() < 0.6
    values = Labels(features[:, :1] + 0.1 * noise[:, :1], 0)
    assert probe(features, values).mean() > 0.8
    assert probe(noise[:, 1:], values).mean() < 0.3


def test_a_class_with_one_sample_cannot_be_held_out():
    with pytest.raises(TrainingError, match="a single labelled sample"):
        probe(np.zeros((3, 2)), Labels(np.array([0, 0, 1]), 2))


def worth(site: str, score: float, fresh: float = 0.3) -> Worth:
    spread = (-0.02, -0.01, 0.0, 0.01, 0.02)
    return Worth(site, 8, 0.0, tuple(score + off for off in spread), tuple(fresh + off for off in spread))


RISES = [worth("a", 0.5), worth("b", 0.7), worth("c", 0.9)]
FALLS = [worth("a", 0.5), worth("b", 0.9), worth("c", 0.6)]
NO_USE = [worth("a", 0.3, 0.31), worth("b", 0.2)]


@pytest.mark.parametrize(
    ("curve", "samples", "name", "best"),
    [
        (RISES, 50, "small, similar", "c"),
        (FALLS, 50, "small, different", "b"),
        (RISES, 5000, "large, similar", "c"),
        (FALLS, 5000, "large, different", "b"),
        (NO_USE, 50, "small, different", "a"),
    ],
)
def test_size_and_curve_decide_on_one_of_four_cases(curve, samples, name, best):
    case = decide(curve, samples=samples, classes=5, large=100, floor=0.2)
    assert (case.name, case.best.site, case.helps) == (name, best, curve is not NO_USE)
    assert f"{samples} labelled samples, {samples // 5} for each of 5 classes" in case.reasons[0]
    assert any(f"{100 * case.best.score:.1f} %" in why for why in case.reasons[1:])


# ---- the command, on a small network of one's own whose blocks are convolutions


NETWORK = """
from torch import nn


class Block(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(1, 8), Block(8, 16), Block(16, 16), Block(16, 16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.pool(self.blocks(x)).flatten(1))


def build():
    return Small()
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A checkpoint beside which its code lies; trained for nothing."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "advised_network.py").write_text(NETWORK)
    sys.modules.pop("advised_network", None)
    import advised_network

    torch.manual_seed(0)
    torch.save(advised_network.build().state_dict(), tmp_path / "net.pt")
    return tmp_path


ARCH = ["--arch", "python:advised_network:build"]
TRUST = ["--trust-code", "advised_network"]
DATA = "{source: digits, classes: [5, 6, 7], per_class: 8, size: 16, channels: 1}"


def advised(capfd, *arguments: str, code: int = 0):
    capfd.readouterr()
    assert cli.run(["advise", *arguments, *ARCH]) == code
    captured = capfd.readouterr()
    return json.loads(captured.out) if "--json" in arguments and not code else captured


def test_the_recipe_runs_as_it_is_written(net, capfd):
    report = advised(capfd, "--data", DATA, "--model", "net.pt", "--json")
    assert report["case"]["size"] == "small"
    assert [row["site"] for row in report["curve"]][:4] == [f"blocks.{i}" for i in range(4)]
    assert (report["classes"], report["samples"], report["measure"]) == (3, 24, "accuracy")
    assert "<svg" in (net / "advised.svg").read_text()
    text = (net / "advised.yaml").read_text()
    assert text.startswith("# The case: small, ")
    assert load_recipe(net / "advised.yaml").train.data.per_class == 8
    run = ["--set", "train.epochs=1", "--json", "-o", "out", *TRUST]
    assert cli.run(["apply", "advised.yaml", *run]) == 0
    assert json.loads(capfd.readouterr().out)["training"]["train_samples"] == 24
    assert cli.run(["advise", "--data", DATA, "--model", "net.pt", *ARCH]) == 8, "nothing is replaced unasked"


@pytest.mark.parametrize("large", [1, 1000])
@pytest.mark.parametrize("curve", [RISES, FALLS, NO_USE])
def test_every_case_has_a_recipe_that_can_be_planned(net, capfd, monkeypatch, large, curve):
    """The measures are set, since a small network cannot be had in every case; all behind them is the real thing."""
    import surgeon.advising.advice as advice

    real = advice.decide

    def decided(measured, **given):
        sites = [measured[0].site, measured[1].site, measured[-1].site][-len(curve) :]
        worths = [Worth(site, 8, 0.0, w.scores, w.untrained) for site, w in zip(sites, curve, strict=True)]
        return real(worths, **given)

    monkeypatch.setattr(advice, "decide", decided)
    monkeypatch.setattr(advice, "probe", lambda *_: np.array([0.5, 0.5]))
    report = advised(capfd, "--data", DATA, "--model", "net.pt", "--json", "--large", str(large), "--seed", "5")
    assert report["case"]["size"] == ("large" if large == 1 else "small")
    operations = [operation.name for operation in load_recipe(net / "advised.yaml").operations]
    expected = {
        (1, 0): ["replace_head"],
        (1, 1): ["reinit", "replace_head"],
        (1, 2): ["replace_head"],
        (1000, 0): ["replace_head", "freeze"],
        (1000, 1): ["truncate", "replace_head", "freeze"],
        (1000, 2): ["replace_head", "freeze"],
    }
    assert operations == expected[large, [RISES, FALLS, NO_USE].index(curve)]
    run = ["-q", "-o", "out", "--set", "train.epochs=1", "--set", "train.baseline=none", *TRUST]
    assert cli.run(["apply", "advised.yaml", *run]) == 0


def test_data_may_be_a_recipes_train_section_whose_settings_stand_above_the_advice(net, capfd):
    (net / "sub").mkdir()
    torch.manual_seed(1)
    rows = ["a,b,c,y"] + [f"{x[0]:.3f},{x[1]:.3f},{x[2]:.3f},{x[0] + 2:.3f}" for x in torch.randn(24, 3).tolist()]
    (net / "sub" / "points.csv").write_text("\n".join(rows))
    (net / "sub" / "asked.yaml").write_text(
        "model: ../net.pt\nseed: 4\ntrain:\n  epochs: 2\n  data: {source: table, path: points.csv,"
        " numbers: {x: [a, b, c]}, targets: {height: y}}\n"
    )
    (net / "advised_network.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))\n"
    )
    sys.modules.pop("advised_network", None)
    import advised_network

    torch.save(advised_network.build().state_dict(), net / "net.pt")
    report = advised(capfd, "--data", "sub/asked.yaml", "--at", "1", "--at", "3", "--json", "-o", "sub/advised.yaml")
    assert (report["measure"], report["classes"], report["label"]) == ("R²", 0, "height")
    assert [row["site"] for row in report["curve"]] == ["1", "3"]
    recipe = load_recipe(net / "sub" / "advised.yaml")
    assert (recipe.seed, recipe.train.epochs, recipe.train.objectives[0].loss) == (4, 2, "mse")
    assert "path: points.csv" in (net / "sub" / "advised.yaml").read_text(), "beside the recipe, as it was"
    assert cli.run(["apply", "sub/advised.yaml", "-q", "-o", "out", *TRUST]) == 0


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        ("{source: digitz}", 3, "digits"),
        ("nowhere.yaml", 3, "no such file"),
        ("{source: digits, classes: [5, 6], per_clas: 3}", 3, "per_class"),
        ("points.csv", 3, "which columns?"),
        ("{}", 3, "which is not data"),
        ("{source: digits, classes: [5, 6], per_class: 1, size: 16, channels: 1}", 9, "a single labelled sample"),
    ],
)
def test_data_that_cannot_be_judged_by_are_refused_with_what_to_do(net, capfd, data, code, message):
    (net / "points.csv").write_text("a\n1\n")
    assert message in advised(capfd, "--data", data, "--model", "net.pt", code=code).err
    assert not (net / "advised.yaml").exists()


def test_a_network_without_weights_has_nothing_to_transfer(net, capfd):
    assert cli.run(["advise", "--data", DATA, "--model", "torchvision/squeezenet1_1"]) == 9
    assert "no weights to transfer" in capfd.readouterr().err


def test_the_sites_are_read_where_they_are_though_relu_overwrites_them(net):
    from surgeon.advising.site_features import Watch, collect, watched
    from surgeon.data.digits import load_data
    from surgeon.pipeline import api as engine
    from surgeon.recipe.train_settings import Digits

    model = engine.apply("net.pt", [Watch()], arch="python:advised_network:build", plugins=load(installed=False))
    splits = load_data(Digits(classes=[5, 6], per_class=3, size=16, channels=1))
    features, rest = collect(model, splits, [0, 4, 5], len(watched(model)))
    plain = engine.load("net.pt", arch="python:advised_network:build")
    pixels = torch.stack([splits.train[row]["pixel_values"] for row in (0, 4, 5)])
    with torch.no_grad():
        second = plain.blocks[1](plain.blocks[0](pixels)).mean((2, 3))
    assert np.allclose(features[1], second.double().numpy(), atol=1e-6)
    assert rest["labels"].tolist() == [0, 1, 1]
    assert isinstance(model, nn.Module)
    assert not model.training


REFERENCE = "python:advised_network:build"


def test_the_function_gives_everything_that_the_command_writes(net, capfd):
    report = advised(capfd, "--data", DATA, "--model", "net.pt", "--json")
    advice = surgeon.advise("net.pt", DATA, arch=REFERENCE)
    assert advice.recipe == (net / "advised.yaml").read_text()
    assert advice.picture == (net / "advised.svg").read_text()
    assert json.loads(json.dumps(advice.to_dict())).items() <= report.items()


def test_advice_on_a_module_and_a_source_as_data_is_saved_and_runs(net):
    import advised_network

    torch.manual_seed(0)
    data = {"source": "digits", "classes": [5, 6, 7], "per_class": 8, "size": 16, "channels": 1}
    advice = surgeon.advise(advised_network.build(), data, arch=REFERENCE, at=["blocks.1", "blocks.3"], seed=2)
    assert [worth.site for worth in advice.curve] == ["blocks.1", "blocks.3"]
    recipe, picture = advice.save(net / "mine.yaml")
    assert (recipe.name, picture.name) == ("mine.yaml", "mine.svg")
    loaded = load_recipe(recipe)
    assert (loaded.model, loaded.seed, loaded.train.data.per_class) == (None, 2, 8)
    assert surgeon.plan(advised_network.build(), loaded).counts
    with pytest.raises(surgeon.OutputError, match="exists already"):
        advice.save(net / "mine.yaml")


def test_settings_that_name_no_data_are_refused(net):
    with pytest.raises(surgeon.RecipeError, match="have no data"):
        surgeon.advise("net.pt", surgeon.TrainSettings(epochs=2), arch=REFERENCE)
