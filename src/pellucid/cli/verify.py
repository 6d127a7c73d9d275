"""`verify`: what a referee runs who has Pellucid installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.output import print_json
from pellucid.errors import RunError


def verify(
    dossier: Annotated[Path, typer.Argument(metavar="D", help="Folder or zip of a dossier.")],
    seed: Annotated[
        str, typer.Option(help="Your own random number: it chooses what is replayed.")
    ] = "",
    key: Annotated[
        str | None, typer.Option(help="Id (64 hex digits) of the key that must have signed.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a dossier: every file, every claim. Exit code 1 where something does not hold."""
    from pellucid.evidence.core.__main__ import render
    from pellucid.evidence.core.canonical import is_sha256
    from pellucid.evidence.core.verify import verify as examine

    if not dossier.exists():
        raise RunError(f"there is no {dossier}: name a dossier's folder or zip")
    if key is not None and not is_sha256(key):
        raise RunError("--key takes the 64 hexadecimal digits of a key's id")
    verdict = examine(dossier, seed=seed, trusted_key=key)
    if json:
        print_json(verdict.to_dict())
    else:
        typer.echo(render(verdict))
    raise typer.Exit(verdict.exit_code)
