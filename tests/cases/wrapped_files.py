"""State dicts under wrappers' prefixes, beside optimizers, averages and second networks (13.13)."""

from __future__ import annotations

import argparse
import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cases.harness import Outcome, case, either, equal, expect, right, succeed, surgeon_command
from cases.material import Material, resnet

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
Tensors = dict[str, Tensor]


def tensors(model: nn.Module | None = None) -> Tensors:
    """Copies of a network's tensors."""
    return {name: value.clone() for name, value in (model or resnet()).state_dict().items()}


def renamed(prefix: str, source: Mapping[str, Tensor], without: str = " ") -> Tensors:
    """The tensors under a prefix, without those whose name begins with ``without``."""
    return {prefix + name: value for name, value in source.items() if not name.startswith(without)}


def another() -> nn.Module:
    """The same network with other values."""
    model = copy.deepcopy(resnet())
    for value in model.parameters():
        value.data.add_(0.01)
    return model


def momentum() -> Any:
    """A file of MoCo v2: two encoders with MLP heads, a queue."""
    mlp = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
    trunk = renamed("", tensors(), "fc")
    return {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": {
            **renamed("module.encoder_q.", {**trunk, **renamed("fc.", mlp.state_dict())}),
            **renamed(
                "module.encoder_k.", {**renamed("", tensors(another()), "fc"), **renamed("fc.", mlp.state_dict())}
            ),
            "module.queue": torch.randn(128, 64),
            "module.queue_ptr": torch.zeros(1, dtype=torch.long),
        },
        "optimizer": {"state": {}, "param_groups": []},
    }


def lightning(prefix: str = "net.") -> Any:
    """A file of Lightning, with a loss that has weights, and metrics."""
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": {**renamed(prefix, tensors()), "criterion.weight": torch.rand(5), "train_acc.tp": torch.zeros(5)},
        "loops": {},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.3)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.rand(3)}}, "param_groups": [{"params": [0]}]}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-3, "class_weights": torch.rand(5)},
    }


def dino() -> Any:
    """A file of DINO: a student under DDP's prefix, a teacher without, projection heads."""
    trunk = renamed("", tensors(), "fc")
    other = renamed("", tensors(another()), "fc")
    projection = nn.Sequential(nn.Linear(512, 64), nn.GELU(), nn.Linear(64, 16)).state_dict()
    return {
        "student": {**renamed("module.backbone.", other), **renamed("module.head.mlp.", projection)},
        "teacher": {**renamed("backbone.", trunk), **renamed("head.mlp.", projection)},
        "epoch": 100,
        "dino_loss": {"center": torch.zeros(1, 16)},
    }


def simclr() -> Any:
    """A file of SimCLR: the encoder under a prefix, a projector beside it."""
    projector = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 16)).state_dict()
    return {"state_dict": {**renamed("backbone.", tensors(), "fc"), **renamed("projector.", projector)}}


def children(cut: int, prefix: str = "") -> Any:
    """The tensors of ``nn.Sequential(*list(model.children())[:-cut])``."""
    return renamed(prefix, nn.Sequential(*list(copy.deepcopy(resnet()).children())[:-cut]).state_dict())


def fastai() -> Any:
    """What fastai's learner saves: a body of children and a head of its own."""
    body = nn.Sequential(*list(copy.deepcopy(resnet()).children())[:-2])
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(512), nn.Dropout(0.2), nn.Linear(512, 7))
    return {"model": nn.Sequential(body, head).state_dict(), "opt": {"state": [], "hypers": [{"lr": 1e-3}]}}


def averaged() -> Any:
    """A file of timm with an average of the weights beside them."""
    return {
        "epoch": 1,
        "arch": "resnet18",
        "state_dict": tensors(),
        "version": 2,
        "args": {"lr": 0.1},
        "state_dict_ema": renamed("module.", tensors(another())),
        "metric": 71.2,
    }


def swa() -> Any:
    """The state dict of torch.optim.swa_utils.AveragedModel."""
    return {"n_averaged": torch.tensor(3), **renamed("module.", tensors())}


TRUNKS: dict[str, Callable[[], Any]] = {
    "MoCo": momentum,
    "Lightning": lightning,
    "Lightning, two levels": lambda: lightning("model.net."),
    "Lightning, compiled": lambda: lightning("model._orig_mod."),
    "SimCLR": simclr,
    "BYOL of lightly": lambda: {
        "state_dict": {**renamed("backbone.", tensors(), "fc"), "projection_head.layers.0.weight": torch.rand(3, 3)}
    },
    "DDP": lambda: renamed("module.", tensors()),
    "DDP, compiled": lambda: renamed("module._orig_mod.", tensors()),
    "compiled": lambda: {"model": renamed("_orig_mod.", tensors())},
    "FSDP, gathered": lambda: renamed("_fsdp_wrapped_module.", tensors()),
    "averaged model": swa,
    "children without the head": lambda: children(1),
    "children without pool and head": lambda: children(2),
    "children in features": lambda: {
        **children(2, "features."),
        "classifier.weight": torch.rand(7, 512),
        "classifier.bias": torch.rand(7),
    },
    "fastai": fastai,
    "segmentation encoder": lambda: {
        **renamed("encoder.", tensors(), "fc"),
        "decoder.blocks.0.conv1.0.weight": torch.rand(3, 3),
        "segmentation_head.0.weight": torch.rand(1, 16, 3, 3),
    },
    "with numpy scalars": lambda: {
        "epoch": 1,
        "state_dict": tensors(),
        "best": np.float64(71.2),
        "hist": np.arange(3.0),
    },
    "with a namespace": lambda: {"epoch": 1, "state_dict": tensors(), "args": argparse.Namespace(lr=0.1)},
    "with profiling counters": lambda: {
        **tensors(),
        "total_ops": torch.zeros(1, dtype=torch.float64),
        "conv1.total_params": torch.zeros(1, dtype=torch.float64),
    },
    "without counters": lambda: {name: value for name, value in tensors().items() if "num_batches" not in name},
}


def features(model: nn.Module, x: Tensor = X) -> Tensor:
    """What the trunk of a ResNet computes."""
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        return model.layer4(model.layer3(model.layer2(model.layer1(x))))


def with_new_head(material: Material, path: Path, **options: Any) -> nn.Module:
    """The network after ``surgeon apply`` with a new head, loaded again."""
    import surgeon

    recipe = material.recipe([{"op": "replace_head", "classes": ["a", "b", "c"]}])
    flags = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", *([] if value is True else [value]))
    ]
    succeed("apply", recipe, path, "-o", material.folder / "out", "--quiet", *flags)
    return surgeon.load(material.folder / "out").eval()


@case("13.13", of=TRUNKS, quick=["MoCo", "Lightning", "fastai"])
def wrapped_files(material: Material, make: Callable[[], Any]) -> Outcome:
    """The trunk's features are those of the network that was wrapped."""
    path = material.folder / "file.pth"
    torch.save(make(), path)

    def attempt() -> Outcome:
        model = with_new_head(material, path)
        equal((features(model) - features(resnet())).abs().max().item(), 0.0, "difference of the features")
        equal(tuple(model(X).shape), (2, 3), "shape of the logits")
        return right("features equal")

    return either(attempt, "--")


@case("13.13", of={"DINO": dino, "an average beside": averaged}, quick=["DINO"])
def several_networks_in_one_file(material: Material, make: Callable[[], Any]) -> Outcome:
    """Refused with keys that --key accepts, or one is taken and the others are named."""
    import re

    path = material.folder / "file.pth"
    torch.save(make(), path)
    recipe = material.recipe([{"op": "replace_head", "classes": ["a", "b", "c"]}])
    ran = surgeon_command("apply", recipe, path, "-o", material.folder / "out")
    content = make()
    keys = [key for key in ("state_dict", "state_dict_ema", "student", "teacher") if key in content]
    for key in keys:
        expect(key in ran.said, f"{key!r} is not named: {ran.said[-400:]}")
        shutil.rmtree(material.folder / "out", ignore_errors=True)
        model = with_new_head(material, path, key=key)
        prefix = re.compile(r"^(module\.)?(backbone\.)?")
        expected = {prefix.sub("", name): value for name, value in content[key].items()}
        expect(
            torch.equal(model.state_dict()["conv1.weight"], expected["conv1.weight"]),
            f"--key {key} took another network",
        )
    return right(f"--key accepts {', '.join(keys)}, each is the right one")


@case("13.13", of=("module.encoder_q", "module.encoder_k", "encoder_q", "encoder_k"), quick=["module.encoder_k"])
def one_of_two_encoders(material: Material, key: str) -> Outcome:
    """The names that a message prints are accepted by --key."""
    path = material.folder / "file.pth"
    torch.save(momentum(), path)

    def attempt() -> Outcome:
        model = with_new_head(material, path, key=key)
        expected = resnet() if key.endswith("q") else another()
        equal((features(model) - features(expected.eval())).abs().max().item(), 0.0, "difference of the features")
        return right("the right encoder")

    return either(attempt, "encoder")
