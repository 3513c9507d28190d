"""A whole module in a pickle is the module itself (13.14)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cases.harness import Outcome, case, either, equal, refuses, right, surgeon_command
from cases.material import Material, resnet
from cases.wrapped_files import X


def changed(how: Callable[[nn.Module], object]) -> Callable[[], nn.Module]:
    """A ResNet after ``how``."""

    def make() -> nn.Module:
        model = copy.deepcopy(resnet())
        how(model)
        return model

    return make


def dilated() -> nn.Module:
    """A ResNet-50 whose last stages are dilated."""
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.resnet50(num_classes=5, replace_stride_with_dilation=[False, True, True]).eval()


def eps(model: nn.Module) -> None:
    """Another epsilon in every norm."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-2


class Elsewhere(nn.Module):
    """A class that torchvision does not have, with names that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(resnet())

    def forward(self, x: Tensor) -> Tensor:
        """Twice what the trunk says."""
        return 2 * self.trunk(x)


def padding(model: nn.Module) -> None:
    """Reflections instead of zeros at the borders."""
    model.conv1.padding_mode = "reflect"
    model.conv1._reversed_padding_repeated_twice = [3, 3, 3, 3]


MODULES: dict[str, Callable[[], nn.Module]] = {
    "as it is": resnet,
    "no max pool": changed(lambda model: setattr(model, "maxpool", nn.Identity())),
    "a stride of 1": changed(lambda model: setattr(model.conv1, "stride", (1, 1))),
    "dilated": dilated,
    "another epsilon": changed(eps),
    "another activation": changed(lambda model: setattr(model, "relu", nn.LeakyReLU(0.3))),
    "another pool": changed(lambda model: setattr(model, "avgpool", nn.AdaptiveMaxPool2d(1))),
    "borders that mirror": changed(padding),
    "a class of its own": lambda: Elsewhere().eval(),
    "a dropout in front of the head": changed(
        lambda model: setattr(model, "fc", nn.Sequential(nn.Dropout(0.5), model.fc))
    ),
}


def outputs(model: nn.Module, x: Tensor = X) -> Tensor:
    """Logits in eval mode."""
    with torch.no_grad():
        value = model.eval()(x)
    return value if isinstance(value, Tensor) else value["logits"] if "logits" in value else next(iter(value.values()))


@case("13.14", of=MODULES, quick=["a stride of 1", "another activation"])
def whole_modules(material: Material, make: Callable[[], nn.Module]) -> Outcome:
    """The module in the pickle is the module: the same outputs before and after it is written and loaded again."""
    import surgeon

    model, path = make(), material.folder / "whole.pth"
    torch.save(model, path)
    expected = outputs(model)
    site = "trunk.layer1" if isinstance(model, Elsewhere) else "layer1"

    def attempt() -> Outcome:
        edited = surgeon.apply(path, [surgeon.Freeze(sites=site)], trust_pickle=True)
        equal((outputs(edited) - expected).abs().max().item(), 0.0, "difference of the outputs")
        recipe = material.recipe([{"op": "freeze", "sites": site}])
        ran = surgeon_command("apply", recipe, path, "-o", material.folder / "out", "--trust-pickle")
        if ran.code:
            refuses(ran)
            return right(f"outputs equal; written: {' '.join(ran.err.split())[:120]}")
        try:
            again = surgeon.load(material.folder / "out", trust_pickle=True)
        except surgeon.SurgeonError as error:
            return right(f"outputs equal; load: {error.message[:120]}")
        equal((outputs(again) - expected).abs().max().item(), 0.0, "difference after loading")
        return right("outputs equal, loaded again too")

    return either(attempt)


@case("13.14")
def a_whole_module_is_not_run_unasked(material: Material) -> Outcome:
    path = material.folder / "whole.pth"
    torch.save(resnet(), path)
    ran = surgeon_command("plan", material.recipe([{"op": "freeze", "sites": "layer1"}]), path)
    return refuses(ran, "--trust-pickle", "ResNet")
