"""`review start`, `import`, `prepare`, `answer`, `rerun`, `close`, `status`, `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.output import print_json, print_table, show_help
from pellucid.errors import ReviewError

if TYPE_CHECKING:
    from pellucid.evidence.review.records import Effect

app = typer.Typer(
    help="Review rounds on a sealed dossier: points, answers, and who may close them.",
    invoke_without_command=True,
    callback=show_help,
    rich_markup_mode=None,
)

Dossier = Annotated[Path, typer.Argument(metavar="D", help="Folder of a dossier.")]
PointName = Annotated[str, typer.Argument(metavar="POINT", help="Such as R2.4.")]
Letter = Annotated[
    Path, typer.Argument(metavar="FILE", help="JSON, Markdown, or OpenReview notes as JSON.")
]
Referee = Annotated[str | None, typer.Option(help="Name or alias, where the file does not say it.")]
Evaluations = Annotated[
    list[int] | None,
    typer.Option("--evaluation", metavar="SERIAL", help="A new evaluation, by its ledger serial."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def start(dossier: Dossier, json: Json = False) -> None:
    """Begin a round on the sealed version."""
    from pellucid.evidence.review.rounds import start_round

    begun = start_round(dossier)
    if json:
        print_json({"round": begun.number, "seal_sha256": begun.seal})
    else:
        typer.echo(f"Round {begun.number} is on seal {begun.seal}.")


@app.command("import")
def import_file(
    dossier: Dossier, file: Letter, referee: Referee = None, json: Json = False
) -> None:
    """Take in a referee's points."""
    from pellucid.evidence.review.rounds import import_points

    taken = import_points(dossier, file, referee=referee)
    if json:
        print_json([{"report": i.report.to_dict(), "token": i.token} for i in taken])
        return
    for imported in taken:
        points = imported.report.points
        typer.echo(f"{imported.report.referee}: {', '.join(point.id for point in points)}")
        if imported.token:
            typer.echo(
                f"  their token is {imported.token}: give it to {imported.report.referee} alone;"
                " it closes the points and is kept nowhere"
            )


@app.command()
def prepare(
    file: Letter,
    out: Annotated[Path, typer.Option(help="Report to write, for the authors.")],
    dossier: Annotated[
        Path | None, typer.Option(help="Check claims and tests against this dossier.")
    ] = None,
    referee: Referee = None,
    json: Json = False,
) -> None:
    """For referees: make a report that only your own token can close."""
    from pellucid.evidence.review.rounds import prepare_report

    made = prepare_report(dossier, file, out, referee=referee)
    if json:
        print_json({"report": str(out), "token": made.token})
    else:
        typer.echo(f"Give {out} to the authors, and keep this token to yourself: {made.token}")


@app.command()
def answer(
    dossier: Dossier,
    point: PointName,
    text: Annotated[str | None, typer.Option(help="The answer.")] = None,
    file: Annotated[Path | None, typer.Option(help="The answer, from a text file.")] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(metavar="C3=weakened", help="kept, weakened, corrected or withdrawn."),
    ] = None,
    evaluation: Evaluations = None,
    json: Json = False,
) -> None:
    """Answer a point, and say what becomes of the claims."""
    from pellucid.evidence.review.located import read_source
    from pellucid.evidence.review.rounds import answer_point

    if (text is None) == (file is None):
        raise ReviewError("say the answer with --text, or name its file with --file")
    words = text if text is not None else read_source(file).text  # type: ignore[arg-type]
    state = answer_point(
        dossier, point, words, changes=_effects(claim or []), evidence=evaluation or []
    )
    _show(json, {"point": point, "status": state.status}, f"{point} is {state.status}.")


@app.command()
def rerun(
    dossier: Dossier, point: PointName, evaluation: Evaluations = None, json: Json = False
) -> None:
    """Recompute a point's claims and test from the samples, or name a new evaluation."""
    from pellucid.evidence.review.rounds import rerun_point

    outcome = rerun_point(dossier, point, evidence=evaluation or [])
    if outcome is None:
        _show(json, {"point": point, "holds": None}, f"{point}: recorded.")
        return
    values = ", ".join(f"{name} is {value}" for name, value in outcome.values.items())
    verdict = "holds" if outcome.holds else "does not hold"
    _show(
        json,
        {"point": point, "holds": outcome.holds, "values": outcome.values},
        f"{point}: its test {verdict} ({values}).",
    )


@app.command()
def close(
    dossier: Dossier,
    point: PointName,
    token: Annotated[str | None, typer.Option(help="The referee's token.")] = None,
    signature: Annotated[
        Path | None, typer.Option(help="File with the referee's signature of `review statement`.")
    ] = None,
    json: Json = False,
) -> None:
    """Close a point: by its author's token or signature, or by its test turning true."""
    from pellucid.evidence.review.export import closed_by
    from pellucid.evidence.review.rounds import close_point
    from pellucid.evidence.review.signed import read_signature

    if token is not None and signature is not None:
        raise ReviewError("close with --token or with --signature, not both")
    signed = read_signature(signature) if signature is not None else None
    state = close_point(dossier, point, token=token, signature=signed)
    _show(
        json, {"point": point, "closed": dict(state.closed or {})}, f"{point}: {closed_by(state)}."
    )


@app.command()
def sign(
    dossier: Dossier,
    point: PointName,
    key: Annotated[Path, typer.Option(help="The referee's private key (Ed25519, PEM).")],
    out: Annotated[Path, typer.Option(help="Signature to write, for `close --signature`.")],
) -> None:
    """For referees: sign that a point is settled."""
    from pellucid.evidence.review.history import last_round
    from pellucid.evidence.review.rounds import closing_statement
    from pellucid.evidence.review.signed import write_signature

    current = last_round(dossier)
    write_signature(key, closing_statement(current, current.find(point)), out)
    typer.echo(f"Give {out} to the authors: it closes {point}.")


@app.command()
def status(dossier: Dossier, json: Json = False) -> None:
    """Every point of the last round, and what the next version still has to cite."""
    from pellucid.evidence.review.chain import uncited_changes
    from pellucid.evidence.review.history import last_round

    current, uncited = last_round(dossier), uncited_changes(dossier)
    rows = [
        (s.point.id, s.point.severity, s.point.kind, ", ".join(s.point.claim_refs), s.status)
        for s in current.states
    ]
    if json:
        names = ("point", "severity", "kind", "claims", "status")
        points = [dict(zip(names, row, strict=True)) for row in rows]
        print_json({"round": current.number, "points": points, "uncited": uncited})
        return
    print_table(("point", "severity", "kind", "claims", "status"), rows)
    for line in uncited:
        typer.echo(line)


@app.command()
def export(dossier: Dossier, json: Json = False) -> None:
    """Write the peer-review file, reviews/history.md and .html."""
    from pellucid.evidence.review.export import export_reviews

    markdown, page = export_reviews(dossier)
    _show(json, {"markdown": str(markdown), "html": str(page)}, f"Wrote {markdown} and {page}")


def _effects(pairs: list[str]) -> dict[str, Effect]:
    from pellucid.evidence.review.records import Effect

    effects = {}
    for pair in pairs:
        claim, _, word = pair.partition("=")
        if word not in list(Effect):
            raise ReviewError(f"--claim {pair}: write CLAIM=WORD with one of {', '.join(Effect)}")
        effects[claim] = Effect(word)
    return effects


def _show(json: bool, value: dict[str, object], line: str) -> None:
    if json:
        print_json(value)
    else:
        typer.echo(line)
