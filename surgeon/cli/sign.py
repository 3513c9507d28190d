"""Define ``sign``: sign an artifact with a key, a certificate or an account."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.report import say
from surgeon.errors import visible

PASSWORD = "SURGEON_KEY_PASSWORD"
"""The environment variable that holds the password of a key: on a command line, others on the machine could read it."""


def sign(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="A folder that apply or train wrote.")],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="PRIVATE.PEM",
            help=f"The private key, of an elliptic curve. Its password, if it has one, is read from {PASSWORD}.",
            show_default=False,
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="PEM", help="The certificate of the key.", show_default=False),
    ] = None,
    chain: Annotated[
        list[Path] | None,
        typer.Option(
            "--chain",
            metavar="PEM",
            help="Certificates between --certificate and the root. Repeatable.",
            show_default=False,
        ),
    ] = None,
    keyless: Annotated[
        bool,
        typer.Option(
            "--keyless", help="Sign with an account through sigstore: needs the network, and is published in its log."
        ),
    ] = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Sign an artifact.

    The signature is the file model.sig in it, in the format of sigstore's model-signing. Whatever is changed or added
    later makes it invalid; sign last.
    """
    from surgeon.cli.render.consoles import working

    password = os.environ.get(PASSWORD) if key is not None else None
    with working("signing", quiet=quiet or keyless):  # keyless asks for an account in the terminal
        from surgeon.pipeline.signature import sign as sign_artifact

        path = sign_artifact(
            artifact,
            key=key,
            password=password,
            certificate=certificate,
            chain=chain or (),
            keyless=keyless,
            force=force,
        )
    if not quiet:
        say(f"wrote {visible(str(path))}: it holds for the files as they are now")
