"""Write the recipe for a case."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon.advising.advice import Advice
from surgeon.recipe.document import dump
from surgeon.recipe.train_settings import TrainSettings

WHAT = {
    "small, similar": "Few samples of a similar task: keep all trained layers frozen, and train a new head only.",
    "small, different": "Few samples of a different task: end the network at the site with the best features, freeze "
    "what comes before, and train that site with a new head.",
    "large, similar": "Many samples of a similar task: fine-tune all layers, earlier ones with lower learning rates, "
    "so that little of the training is lost.",
    "large, different": "Many samples of a different task: train all layers, starting from trained values where they "
    "help, and compare with training from scratch, which may be as good.",
}


Alternative = tuple[list[dict[str, Any]], str | None]
"""Steps of surgery and, for steps that are not the first choice, the reason."""


def alternatives(advice: Advice) -> list[Alternative]:
    """Return the steps of surgery for the case, then alternatives for networks that do not allow them."""
    case = advice.case
    head: dict[str, Any] = {"op": "replace_head", "classes": advice.outputs}
    sites = [worth.site for worth in advice.curve]
    place = sites.index(case.best.site)
    behind = sites[place + 1 :]
    useful = case.likeness == "different" and case.helps and bool(behind)
    if case.size == "large":
        return [([{"op": "reinit", "sites": behind}, head] if useful else [head], None)]
    alone = [head, {"op": "freeze", "all_but": "head"}]
    if not useful:
        return [(alone, None)]
    # a head alone learns slowly from unnormalised features, so the site before it is trained too
    with_site = [head, {"op": "freeze", "all_but": ["head", case.best.site]}]
    return [
        ([{"op": "truncate", "after": case.best.site}, *with_site], None),
        ([{"op": "truncate", "keep_blocks": place + 1}, *with_site], "the forward cannot end there"),
        (alone, "nothing can be cut off"),
    ]


def train(
    advice: Advice, data_settings: TrainSettings, data: Mapping[str, Any], *, blocks: bool = True
) -> dict[str, Any]:
    """Return the ``train:`` section for the case; settings in ``data_settings`` override it.

    Args:
        advice: The case.
        data_settings: The settings that came with the data.
        data: ``data`` and ``evaluate`` for the recipe.
        blocks: Whether the network has blocks, for learning rates by depth.
    """
    case = advice.case
    settings: dict[str, Any] = {}
    if advice.classes == 0 or advice.label != "labels":
        loss = "cross_entropy" if advice.classes else "mse"
        settings["objectives"] = [{"output": "logits", "loss": loss, "label": advice.label}]
    if case.size == "small":
        settings |= {"epochs": 40, "batch_size": 16, "learning_rate": 3e-3, "optimizer": {"head_rate": 10}}
    elif case.likeness == "similar":
        optimizer = {"layer_decay": 0.8, "head_rate": 10} if blocks else {"head_rate": 10}
        settings |= {"epochs": 10, "learning_rate": 3e-4, "optimizer": optimizer}
    else:
        settings |= {"epochs": 20, "learning_rate": 1e-3, "baseline": "scratch"}
    overrides = data_settings.model_dump(mode="json", exclude_unset=True, exclude={"data", "evaluate"})
    return {**data, **settings, **overrides}


def recipe(
    advice: Advice,
    operations: Sequence[Mapping[str, Any]],
    data_settings: TrainSettings,
    data: Mapping[str, Any],
    top: Mapping[str, Any],
    *,
    blocks: bool = True,
    why_not: str | None = None,
) -> str:
    """Write the recipe, with the reasons as comments above it.

    Args:
        advice: The case.
        operations: The steps of surgery.
        data_settings: The settings that came with the data.
        data: ``data`` and ``evaluate`` for the recipe.
        top: ``model``, ``arch``, ``seed``, ``roles``, …
        blocks: Whether the network has blocks, for learning rates by depth.
        why_not: Why the case's first choice of steps is not used.
    """
    reasons = [*advice.case.reasons, *([why_not] if why_not else [])]
    head = [f"The case: {advice.case.name}.", WHAT[advice.case.name], "", *(f"- {reason}" for reason in reasons)]
    body = {**top, "operations": list(operations), "train": train(advice, data_settings, data, blocks=blocks)}
    return comment(head) + "\n" + dump(body)


def comment(lines: Sequence[str]) -> str:
    """Format lines as wrapped comments."""
    wrapped = [part for line in lines for part in (textwrap.wrap(line, 110, subsequent_indent="  ") or [""])]
    return "".join(f"# {line}".rstrip() + "\n" for line in wrapped)


def placed(path: str, folder: Path) -> str:
    """Return a file's path for a recipe in ``folder``: relative if it is below that folder, else absolute.

    A text that is not a file, such as a model or dataset on the hub, is returned unchanged.
    """
    if not Path(path).exists():
        return path
    full_path = Path(path).resolve()
    try:
        return str(full_path.relative_to(folder.resolve()))
    except ValueError:
        return os.fspath(full_path)
