"""`audit probe`: what a model itself tells of having seen a suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.model import Device, Json, Model, Revision, measured_as
from pellucid.cli.output import interval, percent, points, print_json, print_table
from pellucid.config_io import parse_config
from pellucid.runlog import Progress

if TYPE_CHECKING:
    from pellucid.audit.probes import CompletionProbe, PairedProbe

CAVEAT = (
    "A clean result proves little: after reinforcement learning these probes hardly see what a "
    "model was trained on. A finding is a reason to look; none clears a model."
)
_CHANGED = {"options": "with options moved", "twins": "on twins"}


def add_commands(audits: typer.Typer) -> None:
    """Put the command into `audit`."""
    audits.command()(probe)


def probe(
    model: Model,
    suite: Annotated[str, typer.Option(help="Data set or task.")],
    limit: Annotated[int | None, typer.Option(help="Only the first so many problems.")] = None,
    split: Annotated[str, typer.Option(help="Split of the suite.")] = "test",
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt template; default: the run's own, tiny for tiny-base, else r1-zero."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest answer. Default: the run's own, else 256.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    revision: Revision = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Of samples, twins and orders of options.")] = 0,
    json: Json = False,
) -> None:
    """Does a model tell that it has seen a suite? Weak evidence, weaker after training by rewards.

    Completes partial questions, and answers items beside changed ones: options in another order,
    twins with other numbers. It is asked as `pellucid eval` asks it; probes that do not fit the
    suite are named.
    """
    task, sampling, grading = measured_as(model)
    if max_new_tokens is not None:
        sampling = sampling | {"max_new_tokens": max_new_tokens}
    asked = {"name": suite, "split": split}
    tree: dict[str, Any] = {
        "model": {"id": model} | ({} if revision is None else {"revision": revision}),
        "device": device,
        "seed": seed,
        "task": task
        | ({} if template is None else {"template": template})
        | ({} if data_dir is None else {"data_dir": str(data_dir)}),
        "eval": sampling | {"suites": [asked if limit is None else asked | {"limit": limit}]},
    }
    from pellucid.pipeline.evaluation_options import grader_values
    from pellucid.pipeline.model_probes import probe_model

    config = parse_config(tree | grader_values(grading, ()))
    report = probe_model(config, Progress(is_silent=json))
    if json:
        probes = {name: _plain(found) for name, found in report.probes.items()}
        twins = report.completed_twins
        print_json(
            {
                "probes": probes,
                "completed_twins": None if twins is None else _plain(twins),
                "left_out": report.left_out,
                "caveat": CAVEAT,
            }
        )
        return
    print_table(
        ("probe", "n", "result", "95 % interval", "baseline"),
        [
            row
            for name, found in report.probes.items()
            for row in _rows(name, found, report.completed_twins)
        ],
    )
    for name, reason in report.left_out.items():
        typer.echo(f"not asked: {name}: {reason}")
    typer.echo(CAVEAT)


def _rows(
    name: str, found: CompletionProbe | PairedProbe, twins: CompletionProbe | None
) -> Iterator[tuple[Any, ...]]:
    from pellucid.audit.probes import CompletionProbe

    if isinstance(found, CompletionProbe):
        for key, what in (("exact", "word for word"), ("overlap", "words in order")):
            share = getattr(found, key)
            baseline = twins and f"{percent(getattr(twins, key).value)} on twins"
            yield (
                f"{name}, {what}",
                share.n,
                percent(share.value),
                interval(share.ci95),
                baseline,
            )
        return
    gain = found.advantage
    ends = " to ".join(points(end) for end in gain.ci95)
    baseline = f"{percent(found.changed.value)} {_CHANGED[name]}"
    yield f"{name}, points above", gain.n, points(gain.value), ends, baseline


def _plain(found: CompletionProbe | PairedProbe) -> dict[str, Any]:
    """All numbers under their names; estimates as objects."""

    def named(value: Any) -> Any:
        return value._asdict() if hasattr(value, "_asdict") else value

    return {key: named(getattr(found, key)) for key in found.__dataclass_fields__}
