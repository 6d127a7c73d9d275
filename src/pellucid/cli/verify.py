"""`verify`: what a referee runs who has Pellucid installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.output import print_json
from pellucid.errors import RunError


def verify(
    dossier: Annotated[Path, typer.Argument(metavar="D", help="Folder, zip or tar of a dossier.")],
    seed: Annotated[
        str, typer.Option(help="Your own random number: what is replayed and asked hangs on it.")
    ] = "",
    key: Annotated[
        str | None, typer.Option(help="Id (64 hex digits) of the key that must have signed.")
    ] = None,
    replay: Annotated[
        int, typer.Option(min=0, help="So many samples through the weights, token by token.")
    ] = 0,
    fresh: Annotated[
        int, typer.Option(min=0, help="So many new problems, made from weights and seed.")
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="The weights; default: of the run that the dossier lies in."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="What training started from, for claims of a gain.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a dossier: every file, every claim. Exit code 1 where something does not hold."""
    from pellucid.evidence.core.__main__ import render
    from pellucid.evidence.core.canonical import is_sha256
    from pellucid.evidence.core.recognise import why_no_dossier

    if not dossier.exists():
        raise RunError(f"there is no {dossier}: name a dossier's folder, zip or tar")
    if reason := why_no_dossier(dossier):
        raise RunError(reason)
    if key is not None and not is_sha256(key):
        raise RunError("--key takes the 64 hexadecimal digits of a key's id")
    if fresh and not seed:
        raise RunError("fresh items are made from your own number: give --seed")
    from pellucid.evidence.referee import Request, examine

    asked = Request(
        seed=seed,
        trusted_key=key,
        replay=replay,
        fresh=fresh,
        model=model,
        base=base,
        device=device,
    )
    examined = examine(dossier, asked)
    if json:
        print_json(examined.to_dict())
    else:
        typer.echo(render(examined.verdict))
        for line in examined.lines:
            typer.echo(line)
    raise typer.Exit(examined.verdict.exit_code)
