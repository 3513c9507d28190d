"""Define the options and arguments that several commands share, each with one name and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
        help="The network, if the recipe does not name it: a file, a folder, torchvision/NAME[@WEIGHTS], "
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
Samples = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATA...",
        help="Pictures, sounds, text files (one text per line), tables, folders of these with or without a folder per "
        "class, glob patterns; a recipe; or a source as YAML: '{source: table, path: …}'.",
        show_default=False,
    ),
]
MoreSamples = Annotated[
    list[str] | None, typer.Option("--data", metavar="DATA", help="The same as DATA. Repeatable.", show_default=False)
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="A,B,C",
        help="Class names in the order of the outputs, if the network has none.",
        show_default=False,
    ),
]
Part = Annotated[
    Literal["train", "validation", "test"] | None,
    typer.Option("--part", help="Only this part of the data, as training splits it.", show_default=False),
]
OnError = Annotated[
    Literal["fail", "skip"], typer.Option("--on-error", help="What to do with a sample that cannot be read.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Samples per batch.")]
Device = Annotated[
    str | None,
    typer.Option("--device", help="The device, for example cuda. Default: a GPU if there is one.", show_default=False),
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
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Overrides the recipe's seed.")]
PluginNames = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE|MODULE", help="Load a plugin from a .py file or a module. Repeatable."),
]
Key = Annotated[str | None, typer.Option("--key", help="Which of several state dicts in the file, for example ema.")]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Allow a pickle in the file to run code. Only for files you trust.")
]
TrustCode = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-code",
        metavar="MODULE",
        help="Allow code of a module that the recipe or artifact names to run. Repeatable.",
    ),
]
TrustTokenizer = Annotated[
    bool, typer.Option("--trust-recipe", help="Allow downloading a tokenizer that the artifact names.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write a self-contained HTML page.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
