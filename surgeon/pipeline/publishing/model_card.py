"""Make the card of a model from its manifest."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from surgeon.errors import name_nearest_option
from surgeon.pipeline.publishing.card_data import card_data
from surgeon.pipeline.publishing.card_text import card_text
from surgeon.pipeline.publishing.facts import Facts, facts_of
from surgeon.pipeline.text_files import refuse_to_replace, write_text


@name_nearest_option
def card(
    artifact: str | Path, output: str | Path | None = None, *, name: str | None = None, force: bool = False
) -> str:
    """Make a model card of an artifact, as the Hugging Face hub shows it, and return its Markdown.

    It says what the base model and its licence are, what was cut and added, what was trained on which data, what was
    measured beside which control, how to load it, and what limits it. Everything comes from the manifest and from the
    base model's card; no network is built.

    Args:
        artifact: What surgeon wrote: a folder, ``.safetensors`` or ``.pt``.
        output: Where to write it, as ``ARTIFACT/README.md``; nothing is written if left out.
        name: What the model is called: ``ORG/NAME`` where it will be on the hub. The artifact's name if left out.
        force: Replace what lies at the output.

    Raises:
        CheckpointError: The artifact is missing, damaged, or was not made by surgeon.
        OutputError: The output exists or cannot be written to.
    """
    if output is not None:
        refuse_to_replace(Path(output), force=force)
    text = make_card(facts_of(Path(artifact)), name or Path(artifact).resolve().name)
    if output is not None:
        write_text(Path(output), text)
    return text


def make_card(facts: Facts, name: str) -> str:
    """Make a card: metadata as the hub reads it, then the text."""
    data = card_data(facts, name.rpartition("/")[2])
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card_text(facts, name)}"))
