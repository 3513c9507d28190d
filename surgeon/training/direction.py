"""Refuse to train or measure the next token where a network sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from surgeon.errors import TrainingError
from surgeon.families.transformers.tasks import READS_BACK, class_for
from surgeon.training.calls import Batch, Call
from surgeon.training.losses import next_token
from surgeon.training.objectives import Target
from surgeon.training.penalties import in_eval_mode

TOKENS = "input_ids"


def refuse_seen_tokens(
    model: nn.Module, call: Call, batch: Batch, outputs: Mapping[str, Tensor], targets: Sequence[Target]
) -> None:
    """Change the last token of a text and compare what is predicted before it.

    A network that reads texts in both directions, such as a BERT with a head for the next token, copies the answer
    from its input: its loss falls to zero, and it has learnt nothing.

    Args:
        model: The network.
        call: How to call it.
        batch: A batch of texts.
        outputs: What it returned for the batch in eval mode.
        targets: What it is trained on or measured by.

    Raises:
        TrainingError: An earlier prediction changes, and one of the targets is the next token.
    """
    names = [target.objective.output for target in targets if target.loss is next_token]
    tokens = batch.get(TOKENS)
    if not names or tokens is None or tokens.ndim != 2 or TOKENS not in call.inputs:
        return
    mask = batch.get("attention_mask")
    real = torch.ones_like(tokens[0], dtype=torch.bool) if mask is None or mask.ndim != 2 else mask[0] != 0
    last = int(real.nonzero()[-1]) if real.any() else 0
    others = tokens[0][real & (tokens[0] != tokens[0, last])]
    if not last or not len(others):
        return  # a text of one token, however often, shows nothing
    changed = tokens.clone()
    changed[0, last] = others[0]
    with torch.no_grad(), in_eval_mode(model):
        again = call(model, {**batch, TOKENS: changed})
    for name in names:
        before, after = outputs[name][0, :last].float(), again[name][0, :last].float()
        before, after = before[real[:last]], after[real[:last]]
        exact = outputs[name].dtype in (torch.float32, torch.float64)
        if not len(before) or (after - before).abs().max() <= (1e-4 if exact else 3e-2) * before.std().clamp_min(1e-12):
            continue
        raise TrainingError(
            f"{type(model).__name__} sees the token that next_token predicts: another last token of a text changes "
            f"the {name} of the tokens before it",
            where="train.objectives",
            hint=_way_out(model),
        )


def _way_out(model: nn.Module) -> str:
    """Name the operations after which the network can be trained on texts: those that transformers has classes for."""
    config = getattr(model, "config", None)
    masked = class_for("masked_lm", str(getattr(config, "model_type", "")))
    ways = []
    if masked and any(getattr(config, name, None) is False for name in READS_BACK):
        ways.append("make it read from left to right: {op: replace_head, task: causal_lm}")
    if masked and all(kind.__name__ != masked for kind in type(model).__mro__):
        ways.append("mask tokens: {op: replace_head, task: masked_lm}")
    return "; or ".join(ways) or "take a network that reads texts from left to right"
