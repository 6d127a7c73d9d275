"""What is in a data set: rows, repetitions, unusable answers, overlap with held-out sets.

Overlap here is word for word, after dropping case, spaces, punctuation and LaTeX's own characters.
Near copies (other numbers, other words) are the contamination audit's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pellucid.data.load import DEFAULT_COUNT, Refusal, usable
from pellucid.data.registry import DATASETS, Dataset
from pellucid.data.store import default_data_dir, read_split
from pellucid.errors import DataError
from pellucid.records import Problem
from pellucid.rewards.constraints import KindCoverage, kind_coverage
from pellucid.tasks import PROCEDURAL, procedural
from pellucid.tasks.lookup import lookup

# Commands that only set type, brackets around formulas. Operators stay: 7 - 3 is not 7 + 3.
_COMMANDS = re.compile(r"\\[()\[\]]|\\(?:left|right|displaystyle)\b")
_FRACTIONS = re.compile(r"\\[dt]?frac")
_TYPESETTING = re.compile(r"[\s\\${}.,;:!?'\"`’]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """One split of the checked set. Rows are counted from 0, as in the ids."""

    split: str
    rows: int
    repeated: tuple[tuple[int, int], ...]
    """(row, earlier row with the same question)."""
    refused: tuple[Refusal, ...]
    """Rows whose gold the grader cannot use; `load_problems` leaves them out."""
    kinds: KindCoverage | None = None
    """Of sets of checkable instructions: which kinds a rule decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Training rows whose question stands word for word in a held-out split."""

    train: str
    held_out: str
    """`name/split`."""
    pairs: tuple[tuple[int, int], ...]
    """(training row, held-out row)."""
    held_out_rows: int
    """Rows of the held-out split: the denominator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """Everything `pellucid data check` prints."""

    name: str
    title: str
    source: str
    """Repository and revision, or `generated`."""
    licence: str
    rights: str
    first_public: str
    """Empty for generated problems: they are new."""
    splits: tuple[SplitReport, ...]
    overlaps: tuple[Overlap, ...]
    not_compared: tuple[str, ...]
    """Held-out sets that are not in the data folder, and so were not compared."""

    @property
    def is_clean(self) -> bool:
        """No refused row, and no training question that is held out elsewhere."""
        return not any(s.refused for s in self.splits) and not any(o.pairs for o in self.overlaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """One line of `pellucid data list`."""

    name: str
    title: str
    licence: str
    rights: str
    first_public: str
    rows: Mapping[str, int]
    """Rows of each split; empty for procedural tasks, which have as many as are asked for."""
    is_procedural: bool
    is_fetched: bool
    """There is a finished copy in the data folder (its digests are checked when it is loaded)."""


def list_datasets(data_dir: Path | str | None = None) -> list[DatasetSummary]:
    """All known data sets and procedural tasks."""
    root = Path(data_dir) if data_dir else default_data_dir()
    published = [
        DatasetSummary(
            name=d.name,
            title=d.title,
            licence=d.licence,
            rights=d.rights,
            first_public=d.first_public,
            rows={s.name: s.rows for s in d.splits},
            is_procedural=False,
            is_fetched=(root / d.name / "manifest.json").exists(),
        )
        for d in DATASETS.values()
    ]
    generated = [
        DatasetSummary(
            name=name,
            title="generated from a seed",
            licence="Apache-2.0",
            rights="A",
            first_public="",
            rows={},
            is_procedural=True,
            is_fetched=True,
        )
        for name in PROCEDURAL
    ]
    return published + generated


def check(name: str, *, data_dir: Path | str | None = None, seed: int = 0) -> DataReport:
    """Check a data set that has been fetched, or the default problems of a procedural task.

    DataError: unknown name, data missing or altered.
    """
    root = Path(data_dir) if data_dir else default_data_dir()
    task = procedural(name)
    if task is None:
        lookup({**DATASETS, **PROCEDURAL}, name, "data set or task", DataError)
    else:
        generated = {s: task(s, n, seed) for s, n in DEFAULT_COUNT.items()}
        return DataReport(
            name=name,
            title="generated from a seed",
            source="generated",
            licence="Apache-2.0",
            rights="A",
            first_public="",
            splits=tuple(report_split(s, rows) for s, rows in generated.items()),
            overlaps=(
                find_overlap(
                    f"{name}/train", generated["train"], f"{name}/test", generated["test"]
                ),
            ),
            not_compared=(),
        )
    return check_dataset(DATASETS[name], root, DATASETS)


def check_dataset(dataset: Dataset, root: Path, known: Mapping[str, Dataset]) -> DataReport:
    """`check` for a registry entry, compared with the held-out splits of `known`."""
    splits = {s.name: read_split(root / dataset.name, dataset, s) for s in dataset.splits}
    overlaps: list[Overlap] = []
    missing: list[str] = []
    if "train" in splits:
        for other in known.values():
            for split in other.splits:
                if split.name == "train":
                    continue
                if not (root / other.name / "manifest.json").exists():
                    missing.append(f"{other.name}/{split.name}")
                    continue
                held_out = read_split(root / other.name, other, split)
                overlaps.append(
                    find_overlap(
                        f"{dataset.name}/train",
                        splits["train"],
                        f"{other.name}/{split.name}",
                        held_out,
                    )
                )
    return DataReport(
        name=dataset.name,
        title=dataset.title,
        source=f"{dataset.repository} at {dataset.revision}",
        licence=dataset.licence,
        rights=dataset.rights,
        first_public=dataset.first_public,
        splits=tuple(report_split(name, problems) for name, problems in splits.items()),
        overlaps=tuple(overlaps),
        not_compared=tuple(missing),
    )


def report_split(name: str, problems: Sequence[Problem]) -> SplitReport:
    """Repetitions and refused rows of one split."""
    first: dict[str, int] = {}
    repeated: list[tuple[int, int]] = []
    for row, problem in enumerate(problems):
        key = plain_words(problem.question)
        if key in first:
            repeated.append((row, first[key]))
        else:
            first[key] = row
    return SplitReport(
        split=name,
        rows=len(problems),
        repeated=tuple(repeated),
        refused=tuple(usable(problems).refused),
        kinds=kind_coverage([p.gold for p in problems if p.grader == "constraints"]),
    )


def find_overlap(
    train_name: str, train: Sequence[Problem], held_out_name: str, held_out: Sequence[Problem]
) -> Overlap:
    """Training questions that are questions of the held-out split."""
    rows = {plain_words(problem.question): row for row, problem in enumerate(held_out)}
    keys = [plain_words(problem.question) for problem in train]
    return Overlap(
        train=train_name,
        held_out=held_out_name,
        pairs=tuple((row, rows[key]) for row, key in enumerate(keys) if key in rows),
        held_out_rows=len(held_out),
    )


def plain_words(text: str) -> str:
    """Lower case without spaces, punctuation and typesetting: equal for copies of one question."""
    return _TYPESETTING.sub("", _COMMANDS.sub("", _FRACTIONS.sub("frac", text.lower())))
