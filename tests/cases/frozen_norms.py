"""Frozen norms under torch's own tools; a task by its name (issue 14)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from cases.harness import Outcome, case, equal, expect, right, succeed, surgeon_command
from cases.material import Material, resnet, save_bert
from cases.names import head


def frozen_network() -> nn.Module:
    """A ResNet whose first half is frozen."""
    import surgeon

    return surgeon.apply(resnet(), [surgeon.Freeze(up_to="layer2")])


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Running statistics of the frozen half."""
    return {
        name: value.clone()
        for name, value in model.named_buffers()
        if "running" in name and name.split(".")[0] in ("bn1", "layer1", "layer2")
    }


def averaged(model: nn.Module) -> nn.Module:
    from torch.optim.swa_utils import update_bn

    update_bn([torch.randn(4, 3, 64, 64) for _ in range(2)], model)
    return model


def synchronised(model: nn.Module) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def traced(model: nn.Module) -> nn.Module:
    return torch.fx.symbolic_trace(model)


def extracted(model: nn.Module) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(model, {"fc": "fc"})


def deep_copied(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)


def pickled(model: nn.Module) -> nn.Module:
    import io

    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def averaged_model(model: nn.Module) -> nn.Module:
    from torch.optim.swa_utils import AveragedModel

    average = AveragedModel(model, use_buffers=True)
    average.update_parameters(model)
    return average.module


def exported(model: nn.Module) -> nn.Module:
    return torch.export.export(model.eval(), (torch.randn(2, 3, 64, 64),)).module()


TOOLS = {
    "update_bn": averaged,
    "convert_sync_batchnorm": synchronised,
    "torch.fx": traced,
    "create_feature_extractor": extracted,
    "deepcopy": deep_copied,
    "pickle": pickled,
    "AveragedModel": averaged_model,
    "torch.export": exported,
}


@case("14.frozen", of=TOOLS)
def frozen_norms_under_torchs_tools(material: Material, tool: Callable[[nn.Module], nn.Module]) -> Outcome:
    """Their statistics and weights stay, and they do not train."""
    model = frozen_network()
    before = statistics(model)
    changed = tool(model)
    after = statistics(changed) or statistics(model)
    expect(
        after and all(torch.equal(after[name], value) for name, value in before.items() if name in after),
        "statistics changed",
    )
    norms = [
        value
        for name, value in changed.named_parameters()
        if name.split(".")[0] in ("bn1", "layer1", "layer2") and value.ndim == 1
    ]
    expect(not any(value.requires_grad for value in norms) or tool is exported, "a frozen norm trains")
    if tool is not synchronised and tool is not exported:
        changed.train()
        changed(torch.randn(4, 3, 64, 64))
        last = statistics(changed)
        expect(
            all(torch.equal(last[name], value) for name, value in before.items() if name in last),
            "statistics move in training",
        )
    return right(f"{len(before)} statistics as they were")


@case("14.task")
def a_base_becomes_the_stock_class(material: Material) -> Outcome:
    import transformers

    folder = material.folder / "model"
    save_bert(folder, "BertModel")
    succeed("apply", material.recipe([head(["no", "yes"])]), folder, "-o", material.folder / "out", "--quiet")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(material.folder / "out")
    equal(model.config.id2label, {0: "no", 1: "yes"}, "id2label")
    return right(type(model).__name__)


@case("14.task")
def nothing_is_left_where_the_result_does_not_run(material: Material) -> Outcome:
    """A recipe whose result cannot run writes nothing."""
    path: Path = material.folder / "r.pth"
    torch.save(resnet().state_dict(), path)
    operations = [{"op": "insert", "at": "layer1", "layer": "linear", "features": 7}]
    ran = surgeon_command("apply", material.recipe(operations), path, "-o", material.folder / "out")
    expect(ran.code, f"applied: {ran.said[-200:]}")
    expect(not (material.folder / "out").exists(), "an output was written")
    return Outcome("refused", " ".join(ran.err.split()))
