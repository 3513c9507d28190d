"""Names of outputs, roles of the user, and what check holds to the source (13.17, 13.18)."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from cases.harness import Outcome, case, either, equal, expect, refuses, right, succeed, surgeon_command
from cases.material import FAST, Material, numbers, resnet
from cases.names import picture_table, pictures_in
from cases.whole_modules import outputs
from cases.wrapped_files import X


@case("13.17", of={"drop": "drop", "keep": "keep"})
def a_task_called_logits(material: Material, original: str) -> Outcome:
    """A task that has the name of the network's own output: a head that predicts, or refused."""
    import surgeon

    table = picture_table(material, lambda number: ("a", "b", "c")[number])
    operations = [{"op": "multitask", "original": original, "tasks": {"logits": {"classes": ["c", "b", "a"]}}}]

    def attempt() -> Outcome:
        recipe = material.recipe(operations, train={"data": pictures_in(table), **FAST})
        succeed("apply", recipe, material.vit(), "-o", material.folder / "out", "--quiet")
        rows = succeed("predict", material.folder / "out", material.folder / "pictures", "--json").data()["rows"]
        hits = sum(row["class"] == "abc"[int(Path(row["sample"]).parent.name[1:])] for row in rows)
        expect(hits >= 34, f"{hits} of 36 named right: {rows[:2]}")
        model = surgeon.load(material.folder / "out")
        expect(
            not isinstance(getattr(model, "classifier", None), nn.Identity)
            or "logits" in dict(model.eval()(torch.randn(1, 3, 32, 32))),
            "the head is an Identity",
        )
        return right(f"{hits} of 36 named right")

    return either(attempt, "logits")


@case("13.17")
def the_head_of_an_operation_stays_one(material: Material) -> Outcome:
    """Two tasks at @head: both sit on the same features, and the first does not become the head of the second."""
    import surgeon

    model = surgeon.apply(
        resnet(), [surgeon.Multitask(tasks={"one": {"classes": 3}, "two": {"classes": 4}}, original="keep")]
    ).eval()
    with torch.no_grad():
        out = model(X)
    equal({name: tuple(value.shape) for name, value in out.items()}.get("two"), (2, 4), "shape of the second task")
    equal(
        (next(iter(out.values())) - outputs(resnet())).abs().max().item(), 0.0, "difference of the network's own output"
    )
    return right("own output unchanged, both tasks beside it")


class Sequences(nn.Module):
    """Blocks that are sequences of layers, and single layers behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(3)])
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        for block in self.blocks:
            x = block(x)
        return self.head(self.second(self.first(x)))


BLOCKS: dict[str, tuple[object, str]] = {
    "a pattern": ("blocks.*", "blocks.1"),
    "a list": (["blocks.0", "blocks.1"], "blocks.1"),
    "their container": ("blocks", "blocks.1"),
    "single layers": (["first", "second"], "second"),
    "some of them": (["blocks.0", "blocks.2"], "blocks.2"),
}


@case("13.17", of=BLOCKS)
def blocks_that_the_user_names(material: Material, how: tuple[object, str]) -> Outcome:
    """``roles: {blocks: ...}`` decides what @blocks counts, whatever the class of the blocks."""
    import surgeon

    roles, second = how
    model = surgeon.apply(
        Sequences(), [surgeon.Freeze(sites="@blocks[1]")], roles={"blocks": roles}, inputs={"x": [2, 6]}
    )
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    expect(frozen and all(name.startswith(second) for name in frozen), f"frozen: {sorted(frozen)}")
    return right(f"@blocks[1] is {second}")


def artifact_of_numbers(material: Material, trained: bool) -> tuple[Path, Path]:
    """An artifact and its source."""
    path = material.folder / "source.pth"
    torch.save(resnet().state_dict(), path)
    recipe = material.recipe([{"op": "replace_head", "classes": 3}, {"op": "freeze", "up_to": "layer2"}])
    succeed("apply", recipe, path, "-o", material.folder / "out", "--quiet")
    return path, material.folder / "out"


@case("13.18", of=("with the source", "without the source", "digests made again"), quick=["with the source"])
def a_changed_kept_tensor(material: Material, how: str) -> Outcome:
    """Weights changed behind the manifest's back, in an artifact that was never trained."""
    from safetensors.torch import load_file, save_file

    source, out = artifact_of_numbers(material, trained=False)
    file = out / "model.safetensors"
    values = load_file(file)
    values["layer4.0.conv1.weight"] = values["layer4.0.conv1.weight"] + 1e-3
    save_file(values, file, {"format": "pt"})
    if how == "digests made again":
        import surgeon

        model = surgeon.apply(source, [surgeon.ReplaceHead(classes=3), surgeon.Freeze(up_to="layer2")])
        with torch.no_grad():
            model.layer4[0].conv1.weight.add_(1e-3)
        surgeon.save(model, out, force=True)
    return refuses(surgeon_command("check", out, *(["--source", source] if how != "without the source" else [])))


@case("13.18")
def another_source(material: Material) -> Outcome:
    _, out = artifact_of_numbers(material, trained=False)
    changed = copy.deepcopy(resnet())
    changed.layer1[0].conv1.weight.data.add_(1)
    torch.save(changed.state_dict(), material.folder / "other.pth")
    return refuses(surgeon_command("check", out, "--source", material.folder / "other.pth"))


@case("13.18")
def an_untouched_artifact(material: Material) -> Outcome:
    source, out = artifact_of_numbers(material, trained=False)
    succeed("check", out, "--source", source)
    return right("passes")


@case("13.18")
def a_frozen_tensor_changed_after_training(material: Material) -> Outcome:
    """Trained, then a frozen tensor is changed: the source tells."""
    import surgeon
    from cases.training_numbers import data, settings

    base = numbers()
    torch.save(base.state_dict(), material.folder / "b.pth")
    model, _ = surgeon.finetune(base, [surgeon.Freeze(sites="first")], settings=settings(epochs=2), data=data())
    expect(torch.equal(model.first.weight, base.first.weight), "a frozen tensor moved in training")
    return right("frozen tensors are the source's")
