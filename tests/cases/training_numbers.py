"""Right numbers in training: the reference is a plain torch loop (13.6 to 13.8, 13.10)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cases.harness import Outcome, case, equal, expect, refused, right
from cases.material import Material, numbers
from cases.names import fine_tuned, head, review_table, texts

PLAIN = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}


def data(count: int = 48, test: int = 20, **labels: Tensor) -> Any:
    """Random numbers with random classes, as Splits of plain tensors."""
    from torch.utils.data import Dataset

    from surgeon import Splits

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count + test, 6, generator=generator)
    columns = labels or {"labels": torch.randint(0, 3, (count + test,), generator=generator)}

    class Columns(Dataset[dict[str, Tensor]]):
        def __init__(self, part: slice) -> None:
            self.values = {"x": x[part], **{name: values[part] for name, values in columns.items()}}

        def __len__(self) -> int:
            return len(self.values["x"])

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {name: values[index] for name, values in self.values.items()}

    return Splits(Columns(slice(count)), Columns(slice(count, count + test)), inputs=("x",))


def whole(splits: Any) -> tuple[Tensor, Tensor]:
    """The training inputs and labels."""
    return splits.train.values["x"], splits.train.values["labels"]


def settings(**given: Any) -> Any:
    """Settings of plain SGD at a constant rate, on whole batches."""
    import surgeon

    if "compare" in given:
        given["baseline"] = given.pop("compare")
    arguments = {**PLAIN, **given.pop("arguments", {})}
    return surgeon.TrainSettings.model_validate(
        {"epochs": 10, "batch_size": 48, "learning_rate": 0.1, "arguments": arguments, **given}
    )


def trained(model: nn.Module, splits: Any, **given: Any) -> Any:
    """Train ``model`` in place; the report."""
    import surgeon

    keywords = {
        name: given.pop(name)
        for name in ("penalties", "objectives", "output_dir", "baseline", "progress")
        if name in given
    }
    return surgeon.train(model, settings(**given), data=splits, quiet=True, **keywords)


def distance(first: nn.Module, second: nn.Module) -> float:
    """The largest difference between the tensors of two networks."""
    second_tensors = second.state_dict()
    return max(
        float((value.float() - second_tensors[name].float()).abs().max()) for name, value in first.state_dict().items()
    )


def by_hand(model: nn.Module, loss: Any, steps: int = 10, rate: float = 0.1) -> nn.Module:
    """The reference: plain steps down ``loss(model)``."""
    optimizer = torch.optim.SGD(model.parameters(), rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return model


def near(model: nn.Module, reference: nn.Module, limit: float = 1e-5) -> Outcome:
    """Both hold the same weights."""
    difference = distance(model, reference)
    expect(difference < limit, f"weights differ from a plain loop's by {difference}")
    return right(f"largest difference to a plain loop {difference:.1e}")


@case("13.8")
def a_plain_loop(material: Material) -> Outcome:
    splits, model = data(), numbers()
    x, y = whole(splits)
    reference = by_hand(copy.deepcopy(model), lambda net: F.cross_entropy(net(x), y))
    trained(model, splits)
    return near(model, reference)


@case("13.8", of={"4 by 4": (12, 4), "3 of 16": (16, 3), "5 by 7": (7, 5)})
def accumulation_changes_nothing(material: Material, how: tuple[int, int]) -> Outcome:
    """Labels are missing here and there, so that small batches hold different numbers of them."""
    size, steps = how
    torch.manual_seed(3)
    labels = torch.randint(0, 3, (size * steps + 20,))
    labels[torch.rand(len(labels)) < 0.4] = -100
    splits, model = data(size * steps, labels=labels), numbers(norm=False)
    x, y = whole(splits)
    reference = by_hand(copy.deepcopy(model), lambda net: F.cross_entropy(net(x), y, ignore_index=-100))
    trained(model, splits, batch_size=size, arguments={"gradient_accumulation_steps": steps})
    return near(model, reference)


@case("13.8")
def losses_of_tokens_are_means_over_tokens(material: Material) -> Outcome:
    """Sequences with different numbers of labels: torch's mean, which is transformers' loss too."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 8 * 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).view(-1, 8, 5)

    labels = torch.randint(0, 5, (68, 8), generator=torch.Generator().manual_seed(2))
    labels[::3, 1:] = -100
    splits = data(48, labels=labels)
    torch.manual_seed(0)
    model = Tagger()
    x, y = whole(splits)
    reference = by_hand(copy.deepcopy(model), lambda net: F.cross_entropy(net(x).flatten(0, 1), y.flatten()))
    report = trained(model, splits)
    held = splits.test.values
    with torch.no_grad():
        expected = F.cross_entropy(model.eval()(held["x"]).flatten(0, 1), held["labels"].flatten()).item()
    expect(
        abs(report.after["logits_loss"] - expected) < 1e-5,
        f"reported {report.after['logits_loss']}, and not {expected}",
    )
    return near(model, reference)


@case("13.8")
def l2_sp_pulls_to_the_start(material: Material) -> Outcome:
    """Kept tensors to their values, derived ones (rows of the old head) to theirs, new ones to 0."""
    import surgeon
    from surgeon import Conserve, Multitask

    base = numbers(norm=False)
    operations = [
        Multitask(original="drop", tasks={"new": {"classes": 4, "label": "labels"}}),
        Conserve(method="l2_sp", weight=0.3, new_weight=0.05),
    ]
    model = surgeon.apply(base, operations)
    reference = copy.deepcopy(model)
    start = {name: value.detach().clone() for name, value in reference.named_parameters()}
    old = {name for name, value in base.named_parameters() if not name.startswith("head")}
    generator = torch.Generator().manual_seed(5)
    splits = data(48, labels=torch.randint(0, 4, (68,), generator=generator))
    x, y = whole(splits)

    def loss(net: nn.Module) -> Tensor:
        pulled = [(value, start[name]) for name, value in net.named_parameters() if name in old]
        fresh = [value for name, value in net.named_parameters() if name not in old]
        output = net(x)
        value = F.cross_entropy(output["new"] if not isinstance(output, Tensor) else output, y)
        value = value + 0.15 * sum(((now - then) ** 2).sum() for now, then in pulled)
        return value + 0.025 * sum((now**2).sum() for now in fresh)

    by_hand(reference, loss)
    out, _ = surgeon.finetune(base, operations, settings=settings(), data=splits)
    return near(out, reference)


@case("13.8", slow=True)
def l2_sp_holds_derived_tensors(material: Material) -> Outcome:
    """A first convolution averaged to one channel is held to that average."""
    import torchvision
    from torch.utils.data import Dataset

    import surgeon
    from surgeon import AdaptInput, Conserve

    torch.manual_seed(0)
    base = torchvision.models.squeezenet1_1(num_classes=3)

    class Grey(Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {
                "x": torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(index)),
                "labels": torch.tensor(index % 3),
            }

    operations = [AdaptInput(channels=1), Conserve(method="l2_sp", weight=10.0)]
    start = surgeon.apply(base, operations[:1]).features[0].weight.detach()
    splits = surgeon.Splits(Grey(), Grey(), inputs=("x",))
    moved, _ = surgeon.finetune(
        base, operations, settings=settings(epochs=30, learning_rate=0.02, batch_size=8), data=splits
    )
    now = moved.features[0].weight.detach()
    expect(
        (now - start).norm() < 0.3 * start.norm(),
        f"pulled {(now - start).norm() / start.norm():.2f} of its length away from its start",
    )
    return right(f"{(now - start).norm() / start.norm():.2f} of its length from its start")


@case(
    "13.6",
    of={
        "bf16": {"bf16": True},
        "bf16 and accumulation": {"bf16": True, "gradient_accumulation_steps": 2},
        "compile": {"torch_compile": True, "torch_compile_backend": "eager"},
    },
)
def nothing_is_left_on_the_network(material: Material, arguments: dict[str, Any]) -> Outcome:
    splits, model = data(), numbers()
    before = set(vars(model))
    trained(model, splits, epochs=2, arguments=arguments)
    equal(set(vars(model)) - before, set(), "attributes left on the network")
    fresh = numbers(seed=9).eval()
    fresh.load_state_dict(model.state_dict())
    x, _ = whole(splits)
    with torch.no_grad():
        difference = (model.eval()(x) - fresh(x)).abs().max().item()
    equal(difference, 0.0, "difference to a fresh network with the same weights")
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.data.zero_()
    equal(copied(x).abs().max().item(), 0.0, "output of a copy whose weights are zero")
    return right("same outputs as a fresh network, copies are copies")


@case("13.6", slow=True)
def half_precision_from_the_command_line(material: Material) -> Outcome:
    import transformers

    import surgeon

    table = review_table(material)
    out = fine_tuned(
        material, material.bert(), [head(["negative", "positive"])], texts(table), arguments={"bf16": True}
    )
    ours, stock = surgeon.load(out).eval(), transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    ids = torch.tensor([[2, 6, 13, 3]])
    with torch.no_grad():
        equal((ours(ids).logits - stock(ids).logits).abs().max().item(), 0.0, "difference to the stock reload")
        equal(ours(ids).logits.dtype, torch.float32, "dtype of the logits")
    return right("the artifact loads, in float32, with equal outputs")


@case("13.7")
def every_test_sample_is_measured(material: Material) -> Outcome:
    splits, model = data(50, 21), numbers()
    report = trained(model, splits, batch_size=8, epochs=2, arguments={"dataloader_drop_last": True})
    held = splits.test.values
    with torch.no_grad():
        expected = (model.eval()(held["x"]).argmax(1) == held["labels"]).float().mean().item()
    equal(report.test_samples, 21, "test samples")
    expect(abs(report.accuracy_after - expected) < 1e-6, f"accuracy {report.accuracy_after}, and not {expected}")
    return right(f"21 of 21 samples, accuracy {expected:.3f}")


@case("13.7")
def evaluation_on_the_way_is_kept(material: Material) -> Outcome:
    report = trained(numbers(), data(), epochs=3, arguments={"eval_strategy": "epoch"})
    names = {name for entry in report.history for name in entry}
    expect([name for name in names if "accuracy" in name or "eval" in name], f"history has {sorted(names)}")
    with_evaluation = [entry for entry in report.history if any("accuracy" in name for name in entry)]
    expect(len(with_evaluation) >= 3, f"{len(with_evaluation)} evaluations in the history")
    return right(f"{len(with_evaluation)} evaluations in the history")


LOGS: dict[str, dict[str, Any]] = {
    "usual": {},
    "no logging": {"logging_strategy": "no"},
    "every 500 steps": {"logging_strategy": "steps", "logging_steps": 500},
    "accumulated": {"gradient_accumulation_steps": 2, "logging_strategy": "no"},
}


@case("13.7", of=LOGS)
def what_is_not_finite_stops_training(material: Material, arguments: dict[str, Any]) -> Outcome:
    model = numbers(norm=False)
    return refused(
        lambda: trained(model, data(), epochs=60, learning_rate=1e30, batch_size=16, arguments=arguments), "step"
    )


@case("13.7")
def a_frozen_part_of_the_loss_is_not_finite(material: Material) -> Outcome:
    """NaN that comes from one sample's numbers alone: stopped, and nothing is saved."""
    splits = data()
    splits.train.values["x"][5, 2] = math.inf
    return refused(lambda: trained(numbers(norm=False), splits, epochs=2), "finite")
