"""`data list`, `data get`, `data check`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pellucid.cli.output import print_json, print_table, show_help
from pellucid.runlog import Progress

if TYPE_CHECKING:
    from pellucid.data.check import DataReport

app = typer.Typer(
    help="Data sets: list, fetch, check.",
    invoke_without_command=True,
    callback=show_help,
    rich_markup_mode=None,
)

ROWS_SHOWN = 20
"""Refused rows that `check` prints of one split; `--json` has all."""

Name = Annotated[str, typer.Argument(help="A name that `data list` shows.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the data sets; default: the cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and no progress.")]


@app.command("list")
def list_all(data_dir: DataDir = None, json: Json = False) -> None:
    """Every data set and procedural task with its rows, licence and first public date."""
    from pellucid.data.check import list_datasets

    entries = list_datasets(data_dir)
    if json:
        print_json([asdict(entry) for entry in entries])
        return
    print_table(
        ("name", "here", "rows", "first public", "licence"),
        [
            (
                entry.name,
                "yes" if entry.is_fetched else "no",
                ", ".join(f"{split} {rows:,}" for split, rows in entry.rows.items())
                or "any number",
                entry.first_public or None,
                entry.licence,
            )
            for entry in entries
        ],
    )


@app.command()
def get(
    name: Name,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder that holds the published files.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Fetch a data set, from its hub or a folder, and check its digests."""
    from pellucid.data.fetch import get as fetch_by_name

    with Progress(is_silent=json).task(f"fetching {name}", 1, "splits") as tick:
        folder = fetch_by_name(name, source_folder=source, data_dir=data_dir, progress=tick)
    if json:
        print_json({"name": name, "folder": str(folder)})
    else:
        typer.echo(f"{name} is in {folder}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A name that `data list` shows, or a recipe.")],
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Check a data set: digests, unusable rows, overlap with held-out sets (then exit code 1). Or
    a recipe: its training problems against its own evaluation suites.
    """
    from pellucid.config_io import RECIPE_FILE

    if name.endswith(".toml") or (Path(name) / RECIPE_FILE).is_file():
        _check_recipe(name, json=json)
    from pellucid.data.check import check as check_by_name

    found = check_by_name(name, data_dir=data_dir)
    if json:
        print_json(asdict(found) | {"is_clean": found.is_clean})
    else:
        _print_report(found)
    raise typer.Exit(0 if found.is_clean else 1)


def _check_recipe(path: str, *, json: bool) -> NoReturn:
    """Exits with 1 where training problems hold evaluation items."""
    from pellucid.config_io import load_recipe
    from pellucid.pipeline.screening import screen_recipe

    found = screen_recipe(load_recipe(path)[0])
    if json:
        print_json({name: screening.document() for name, screening in found.items()})
    else:
        for name, screening in found.items():
            typer.echo(f"{name}: {screening.line}")
        if not found:
            typer.echo("nothing to compare: training problems or suites are all generated")
    is_clean = not any(screening.scan.leaked_items() for screening in found.values())
    raise typer.Exit(0 if is_clean else 1)


def _print_report(found: DataReport) -> None:
    typer.echo(f"{found.title}\n{found.source}; {found.licence}")
    for split in found.splits:
        typer.echo(
            f"{found.name}/{split.split}: {split.rows} rows, {len(split.repeated)} repeated, "
            f"{len(split.refused)} refused"
        )
        if split.kinds is not None:
            kinds, usable = split.kinds, split.rows - len(split.refused)
            typer.echo(
                f"  {kinds.checked} of {kinds.named} kinds of instructions are checked, "
                f"{usable} of {split.rows} items whole"
            )
            for kind, count in kinds.missing.items():
                typer.echo(f"  not checked: {kind}, in {count} items")
        for row in split.refused[:ROWS_SHOWN]:
            typer.echo(f"  row {row.row}: {row.reason} (answer {row.gold!r})")
        if len(split.refused) > ROWS_SHOWN:
            typer.echo(f"  and {len(split.refused) - ROWS_SHOWN} more: --json has them all")
    for overlap in found.overlaps:
        typer.echo(
            f"{overlap.train} holds {len(overlap.pairs)} of the {overlap.held_out_rows} questions "
            f"of {overlap.held_out}"
        )
    if found.not_compared:
        typer.echo(f"not compared, because not fetched: {', '.join(found.not_compared)}")
