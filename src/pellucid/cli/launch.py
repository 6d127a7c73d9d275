"""What `run` and the commands for single stages share: load, run, print what came out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from pellucid.cli.output import interval, percent, points, print_json, print_table
from pellucid.config import RunConfig
from pellucid.config_io import Recipe, dump_recipe
from pellucid.config_stages import PipelineConfig
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
