"""The command ``surgeon export-adapter``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_adapter_command(
    model: Annotated[str, typer.Argument(help="An artifact with an adapter, or peft:FOLDER.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    base: Annotated[str, typer.Option(help="The base model that the folder names; by default the source.")] = "",
    force: Annotated[bool, typer.Option(help="Replace an adapter's folder that exists.")] = False,
) -> None:
    """Write the adapter of a network as the folder that peft loads alone."""
    import surgeon
    from surgeon_peft.exporting import edits_before, export_adapter

    network = surgeon.load(model)
    path = export_adapter(network, output, base=base or None, force=force)
    typer.echo(f"{path}: PeftModel.from_pretrained(base, {str(path)!r})")
    if edits := edits_before(network):
        typer.echo(
            f"its base is the source as it was after {', '.join(edits)}: peft needs a base that was edited alike"
        )
