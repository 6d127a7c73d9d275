"""`run`, `report`, `export`, `doctor`; how a recipe is run and its result printed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from pellucid.cli.output import interval, percent, points, print_json, print_table
from pellucid.config import RunConfig
from pellucid.config_io import Recipe, dump_recipe, load_recipe
from pellucid.config_stages import PipelineConfig
from pellucid.errors import RunError
from pellucid.runlog import Progress

RecipeName = Annotated[str, typer.Argument(help="A recipe's name, folder or TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value, e.g. train.steps=20 or stages.zero.train.steps=20.",
    ),
]
Out = Annotated[Path | None, typer.Option(help="Run folder; default: runs/NAME of the recipe.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")]
AcceptCode = Annotated[
    bool,
    typer.Option(
        "--accept-code", help="Keep stages that were made by other code than today's as they are."
    ),
]
Unsafe = Annotated[
    bool,
    typer.Option("--unsafe", help="Run a model's programs without isolation where there is none."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and no progress.")]


def with_unsafe(overrides: list[str] | None, unsafe: bool) -> list[str]:
    """The overrides, with what --unsafe stands for."""
    return [*(overrides or []), *(["unsafe_code=true"] if unsafe else [])]


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


class Options(NamedTuple):
    """How a recipe is run."""

    out: Path | None
    dry_run: bool
    accept_code: bool
    json: bool


def launch(
    config: Recipe,
    set_by_hand: Mapping[str, str],
    options: Options,
    stages: Collection[str] | None = None,
) -> None:
    """Runs a recipe, or those of its stages that are named, and prints the result."""
    if options.dry_run:
        _check_names(config)
        if options.json:
            print_json(config.model_dump(mode="json"))
        else:
            typer.echo(dump_recipe(config, set_by_hand), nl=False)
        return
    folder = options.out if options.out is not None else Path("runs") / config.name
    arguments: dict[str, Any] = {
        "set_by_hand": set_by_hand,
        "progress": Progress(is_silent=options.json),
    }
    if isinstance(config, PipelineConfig):
        from pellucid.pipeline.pipeline import Choice, run_pipeline

        choice = Choice(stages=stages, accepts_code=options.accept_code)
        outcome = run_pipeline(config, folder, choice=choice, **arguments)
        show = _print_stage_table
    else:
        from pellucid.pipeline.zero import run as run_one_stage

        outcome = run_one_stage(config, folder, **arguments)
        show = _print_before_and_after
    if options.json:
        print_json(outcome.result)
        return
    show(outcome.result)
    typer.echo(f"\nOpen {outcome.report} in a browser to see how it went.")


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_OR_D", help="A run folder, or a dossier.")],
    out: Annotated[
        Path | None, typer.Option(help="Page of a dossier to write; default: D.html beside D.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Examine the dossier too, and show the table.")
    ] = False,
    json: Json = False,
) -> None:
    """Write the page of a run (again), or of a dossier, from its files alone."""
    from pellucid.report.dossier.read import is_dossier

    if is_dossier(folder):
        from pellucid.report.dossier.page import write_dossier_page

        page = write_dossier_page(folder, out, with_verdict=check)
    else:
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
    if (folder / "evaluation.toml").is_file():
        raise RunError(
            f"{folder} is an evaluation: report its dossier (`pellucid dossier build {folder}`)"
        )
    if not (folder / "recipe.toml").is_file():
        raise RunError(
            f"{folder} is no run folder (it has no recipe.toml): name one that `run` made"
        )


def _check_names(config: Recipe) -> None:
    """The names that a run would refuse and that need neither data nor model to look up."""
    if isinstance(config, RunConfig):
        from pellucid.rewards.terms import check_terms
        from pellucid.tasks.templates import get_template

        check_terms(config.reward.terms)
        get_template(config.task.template)
        return
    from pellucid.pipeline.check import check_names

    check_names(config)


def _print_before_and_after(result: Mapping[str, Any]) -> None:
    before, after, gain = (result[key] for key in ("before", "after", "difference"))
    rows = [
        (name, percent(arm["pass_at_1"]), interval(arm["ci95"]), arm["n"], arm["k"])
        for name, arm in (("before", before), ("after", after))
    ]
    print_table(
        (result["suite"], "pass@1", "95 % interval", "problems", "samples each"),
        [*rows, ("difference", percent(gain["value"]), interval(gain["ci95"]), None, None)],
    )


def _print_stage_table(result: Mapping[str, Any]) -> None:
    """A table for each suite: the models in the order of their stages."""
    for number, suite in enumerate(result["table"]):
        if number:
            typer.echo()
        rows = [(stage["name"], stage["suites"].get(suite["key"])) for stage in result["stages"]]
        print_table(
            (
                *(suite["suite"], "pass@1", "95 % interval", "from base", "95 % interval"),
                *("tokens", "cut off", "in format", "in language"),
            ),
            [_stage_row(name, measured) for name, measured in rows if measured is not None],
        )


def _stage_row(name: str, measured: Mapping[str, Any]) -> tuple[Any, ...]:
    gain, readable, language = (measured[k] for k in ("from_base", "readable", "language"))
    return (
        name,
        percent(measured["pass_at_1"]),
        interval(measured["ci95"]),
        points(gain["value"]) if gain else None,
        interval(gain["ci95"]) if gain else None,
        f"{measured['length_mean']:.0f}",
        percent(measured["truncated_frac"]),
        percent(readable["value"]) if readable else None,
        percent(language["value"]) if language else None,
    )
