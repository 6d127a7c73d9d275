"""`run`, `report`, `export`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.launch import (
    AcceptCode,
    DryRun,
    Json,
    Options,
    Out,
    Overrides,
    RecipeName,
    Unsafe,
    launch,
    with_unsafe,
)
from pellucid.cli.output import print_json, print_table
from pellucid.config_io import load_recipe
from pellucid.errors import RunError
from pellucid.runlog import Progress


def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
    accept_code: AcceptCode = False,
    unsafe: Unsafe = False,
    json: Json = False,
) -> None:
    """Run a recipe: measure, train, measure again. The same command continues a killed run."""
    config, set_by_hand = load_recipe(recipe, with_unsafe(overrides, unsafe))
    launch(config, set_by_hand, Options(out, dry_run, accept_code, json))


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    json: Json = False,
) -> None:
    """Write the report page of a run again, from its files alone."""
    _check_is_run(folder)
    from pellucid.report.page import write_report

    page = write_report(folder)
    if json:
        print_json({"report": str(page)})
    else:
        typer.echo(f"Open {page} in a browser.")


def export(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="Run folder or model.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    json: Json = False,
) -> None:
    """Write a Hugging Face folder that transformers and vLLM open unchanged."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is not empty: choose another --out")
    from pellucid.pipeline.export import export_run

    folder = export_run(source, out, Progress(is_silent=json))
    if json:
        print_json({"folder": str(folder)})
    else:
        typer.echo(f"Wrote {folder}")


def doctor(json: Json = False) -> None:
    """Check versions, devices, compiler, memory and disk. Exit code 1 where something is wrong."""
    from pellucid.doctor import Status, check

    with Progress(is_silent=json).task("checking", 1, "checks") as tick:
        findings = check(progress=tick)
    has_failed = any(finding.status is Status.FAIL for finding in findings)
    if json:
        print_json({"ok": not has_failed, "findings": [f.as_json() for f in findings]})
    else:
        print_table(("", "what", "found"), [(f.status, f.name, f.line()) for f in findings])
    raise typer.Exit(1 if has_failed else 0)


def _check_is_run(folder: Path) -> None:
    if not (folder / "recipe.toml").is_file():
        raise RunError(
            f"{folder} is no run folder (it has no recipe.toml): name one that `run` made"
        )
