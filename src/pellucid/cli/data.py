"""`data list`, `data get`, `data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli.output import print_json, print_table, show_help

app = typer.Typer(
    help="Data sets: list, fetch, check.",
    invoke_without_command=True,
    callback=show_help,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="A name that `data list` shows.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the data sets; default: the cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_all(json: Json = False) -> None:
    """Every data set with its source, licence and dates, and the procedural tasks."""
    from pellucid.data.registry import DATASETS
    from pellucid.tasks import PROCEDURAL

    sets = [
        {
            "name": entry.name,
            "rows": {split.name: split.rows for split in entry.splits},
            "source": entry.repository,
            "revision": entry.revision,
            "licence": entry.licence,
            "first_public": entry.first_public,
            "grader": entry.grader,
        }
        for entry in DATASETS.values()
    ]
    if json:
        print_json({"data_sets": sets, "procedural": list(PROCEDURAL)})
        return
    print_table(
        ("name", "rows", "first public", "licence", "source"),
        [(s["name"], _rows(s), s["first_public"], s["licence"], s["source"]) for s in sets],
    )
    typer.echo(f"\nProcedural, nothing to fetch: {', '.join(PROCEDURAL)}")


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

    folder = fetch_by_name(name, source_folder=source, data_dir=data_dir)
    if json:
        print_json({"name": name, "folder": str(folder)})
    else:
        typer.echo(f"{name} is in {folder}")


@app.command()
def check(name: Name, data_dir: DataDir = None, json: Json = False) -> None:
    """Check a fetched data set: digests, and the rows that its grader cannot use."""
    from pellucid.data.load import load
    from pellucid.data.registry import get_dataset

    splits = []
    for split in get_dataset(name).splits:
        loaded = load(name, split.name, data_dir=data_dir)
        refused = [{"row": r.row, "gold": r.gold, "reason": r.reason} for r in loaded.refused]
        splits.append({"split": split.name, "usable": len(loaded.problems), "refused": refused})
    if json:
        print_json({"name": name, "splits": splits})
        return
    for part in splits:
        counts = f"{part['usable']} usable, {len(part['refused'])} refused"
        typer.echo(f"{name}/{part['split']}: {counts}")
        for row in part["refused"]:
            typer.echo(f"  row {row['row']}: {row['reason']} (gold {row['gold']!r})")


def _rows(entry: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in entry["rows"].items())
