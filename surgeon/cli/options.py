"""The options and arguments that commands share, so that each is named and explained once."""

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
Samples = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATA...",
        help="Pictures, sounds, text files (a text a line), tables, folders of these with or without a folder for "
        "each class, patterns; a recipe; or a source written out: '{source: table, path: …}'.",
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
        help="The names of the classes in the order of the outputs, where the network has none.",
        show_default=False,
    ),
]
Part = Annotated[
    Literal["train", "validation", "test"] | None,
    typer.Option("--part", help="Only this part of the data, as training takes it.", show_default=False),
]
OnError = Annotated[
    Literal["fail", "skip"], typer.Option("--on-error", help="What to do with a sample that cannot be read.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="How many samples are computed at a time.")]
Device = Annotated[
    str | None,
    typer.Option("--device", help="Where to compute, as in cuda; a GPU if there is one.", show_default=False),
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
TrustTokenizer = Annotated[
    bool, typer.Option("--trust-recipe", help="Let a tokenizer be fetched that an artifact's record names.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what lies at the output.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write a page for browsers, all in one file.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
