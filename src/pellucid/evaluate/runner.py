"""Measure one model on one suite: draw k samples per problem, grade them, reduce them to estimates.

    problems → prompts → engine.generate ──────────► the last grades → records → estimates
                           └ a group has ended → template.response → grader.submit ┘
    └────────────────────── in waves that fit into memory ───────────┘

Prompts, graders and sampler are those of training, and as there a problem's samples are graded
while others are drawn. Sample ids do not name the arm, so a comparison
before/after shares its randomness. Left out: which problems and which model (`suites`, `pipeline`).
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

from pellucid.errors import ConfigError, DataError, RunError
from pellucid.evaluate.metrics import (
    consensus,
    error_bounds,
    pass_at_1,
    pass_at_1_parsable,
    sample_mean,
    unbiased_pass_at,
)
from pellucid.evaluate.records import (
    EvalResult,
    Origin,
    ProblemResult,
    SampleRecord,
    item_sha256,
)
from pellucid.protocols import Engine, ProgressFn, StreamGrader, Tokenizer
from pellucid.records import (
    Completion,
    Problem,
    Request,
    SamplingParams,
    Score,
    StopReason,
    Verdict,
    sample_id,
)
from pellucid.rewards.format import format_reward
from pellucid.rewards.language import SCRIPTS, language_reward
from pellucid.rewards.streamed import Graded, StreamedGrades
from pellucid.rewards.table import OPEN


class PromptTemplate(Protocol):
    """What evaluation needs of `pellucid.tasks.templates.Template`."""

    name: str
    stop: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Digest of the template itself."""
        ...

    def render(self, question: str, tokenizer: Tokenizer, *, grader: str) -> str:
        """The prompt of a problem with that grader, as text."""
        ...

    def response(self, text: str) -> str:
        """Completion text as the grader reads it (with what the prompt had already begun)."""
        ...


def evaluate(
    engine: Engine,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    *,
    template: PromptTemplate,
    params: SamplingParams,
    k: int,
    seed: int,
    arm: str,
    suite: str,
    grader: StreamGrader,
    pass_at: Sequence[int] = (),
    origin: Origin | None = None,
    sink: Callable[[SampleRecord], None] | None = None,
    progress: ProgressFn | None = None,
    graded: ProgressFn | None = None,
) -> EvalResult:
    """Measure a suite; `sink` gets every sample, in the order of problems and samples.

    `progress` hears of samples drawn, `graded`, once there is nothing left to draw but grades to
    wait for, of samples graded.
    Raises DataError without problems or with repeated ids, ConfigError for several greedy samples,
    RunError where the grader failed on everything it saw first.
    """
    _check(problems, params, k, pass_at, suite)
    params = replace(params, stop=tuple(dict.fromkeys((*params.stop, *template.stop))))
    asker = _Asker(
        engine=engine,
        tokenizer=tokenizer,
        grader=grader,
        template=template,
        params=params,
        k=k,
        seed=seed,
        suite=suite,
    )
    origin = origin or Origin()
    common = {
        "arm": arm,
        "suite": suite,
        "template": template.name,
        "seed": seed,
        "sampler": _sampler(params),
    }
    of_records = common | {
        "arm": origin.arm or arm,
        "template_sha256": template.sha256,
        "eval_serial": origin.eval_serial,
        "weights": origin.weights,
        "grader_sha256": origin.grader_sha256,
        "engine": dict(origin.engine),
    }
    results: list[ProblemResult] = []
    tally: Counter[str] = Counter()
    seconds = [0.0, 0.0]
    for wave in _waves(problems, k, params):
        here = (len(results) * k, len(problems) * k)
        answered = asker.ask(wave, _shifted(progress, *here), _shifted(graded, *here))
        seconds[0] += answered.generate_s
        seconds[1] += answered.grade_s
        for row in answered.rows():
            results.append(_problem_result(row))
            tally["retried"] += sum(row.retried)
            tally["prompt_tokens"] += len(row.request.prompt_ids)
            if sink is not None:
                for record in _records(row, of_records):
                    sink(record)
        del answered, row  # or two waves are held while the next is drawn
    return _reduce(
        tuple(results),
        pass_at=pass_at,
        k=k,
        retried=tally["retried"],
        prompt_tokens=tally["prompt_tokens"],
        generate_s=seconds[0],
        grade_s=seconds[1],
        origin=origin,
        **common,
    )


WAVE_TOKENS = 1 << 21
"""Completion tokens held at once, at most: about 64 bytes each with their log-probabilities. Most
evaluations are a single wave."""
WAVE_SAMPLES = 4096
"""At least so many samples in a wave, however long: the engine's slots stay full."""


def _waves(
    problems: Sequence[Problem], k: int, params: SamplingParams
) -> Iterator[Sequence[Problem]]:
    """Whole problems whose completions fit into memory together."""
    samples = max(WAVE_SAMPLES, WAVE_TOKENS // params.max_new_tokens)
    size = max(1, samples // k)
    for start in range(0, len(problems), size):
        yield problems[start : start + size]


def _shifted(progress: ProgressFn | None, done: int, total: int) -> ProgressFn | None:
    """Progress of one wave as that of the whole evaluation."""
    if progress is None:
        return None
    return lambda finished, _: progress(done + finished, total)


class _Row(NamedTuple):
    """One problem with what became of its k samples."""

    problem: Problem
    prompt: str
    request: Request
    completions: Sequence[Completion]
    responses: Sequence[str]
    scores: Sequence[Score]
    retried: Sequence[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """A wave of problems, drawn and graded."""

    problems: Sequence[Problem]
    prompts: Sequence[str]
    requests: Sequence[Request]
    groups: Sequence[Sequence[Completion]]
    graded: Graded
    generate_s: float
    grade_s: float

    def rows(self) -> Iterator[_Row]:
        """In the order of the problems."""
        start = 0
        wave = zip(self.problems, self.prompts, self.requests, self.groups, strict=True)
        for problem, prompt, request, group in wave:
            own = slice(start, start + len(group))
            start = own.stop
            yield _Row(problem, prompt, request, group, *(part[own] for part in self.graded))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Draws and grades the samples of some problems of a suite."""

    engine: Engine
    tokenizer: Tokenizer
    grader: StreamGrader
    template: PromptTemplate
    params: SamplingParams
    k: int
    seed: int
    suite: str

    def ask(
        self,
        problems: Sequence[Problem],
        progress: ProgressFn | None,
        graded: ProgressFn | None,
    ) -> _Answered:
        """Raises RunError where the grader failed on all of them."""
        prompts = [
            self.template.render(p.question, self.tokenizer, grader=p.grader) for p in problems
        ]
        requests = [self._request(*pair) for pair in zip(problems, prompts, strict=True)]
        grades = StreamedGrades(self.grader, problems, self.template.response)
        total = len(problems) * self.k
        started = time.perf_counter()
        groups = self.engine.generate(
            requests, self.params, seed=self.seed, progress=progress, on_group=grades.begin
        )
        generated = time.perf_counter()
        all_graded = grades.graded(None if graded is None else lambda done: graded(done, total))
        scores = all_graded.scores
        if all(score.verdict is Verdict.ERROR for score in scores):
            raise RunError(
                f"the grader failed on every sample of {self.suite} "
                f"({scores[0].detail or 'no detail'}): run `pellucid doctor`, then evaluate again"
            )
        return _Answered(
            problems=problems,
            prompts=prompts,
            requests=requests,
            groups=groups,
            graded=all_graded,
            generate_s=generated - started,
            grade_s=time.perf_counter() - generated,
        )

    def _request(self, problem: Problem, prompt: str) -> Request:
        ids = tuple(sample_id("eval", self.suite, problem.id, i) for i in range(self.k))
        return Request(prompt_ids=tuple(self.tokenizer.encode(prompt)), sample_ids=ids)


def _check(
    problems: Sequence[Problem], params: SamplingParams, k: int, pass_at: Sequence[int], suite: str
) -> None:
    if not problems:
        raise DataError(f"suite {suite} has no problems: check its name, split and limit")
    open_problem = next((p.id for p in problems if p.grader == OPEN), None)
    if open_problem is not None:
        raise DataError(
            f"suite {suite} cannot be measured: {open_problem} is an open problem, whose answers "
            "no grader can judge; take a suite with golds"
        )
    repeated = [i for i, count in Counter(p.id for p in problems).items() if count > 1]
    if repeated:
        raise DataError(f"suite {suite} has problem {repeated[0]} twice: remove the copy")
    if k > 1 and params.temperature == 0.0:
        raise ConfigError(
            f"temperature 0 draws the same sample {k} times: set k = 1 or a temperature above 0"
        )
    if any(not 1 <= wanted <= k for wanted in pass_at):
        raise ConfigError(f"pass_at {list(pass_at)} needs more than k = {k} samples: raise k")


def _records(row: _Row, common: Mapping[str, Any]) -> Iterator[SampleRecord]:
    """The records of one problem; `common`: what all samples of the evaluation share."""
    problem, request = row.problem, row.request
    shared = {
        **common,
        "problem_id": problem.id,
        "question": problem.question,
        "gold": problem.gold,
        "grader": problem.grader,
        "item_sha256": item_sha256(problem),
        "family": problem.family or problem.id,
        "prompt": row.prompt,
        "prompt_sha256": prompt_sha256(request.prompt_ids),
        "n_prompt": len(request.prompt_ids),
    }
    samples = zip(row.completions, row.responses, row.scores, row.retried, strict=True)
    for k_index, (completion, response, score, retried) in enumerate(samples):
        yield SampleRecord(
            **shared,
            k_index=k_index,
            sample_id=completion.sample_id,
            response=response,
            token_ids=completion.token_ids,
            stop=completion.stop,
            verdict=score.verdict,
            extracted=score.extracted,
            method=score.method,
            detail=score.detail,
            retried=retried,
            n_completion=len(completion.token_ids),
            logprob_sum=float(sum(completion.logprobs)),
        )


def prompt_sha256(prompt_ids: Sequence[int]) -> str:
    """Hex digest of the token ids written as a JSON array without spaces."""
    return hashlib.sha256(f"[{','.join(map(str, prompt_ids))}]".encode()).hexdigest()


def _sampler(params: SamplingParams) -> dict[str, object]:
    return {**asdict(params), "stop": list(params.stop)}


def _problem_result(row: _Row) -> ProblemResult:
    problem = row.problem
    same: dict[str | None, str | None] = {}  # equal answers are one object: they are kept
    return ProblemResult(
        id=problem.id,
        family=problem.family or problem.id,
        verdicts=tuple(s.verdict for s in row.scores),
        answers=tuple(same.setdefault(s.extracted, s.extracted) for s in row.scores),
        truncated=sum(c.stop is StopReason.LENGTH for c in row.completions),
        tokens=sum(len(c.token_ids) for c in row.completions),
        readable=tuple(format_reward(response) == 1.0 for response in row.responses),
        language=tuple(
            language_reward(response, problem.language)
            for response in row.responses
            if problem.language in SCRIPTS
        ),
    )


def _reduce(
    results: tuple[ProblemResult, ...], *, pass_at: Sequence[int], k: int, **facts
) -> EvalResult:
    counted = Counter(v for r in results for v in r.verdicts)
    verdicts = {v.value: counted[v] for v in Verdict}
    samples = len(results) * k
    num_graded = samples - verdicts[Verdict.ERROR]
    tokens = sum(r.tokens for r in results)
    return EvalResult(
        problems=results,
        k=k,
        pass_at_1=pass_at_1(results, k),
        pass_at_1_bounds=error_bounds(results),
        pass_at_1_parsable=pass_at_1_parsable(results, k),
        pass_at={wanted: unbiased_pass_at(results, wanted) for wanted in sorted(set(pass_at))},
        cons=consensus(results, k),
        verdicts=verdicts,
        truncated_frac=sum(r.truncated for r in results) / samples,
        unparsable_frac=verdicts[Verdict.UNPARSABLE] / num_graded if num_graded else 0.0,
        length_mean=tokens / samples,
        readable=sample_mean(results, [r.readable for r in results], k),
        language=sample_mean(results, [r.language for r in results], k),
        completion_tokens=tokens,
        **facts,
    )
