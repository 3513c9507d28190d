"""Distillation: a network learns what its teacher predicts, by the equation, whole or from disk, and its features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from language_folders import bert, gpt2, llama, sentences
from small import Plain, X, Y, by_sgd, difference, make, splits
from torch import nn
from torch.nn import functional as F

import surgeon
from surgeon.errors import CheckpointError, RecipeError, TrainingError
from surgeon.interfaces.record import record_of
from surgeon.recipe.reach import reaches
from surgeon.recipe.train_settings import DistillSettings, TrainSettings
from surgeon.training.session import train
from surgeon.training.teacher_cache import top_loss


def teacher() -> nn.Module:
    """A network that has learnt something else than the one that is taught."""
    return make(seed=5)


def taught(distill: dict[str, object], model: nn.Module | None = None, **changes: object) -> nn.Module:
    model = model or make()
    data = changes.pop("data", splits())
    by = changes.pop("by", teacher)
    train(model, by_sgd(distill=distill, **changes), data=data, teacher=by, quiet=True)
    return model


def by_hand(weight: float, temperature: float, steps: int = 8, weights: nn.Module | None = None) -> nn.Module:
    """The equation of Hinton, Vinyals & Dean, in plain torch."""
    model, other = make(), (weights or teacher()).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model(X)
        with torch.no_grad():
            target = (other(X) / temperature).softmax(1)
        soft = (target * (target.log() - (logits / temperature).log_softmax(1))).sum(1).mean()
        loss = (1 - weight) * F.cross_entropy(logits, Y) + weight * temperature**2 * soft
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 2.0), (1.0, 4.0), (0.2, 1.0)])
def test_the_loss_is_its_equation(weight: float, temperature: float):
    model = taught({"weight": weight, "temperature": temperature})
    assert difference(model, by_hand(weight, temperature)) < 1e-6


def test_all_predictions_from_disk_are_the_teachers(own_cache: Path):
    live, kept = taught({"weight": 0.7}), taught({"weight": 0.7, "top": 3})
    assert difference(live, kept) < 1e-6
    files = sorted(own_cache.rglob("*.npy"))
    assert len(files) == 3
    times = [file.stat().st_ino for file in files]
    taught({"weight": 0.7, "top": 3})
    assert [file.stat().st_ino for file in sorted(own_cache.rglob("*.npy"))] == times, "read again, not made again"
    taught({"weight": 0.7, "top": 3}, by=lambda: make(seed=6))
    assert len(list(own_cache.rglob("*.npy"))) == 6, "another teacher's are others"


def test_what_is_not_kept_counts_as_one_class():
    drawn = torch.Generator().manual_seed(0)
    logits, other = torch.randn(5, 9, generator=drawn), torch.randn(5, 9, generator=drawn)
    old = (other / 2).log_softmax(1)
    values, classes = old.topk(3)
    new = (logits / 2).log_softmax(1)
    p = torch.cat([values.exp(), 1 - values.exp().sum(1, keepdim=True)], 1)
    q = new.exp().gather(1, classes)
    q = torch.cat([q, 1 - q.sum(1, keepdim=True)], 1)
    loss = top_loss(logits, classes, values, 2.0)
    torch.testing.assert_close(loss, (p * (p.log() - q.log())).sum(1))
    whole = (old.exp() * (old - new)).sum(1)
    assert (loss <= whole + 1e-6).all(), "it never exceeds the divergence over all classes"
    assert top_loss(other, classes, values, 2.0).abs().max() < 1e-6


class Wide(Plain):
    """The same task with another width."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__(classes)
        self.a, self.n, self.head = nn.Linear(6, 24), nn.BatchNorm1d(24), nn.Linear(24, classes)


def wide() -> nn.Module:
    return make(Wide, seed=5)


def test_features_are_learnt_through_a_map_that_does_not_stay():
    def distance(model: nn.Module) -> float:
        """How well the teacher's features follow from the network's, by least squares."""
        with torch.no_grad():
            mine, theirs = model.eval().a(X), wide().eval().a(X)
            mine = torch.cat([mine, torch.ones(len(mine), 1)], 1)
            rest = theirs - mine @ torch.linalg.lstsq(mine, theirs).solution
        return (rest.norm() / theirs.norm()).item()

    class Narrow(Plain):
        def __init__(self, classes: int = 3) -> None:
            super().__init__(classes)
            self.a, self.n, self.head = nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Linear(3, classes)

    names = set(make(Narrow).state_dict())
    plain = make(Narrow)
    train(plain, by_sgd(epochs=60), data=splits(), quiet=True)
    hinted = taught({"weight": 0.0, "features": {"a": "a"}, "feature_weight": 5.0}, make(Narrow), by=wide, epochs=60)
    assert set(hinted.state_dict()) == names
    assert not hinted.a._forward_hooks
    assert distance(hinted) < distance(plain)


def test_equal_widths_need_no_map():
    model = taught({"weight": 0.0, "features": {"a": "a"}, "feature_weight": 100.0}, epochs=30, learning_rate=0.01)
    with torch.no_grad():
        before = (make().a(X) - teacher().a(X)).norm()
        assert (model.a(X) - teacher().a(X)).norm() < 0.3 * before


@pytest.mark.parametrize(
    "distill",
    [{"weight": 0.5}, {"weight": 0.5, "features": {"a": "a"}}, {"top": 2}],
    ids=["live", "with features", "from disk"],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path: Path, distill: dict[str, object]):
    train_settings = by_sgd(epochs=4, distill=distill, arguments={"optim": "adamw_torch"})
    run = {"data": splits(), "teacher": wide}
    whole, cut = make(), make()
    train(whole, train_settings, quiet=True, **run)
    run |= {"output_dir": tmp_path / "run", "checkpoints": True}

    def stop(step: int, *_: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, train_settings, progress=stop, **run)
    cut = make()
    with pytest.raises(TrainingError, match="the weights of the teacher"):
        train(make(), train_settings, quiet=True, resume=True, **(run | {"teacher": lambda: make(Wide, seed=7)}))
    train(cut, train_settings, quiet=True, resume=True, **run)
    assert difference(whole, cut) == 0


def test_a_baseline_from_scratch_has_no_teacher():
    train_settings = by_sgd(distill={"weight": 1.0}, baseline="scratch")
    report = train(make(), train_settings, data=splits(), teacher=teacher, baseline=make, quiet=True)
    alone = train(make(), by_sgd(), data=splits(), quiet=True)
    assert report.baseline == pytest.approx(alone.after)


def test_cached_features_take_the_teachers_predictions_from_disk():
    def frozen() -> nn.Module:
        model = make()
        model.a.requires_grad_(False)
        return model

    with pytest.raises(TrainingError, match="the teacher gets none"):
        taught({}, frozen(), features="cache")
    assert difference(taught({"top": 3}, frozen(), features="cache"), taught({}, frozen())) < 1e-6


def test_other_classes_are_refused():
    with pytest.raises(TrainingError, match="predicts 3 classes or tokens and the teacher 4"):
        taught({}, by=lambda: make(classes=4))
    named = replace(splits(), names={"labels": ("a", "b", "c")})

    class Called(Plain):
        """A network of transformers' kind: its config names the classes."""

        def __init__(self, names: str) -> None:
            super().__init__()
            self.config = SimpleNamespace(id2label=dict(enumerate(names)))

    Called.__name__ = "CalledForClassification"
    taught({}, by=lambda: Called("abc"), data=named)
    with pytest.raises(TrainingError, match="classes are a, b, c, and the teacher's a, b, d"):
        taught({}, by=lambda: Called("abd"), data=named)
    with pytest.raises(TrainingError, match="classes are a, b, c, and the teacher's in another order"):
        taught({}, by=lambda: Called("acb"), data=named)


def test_features_of_other_shapes_are_refused():
    class Deep(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 8), nn.Flatten(1))

    with pytest.raises(TrainingError, match="more than their width differs"):
        taught({"weight": 0.0, "features": {"a": "a.1"}}, by=lambda: make(Deep))


def test_what_cannot_be_learnt_is_refused():
    with pytest.raises(ValueError, match="nothing is learnt"):
        DistillSettings(weight=0.0)
    with pytest.raises(TrainingError, match="no output 'logit'"):
        taught({"output": "logit"})
    with pytest.raises(TrainingError, match="names 2 sites"):
        taught({"features": {"{a,n}": "a"}})
    with pytest.raises(TrainingError, match="distill needs a function"):
        train(make(), by_sgd(distill={}), data=splits(), quiet=True)
    frozen = make()
    frozen.a.requires_grad_(False)
    with pytest.raises(TrainingError, match="no gradient reaches the features of a"):
        taught({"features": {"a": "a"}}, frozen)


# ---- through a recipe


def corpus(tmp_path: Path, **fields: object) -> dict[str, object]:
    path = sentences(tmp_path / "texts.txt")
    return {"source": "corpus", "path": str(path), "unit": "line", "max_length": 16, **fields}


def settings(tmp_path: Path, distill: dict[str, object], **fields: object) -> TrainSettings:
    return TrainSettings(data=corpus(tmp_path, **fields), epochs=1, batch_size=8, learning_rate=1e-3, distill=distill)


@pytest.mark.parametrize("make_folder", [llama, gpt2, bert])
def test_a_cut_language_model_learns_from_what_it_was(tmp_path: Path, make_folder):
    folder = make_folder(tmp_path / "m")
    distill = {"weight": 1.0, "features": {"@blocks[-1]": "@blocks[-1]"}}
    train_settings = settings(tmp_path, distill)
    model, report = surgeon.finetune(folder, surgeon.Truncate(keep_blocks=2), settings=train_settings)
    assert report.history[-1]["penalty_loss"] > 0
    identical = TrainSettings(**{**dict(train_settings), "distill": {"weight": 1.0}, "epochs": 1})
    _, report = surgeon.finetune(folder, surgeon.Freeze(up_to="@stem"), settings=identical)
    assert report.history[0]["penalty_loss"] == pytest.approx(0, abs=1e-4), "the network as it was is its own teacher"
    entry = record_of(model).training[-1]
    assert entry["settings"]["distill"]["teacher"] == "source"


def test_padded_texts_and_completions_are_compared_where_they_are_learnt(tmp_path: Path):
    folder = llama(tmp_path / "m", "left")
    live = settings(tmp_path, {"weight": 0.5}, packing="none", max_length=64)
    kept = settings(tmp_path, {"weight": 0.5, "top": 300}, packing="none", max_length=64)
    cut = surgeon.Truncate(keep_blocks=2)
    plain = {"arguments": {"optim": "sgd"}}  # Adam turns rounding into steps
    one, two = (surgeon.finetune(folder, cut, settings=run.model_copy(update=plain))[0] for run in (live, kept))
    assert difference(one, two) < 1e-5


def test_masked_texts_are_not_kept(tmp_path: Path):
    train_settings = settings(tmp_path, {"top": 8})
    with pytest.raises(TrainingError, match="samples differ in every epoch"):
        surgeon.finetune(bert(tmp_path / "m"), surgeon.Truncate(keep_blocks=2), settings=train_settings)


def test_another_vocabulary_is_refused(tmp_path: Path):
    folder, other = llama(tmp_path / "m"), llama(tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    assert '"<end>": 0' in text
    swapped = text.replace('"<end>": 0', '"<end>": 1').replace('"!": 1', '"!": 0')
    (other / "tokenizer.json").write_text(swapped.replace('"id": 0', '"id": 1'))
    train_settings = settings(tmp_path, {"teacher": str(other)})
    with pytest.raises(TrainingError, match="the vocabularies of network and teacher differ: the token"):
        surgeon.finetune(folder, surgeon.Truncate(keep_blocks=2), settings=train_settings)


def test_a_donor_teaches_and_is_named_as_what_the_recipe_reaches_for(tmp_path: Path):
    folder, other = llama(tmp_path / "m"), llama(tmp_path / "teacher")
    recipe = tmp_path / "recipe.yaml"
    data = ", ".join(f"{key}: {value}" for key, value in corpus(tmp_path).items())
    recipe.write_text(
        "operations: [{op: truncate, keep_blocks: 2}]\n"
        f"train: {{data: {{{data}}}, epochs: 0.01, distill: {{teacher: teacher}}}}\n"
    )
    loaded = surgeon.load_recipe(recipe)
    assert [reach.what for reach in reaches(loaded) if reach.where == "train.distill.teacher"] == [str(other)]
    report = surgeon.run_recipe(folder, recipe, tmp_path / "out")
    assert report.training is not None
    with pytest.raises(RecipeError, match=r"uses file .*train\.distill\.teacher"):
        surgeon.run_training(tmp_path / "out", None, tmp_path / "again")
    with pytest.raises(TrainingError, match="not at hand: only its result is"):
        surgeon.run_training(
            tmp_path / "out", None, tmp_path / "again", trust_recipe=True, overrides=["train.distill.teacher=source"]
        )


def test_a_teacher_of_pictures_that_are_normalised_otherwise_is_refused(tmp_path: Path):
    from companion_folders import vit
    from PIL import Image

    folder, other = vit(tmp_path / "m"), vit(tmp_path / "other")
    stated = other / "preprocessor_config.json"
    stated.write_text(stated.read_text().replace("0.5", "0.25"))
    for number in range(8):
        path = tmp_path / "pictures" / ("LABEL_0", "LABEL_1")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number * 20, 0, 0)).save(path)
    data = {"source": "images", "path": str(tmp_path / "pictures")}
    cut = surgeon.Truncate(keep_blocks=1)
    for teacher in ("source", str(folder)):
        train_settings = TrainSettings(data=data, epochs=0.01, distill={"teacher": teacher})
        assert surgeon.finetune(folder, cut, settings=train_settings)[1].history
    train_settings = TrainSettings(data=data, epochs=0.01, distill={"teacher": str(other)})
    with pytest.raises(TrainingError, match=r"the teacher's \[0\.25, 0\.25, 0\.25\]"):
        surgeon.finetune(folder, cut, settings=train_settings)


def test_a_teacher_without_weights_is_refused(tmp_path: Path):
    data = {"source": "digits", "per_class": 2, "size": 32}
    train_settings = TrainSettings(data=data, epochs=0.01, distill={"teacher": "torchvision/resnet18"})
    with pytest.raises(CheckpointError, match="random ones has nothing to teach"):
        surgeon.finetune("torchvision/resnet18", surgeon.ReplaceHead(classes=10), settings=train_settings)


def test_a_trained_network_comes_out_of_a_command_with_a_teacher(tmp_path: Path):
    folder = llama(tmp_path / "m")
    recipe = tmp_path / "recipe.yaml"
    data = ", ".join(f"{key}: {value}" for key, value in corpus(tmp_path).items())
    recipe.write_text(
        "operations: [{op: truncate, keep_blocks: 2}]\n"
        f"train: {{data: {{{data}}}, epochs: 0.01, distill: {{temperature: 2, weight: 0.9}}}}\n"
    )
    surgeon.run_recipe(folder, recipe, tmp_path / "out")
    loaded = surgeon.load(tmp_path / "out")
    assert loaded.config.num_hidden_layers == 2
    assert len(loaded.state_dict()) == len(surgeon.apply(folder, surgeon.Truncate(keep_blocks=2)).state_dict())
