"""`dossier plan`, `build`, `seal`, `redact`, `keygen`, `verifier`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.output import print_json, show_help
from pellucid.cli.run import Overrides, RecipeName
from pellucid.config_io import dump_recipe, load_recipe
from pellucid.errors import RunError
from pellucid.runlog import Progress

app = typer.Typer(
    help="Dossiers: claims of a run that a stranger can check.",
    invoke_without_command=True,
    callback=show_help,
    rich_markup_mode=None,
)

Dossier = Annotated[Path, typer.Argument(metavar="D", help="Folder of a dossier.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="Private key. Default: ~/.config/pellucid/dossier.key, else dossier.key beside the "
        "folder, made where it is missing.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and no progress.")]


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to be; default: runs/NAME of the recipe.")
    ] = None,
    key: KeyFile = None,
    json: Json = False,
) -> None:
    """Seal a plan before anything is measured: claims, rules, items, prompts, graders, seeds."""
    config, set_by_hand = load_recipe(recipe, overrides or [])
    folder = out if out is not None else Path("runs") / config.name
    from pellucid.artifacts import open_run
    from pellucid.ledger import Ledger
    from pellucid.pipeline.dossier import file_run_plan, open_key

    progress = Progress(is_silent=json)
    with open_run(folder, dump_recipe(config, set_by_hand)) as (run, _):
        ledger = Ledger(run.ledger)
        try:
            signer = open_key(_text(key), folder.parent, progress)
            filed = file_run_plan(config, folder, ledger, signer, progress)
        finally:
            ledger.close()
    tested = [claim for claim in filed["claims"] if claim["test"] is not None]
    if json:
        print_json({"plan": filed["id"], "folder": str(folder), "claims": tested})
        return
    from pellucid.evidence.claims import claim_text

    for claim in tested:
        typer.echo(f"{claim['id']}  {claim_text(claim)}: {claim['rule']}")
        typer.echo(f"    smallest effect it finds: {filed['mde'][claim['id']]}")
    typer.echo(f"Now run it: pellucid run {recipe} --out {folder}")


@app.command()
def build(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run folder, or one of `eval`.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: RUN/dossier.")] = None,
    packed: Annotated[
        bool, typer.Option(help="Pack the samples, to send the dossier as a small .tar.xz.")
    ] = False,
    json: Json = False,
) -> None:
    """Assemble the dossier of a run or evaluation from what was recorded. Seal it afterwards."""
    from pellucid.pipeline.dossier import build_dossier
    from pellucid.pipeline.evaluation_dossier import build_evaluation_dossier, is_evaluation

    assemble = build_evaluation_dossier if is_evaluation(run) else build_dossier
    built = assemble(run, out, Progress(is_silent=json), is_packed=packed)
    if json:
        print_json(
            {
                "folder": str(built.folder),
                "weights": built.weights,
                "evaluations": built.evaluations,
                "samples": built.samples,
                "claims_tested": built.tested,
                "claims_held": built.held,
                "missing": built.missing,
            }
        )
        return
    from pellucid.evidence.words import claims_hold, counted

    typer.echo(
        f"{built.folder}: {counted(built.samples, 'sample')} of "
        f"{counted(built.evaluations, 'evaluation')}, {claims_hold(built.held, built.tested)}"
    )
    for line in built.missing:
        typer.echo(f"missing  {line}")
    typer.echo(f"Seal it: pellucid dossier seal {built.folder}")


@app.command()
def seal(
    dossier: Dossier,
    key: KeyFile = None,
    json: Json = False,
) -> None:
    """Sign all files of a dossier as its next version, if anything has changed."""
    if not (dossier / "claims.json").is_file():
        raise RunError(f"{dossier} is no dossier: make one with `pellucid dossier build`")
    from pellucid.pipeline.dossier import key_place, open_key
    from pellucid.pipeline.dossier import seal as seal_next

    signer = open_key(_text(key), key_place(dossier), Progress(is_silent=json))
    sealed = seal_next(dossier, signer)
    if json:
        key_id = signer.id if signer else None
        print_json({"version": sealed.version, "key": key_id, "is_new": sealed.is_new})
        return
    by = f"signed by key {signer.id}" if signer else "not signed"
    if sealed.is_new:
        typer.echo(f"Version {sealed.version} of {dossier} is sealed, {by}")
    else:
        typer.echo(f"Nothing has changed: {dossier} stays version {sealed.version}, {by}")


@app.command()
def redact(
    dossier: Dossier,
    out: Annotated[Path, typer.Option(help="Folder for the copy without the texts.")],
    suite: Annotated[
        list[str] | None, typer.Option(help="Withhold all texts of a suite; may be given again.")
    ] = None,
    item: Annotated[
        list[str] | None, typer.Option(help="Withhold the texts of an item; may be given again.")
    ] = None,
    json: Json = False,
) -> None:
    """Copy a dossier without some texts; digests and recorded roots stay. Seal it afterwards."""
    if not suite and not item:
        raise RunError("say what to withhold: --suite NAME or --item ID")
    from pellucid.evidence.redact import redact as withhold
    from pellucid.evidence.words import counted

    count = withhold(dossier, out, suites=suite or (), items=item or ())
    if json:
        print_json({"folder": str(out), "withheld": count})
    else:
        typer.echo(
            f"{counted(count, 'text')} withheld in {out}; seal it: pellucid dossier seal {out}"
        )


@app.command()
def keygen(
    key: Annotated[
        Path | None, typer.Option("--key", help="Default: ~/.config/pellucid/dossier.key")
    ] = None,
    json: Json = False,
) -> None:
    """Make an Ed25519 key for plans and seals."""
    from pellucid.evidence.seal import make_key
    from pellucid.pipeline.dossier import user_key

    path = key if key is not None else user_key()
    made = make_key(path)
    if json:
        print_json({"key": str(path), "id": made.id})
    else:
        typer.echo(f"Wrote {path} (keep it secret) and {path}.pub\nPublish its id: {made.id}")


@app.command()
def verifier(
    out: Annotated[Path, typer.Argument(help="File to write.")] = Path("verify.pyz"),
) -> None:
    """Write the referee's tool, one file that needs Python alone."""
    from pellucid.evidence.zipapp import build_verifier

    typer.echo(f"Wrote {out}, sha256 {build_verifier(out)}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
