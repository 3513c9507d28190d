"""Write the folder of a grafted network: description, code and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from surgeon.checkpoint.artifact_files import CONFIG, WEIGHTS
from surgeon.graph.tensors import tensors_of
from surgeon.pipeline.exports.grafts.code import MODELING, write_code
from surgeon.pipeline.exports.grafts.describe import Description

CLASS = "GraftedNetwork"
PREFIX = "network"


def write_grafted(model: nn.Module, folder: Path) -> None:
    """Write a folder that ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` loads.

    Raises:
        ExportError: A part of it cannot be built without surgeon; the error says which, and why.
    """
    described = Description(model)
    folder.mkdir(parents=True, exist_ok=True)
    write_code(described.modules, folder)
    module = MODELING.removesuffix(".py")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    config: dict[str, Any] = {
        "architectures": [CLASS],
        "model_type": "surgeon_grafted",
        "auto_map": {"AutoConfig": f"{module}.GraftedConfig", "AutoModel": f"{module}.{CLASS}"},
        "network": described.data,
    }
    if dtype is not None:
        config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {f"{PREFIX}.{name}": tensor.detach().contiguous() for name, tensor in tensors_of(model)}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
