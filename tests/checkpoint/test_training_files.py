"""Files as training code leaves them: prefixes, second copies, heads and losses beside the network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import surgeon
from surgeon.checkpoint.formats import Checkpoint, open_checkpoint
from surgeon.errors import CheckpointError

State = dict[str, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Sequential(nn.Linear(4, 2)))


def state(seed: int = 0) -> State:
    return dict(network(seed).state_dict())


def under(prefix: str, tensors: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def projection(prefix: str) -> State:
    return under(prefix, dict(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).state_dict()))


def lightning(prefix: str) -> Any:
    tensors = under(prefix, state())
    beside = {"criterion.weight": torch.ones(2), "train_acc.tp": torch.zeros(2), "val_loss.total": torch.ones(())}
    callbacks = {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.3)}}
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": {**tensors, **beside},
        "callbacks": callbacks,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}],
        "hyper_parameters": {"lr": 1e-3, "class_weights": torch.ones(2)},
    }


def moco(*, wrapper: str = "module.", query: str = "encoder_q", second: str = "encoder_k") -> Any:
    tensors = under(f"{query}.", state(0)) | under(f"{second}.", state(1))
    tensors |= {"queue": torch.randn(2, 4), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {"epoch": 200, "state_dict": under(wrapper, tensors), "optimizer": {"state": {}}}


def dino() -> Any:
    tensors = under("backbone.", state()) | projection("head.mlp.")
    return {
        "student": under("module.", tensors),
        "teacher": under("backbone.", state(1)) | projection("head.mlp."),
        "optimizer": {"state": {}},
        "dino_loss": {"center": torch.zeros(1, 2)},
    }


def simclr(prefix: str = "") -> State:
    return under(f"{prefix}backbone.", state()) | projection(f"{prefix}projection_head.")


def saved(content: Any, folder: Path, suffix: str = ".pt") -> Path:
    path = folder / f"x{suffix}"
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    return path


def inner(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint under its longest candidate that is not a part of the network's own."""
    expected = state().keys()
    for prefix in checkpoint.prefix_candidates():
        candidate = checkpoint.without_prefix(prefix)
        if candidate.entries.keys() == expected:
            return candidate
    raise AssertionError(list(checkpoint.entries))


def assert_equal(checkpoint: Checkpoint, tensors: State) -> None:
    assert checkpoint.entries.keys() == tensors.keys()
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in tensors.items())


LAYOUTS: dict[str, Callable[[], Any]] = {
    "Lightning, model.": lambda: lightning("model."),
    "Lightning, net.": lambda: lightning("net."),
    "Lightning, compiled": lambda: lightning("model._orig_mod."),
    "Lightning of a SimCLR": lambda: {
        "state_dict": under("model.", simclr()) | {"criterion.temperature": torch.ones(1)}
    },
    "SimCLR": simclr,
    "SimCLR under DDP": lambda: simclr("module."),
    "SimCLR, projector": lambda: under("backbone.", state()) | projection("projector."),
    "DDP": lambda: under("module.", state()),
    "DDP of a compiled network": lambda: under("module._orig_mod.", state()),
    "compiled DDP": lambda: under("_orig_mod.module.", state()),
    "FSDP": lambda: under("_fsdp_wrapped_module.", state()),
    "FSDP inside": lambda: {
        re.sub(r"^(\d)\.", r"_fsdp_wrapped_module.\1._fsdp_wrapped_module._checkpoint_wrapped_module.", name): tensor
        for name, tensor in state().items()
    },
    "FSDP of Lightning": lambda: {"state_dict": under("_forward_module.model._fsdp_wrapped_module.", state())},
    "EMA alone": lambda: {"model_ema": under("module.", state()), "n": 3},
    "DeepSpeed, gathered": lambda: {"module": state(), "ds_version": "0.14", "optimizer": None},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_network_of_a_training_file_is_found_without_a_key(tmp_path: Path, layout: str) -> None:
    checkpoint = inner(open_checkpoint(saved(LAYOUTS[layout](), tmp_path)))
    assert_equal(checkpoint, state())
    assert checkpoint.notes


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_only_the_training_used_is_left_out_and_counted(tmp_path: Path, suffix: str) -> None:
    checkpoint = inner(open_checkpoint(saved(simclr(), tmp_path, suffix)))
    assert any("4 tensors outside it are left out" in note for note in checkpoint.notes)


def test_the_whole_file_is_the_first_candidate(tmp_path: Path) -> None:
    """torchvision's RetinaNet has a backbone and a head of its own."""
    candidates = open_checkpoint(saved(simclr(), tmp_path)).prefix_candidates()
    assert candidates[:2] == ["", "backbone."]


def test_what_may_belong_to_the_network_is_never_left_out(tmp_path: Path) -> None:
    tensors = under("encoder.", state()) | projection("decoder.")
    assert open_checkpoint(saved(tensors, tmp_path)).prefix_candidates() == [""]


TWICE: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "MoCo": (moco, ["encoder_q", "encoder_k"]),
    "MoCo compiled": (lambda: moco(wrapper="module._orig_mod."), ["encoder_q", "encoder_k"]),
    "MoCo v3": (
        lambda: moco(query="base_encoder", second="momentum_encoder"),
        ["base_encoder", "momentum_encoder"],
    ),
    "MoCo of Lightning": (
        lambda: moco(wrapper="model.") | {"callbacks": {}},
        ["model.encoder_q", "model.encoder_k"],
    ),
    "BYOL": (lambda: moco(query="online_network", second="target_network"), ["online_network", "target_network"]),
    "lightly": (lambda: moco(query="backbone", second="backbone_momentum"), ["backbone", "backbone_momentum"]),
    "ema_pytorch": (lambda: moco(query="online_model", second="ema_model"), ["online_model", "ema_model"]),
}


@pytest.mark.parametrize("layout", TWICE)
@pytest.mark.parametrize("bare", [False, True])
def test_a_network_that_was_kept_twice_is_refused_with_keys_that_work(tmp_path: Path, layout: str, bare: bool) -> None:
    make, labels = TWICE[layout]
    content = make()
    path = saved(content["state_dict"] if bare else content, tmp_path, ".safetensors" if bare else ".pt")
    with pytest.raises(CheckpointError, match="holds the same network twice") as caught:
        open_checkpoint(path).prefix_candidates()
    assert re.findall(r"([\w.]+) \(\d+ tensors\)", caught.value.message) == labels
    assert f"--key {labels[0]}" in str(caught.value.hint)
    for seed, label in enumerate(labels):
        assert_equal(open_checkpoint(path, key=label), state(seed))


def test_layers_of_one_shape_are_not_a_network_twice(tmp_path: Path) -> None:
    attention = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("to_q", "to_k", "to_v", "out")})
    assert open_checkpoint(saved(attention.state_dict(), tmp_path)).prefix_candidates() == [""]


def test_student_and_teacher_are_listed_and_each_key_leads_to_its_backbone(tmp_path: Path) -> None:
    path = saved(dino(), tmp_path)
    with pytest.raises(CheckpointError, match=r"2 state dicts: student .*, teacher") as caught:
        open_checkpoint(path)
    for seed, label in enumerate(re.findall(r"(\w+) \(\d+ tensors\)", caught.value.message)):
        assert_equal(inner(open_checkpoint(path, key=label)), state(seed))
        for key in (f"{label}.backbone", f"{label}.module.backbone"[: None if label == "student" else len(label)]):
            assert_equal(inner(open_checkpoint(path, key=key)), state(seed))


def test_model_and_average_are_listed_and_each_key_is_accepted(tmp_path: Path) -> None:
    for label in ("state_dict_ema", "model_ema", "ema"):
        path = saved({"state_dict": state(0), label: under("module.", state(1)), "epoch": 1}, tmp_path)
        with pytest.raises(CheckpointError, match=f"state_dict .*, {label}"):
            open_checkpoint(path)
        assert_equal(open_checkpoint(path, key="state_dict"), state(0))
        assert_equal(open_checkpoint(path, key=label), state(1))


@pytest.mark.parametrize("content", [moco, dino, lambda: lightning("net."), lambda: {"a": {"model": state()}}])
@pytest.mark.parametrize("key", ["encoder_x", "teachr", "nets", "module.encoder"])
def test_every_name_in_a_hint_is_accepted_as_a_key(tmp_path: Path, content: Callable[[], Any], key: str) -> None:
    path = saved(content(), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, key=key)
    names = str(caught.value.hint).partition(":")[2].split(", ")
    assert names
    for name in names:
        assert open_checkpoint(path, key=name.strip()).entries


@pytest.mark.parametrize(
    "key", ["encoder_q", "module.encoder_q", "state_dict.encoder_q", "state_dict.module.encoder_q"]
)
def test_a_key_may_name_wrappers_and_dictionaries_or_leave_them_out(tmp_path: Path, key: str) -> None:
    assert_equal(open_checkpoint(saved(moco(), tmp_path), key=key), state())


def test_a_key_that_fits_two_state_dicts_names_both_in_full(tmp_path: Path) -> None:
    content = {"model": under("net.", state(0)), "ema": under("net.", state(1))}
    path = saved(content, tmp_path)
    with pytest.raises(CheckpointError, match=r"names 2 state dicts: model\.net .*, ema\.net "):
        open_checkpoint(path, key="net")
    assert_equal(open_checkpoint(path, key="ema.net"), state(1))


def test_a_key_for_a_file_without_dictionaries_says_what_is_left_out(tmp_path: Path) -> None:
    path = saved(moco()["state_dict"], tmp_path, ".safetensors")
    checkpoint = open_checkpoint(path, key="encoder_q")
    assert_equal(checkpoint, state())
    count = len(state())
    assert checkpoint.notes == [f"'encoder_q' taken: {count} tensors; {count + 2} tensors outside it are left out"]


def test_a_lightning_file_becomes_its_network(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    model = squeezenet1_1(num_classes=3).eval()
    content = lightning("net.")
    content["state_dict"] = under("net.", dict(model.state_dict())) | {"criterion.weight": torch.ones(3)}
    loaded = surgeon.load(saved(content, tmp_path)).eval()
    pictures = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(pictures), model(pictures))
