"""The scan that a dossier ships: what a run's own scans found, joined; the rest is scanned now.

A run of one stage screens its problems once, a pipeline once for each stage that reads published
ones. What was left out of the training (`[data] contamination = "drop"`) is no leak: its items
count as clean and name the documents that were left out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.artifacts import RunFolder, sha256_json
from pellucid.audit.contamination.corpus import ProblemSource, problem_items
from pellucid.audit.contamination.hashed import HASHED_ENDING, SALT_BYTES, write_hashed
from pellucid.audit.contamination.leaks import scan_and_test
from pellucid.audit.contamination.records import Rule
from pellucid.audit.contamination.report import scan_json
from pellucid.audit.contamination.scan import Scanner
from pellucid.config import RunConfig
from pellucid.config_io import Recipe
from pellucid.config_stages import PipelineConfig
from pellucid.data.load import load_problems
from pellucid.data.mixture import load_mixture
from pellucid.evaluate.suites import Suite
from pellucid.evidence.core.schema_training import Scan
from pellucid.pipeline.generated_scan import WHOLE, scan_generated
from pellucid.pipeline.screening import SCAN_FILE, TRAINING
from pellucid.pipeline.stage import stage_seed
from pellucid.records import Problem
from pellucid.tasks import procedural

MOST_BYTES = 4 << 20
"""Of hashed prompts in a dossier, which should stay a file that one sends."""
Document = dict[str, Any]
"""A scan.json (`audit.contamination.report`)."""


def scan_of(recipe: Recipe, run: RunFolder, suites: Sequence[Suite]) -> Scan | None:
    """The scans that the run made as one; suites that they leave out are scanned now: generated
    ones for equal questions, published ones for near copies. None: there was nothing to scan.
    """
    made = stage_scans(run)
    document = _joined({name: _as_trained(one) for name, one in made.items()})
    absent = [suite for suite in suites if suite.key not in document.get("suites", {})]
    problems = training_problems(recipe, made) if absent else []
    generated = [suite for suite in absent if _is_generated(suite)]
    published = [suite for suite in absent if not _is_generated(suite)]
    if generated and problems:
        document = _beside(document, scan_generated(generated, problems))
    if published and problems:
        items = [item for s in published for item in problem_items(s.key, list(s.problems))]
        scan, test = scan_and_test(
            Scanner(items), [ProblemSource(TRAINING, problems)], seed=recipe.seed
        )
        document = _beside(scan_json(scan, test), document)
    return document or None  # type: ignore[return-value]


def hashed_prompts(recipe: Recipe, run: RunFolder, scan: Document | None) -> bytes | str:
    """The training problems that a run's own scans read, for `contamination/prompts.hashed…`, or
    why they are not shipped; empty: none was read. A source is the place in the scan's list, a row
    that of the scan.

    The salt comes from the scan: the same run gives the same bytes.
    """
    made = stage_scans(run)
    if scan is None or not made:
        return ""
    if scan.get("sources") != _joined(made).get("sources"):
        return "the scan was made anew for the dossier"
    sources = []
    for name, problems in _read_problems(recipe, made).items():
        if [source["documents"] for source in made[name]["sources"]] != [len(problems)]:
            return f"other problems than those of its tasks were scanned for {name or 'the run'}"
        sources.append(_Trained(name, problems, frozenset(made[name].get("dropped", ()))))
    salt = bytes.fromhex(sha256_json(scan))[:SALT_BYTES]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts{HASHED_ENDING}"
        write_hashed(sources, path, salt)
        packed = path.read_bytes()
    if len(packed) > MOST_BYTES:
        return f"{len(packed) >> 10} kB are more than {MOST_BYTES >> 10}"
    return packed


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a stage was trained on; rows are those of all that it read."""

    name: str
    problems: Sequence[Problem]
    dropped: frozenset[str]

    def documents(self) -> Iterator[tuple[int, str]]:
        for row, problem in enumerate(self.problems):
            if problem.id not in self.dropped:
                yield row, problem.question


def stage_scans(run: RunFolder) -> dict[str, Document]:
    """The scans that a run made, by stage; that of a run of one stage under an empty name."""
    places = {"": run.root, **{stage.stage_name: stage.root for stage in run.stages()}}
    paths = {name: root / SCAN_FILE for name, root in places.items()}
    return {name: json.loads(p.read_bytes()) for name, p in paths.items() if p.is_file()}


def training_problems(recipe: Recipe, scans: Mapping[str, Document]) -> list[Problem]:
    """What was trained on: the tasks of all stages without what their scans dropped."""
    if not isinstance(recipe, PipelineConfig):
        return _kept(_of_task(recipe), scans.get("", {}).get("dropped", ()))
    problems = []
    for stage in recipe.stages:
        if getattr(stage, "tasks", ()):
            dropped = scans.get(stage.name, {}).get("dropped", ())
            problems += _kept(_of_stage_tasks(recipe, stage), dropped)
    return problems


def _read_problems(recipe: Recipe, scans: Mapping[str, Document]) -> dict[str, list[Problem]]:
    """What each scan read, in its order, nothing left out."""
    if not isinstance(recipe, PipelineConfig):
        return {"": _of_task(recipe)}
    stages = {stage.name: stage for stage in recipe.stages}
    return {
        name: _of_stage_tasks(recipe, stages[name]) if getattr(stages[name], "tasks", ()) else []
        for name in scans
    }


def _of_task(recipe: RunConfig) -> list[Problem]:
    task = recipe.task
    return load_problems(
        task.name, task.split, limit=task.limit, data_dir=task.data_dir, seed=recipe.seed
    )


def _of_stage_tasks(recipe: PipelineConfig, stage: Any) -> list[Problem]:
    seed = stage_seed(recipe.seed, stage.name)
    return list(load_mixture(stage.tasks, seed=seed, data_dir=recipe.data_dir).problems)


def _kept(problems: Sequence[Problem], dropped: Collection[str]) -> list[Problem]:
    left_out = set(dropped)
    return [problem for problem in problems if problem.id not in left_out]


def _as_trained(document: Document) -> Document:
    """Under `drop` no document that holds an item was trained on."""
    if document.get("mode") != "drop":
        return document
    suites = {}
    for key, suite in document["suites"].items():
        items = {}
        for name, item in suite["items"].items():
            is_held = item["containment"] >= document["threshold"]
            items[name] = item | _left_out(item) if is_held else item
        suites[key] = suite | {"items": items}
    return document | {"suites": suites}


def _left_out(item: Document) -> Document:
    return {
        "left_out": item["matches"],
        "left_out_containment": item["containment"],
        "containment": 0.0,
        "matches": [],
        "num_matches": 0,
    }


def _joined(documents: Mapping[str, Document]) -> Document:
    """One scan of all stages: of each item the stage that holds most of it, and all matches; of the
    self-tests the worst.
    """
    if len(documents) < 2:
        return next(iter(documents.values()), {})
    all_of = list(documents.values())
    suites: dict[str, Any] = {}
    for name, document in documents.items():
        for key, suite in document["suites"].items():
            items = suites.setdefault(key, {"items": {}})["items"]
            for item, found in suite["items"].items():
                items[item] = _worse(items.get(item), _of_stage(found, name))
    return {
        **all_of[0],
        "suites": suites,
        "sources": [
            source | {"stage": name}
            for name, document in documents.items()
            for source in document.get("sources", ())
        ],
        "stages": {name: document.get("counts", {}) for name, document in documents.items()},
        "dropped": sorted({i for document in all_of for i in document.get("dropped", ())}),
        "self_test": _weakest([document["self_test"] for document in all_of]),
    }


def _of_stage(found: Document, stage: str) -> Document:
    return found | {"matches": [match | {"stage": stage} for match in found["matches"]]}


def _worse(first: Document | None, second: Document) -> Document:
    if first is None:
        return second
    most = max(first, second, key=lambda one: one["containment"])
    return most | {"matches": first["matches"] + second["matches"]}


def _weakest(tests: Sequence[Document]) -> Document:
    """Of every kind of leak the lowest recall; false alarms and documents are added."""
    kinds = {kind for test in tests for kind in test["recall"]}
    lengths = [test.get("reliable_from_words") for test in tests]
    return {
        **{key: value for key, value in tests[0].items() if key != "recall_by_length"},
        "reliable_from_words": None if None in lengths else max(lengths),
        "recall": {
            kind: min(test["recall"].get(kind, 0.0) for test in tests) for kind in sorted(kinds)
        },
        "false_positives": sum(test["false_positives"] for test in tests),
        "documents": sum(test["documents"] for test in tests),
    }


def _beside(first: Document, second: Document) -> Document:
    """Both scans' suites; all else is the first's, where it says anything."""
    suites = {**second.get("suites", {}), **first.get("suites", {})}
    return {**second, **first, "suites": suites}


def largest_threshold(suites: Sequence[Suite]) -> float:
    """Of the scan that these suites will have, as the plan fixes it before there is one."""
    return WHOLE if all(map(_is_generated, suites)) else Rule().threshold


def _is_generated(suite: Suite) -> bool:
    return all(procedural(p.id.rsplit("/", 2)[0]) is not None for p in suite.problems)
