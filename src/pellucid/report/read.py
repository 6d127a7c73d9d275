"""A run folder read back into typed views. Nothing is measured here; what is damaged is named."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.artifacts import RunFolder, StageFolder, sha256_file
from pellucid.errors import RunError
from pellucid.jsonl import read_zstd_jsonl
from pellucid.ledger import Event, EventKind, verify_ledger
from pellucid.records import Verdict
from pellucid.runlog import read_metrics
from pellucid.stats import Estimate

ROLLOUT_FIELDS = (
    *("step", "problem", "question", "gold", "prompt", "response", "token_ids", "sample_id"),
    *("stop", "verdict", "extracted", "terms", "reward", "advantage"),
)
SAMPLE_FIELDS = (
    *("problem_id", "question", "gold", "k_index", "sample_id", "response", "stop", "verdict"),
    *("extracted", "n_completion", "logprob_sum"),
)
DIFFERENCE_FIELDS = (
    *("value", "ci95", "p", "n", "mde", "parsable_difference", "split"),
    *("wrong_to_right", "right_to_wrong", "problems_better", "problems_worse"),
)
"""What the page needs of a line of rollouts, of samples, and of a suite's `difference`."""

Curves = dict[str, tuple[list[int], list[float]]]
"""Metric name (`rollout/accuracy`) -> steps and values; what was not measured is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalView:
    """One evals/<arm>-<suite>.json: what the page shows of it."""

    path: Path
    arm: str
    suite: str
    template: str
    k: int
    sampler: Mapping[str, Any]
    pass_at_1: Estimate
    bounds: tuple[float, float]
    """pass@1 if all instrument errors were wrong, and if all were correct."""
    parsable: Estimate | None
    """pass@1 given an answer."""
    cons: Estimate
    verdicts: Mapping[str, int]
    truncated_frac: float
    unparsable_frac: float
    length_mean: float
    readable: Estimate | None
    """Share of samples in the format; None: not measured."""
    language: Estimate | None
    """Mean share of the thinking in the problem's language."""
    seconds: float
    ids: tuple[str, ...]
    families: tuple[str, ...]
    correct: tuple[int, ...]
    """Correct samples of each problem."""
    graded: tuple[int, ...]
    """Graded samples of each problem."""

    @property
    def samples_path(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.samples.jsonl.zst")

    @property
    def num_samples(self) -> int:
        return sum(self.verdicts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """Everything that the page is made of."""

    folder: RunFolder
    recipe: dict[str, Any]
    recipe_text: str
    events: tuple[Event, ...]
    stages: tuple[StageFolder, ...]
    manifest: dict[str, Any] | None
    """Of the last finished stage."""
    result: dict[str, Any] | None
    """None: the run is not finished."""
    evals: tuple[EvalView, ...]
    curves: Curves

    def find(self, arm: str, suite: str) -> EvalView | None:
        """The evaluation of an arm on a suite."""
        return next((e for e in self.evals if (e.arm, e.suite) == (arm, suite)), None)

    @property
    def suites(self) -> list[str]:
        """Keys of all suites, the headline first."""
        if self.result:
            named = [s["key"] for s in _entries(self.result)]
        else:  # in the order in which they were begun
            named = [e.payload.get("suite") for e in self.events]
            named = [name for name in named if any(e.suite == name for e in self.evals)]
        return list(dict.fromkeys([*named, *(e.suite for e in self.evals)]))

    def label(self, suite: str) -> str:
        """A suite's name in tables."""
        entries = _entries(self.result) if self.result else ()
        return next((s["suite"] for s in entries if s["key"] == suite), suite)

    @property
    def last_step(self) -> int:
        return max((steps[-1] for steps, _ in self.curves.values() if steps), default=0)


def _entries(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The suites of result.json: of one stage before and after, or the columns of a stage table."""
    return result["suites"] if "suites" in result else result["table"]


def read_run(path: Path) -> RunView:
    """Read a run folder. Raises RunError, one line, for what is missing or damaged."""
    folder = RunFolder(path)
    if not folder.recipe.is_file():
        raise RunError(f"{path} is no run folder (no recipe.toml): name one made by `pellucid run`")
    text = _text(folder.recipe)
    try:
        recipe = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{folder.recipe} is damaged ({error}): restore it") from None
    stages = tuple(folder.stages())
    events = _events(folder.ledger)
    manifests = [s.manifest for s in stages if s.manifest.exists()]
    evals = [_eval(p) for s in stages for p in sorted(s.evals.glob("*.json"))]
    view = RunView(
        folder=folder,
        recipe=recipe,
        recipe_text=text,
        events=events,
        stages=stages,
        manifest=_json(manifests[-1]) if manifests else None,
        result=_result(folder.result, events),
        evals=tuple(evals),
        curves=_curves(stages),
    )
    _check_evals(view)
    return view


def read_rollouts(view: RunView) -> Iterator[dict[str, Any]]:
    """Training rollouts of all stages, in order."""
    for stage in view.stages:
        if stage.rollouts.exists():
            yield from _whole(stage.rollouts, ROLLOUT_FIELDS)


def read_samples(evaluation: EvalView) -> Iterator[dict[str, Any]]:
    """Evaluated samples in the order of problems; RunError where their file is gone."""
    if not evaluation.samples_path.exists():
        raise RunError(f"{evaluation.samples_path} is missing: restore it or run again")
    yield from _whole(evaluation.samples_path, SAMPLE_FIELDS)


def read_object(path: Path, fields: Sequence[str]) -> dict[str, Any]:
    """The object of a JSON file that has these fields. Raises RunError for anything else."""
    value = _json(path)
    _check_fields(value, fields, str(path))
    return value


def _whole(path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Records that have all fields; RunError names the first that has not."""
    for number, record in enumerate(read_zstd_jsonl(path), start=1):
        _check_fields(record, fields, f"{path}, record {number},")
        yield record


def _check_fields(record: Mapping[str, Any], fields: Sequence[str], where: str) -> None:
    missing = [name for name in fields if name not in record]
    if missing:
        raise RunError(f"{where} has no {missing[0]!r}: restore the file or run again")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}): restore it") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): restore it or run again") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged (no JSON object): restore it or run again")
    return value


def _events(path: Path) -> tuple[Event, ...]:
    """The ledger's events. A torn last line belongs to a killed run and is no damage."""
    if not path.is_file():
        return ()
    events: list[Event] = []
    problems = verify_ledger(path, into=events)
    data = path.read_bytes()
    torn_line = 0 if data.endswith(b"\n") else data.count(b"\n") + 1
    damage = [p for p in problems if not p.startswith(f"{path.name} line {torn_line}:")]
    if damage:
        raise RunError(f"{path.parent}: {damage[0]}; restore the file, the run cannot be trusted")
    return tuple(events)


def _result(path: Path, events: Sequence[Event]) -> dict[str, Any] | None:
    """result.json, None where the run has not ended; it must be the one that the ledger knows."""
    if not path.exists():
        return None
    result = _json(path)
    _check_fields(result, ("wall_s", "device"), str(path))
    for entry in _entries(result):
        _check_fields(entry, ("suite", "key"), str(path))
    for entry in result.get("suites", ()):
        _check_fields(entry, ("suite", "key", "before", "after", "difference"), str(path))
        if entry["difference"] is not None:
            _check_fields(entry["difference"], DIFFERENCE_FIELDS, str(path))
    ends = [e.payload.get("result") for e in events if e.kind is EventKind.RUN_ENDED]
    if ends and ends[-1] not in (None, sha256_file(path)):
        raise RunError(f"{path} was changed after the run ended (ledger.jsonl): restore it")
    return result


def _eval(path: Path) -> EvalView:
    raw = _json(path)
    try:
        problems = raw["problems"]
        verdicts = [[Verdict(v) for v in p["verdicts"]] for p in problems]
        return EvalView(
            path=path,
            arm=raw["arm"],
            suite=raw["suite"],
            template=raw["template"],
            k=raw["k"],
            sampler=raw["sampler"],
            pass_at_1=Estimate(**raw["pass_at_1"]),
            bounds=tuple(raw["pass_at_1_bounds"]),
            parsable=Estimate(**raw["pass_at_1_parsable"]) if raw["pass_at_1_parsable"] else None,
            cons=Estimate(**raw["cons"]),
            verdicts=raw["verdicts"],
            truncated_frac=raw["truncated_frac"],
            unparsable_frac=raw["unparsable_frac"],
            length_mean=raw["length_mean"],
            readable=Estimate(**raw["readable"]) if raw.get("readable") else None,
            language=Estimate(**raw["language"]) if raw.get("language") else None,
            seconds=raw["generate_s"] + raw["grade_s"],
            ids=tuple(p["id"] for p in problems),
            families=tuple(p["family"] for p in problems),
            correct=tuple(v.count(Verdict.CORRECT) for v in verdicts),
            graded=tuple(sum(x.is_graded for x in v) for v in verdicts),
        )
    except (KeyError, TypeError, ValueError) as error:
        line = f"{path} is damaged ({type(error).__name__}: {error}): restore it or run again"
        raise RunError(line) from None


def _check_evals(view: RunView) -> None:
    """A finished run has the evaluations that result.json reports, with the same numbers."""
    for entry in view.result.get("suites", ()) if view.result else ():
        for arm in ("before", "after"):
            reported = entry[arm]
            if reported is None:
                continue
            found = view.find(arm, entry["key"])
            where = f"evals/{arm}-{entry['key']}.json"
            if found is None:
                raise RunError(f"{view.folder.root}: {where} is missing: restore it or run again")
            if abs(found.pass_at_1.value - reported["pass_at_1"]) > 1e-9:
                raise RunError(
                    f"{view.folder.root}: result.json says pass@1 {reported['pass_at_1']} but "
                    f"{where} {found.pass_at_1.value}: one of them was changed; restore it"
                )


def _curves(stages: Sequence[StageFolder]) -> Curves:
    """Metrics of the last stage that has any: steps start anew in each stage."""
    measured = [stage for stage in stages if stage.metrics.exists()]
    return stage_curves(measured[-1]) if measured else {}


def stage_curves(stage: StageFolder) -> Curves:
    """Metrics of one stage. Raises RunError where the file is damaged."""
    curves: Curves = {}
    path = stage.metrics
    if path.exists():
        try:
            for record in read_metrics(path):
                for name, value in record.values.items():
                    steps, values = curves.setdefault(f"{record.name}/{name}", ([], []))
                    if value is not None:
                        steps.append(int(record.step))
                        values.append(float(value))
        except (KeyError, TypeError, ValueError) as error:
            line = f"{path} is damaged ({type(error).__name__}: {error}): restore it or run again"
            raise RunError(line) from None
    return curves
