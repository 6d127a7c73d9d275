"""Arms measured on suites and kept as files: what a killed process had finished is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.errors import Interrupted, RunError
from pellucid.evaluate.records import EvalResult
from pellucid.evaluate.suites import Suite
from pellucid.evidence.known_models import record_model
from pellucid.evidence.weights import weights_root
from pellucid.ledger import EventKind
from pellucid.pipeline.attempts import attempt, close_lost, ending, suite_facts
from pellucid.pipeline.diary import Diary
from pellucid.pipeline.grading import Grading
from pellucid.pipeline.measure import kept_result, measure_into
from pellucid.pipeline.workbench import Workbench
from pellucid.protocols import ProgressFn, StreamGrader
from pellucid.runlog import Tick
from pellucid.tasks.templates import get_template


class Instruments(NamedTuple):
    """What measures."""

    bench: Workbench
    grader: StreamGrader


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """The evaluations of one folder."""

    folder: Path
    """`evals/` of a stage."""
    seed: int
    grading: Grading
    """Settings of the graders."""
    diary: Diary
    should_stop: Callable[[], bool]
    weights_of: Callable[[Workbench], str] = lambda bench: weights_root(bench.loaded.path)
    """What names the weights that answer; default: the files they were loaded from."""

    def measure_all(
        self, arm: str, suites: Sequence[Suite], instruments: Callable[[], Instruments]
    ) -> dict[str, EvalResult]:
        """Every suite on one arm, by key; `instruments` are asked for only where one is missing."""
        results = {}
        for suite in suites:
            kept = self.kept(arm, suite)
            close_lost(self.diary, arm, suite, kept)
            results[suite.key] = kept or self._measure(arm, suite, *instruments())
            estimate = results[suite.key].pass_at_1
            self.diary.progress.say(
                f"{arm}: {suite.label} pass@1 {estimate.value:.1%} "
                f"[{estimate.low:.1%}, {estimate.high:.1%}]"
            )
        return results

    def kept(self, arm: str, suite: Suite) -> EvalResult | None:
        """What was measured of this very suite; a damaged file is named and measured again."""
        path = kept_result(self.folder, arm, suite)
        if not path.exists():
            return None
        try:
            result = EvalResult.from_json(path.read_text())
        except (RunError, UnicodeDecodeError) as error:
            self.diary.note(EventKind.ARTEFACT_DAMAGED, artefact=f"{path.name}: {error}")
            return None
        return result if _is_of(result, suite, self.seed, asdict(self.grading)) else None

    def _measure(
        self, arm: str, suite: Suite, bench: Workbench, grader: StreamGrader
    ) -> EvalResult:
        """Start and end go into the ledger: an attempt that is not reported leaves a trace."""
        weights = self.weights_of(bench)
        if weights == weights_root(bench.loaded.path):
            record_model(self.folder, arm, bench.loaded.path, weights)
        facts = suite_facts(
            suite, arm, seed=self.seed, weights=weights, grading=asdict(self.grading)
        )
        task = self.diary.progress.task(f"{arm}: {suite.label}", facts["samples"], "samples")
        window = self.diary.window("evaluation", f"{arm}/{suite.key}")
        with task as tick, attempt(self.diary, facts) as running, window as drawn:
            result = measure_into(
                self.folder,
                bench,
                suite,
                grader,
                arm=arm,
                seed=self.seed,
                serial=running.serial,
                weights=weights,
                grading=self.grading,
                progress=running.counting(self._stoppable(tick, suite)),
                graded=self._stoppable(_noting(tick), suite),
            )
            drawn.count(tokens=result.completion_tokens, answers=result.n_samples)
            running.ended = ending(result)
        return result

    def _stoppable(self, tick: ProgressFn, suite: Suite) -> ProgressFn:
        """Progress of an evaluation that SIGTERM aborts: what is measured by halves is not kept."""

        def advance(done: int, total: int) -> None:
            if self.should_stop():
                raise Interrupted(f"after {done} of {total} samples of {suite.key}")
            tick(done, total)

        return advance


def _noting(tick: Tick) -> ProgressFn:
    """Samples graded, shown behind the samples drawn, which are all there."""

    def advance(done: int, total: int) -> None:
        tick.note = f"{done}/{total} graded"
        tick(tick.done)

    return advance


def _is_of(result: EvalResult, suite: Suite, seed: int, grading: Mapping[str, Any]) -> bool:
    """Whether a result was measured on this suite: problems, prompt, sampler, seed, and graded
    with these settings, where it tells them.
    """
    params = asdict(suite.params)
    stop = dict.fromkeys((*suite.params.stop, *get_template(suite.template).stop))
    return (
        (result.k, result.seed, result.template) == (suite.k, seed, suite.template)
        and dict(result.sampler) == params | {"stop": list(stop)}
        and [p.id for p in result.problems] == [p.id for p in suite.problems]
        and set(suite.pass_at) == set(result.pass_at)
        and dict(result.origin.grading) in ({}, dict(grading))
    )
