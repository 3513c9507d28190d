"""A composite that surgeon has never seen says what it is made of, and everything works on it as on our own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import surgeon
from surgeon.cli import app as cli
from surgeon.data.columns import Columns
from surgeon.errors import OperationError, PluginError
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.graph.roles import find_roles
from surgeon.graph.trace import trace
from surgeon.interfaces.composite import composite_of, root_of
from surgeon.testing import check_operations
from surgeon.training.calls import keywords_of
from surgeon.training.objectives import call_of

CLASSES = 4
NAME = "python:test_composite:two_towers"


class TwoTowers(nn.Module):
    """An image's and a text's classifier, whose logits are added; surgery is about the image's."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = torchvision.models.shufflenet_v2_x0_5(num_classes=CLASSES)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        self.text = BertForSequenceClassification(BertConfig(**sizes, vocab_size=50, num_labels=CLASSES))

    def surgeon_composite(self) -> surgeon.Composite:
        return surgeon.Composite(
            root="vision",
            entries=(
                surgeon.Entry("vision", {"picture": "x"}),
                surgeon.Entry("text", {"words": "input_ids"}),
            ),
            heads=("text.classifier",),
            lone_output="match",
        )

    def forward(self, picture: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return self.vision(picture) + self.text(input_ids=words).logits


def two_towers() -> nn.Module:
    torch.manual_seed(0)
    return TwoTowers().eval()


def batch(size: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "picture": torch.rand(size, 3, 64, 64, generator=generator),
        "words": torch.randint(50, (size, 8), generator=generator),
    }


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_each_tower_says_what_its_argument_of_the_whole_is_fed():
    inputs = find_inputs(two_towers())
    assert inputs.args == ()
    assert [inputs.kwargs[name].shape for name in ("picture", "words")] == [(2, 3, 224, 224), (2, 8)]
    assert inputs.kwargs["words"].high == 50
    traced = trace(two_towers())
    assert traced.outputs == {"output": (2, CLASSES)}
    assert traced.shape("text.classifier") == (2, CLASSES)


def test_roles_are_those_of_the_root():
    model = two_towers()
    traced = trace(model)
    roles = find_roles(model, lambda: traced)
    assert roles.sites("head") == ["vision.fc"]
    assert roles.sites("stem") == ["vision.conv1.0"]
    assert all(site.startswith("vision.stage") for site in roles.sites("blocks"))


def test_inspect_shows_the_composite_with_shapes(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    torch.save(two_towers().state_dict(), "net.pt")
    assert cli.run(["inspect", "net.pt", "--arch", NAME, "--json"]) == 0
    shown = capfd.readouterr().out
    assert '"vision.fc"' in shown
    assert '"head"' in shown


@pytest.mark.parametrize(
    ("operation", "frozen", "training"),
    [
        (surgeon.Freeze(all_but="head"), "vision.conv5.0", {"vision.fc.", "text.classifier."}),
        (surgeon.Freeze(up_to="vision.stage2"), "vision.stage2.3.branch2.0", {"vision.stage3.", "vision.fc."}),
    ],
)
def test_freeze_reaches_the_heads_of_all_towers_and_what_runs_before_a_site(operation, frozen, training):
    names = trained(surgeon.apply(two_towers(), [operation]))
    assert not any(name.startswith(frozen) for name in names)
    assert all(any(name.startswith(prefix) for name in names) for prefix in training)


def test_surgery_on_the_root_survives_saving_and_loading(tmp_path):
    operations = [surgeon.ReplaceHead(classes=CLASSES), surgeon.Freeze(all_but="head")]
    check_operations(two_towers, operations, (), batch())
    edited = surgeon.apply(two_towers(), operations)
    surgeon.save(edited, tmp_path / "out")
    loaded = surgeon.load(tmp_path / "out", arch=two_towers)
    assert type(loaded).__name__ == "TwoTowers"
    assert trained(loaded) == trained(edited)
    with torch.no_grad():
        assert torch.equal(loaded(**batch()), edited(**batch()))


def test_training_calls_it_by_name_and_names_its_lone_output():
    model = surgeon.apply(two_towers(), [surgeon.Freeze(all_but="head")])
    call = call_of(model, ("words", "picture"))
    assert call.by_name
    assert list(call(model, batch())) == ["match"]
    columns = {**batch(8), "labels": torch.arange(8) % CLASSES}
    splits = surgeon.Splits(
        Columns(**columns), Columns(**columns), inputs=("picture", "words"), classes={"labels": CLASSES}
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = surgeon.TrainSettings(epochs=1, batch_size=4, learning_rate=0.1)
    report = surgeon.train(model, settings, data=splits, quiet=True)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{head}.{kind}" for head in ("vision.fc", "text.classifier") for kind in ("weight", "bias")}
    assert report.train_samples == 8


def test_branches_on_a_composite_keep_what_it_says_of_itself():
    tasks = {"species": {"classes": 3, "at": "vision.conv5"}}
    both = surgeon.apply(two_towers(), [surgeon.Multitask(tasks=tasks)])
    assert root_of(both) == "vision"
    assert composite_of(both).heads == ("text.classifier", "grafts")
    alone = surgeon.apply(two_towers(), [surgeon.Multitask(tasks=tasks, original="drop")])
    assert composite_of(alone).lone_output == "species"


class Experts(nn.Module):
    """Two layers, of which a keyword argument says which one runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def surgeon_composite(self) -> surgeon.Composite:
        return surgeon.Composite(choices=("first", "second"), keywords=("expert",))

    def forward(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.second(x) if kwargs.get("expert") == "second" else self.first(x)


def test_all_choices_count_as_used_and_their_keyword_as_taken():
    model = nn.Sequential(nn.Linear(4, 4), Experts(), nn.Linear(4, 2))
    assert trace(model).used_before("1") >= {"0", "1.first", "1.second"}
    frozen = surgeon.apply(model, [surgeon.Freeze(up_to="1")])
    assert trained(frozen) == {"2.weight", "2.bias"}
    assert keywords_of(Experts()) == {"x", "expert"}


class Both(nn.Module):
    """Two networks that see the same input."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def surgeon_composite(self) -> surgeon.Composite:
        entries = tuple(surgeon.Entry(f"parts.{index}") for index in range(len(self.parts)))
        return surgeon.Composite(root="parts.1", entries=entries)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return torch.stack([part(*args, **kwargs) for part in self.parts])


def test_parts_that_share_their_input_refuse_another_input_for_one():
    model = Both(*(torchvision.models.shufflenet_v2_x0_5(num_classes=2) for _ in range(2)))
    assert find_inputs(model).args == find_inputs(model.parts[0]).args
    with pytest.raises(OperationError, match=r"parts\.0, parts\.1 receive the same input"):
        surgeon.apply(model, [surgeon.AdaptInput(channels=1)])


def test_a_composite_inside_a_composite_is_asked_too():
    inputs = find_inputs(Both(Both(two_towers()), two_towers()))
    assert set(inputs.kwargs) == {"picture", "words"}
    assert keywords_of(Both(Both(two_towers()), two_towers())) == {"picture", "words"}


def test_parts_that_surgery_removed_are_passed_over():
    model = two_towers()
    del model.text.classifier
    frozen = surgeon.apply(model, [surgeon.Freeze(all_but="head")])
    assert trained(frozen) == {"vision.fc.weight", "vision.fc.bias"}
    del model.vision
    assert root_of(model) == ""


class Misspelt(TwoTowers):
    def surgeon_composite(self) -> surgeon.Composite:
        return surgeon.Composite(entries=(surgeon.Entry("text", {"words": "input_idz"}),))


def test_an_argument_that_a_part_does_not_take_is_an_error_with_the_nearest_name():
    with pytest.raises(OperationError, match="input_ids") as caught:
        find_inputs(Misspelt())
    assert "words" in str(caught.value)


class Wrong(nn.Linear):
    def surgeon_composite(self) -> Any:
        return {"root": "vision"}


def test_something_else_than_a_composite_is_refused():
    with pytest.raises(PluginError, match=r"Wrong\.surgeon_composite\(\) returns a dict"):
        trace(Wrong(2, 2))


class Passing(nn.Module):
    """Passes unknown attributes on to a part, as some wrappers do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def test_a_wrapper_that_passes_attributes_on_does_not_answer_for_what_it_wraps():
    assert Passing(two_towers()).surgeon_composite is not None
    assert root_of(Passing(two_towers())) == ""


def test_only_the_operations_that_make_columns_and_stems_name_their_classes():
    package = Path(surgeon.__file__).parent
    makers = {"nn/progressive.py", "nn/stems.py", "operations/stems.py"}
    naming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if {"ProgressiveNetwork", "StemSwitch"} & set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    }
    assert {path for path in naming if not path.startswith("operations/progressive/")} == makers
