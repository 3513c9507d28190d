"""Find out which tokens a transformers network predicts: the next one, or masked ones."""

from __future__ import annotations

from torch import nn

from surgeon.data.network import MASKED, NEXT_TOKEN, SEQUENCES


def is_language_model(model: nn.Module) -> bool:
    """Return whether transformers lists the network's class as predicting the next token."""
    return language_of(model) == NEXT_TOKEN


def language_of(model: nn.Module) -> str | None:
    """Return how a network predicts tokens: ``next_token``, ``masked``, one sequence from another, or None.

    The class decides, by transformers' auto mappings. A class in several of them, such as BART's, predicts one sequence
    from another.
    """
    from transformers.models.auto import modeling_auto as auto

    tables = {
        SEQUENCES: auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        NEXT_TOKEN: auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MASKED: auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    }
    names = {kind.__name__ for kind in type(model).__mro__}
    for way, table in tables.items():
        listed = {name for value in table.values() for name in ((value,) if isinstance(value, str) else value)}
        if names & listed:
            return way
    return None
