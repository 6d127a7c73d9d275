"""`dossier audit draw`, `dossier audit import`, `dossier judge`: people check the graders, judges
judge what no grader can.
"""

from __future__ import annotations

from contextlib import ExitStack
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


def add_commands(dossiers: typer.Typer) -> None:
    """Put the commands into `dossier`."""
    dossiers.add_typer(app, name="audit")
    dossiers.command()(judge)


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
    judged: Annotated[
        str | None, typer.Option(help="Audit the judges of this suite instead of the graders.")
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
    from pellucid.evidence.core.judged import JudgeOpinions
    from pellucid.evidence.dossier_files import rows_of
    from pellucid.evidence.human_audit.draw import (
        DRAW,
        Ask,
        audit_folder,
        audited_evaluations,
        begin_draw,
        file_draw,
        shown_samples,
    )
    from pellucid.evidence.human_audit.second import second_opinions
    from pellucid.evidence.human_audit.sheet import ASKED, write_sheets

    whole = dossier.resolve()
    place = out if out is not None else whole.with_name(f"{whole.name}-audit")
    if place.resolve().is_relative_to(whole):
        raise RunError("the sheets hold texts and no verdicts, so they lie outside: another --out")
    ask = Ask(n=n, contested=contested, seed=seed, suites=suite or (), judged=judged)
    said = None
    if second and judged is None:
        folders = audited_evaluations(dossier, ask.suites)
        progress = Progress(is_silent=json)
        samples = (sample for folder in folders for _, sample in rows_of(dossier, folder))
        said = second_opinions(samples, progress=progress)
    watcher = begin_draw(dossier, ask, said)
    shown = shown_samples(dossier, watcher.draw)
    drawn = file_draw(dossier, watcher, said)
    digest = sha256_file(audit_folder(dossier, drawn["name"]) / DRAW)
    opinions = watcher.opinions
    asked = opinions.asked if isinstance(opinions, JudgeOpinions) else ASKED
    paths = write_sheets(shown, digest, place, asked)
    if json:
        print_json({"drawn": len(shown), "population": drawn["population"],
                    "sheets": [str(path) for path in paths]})  # fmt: skip
        return
    population = drawn["population"]
    typer.echo(
        f"{len(shown)} samples drawn of {population['contested']} that are contested and "
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
    if "judges" in result:
        for name, found in result["judges"].items():
            typer.echo(f"{name}  kappa with people {_estimate(found['kappa'])}")
            for folder, arm in found["evaluations"].items():
                typer.echo(f"{name}  {folder}: corrected {_estimate(arm['corrected'])}")
        return
    typer.echo(f"{result['labelled']} labels, {result['unsure']} unsure")
    for name in ("agreement", "kappa", "false_positive_rate", "false_negative_rate",
                 "disagreement"):  # fmt: skip
        typer.echo(f"{name.replace('_', ' '):20} {_estimate(result[name])}")
    for claim, bound in result["bounds"].items():
        typer.echo(f"{claim}: with the graders' errors {bound['low']} to {bound['high']}")
    typer.echo(f"Seal it: pellucid dossier seal {dossier}")


def judge(
    dossier: Dossier,
    suite: Annotated[str, typer.Option(help="The suite to judge, with all its arms.")],
    judge: Annotated[
        list[str],
        typer.Option(help="A program (smalltalk), or a TOML file of an endpoint or command."),
    ],
    asked: Annotated[
        str | None, typer.Option(help="The question, for judges and people alike.")
    ] = None,
    probed: Annotated[
        int, typer.Option(min=0, help="Samples asked again with suffixes that should not matter.")
    ] = 50,
    json: Json = False,
) -> None:
    """Have judges say yes or no to every answer of a suite. Seal the dossier afterwards."""
    from pellucid.evidence.judges.ask import ASKED, open_judge
    from pellucid.evidence.judges.record import judge_suite, read_judged, write_result

    whole = dossier.resolve()
    words = whole.with_name(f"{whole.name}-judges")
    progress = Progress(is_silent=json)
    with ExitStack() as stack:
        judges = [stack.enter_context(open_judge(wanted, words)) for wanted in judge]
        for one in judges:
            judge_suite(dossier, suite, one, asked=asked or ASKED, probed=probed, progress=progress)
            # After each: one that fails leaves those before it complete.
            result = write_result(dossier, read_judged(dossier, suite), {})
    if json:
        print_json(result)
        return
    for name, found in result["judges"].items():
        for folder, arm in found["evaluations"].items():
            typer.echo(
                f"{name}  {folder}: accepted {_estimate(arm['accepted'])}, {arm['missing']} of "
                f"{arm['samples']} without a verdict ({arm['worst']} to {arm['best']} of all)"
            )
        for probe, flips in found["flips"].items():
            typer.echo(f"{name}  flipped under {probe}: {_estimate(flips['share'])}")
    for pair, both in result["between"].items():
        typer.echo(f"{pair}: kappa {_estimate(both['kappa'])}")
    typer.echo(f"People judge too: pellucid dossier audit draw {dossier} --judged {suite}")


def _estimate(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "none: the labels do not give it"
    return f"{estimate['value']} [{estimate['low']}, {estimate['high']}]"
