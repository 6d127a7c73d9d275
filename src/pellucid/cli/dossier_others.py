"""`dossier diff`, `dossier attach`: a dossier beside another one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.output import print_json, print_table

if TYPE_CHECKING:
    from pellucid.evidence.compare import Side
    from pellucid.evidence.core.diff import Row

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_SHORT = 12
NAMES_SHOWN = 3
WIDTH = 56
"""Of a cell of the table; --json has all."""


def add_commands(app: typer.Typer) -> None:
    """Put the commands into `dossier`."""
    app.command()(diff)
    app.command()(attach)


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder, zip or tar of a dossier.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one, or another version.")],
    json: Json = False,
) -> None:
    """Show what differs between two dossiers. Exit code 1 where that can move a score."""
    from pellucid.evidence.compare import compare
    from pellucid.evidence.words import counted

    compared = compare(a, b)
    if json:
        print_json(compared.to_dict())
    else:
        for name, side in (("A", compared.a), ("B", compared.b)):
            typer.echo(_described(name, side))
        print_rows(compared.diff.rows)
        if compared.diff.num_more:
            typer.echo(f"… and {counted(compared.diff.num_more, 'row')} more")
        if compared.diff.moves_score:
            typer.echo("* can move a score")
        else:
            typer.echo("nothing that can move a score differs")
    raise typer.Exit(1 if compared.diff.moves_score else 0)


def attach(
    dossier: Annotated[Path, typer.Argument(metavar="D", help="Folder of your dossier.")],
    theirs: Annotated[
        Path, typer.Argument(metavar="THEIRS", help="Their sealed dossier: folder, zip or tar.")
    ],
    party: Annotated[str, typer.Option(help="Whose it is: the name of its folder in external/.")],
    json: Json = False,
) -> None:
    """Put another party's sealed dossier into yours, with a diff. Seal yours afterwards."""
    from pellucid.evidence.parties import attach as take_in
    from pellucid.evidence.words import counted

    taken = take_in(dossier, theirs, party)
    if json:
        facts = {"folder": str(taken.folder), "key": taken.keyid, "samples": taken.samples}
        facts |= {"evaluations": taken.evaluations, "evaluations_of_released": taken.released}
        print_json({**facts, "diff": taken.diff.to_dict()})
        return
    print_rows([row for row in taken.diff.rows if None not in (row.a, row.b)])
    typer.echo(
        f"{taken.folder}: {counted(taken.samples, 'sample')} of "
        f"{counted(taken.evaluations, 'evaluation')}, {taken.released} of them of these weights, "
        f"signed by key {taken.keyid}"
    )
    typer.echo(
        f"Compare that key with the one that they publish, then: pellucid dossier seal {dossier}"
    )


def _described(name: str, side: Side) -> str:
    version = f"version {side.version}" if side.version is not None else "not sealed"
    signer = f"signed by key {side.keyid}" if side.keyid else "not signed"
    more = f" (and {len(side.faults) - 1} more)" if len(side.faults) > 1 else ""
    what = "DAMAGED" if side.version is None else "NOT AS IT WAS SEALED"
    broken = f"; {what}: {side.faults[0]}{more}" if side.faults else ""
    return f"{name}  {side.place}: {version}, {signer}{broken}"


def print_rows(rows: Sequence[Row]) -> None:
    """The differences, one a line, as a table."""
    if rows:
        known = _templates()
        print_table(("", "where", "what", "A", "B", "which"), _cells(rows, known))


def _cells(rows: Iterable[Row], known: dict[str, str]) -> Iterable[tuple[str | None, ...]]:
    from pellucid.evidence.core.case import ascii_safe

    for row in rows:
        where = row.place if row.other is None else f"{row.place} ~ {row.other}"
        sides = [None if t is None else _cut(ascii_safe(_short(t, known))) for t in (row.a, row.b)]
        names = ", ".join(row.names[:NAMES_SHOWN])
        names += ", …" if len(row.names) > NAMES_SHOWN else ""
        mark = "*" if row.moves_score else ""
        yield mark, ascii_safe(where)[:120], ascii_safe(row.what), *sides, ascii_safe(names)


def _short(text: str, known: dict[str, str]) -> str:
    """Digests by their first digits, those of prompt templates that are ours with their name."""

    def shown(match: re.Match[str]) -> str:
        name = known.get(match[0])
        return f"{match[0][:_SHORT]}…" + (f" ({name})" if name else "")

    return _DIGEST.sub(shown, text)


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"


def _templates() -> dict[str, str]:
    from pellucid.tasks.templates import TEMPLATES

    return {template.sha256: name for name, template in TEMPLATES.items()}
