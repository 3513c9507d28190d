"""The options and arguments that commands share, so that each is named and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe: a YAML or JSON file.", show_default=False)
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A checkpoint file, a folder, torchvision/NAME[@WEIGHTS] or hf:ORG/NAME[@REVISION].",
        show_default=False,
    ),
]
MaybeModel = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="What to operate on, if the recipe does not say: a file, a folder, torchvision/NAME[@WEIGHTS], "
        "hf:ORG/NAME[@REVISION].",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help="A recipe or a file with a train: section, a folder of pictures, or a source: "
        "'{source: digits, classes: [5, 6, 7]}'.",
        show_default=False,
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="ARCH",
        help="What builds the network: torchvision/NAME, hf:ORG/NAME, python:package.module:function.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a value of the recipe: operations.1.classes=7. Repeatable."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Stands above the recipe's seed.")]
PluginNames = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE|MODULE", help="Load a plugin from a .py file or a module. Repeatable."),
]
Key = Annotated[str | None, typer.Option("--key", help="Which of several state dicts in the file, as in: ema.")]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Let a pickle in the file run its code. Only for files you trust.")
]
TrustCode = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-code",
        metavar="MODULE",
        help="Let code of a module run that the recipe or an artifact names. Repeatable.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what lies at the output.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
