"""Write timm's ``config.json`` for a result: ``timm.create_model("local-dir:OUT", pretrained=True)`` then loads it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from surgeon_timm.pictures import of_config, to_data_config

LARGEST = 5 * 10**9
"""Artifacts with more bytes have several files of weights, which timm does not read."""


def config_of(model: nn.Module, pictures: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what ``timm.models.save_for_hf`` writes as ``config.json`` for a network that timm built.

    Args:
        model: The network; its values are not read.
        pictures: How pictures become its inputs, if that is known.
    """
    from timm.models._hub import save_config_for_hf

    if sum(tensor.nbytes for tensor in model.state_dict().values()) > LARGEST:
        return None
    with tempfile.TemporaryDirectory(prefix="surgeon-timm-") as folder:
        path = Path(folder, "config.json")
        changed = pictures is not None and pictures != of_config(model.pretrained_cfg)  # type: ignore[arg-type]
        save_config_for_hf(model, str(path), data_config=to_data_config(pictures or {}) if changed else None)
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("pretrained_cfg", None)
    return config
