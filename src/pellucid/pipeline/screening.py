"""The run's training problems held against its own evaluation suites, before anything is trained.

Generated problems are left out on both sides: their splits share no structure by construction, and
problems of one template are alike by intention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pellucid.artifacts import atomic_write_json
from pellucid.audit.contamination.corpus import ProblemSource, problem_items
from pellucid.audit.contamination.leaks import SelfTest, scan_and_test
from pellucid.audit.contamination.records import Scan
from pellucid.audit.contamination.report import counts, scan_json
from pellucid.audit.contamination.scan import Scanner
from pellucid.config import TaskEntry
from pellucid.config_io import Recipe
from pellucid.config_stages import PipelineConfig
from pellucid.data.load import load_problems
from pellucid.data.mixture import Mixture, Part, load_mixture
from pellucid.errors import DataError
from pellucid.evaluate.suites import Suite
from pellucid.ledger import EventKind, Ledger
from pellucid.pipeline.measure import load_suites, pipeline_suites
from pellucid.pipeline.stage import StageContext
from pellucid.records import Problem
from pellucid.tasks import procedural

Mode = Literal["report", "drop", "refuse"]
SCAN_FILE = Path("contamination") / "scan.json"
"""Below the run folder."""
TRAINING = "training problems"
"""Name of the source in scan.json; a row is the place in the task's list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """What was found, and what is left to train on."""

    mode: Mode
    scan: Scan
    self_test: SelfTest
    kept: list[Problem]
    """All problems, or under `drop` those that hold no item."""
    dropped: tuple[str, ...]
    """Ids of the problems left out."""

    @property
    def summary(self) -> dict[str, Any]:
        """For the ledger and the manifest."""
        return {
            "mode": self.mode,
            "dropped": len(self.dropped),
            "recall": round(self.self_test.recall, 4),
            **counts(self.scan),
        }

    @property
    def line(self) -> str:
        """What is said aloud."""
        found = counts(self.scan)
        left_out = f"; {len(self.dropped)} left out" if self.mode == "drop" else ""
        return (
            f"contamination: {found['leaked_documents']} of {found['documents']} training problems "
            f"hold {found['leaked_items']} of {found['items']} evaluation items{left_out} "
            f"(of leaks planted among them, {100 * self.self_test.recall:.0f} % were found)"
        )

    def document(self) -> dict[str, Any]:
        """scan.json, with what was done."""
        return scan_json(self.scan, self.self_test) | {
            "mode": self.mode,
            "dropped": list(self.dropped),
        }

    def record(self, root: Path, ledger: Ledger) -> None:
        """Writes scan.json below the run folder, and an event that pins it."""
        digest = atomic_write_json(root / SCAN_FILE, self.document())
        ledger.append(EventKind.CONTAMINATION_SCANNED, scan=digest, **self.summary)


def screened_mixture(context: StageContext, tasks: Sequence[TaskEntry]) -> Mixture:
    """The mixture of a stage's tasks, screened. Raises as `screen_mixture`, or DataError where data
    is missing.
    """
    data_dir = context.recipe.data_dir
    return screen_mixture(context, load_mixture(tasks, seed=context.seed, data_dir=data_dir))


def screen_mixture(context: StageContext, mixture: Mixture) -> Mixture:
    """A mixture held against the recipe's suites as `recipe.data` says.

    What was found lies in the stage's folder and in the ledger. Raises DataError as `screen` does.
    """
    recipe = context.recipe
    mode = recipe.data.contamination
    found = screen(mixture.problems, pipeline_suites(recipe), mode, seed=context.seed)
    if found is None:
        return mixture
    digest = atomic_write_json(context.stage.root / SCAN_FILE, found.document())
    context.note(EventKind.CONTAMINATION_SCANNED, scan=digest, **found.summary)
    context.progress.say(f"{context.config.name}: {found.line}")
    dropped = set(found.dropped)
    parts = [
        Part([p for p in part.problems if p.id not in dropped], part.weight)
        for part in mixture.parts
    ]
    return Mixture(parts, context.seed)


def screen_recipe(recipe: Recipe) -> dict[str, Screening]:
    """What each stage of a recipe, or its one, would find; nothing is dropped or refused.

    Stages whose problems, or whose suites, are all generated are left out. Raises DataError where
    data is missing.
    """
    if isinstance(recipe, PipelineConfig):
        suites = pipeline_suites(recipe)
        named = {
            stage.name: load_mixture(
                stage.tasks, seed=recipe.seed, data_dir=recipe.data_dir
            ).problems
            for stage in recipe.stages
            if getattr(stage, "tasks", ())
        }
    else:
        suites, task = load_suites(recipe), recipe.task
        named = {
            task.name: load_problems(
                task.name, task.split, limit=task.limit, data_dir=task.data_dir, seed=recipe.seed
            )
        }
    found = {name: screen(p, suites, "report", seed=recipe.seed) for name, p in named.items()}
    return {name: screening for name, screening in found.items() if screening is not None}


def screen(
    problems: Sequence[Problem], suites: Sequence[Suite], mode: Mode, *, seed: int = 0
) -> Screening | None:
    """Scans published training problems for items of published suites; None where there are none.

    Raises DataError under `refuse` where an item is found, and under `drop` where nothing is left.
    """
    items = [
        item
        for suite in suites
        for item in problem_items(suite.key, [p for p in suite.problems if not _is_generated(p)])
    ]
    if not items or all(map(_is_generated, problems)):
        return None
    source = ProblemSource(TRAINING, problems)
    scan, test = scan_and_test(Scanner(items), [source], seed=seed)
    leaked = {row for _, row in scan.leaked_documents()}
    if mode == "refuse" and leaked:
        first = next(p for p in scan.pairs if p.kind != "twin")
        raise DataError(
            f"{len(leaked)} training problems hold evaluation items, such as "
            f"{problems[first.row].id} of {first.item.id}: leave them out with data.contamination "
            '= "drop", or train on them with "report"'
        )
    drops = leaked if mode == "drop" else set()
    kept = [problem for row, problem in enumerate(problems) if row not in drops]
    if not kept:
        raise DataError(
            "every training problem holds an evaluation item: train on another split, or evaluate "
            "on one"
        )
    dropped = tuple(problems[row].id for row in sorted(drops))
    return Screening(mode=mode, scan=scan, self_test=test, kept=kept, dropped=dropped)


def _is_generated(problem: Problem) -> bool:
    return procedural(problem.id.rsplit("/", 2)[0]) is not None
