"""Problems by name, from data sets and procedural tasks; each gold is tried on its grader first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pellucid.data.registry import DATASETS
from pellucid.data.store import default_data_dir, read_split
from pellucid.errors import DataError
from pellucid.records import Problem
from pellucid.rewards import check_gold
from pellucid.rewards.table import OPEN
from pellucid.sandbox import SandboxError, why_missing
from pellucid.tasks import PROCEDURAL, procedural
from pellucid.tasks.lookup import lookup

DEFAULT_COUNT = {"train": 10_000, "test": 500}
"""Problems of a procedural task where no limit is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A row left out because its grader cannot use the gold answer."""

    row: int
    """Counted from 0, as in the id `name/split/row`."""
    gold: str
    reason: str


class Loaded(NamedTuple):
    problems: list[Problem]
    refused: list[Refusal]
    """Rows left out on the way to `limit`; their ids stay unused, the others keep theirs."""


def load_problems(
    name: str,
    split: str,
    *,
    limit: int | None = None,
    data_dir: Path | str | None = None,
    seed: int = 0,
) -> list[Problem]:
    """The first `limit` usable problems of a data set or procedural task.

    `seed` chooses the problems of a procedural task and leaves data sets as they are. DataError:
    unknown name or split, data missing or altered, or no usable row at all.
    """
    return load(name, split, limit=limit, data_dir=data_dir, seed=seed).problems


def load(
    name: str,
    split: str,
    *,
    limit: int | None = None,
    data_dir: Path | str | None = None,
    seed: int = 0,
) -> Loaded:
    """`load_problems` together with the rows that were refused."""
    task = procedural(name)
    if task is not None:
        lookup(DEFAULT_COUNT, split, f"split of {name}", DataError)
        problems = task(split, limit or DEFAULT_COUNT[split], seed)
    else:
        lookup({**DATASETS, **PROCEDURAL}, name, "data set or task", DataError)
        dataset = DATASETS[name]
        folder = (Path(data_dir) if data_dir else default_data_dir()) / name
        problems = read_split(folder, dataset, dataset.split(split))
    loaded = usable(problems, limit)
    if not loaded.problems:
        first = loaded.refused[0] if loaded.refused else None
        reason = f": row {first.row}, {first.reason}" if first else ""
        raise DataError(f"{name} {split} has no problem that its grader can use{reason}")
    return loaded


def require_sandbox(names: Iterable[str], *, unsafe: bool) -> None:
    """Raises SandboxError, in one line, where a data set asks for programs and this machine cannot
    isolate them. `unsafe`: they may run without.
    """
    coded = [name for name in names if name in DATASETS and DATASETS[name].grader == "code"]
    if coded and not unsafe and (why := why_missing()) is not None:
        raise SandboxError(f"{coded[0]} has programs judged, but {why}")


def usable(problems: Iterable[Problem], limit: int | None = None) -> Loaded:
    """Split problems into those whose grader can use the gold and those refused, up to `limit`."""
    kept: list[Problem] = []
    refused: list[Refusal] = []
    for row, problem in enumerate(problems):
        if limit is not None and len(kept) == limit:
            break
        has_gold = problem.gold or problem.grader == OPEN
        reason = check_gold(problem) if has_gold else "the publisher gives no answer"
        if reason is None:
            kept.append(problem)
        else:
            refused.append(Refusal(row=row, gold=problem.gold, reason=reason))
    return Loaded(kept, refused)
