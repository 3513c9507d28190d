"""Heads of another form, first convolutions of another size, other precisions (13.13)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from cases.harness import Outcome, case, either, equal, expect, right, succeed
from cases.material import Material, resnet
from cases.wrapped_files import X, features, tensors, with_new_head


def headed(name: str) -> nn.Module:
    """A network whose head was replaced by hand."""
    import torchvision

    torch.manual_seed(0)
    models = torchvision.models
    if name == "dropout and linear":
        model = models.resnet18()
        model.fc = nn.Sequential(nn.Dropout(0.3), nn.Linear(512, 7))
        return model
    if name == "an MLP":
        model = models.resnet18()
        model.fc = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 7))
        return model
    if name == "a linear for a Sequential":
        model = models.mobilenet_v2()
        model.classifier = nn.Linear(1280, 7)
        return model
    if name == "a Sequential within one":
        model = models.mobilenet_v2()
        model.classifier[1] = nn.Sequential(nn.Linear(1280, 100), nn.ReLU(), nn.Linear(100, 7))
        return model
    if name == "no head at all":
        model = models.resnet18()
        model.fc = nn.Identity()
        return model
    if name == "a normalised head":
        model = models.resnet18(num_classes=7)
        model.fc = nn.utils.parametrizations.weight_norm(model.fc)
        return model
    model = models.resnet18(num_classes=7)
    model.fc.bias = None
    return model


HEADS = (
    "dropout and linear",
    "an MLP",
    "a linear for a Sequential",
    "a Sequential within one",
    "no head at all",
    "a normalised head",
    "no bias",
)


@case("13.13", of=HEADS, quick=["an MLP", "no head at all"])
def heads_of_another_form(material: Material, name: str) -> Outcome:
    source = headed(name)
    path = material.folder / "file.pth"
    torch.save(source.state_dict(), path)
    model = with_new_head(material, path)
    mine, theirs = model.state_dict(), source.state_dict()
    trunk = [key for key in theirs if not key.startswith(("fc", "classifier"))]
    expect(all(key in mine and torch.equal(mine[key], theirs[key]) for key in trunk), "the trunk differs")
    equal(tuple(model(X).shape), (2, 3), "shape of the logits")
    return right(f"{len(trunk)} tensors of the trunk kept")


@case(
    "13.13",
    of=("dropout and linear", "an MLP", "a linear for a Sequential", "a normalised head", "no bias"),
    quick=["an MLP"],
)
def a_kept_head_of_another_form(material: Material, name: str) -> Outcome:
    """Without a new head the old one must go on computing what it did; else it is refused or said to be left out."""
    import surgeon

    source = headed(name)
    path = material.folder / "file.pth"
    torch.save(source.state_dict(), path)

    def attempt() -> Outcome:
        model = surgeon.apply(
            path, [surgeon.Freeze(sites="layer1" if hasattr(source, "layer1") else "features.0")]
        ).eval()
        with torch.no_grad():
            difference = (model(X) - source.eval()(X)).abs().max().item()
        expect(difference < 1e-5, f"outputs differ by {difference}")
        return right("same outputs")

    return either(attempt)


FIRST: dict[str, Callable[[], nn.Module]] = {
    "one channel": lambda: nn.Conv2d(1, 64, 7, 2, 3, bias=False),
    "13 channels": lambda: nn.Conv2d(13, 64, 7, 2, 3, bias=False),
    "one channel and a bias": lambda: nn.Conv2d(1, 64, 7, 2, 3),
    "small": lambda: nn.Conv2d(3, 64, 3, 1, 1, bias=False),
    "large": lambda: nn.Conv2d(3, 64, 9, 2, 4, bias=False),
}


@case("13.13", of=FIRST, quick=["small"])
def first_convolutions_of_another_size(material: Material, make: Callable[[], nn.Module]) -> Outcome:
    """Kept as it is, with the stride that its size alone cannot say said aloud; else refused."""
    source = copy.deepcopy(resnet())
    source.conv1 = make()
    path = material.folder / "file.pth"
    torch.save(source.state_dict(), path)
    x = torch.randn(2, source.conv1.in_channels, 64, 64)

    def attempt() -> Outcome:
        recipe = material.recipe([{"op": "replace_head", "classes": ["a", "b"]}])
        plan = succeed("plan", recipe, path)
        model = with_new_head(material, path)
        difference = (
            (features(model, x) - features(source, x)).abs().max().item()
            if model.conv1.stride == source.conv1.stride
            else None
        )
        if difference is None:
            expect(
                "conv1" in plan.said and ("stride" in plan.said),
                f"another stride, and the plan is silent: {plan.said[-500:]}",
            )
            return right("the stride that was assumed is said")
        expect(difference == 0, f"features differ by {difference}")
        return right("features equal")

    return either(attempt, "conv1")


@case("13.13", of={"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64})
def other_precisions(material: Material, dtype: torch.dtype) -> Outcome:
    """Kept to the bit in their own precision, and usable."""
    import surgeon

    path = material.folder / "file.pth"
    torch.save(
        {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors().items()}, path
    )

    def attempt() -> Outcome:
        model = surgeon.apply(path, [surgeon.Freeze(sites="layer1")])
        equal(model.conv1.weight.dtype, dtype, "dtype")
        expect(torch.equal(model.conv1.weight, resnet().conv1.weight.to(dtype)), "values differ")
        return right("kept in its own precision")

    return either(attempt, "dtype")


@case("13.13")
def channels_last_and_views(material: Material) -> Outcome:
    """Strides of the file do not exchange values."""
    import surgeon

    source = copy.deepcopy(resnet()).to(memory_format=torch.channels_last)
    path = material.folder / "file.pth"
    torch.save(source.state_dict(), path)
    model = surgeon.apply(path, [surgeon.Freeze(sites="layer1")]).eval()
    with torch.no_grad():
        equal((model(X) - source(X)).abs().max().item() < 1e-4, True, "outputs near")
    expect(torch.equal(model.conv1.weight, source.conv1.weight), "values differ")
    return right("same values")
