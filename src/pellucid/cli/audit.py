"""`audit contamination`, `audit hash-prompts`; `audit probe` is in `audit_probe`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.artifacts import atomic_write_json
from pellucid.cli.output import percent, print_json, print_table, show_help
from pellucid.runlog import Progress

if TYPE_CHECKING:
    from pellucid.audit.contamination.leaks import SelfTest
    from pellucid.audit.contamination.records import Scan

app = typer.Typer(
    help="Audits: evaluation items in training data, and what a model tells of them.",
    invoke_without_command=True,
    callback=show_help,
    rich_markup_mode=None,
)

PAIRS_SHOWN = 20
_TEXT_SHOWN = 60


@app.command()
def contamination(
    corpus: Annotated[list[str], typer.Argument(help="Files of training data, or folders.")],
    against: Annotated[
        list[str],
        typer.Option(help="A suite: a data set that was fetched (NAME or NAME/SPLIT), or a file."),
    ],
    out: Annotated[Path | None, typer.Option(help="Where to write scan.json.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; files are shared out.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the planted leaks.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print scan.json and no progress.")] = False,
) -> None:
    """Which evaluation items stand in a corpus, where, and how many planted leaks were found."""
    from pellucid.audit.contamination.corpus import items_of, sources_of
    from pellucid.audit.contamination.hashed import HASHED_ENDING, scan_hashed
    from pellucid.audit.contamination.leaks import scan_and_test
    from pellucid.audit.contamination.report import scan_json
    from pellucid.audit.contamination.scan import Scanner

    items = [item for name in against for item in items_of(name, data_dir=data_dir)]
    test = None
    if len(corpus) == 1 and corpus[0].endswith(HASHED_ENDING):
        scan = scan_hashed(items, Path(corpus[0]))
    else:
        sources = sources_of(corpus)
        with Progress(is_silent=json).task("scanning", len(sources) + 1, "sources") as tick:
            scan, test = scan_and_test(
                Scanner(items), sources, seed=seed, workers=workers, progress=tick
            )
    document = scan_json(scan, test)
    if out is not None:
        atomic_write_json(out, document)
    if json:
        print_json(document)
    else:
        _print_scan(scan, test)
    raise typer.Exit(1 if scan.leaked_items() else 0)


@app.command("hash-prompts")
def hash_prompts(
    corpus: Annotated[list[str], typer.Argument(help="Files of training data, or folders.")],
    out: Annotated[Path, typer.Option(help="Where to write; ends in .hashed.jsonl.gz.")],
    salt: Annotated[
        str | None, typer.Option(help="Hexadecimal, up to 64 bytes; default: drawn at random.")
    ] = None,
) -> None:
    """Private prompts as salted n-gram hashes, which `audit contamination` scans without text.

    Reveals the number of n-grams of each document, which documents share some, and to whoever has
    the file whether words that they can guess stand in a document.
    """
    from pellucid.audit.contamination.corpus import sources_of
    from pellucid.audit.contamination.hashed import SALT_BYTES, write_hashed

    try:
        key = os.urandom(SALT_BYTES) if salt is None else bytes.fromhex(salt)
    except ValueError:
        raise typer.BadParameter(f"--salt {salt!r} is not hexadecimal") from None
    documents = write_hashed(sources_of(corpus), out, key)
    typer.echo(f"{documents} documents are in {out}, with the salt {key.hex()}")


def _print_scan(scan: Scan, test: SelfTest | None) -> None:
    from pellucid.audit.contamination.leaks import RELIABLE
    from pellucid.audit.contamination.report import by_suite

    print_table(
        ("suite", "items", "in full", "in part", "other numbers"),
        [
            (suite, row["items"], row["full"], row["partial"], row["twin"])
            for suite, row in by_suite(scan).items()
        ],
    )
    leaked = [pair for pair in scan.pairs if pair.kind != "twin"]
    for pair in leaked[:PAIRS_SHOWN]:
        text = " ".join(pair.item.text.split())[:_TEXT_SHOWN]
        share = percent(pair.exact[0].share)
        typer.echo(f"{pair.source} row {pair.row}: {share} of {pair.item.id} ({pair.kind}): {text}")
    if len(leaked) > PAIRS_SHOWN:
        typer.echo(f"and {len(leaked) - PAIRS_SHOWN} more pairs: --json or --out has them all")
    if scan.too_short:
        typer.echo(f"{scan.too_short} items have too few words: not scanned")
    if test is None:
        typer.echo("no self-test: leaks cannot be planted among hashes")
        return
    kinds = ", ".join(f"{kind} {percent(e.value)}" for kind, e in test.recalls.items())
    typer.echo(f"self-test on this corpus, planted leaks found: {kinds}")
    steps = ", ".join(f"{least}: {percent(recall)}" for least, recall, _ in test.by_length)
    typer.echo(f"by the words of the item, from these on to the next: {steps}")
    whole = test.reliable_from
    typer.echo(
        f"of every kind {percent(RELIABLE)} or more are found in items of "
        + (f"{whole} words or more" if whole is not None else "no length that was tried")
    )
    typer.echo(
        f"{test.flagged} of {test.documents} documents flagged; {test.at_most_false} of them hold "
        "no full copy: no more than these are false"
    )
