"""Define the commands that change nothing: ``inspect`` a network, ``check`` an artifact."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.startup.lazy_imports import defer
from surgeon.errors import VerificationError
from surgeon.pages.place import check_page


def inspect(
    context: typer.Context,
    model: options.Model,
    arch: options.Arch = None,
    depth: Annotated[int, typer.Option("--depth", min=0, help="Levels of the tree to show; 0 shows all.")] = 2,
    select: Annotated[
        str | None,
        typer.Option(
            "--select", metavar="SELECTOR", help="List the sites that a selector matches, and why.", show_default=False
        ),
    ] = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    html: options.Html = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show a network, its roles and shapes.

    A recipe's selectors can name every site in the tree.
    """
    if html is not None:
        check_page(html)
    defer()
    from surgeon.cli.render.consoles import show, show_page, working

    with working("reading the model", quiet=as_json):
        from surgeon.cli.render.networks import network_dict, render_network, render_sites
        from surgeon.pipeline.network_view import inspect as look_at

        view = look_at(
            model, arch=arch, key=key, trust_pickle=trust_pickle, trust_code=trust_code or (), plugins=context.obj
        )
        selected = view.select(select) if select is not None else None
        if html is not None:
            from surgeon.pages.network import network_page
            from surgeon.pages.place import save_page

            save_page(html, network_page(view))
    if as_json:
        print_json(network_dict(view, selected))
    else:
        show(render_network(view, depth or None) if selected is None else render_sites(selected))
        show_page(html)


def check(
    context: typer.Context,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="The output of apply.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="MODEL", help="Compare kept tensors with this model, byte by byte.", show_default=False
        ),
    ] = None,
    signature: Annotated[bool, typer.Option("--signature", help="Check who signed it, before anything else.")] = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="PUBLIC.PEM", help="--signature: the signer's public key.", show_default=False),
    ] = None,
    chain: Annotated[
        list[Path] | None,
        typer.Option(
            "--chain",
            metavar="PEM",
            help="--signature: certificates that the signer's is traced back to. Repeatable.",
            show_default=False,
        ),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            "--identity", metavar="NAME", help="--signature: the account that signed without a key.", show_default=False
        ),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option("--issuer", metavar="URL", help="--signature: who vouches for --identity.", show_default=False),
    ] = None,
    plugin: options.PluginNames = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Check an artifact, byte for byte.

    It must load, and every tensor in the file must belong to the network. With --source, kept tensors must equal the
    source's. With --signature, all files must be as --key, --chain or --identity signed them (see: surgeon sign).
    """
    defer()
    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.outcomes import render_verification

    with working("loading the artifact", quiet=quiet or as_json):
        from surgeon.pipeline.api import verify
        from surgeon.pipeline.signature import SignedBy

        signer = None
        if signature or key or chain or identity or issuer:
            signer = SignedBy(key, chain or (), identity, issuer)
        if signer and not signature:
            raise VerificationError(
                f"{signer} is named, and no signature is to be checked",
                hint="surgeon check ARTIFACT --signature checks it",
            )
        verified = verify(
            artifact,
            source,
            signature=signer,
            trust_pickle=trust_pickle,
            trust_code=trust_code or (),
            plugins=context.obj,
        )
    if as_json:
        print_json(dataclasses.asdict(verified))
    elif not quiet:
        show(render_verification(artifact, verified, signer))
