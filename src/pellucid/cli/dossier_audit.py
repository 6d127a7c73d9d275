"""`dossier audit draw`, `dossier audit import`: people check the graders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli.output import print_json, show_help
from pellucid.errors import RunError
from pellucid.runlog import Progress

app = typer.Typer(
    help="People label samples that a seed draws; the graders are held to their labels.",
    invoke_without_command=True,
    callback=show_help,
    rich_markup_mode=None,
)

Dossier = Annotated[Path, typer.Argument(metavar="D", help="Folder of a dossier.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and no progress.")]


@app.command()
def draw(
    dossier: Dossier,
    n: Annotated[int, typer.Option("--n", help="Samples that the graders agree on.")] = 100,
    contested: Annotated[
        int, typer.Option(help="Samples that they differ on, all of them up to so many.")
    ] = 100,
    seed: Annotated[
        str | None, typer.Option(help="Your own number; default: what the samples' roots give.")
    ] = None,
    suite: Annotated[
        list[str] | None, typer.Option(help="Only this suite; may be given again.")
    ] = None,
    second: Annotated[
        bool, typer.Option("--second/--no-second", help="Ask math-verify about every answer.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Sheets to write, without ending; default: D-audit.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw samples, and write a sheet of them that shows no verdict."""
    from pellucid.artifacts import sha256_file
    from pellucid.evidence.human_audit.draw import (
        DRAW,
        Ask,
        audit_folder,
        audited_evaluations,
        begin_draw,
        file_draw,
        rows_of,
        shown_samples,
    )
    from pellucid.evidence.human_audit.second import second_opinions
    from pellucid.evidence.human_audit.sheet import write_sheets

    whole = dossier.resolve()
    place = out if out is not None else whole.with_name(f"{whole.name}-audit")
    if place.resolve().is_relative_to(whole):
        raise RunError("the sheets hold texts and no verdicts, so they lie outside: another --out")
    ask = Ask(n=n, contested=contested, seed=seed, suites=suite or ())
    opinions = None
    if second:
        folders = audited_evaluations(dossier, ask.suites)
        progress = Progress(is_silent=json)
        samples = (sample for folder in folders for _, sample in rows_of(dossier, folder))
        opinions = second_opinions(samples, progress=progress)
    watcher = begin_draw(dossier, ask, opinions)
    shown = shown_samples(dossier, watcher.draw)
    drawn = file_draw(dossier, watcher, opinions)
    paths = write_sheets(shown, sha256_file(audit_folder(dossier) / DRAW), place)
    if json:
        print_json({"drawn": len(shown), "population": drawn["population"],
                    "sheets": [str(path) for path in paths]})  # fmt: skip
        return
    population = drawn["population"]
    typer.echo(
        f"{len(shown)} samples drawn of {population['contested']} that graders differ on and "
        f"{population['other']} others"
    )
    for path in paths:
        typer.echo(f"Wrote {path}")
    typer.echo(f"Then: pellucid dossier audit import {dossier} LABELS --by NAME")


@app.command("import")
def import_(
    dossier: Dossier,
    sheet: Annotated[Path, typer.Argument(metavar="SHEET", help="The sheet, with its labels.")],
    by: Annotated[str, typer.Option(help="Who labelled.")],
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key of who labelled, to sign with.")
    ] = None,
    json: Json = False,
) -> None:
    """Take labels into the dossier, and print what they say of the graders. Seal it afterwards."""
    from pellucid.evidence.human_audit.labels import import_labels
    from pellucid.evidence.seal import read_key

    signer = None if key is None else read_key(key)
    result = import_labels(dossier, sheet, by, signer)
    if json:
        print_json(result)
        return
    typer.echo(f"{result['labelled']} labels, {result['unsure']} unsure")
    for name in ("agreement", "kappa", "false_positive_rate", "false_negative_rate",
                 "disagreement"):  # fmt: skip
        typer.echo(f"{name.replace('_', ' '):20} {_estimate(result[name])}")
    for claim, bound in result["bounds"].items():
        typer.echo(f"{claim}: with the graders' errors {bound['low']} to {bound['high']}")
    typer.echo(f"Seal it: pellucid dossier seal {dossier}")


def _estimate(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "none: the labels do not give it"
    return f"{estimate['value']} [{estimate['low']}, {estimate['high']}]"
