"""Define the command ``diff``, which compares two networks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.startup.lazy_imports import defer
from surgeon.pages.place import check_page

DIFFERENT = 20
"""The exit code for different networks; 0 for equal ones, an error's code if they cannot be compared."""


class By(StrEnum):
    """What a line of the table is about."""

    block = "block"
    site = "site"
    tensor = "tensor"


def diff(
    context: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="A checkpoint, an artifact or a model.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The later one.", show_default=False)],
    by: Annotated[By, typer.Option("--by", help="What a line of the table is about.")] = By.block,
    select: Annotated[
        str | None,
        typer.Option(
            "--select",
            metavar="SELECTOR",
            help="Compare only the sites that a selector matches, in A or B.",
            show_default=False,
        ),
    ] = None,
    structure: Annotated[
        bool, typer.Option("--structure", help="Compare names, shapes, dtypes and training state; read no weights.")
    ] = False,
    arch: options.Arch = None,
    key: options.Key = None,
    arch_a: Annotated[
        str | None,
        typer.Option("--arch-a", metavar="ARCH", help="What builds A, instead of --arch.", show_default=False),
    ] = None,
    arch_b: Annotated[
        str | None,
        typer.Option("--arch-b", metavar="ARCH", help="What builds B, instead of --arch.", show_default=False),
    ] = None,
    key_a: Annotated[
        str | None,
        typer.Option("--key-a", metavar="KEY", help="Which state dict of A, instead of --key.", show_default=False),
    ] = None,
    key_b: Annotated[
        str | None,
        typer.Option("--key-b", metavar="KEY", help="Which state dict of B, instead of --key.", show_default=False),
    ] = None,
    plugin: options.PluginNames = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    html: options.Html = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compare two networks: what changed, and by how much.

    Exits with 0 if they are byte-identical and with 20 if they differ.
    """
    if html is not None:
        check_page(html)
    defer()
    from surgeon.cli.render.consoles import reading, show, show_page

    with reading("comparing", quiet=quiet or as_json) as progress:
        from surgeon.pipeline.comparison import diff as compare

        result = compare(
            a,
            b,
            select=select,
            values=not structure,
            progress=progress,
            arch_a=arch_a or arch,
            arch_b=arch_b or arch,
            key_a=key_a or key,
            key_b=key_b or key,
            trust_pickle=trust_pickle,
            trust_code=trust_code or (),
            plugins=context.obj,
        )
        if html is not None:
            from surgeon.pages.place import save_page
            from surgeon.pages.write import page_of_diff

            opening = {"arch_a": arch_a, "arch_b": arch_b, "key_a": key_a, "key_b": key_b}
            trust = {"trust_pickle": trust_pickle, "trust_code": trust_code or (), "plugins": context.obj}
            save_page(html, page_of_diff(result, a, b, **opening, **trust))
    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        from surgeon.cli.render.comparison import render_diff

        show(render_diff(result, by.value))
        show_page(html)
    if not result.equal:
        raise typer.Exit(DIFFERENT)
