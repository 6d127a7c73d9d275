"""`dossier export`, `dossier checklist`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.output import print_json
from pellucid.errors import RunError

Dossier = Annotated[Path, typer.Argument(metavar="D", help="Folder of a dossier.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Format(StrEnum):
    """What a dossier can be written as."""

    MODEL_CARD = "model-card"
    RO_CRATE = "ro-crate"
    CROISSANT = "croissant"
    INSPECT = "inspect"


def add_commands(app: typer.Typer) -> None:
    """Put the commands into `dossier`."""
    app.command()(export)
    app.command()(checklist)


def export(
    dossier: Dossier,
    format: Annotated[Format, typer.Option(help="The other tool's format.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into; default: D-FORMAT beside D.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the dossier (RO-Crate).")] = None,
    json: Json = False,
) -> None:
    """Write a dossier as a model card, RO-Crate, Croissant or Inspect log."""
    from pellucid.evidence.exports.croissant import write_croissant
    from pellucid.evidence.exports.inspect import write_inspect
    from pellucid.evidence.exports.model_card import write_model_card
    from pellucid.evidence.exports.ro_crate import write_ro_crate
    from pellucid.evidence.exports.source import read_source

    source = read_source(dossier)
    whole = dossier.resolve()
    folder = out if out is not None else whole.with_name(f"{whole.name}-{format}")
    if source.seal is not None and folder.resolve().is_relative_to(whole):
        raise RunError(f"{dossier} is sealed: a file more would break that; name another --out")
    writers = {
        Format.MODEL_CARD: write_model_card,
        Format.RO_CRATE: lambda s, o: write_ro_crate(s, o, licence=licence),
        Format.CROISSANT: write_croissant,
        Format.INSPECT: write_inspect,
    }
    written = writers[format](source, folder)
    if json:
        print_json([str(path) for path in written])
        return
    for path in written:
        typer.echo(f"Wrote {path}")


def checklist(
    dossier: Dossier,
    start: Annotated[bool, typer.Option("--start", help="Write empty ones into D.")] = False,
    json: Json = False,
) -> None:
    """Check the checklists of a dossier (exit code 1 where an answer lacks what it needs)."""
    from pellucid.evidence.checklists import check_checklists, start_checklists

    if start:
        for path in start_checklists(dossier):
            typer.echo(f"Wrote {path}")
        return
    problems = check_checklists(dossier)
    if json:
        print_json(problems)
    else:
        for line in problems or ["Every answer has what it needs."]:
            typer.echo(line)
    raise typer.Exit(1 if problems else 0)
