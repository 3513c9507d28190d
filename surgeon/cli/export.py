"""Define the command ``export``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json


def export(
    context: typer.Context,
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="The output of apply or train, or any model.", show_default=False)
    ],
    to: Annotated[
        Literal["torch-export", "onnx", "state-dict", "hf"],
        typer.Option("--to", help="The format of the result.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A .pt2 file for torch-export, .onnx for onnx, .pt or .pth for state-dict, a folder for hf.",
            show_default=False,
        ),
    ],
    arch: options.Arch = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a network for use without surgeon.

    The exported file is loaded in a process without surgeon, and its outputs are compared with the network's. Nothing
    is written unless they agree.
    """
    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.outcomes import render_export

    with working("exporting and comparing", quiet=quiet or as_json):
        from surgeon.pipeline.exports.exporter import export as write_export

        exported = write_export(
            artifact,
            output,
            to=to,
            force=force,
            arch=arch,
            key=key,
            trust_pickle=trust_pickle,
            trust_code=trust_code or (),
            plugins=context.obj,
        )
    if as_json:
        print_json({**dataclasses.asdict(exported), "path": str(exported.path)})
    elif not quiet:
        show(render_export(exported))
