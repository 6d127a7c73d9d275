"""`run`, `report`, `export`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.output import percent, print_json, print_table
from pellucid.config import RunConfig
from pellucid.config_io import dump_recipe, load_recipe
from pellucid.errors import RunError
from pellucid.runlog import Progress

Json = Annotated[bool, typer.Option("--json", help="Print JSON and no progress.")]


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, folder or TOML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. train.steps=20."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; the default is runs/NAME of the recipe.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a recipe: measure, train, measure again. The same command continues a killed run."""
    config, set_by_hand = load_recipe(recipe, overrides or [])
    if dry_run:
        _check_names(config)
        if json:
            print_json(config.model_dump(mode="json"))
        else:
            typer.echo(dump_recipe(config, set_by_hand), nl=False)
        return
    from pellucid.pipeline.zero import run as run_recipe

    folder = out if out is not None else Path("runs") / config.name
    outcome = run_recipe(config, folder, set_by_hand=set_by_hand, progress=Progress(is_silent=json))
    if json:
        print_json(outcome.result)
        return
    before, after, gain = (outcome.result[key] for key in ("before", "after", "difference"))
    print_table(
        (outcome.result["suite"], "pass@1", "95 % interval", "problems", "samples each"),
        [
            ("before", percent(before["pass_at_1"]), _interval(before), before["n"], before["k"]),
            ("after", percent(after["pass_at_1"]), _interval(after), after["n"], after["k"]),
            ("difference", percent(gain["value"]), _interval(gain), None, None),
        ],
    )
    typer.echo(f"\nOpen {outcome.report} in a browser to see how it went.")


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


def _check_names(config: RunConfig) -> None:
    """The names that a run would refuse and that need neither data nor model to look up."""
    from pellucid.rewards.terms import check_terms
    from pellucid.tasks.templates import get_template

    check_terms(config.reward.terms)
    get_template(config.task.template)


def _check_is_run(folder: Path) -> None:
    if not (folder / "recipe.toml").is_file():
        raise RunError(
            f"{folder} is no run folder (it has no recipe.toml): name one that `run` made"
        )


def _interval(part: dict[str, list[float]]) -> str:
    low, high = part["ci95"]
    return f"{100 * low:.1f} to {100 * high:.1f}"
