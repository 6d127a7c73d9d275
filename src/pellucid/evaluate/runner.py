"""Measure one model on one suite: draw k samples per problem, grade them, reduce them to estimates.

    problems → prompts → engine.generate → template.response → grader.grade → records → estimates

Prompts, graders and sampler are those of training. Sample ids do not name the arm, so a comparison
before/after shares its randomness. Left out: which problems and which model (`suites`, `pipeline`).
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Protocol

from pellucid.errors import ConfigError, DataError, RunError
from pellucid.evaluate.metrics import (
    consensus,
    error_bounds,
    pass_at_1,
    pass_at_1_parsable,
    sample_mean,
    unbiased_pass_at,
)
from pellucid.evaluate.records import EvalResult, ProblemResult, SampleRecord
from pellucid.protocols import Engine, Grader, ProgressFn, Tokenizer
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
from pellucid.rewards.retry import grade_with_retry
from pellucid.rewards.table import OPEN


class PromptTemplate(Protocol):
    """What evaluation needs of `pellucid.tasks.templates.Template`."""

    name: str
    stop: tuple[str, ...]

    def prompt_ids(
        self, question: str, tokenizer: Tokenizer, *, grader: str
    ) -> Sequence[int]: ...

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
    grader: Grader,
    pass_at: Sequence[int] = (),
    sink: Callable[[SampleRecord], None] | None = None,
    progress: ProgressFn | None = None,
) -> EvalResult:
    """Measure a suite; `sink` gets every sample, in the order of problems and samples.

    Raises DataError without problems or with repeated ids, ConfigError for several greedy samples,
    RunError where the grader failed on everything.
    """
    _check(problems, params, k, pass_at, suite)
    params = replace(params, stop=tuple(dict.fromkeys((*params.stop, *template.stop))))
    requests = [
        Request(
            prompt_ids=tuple(
                template.prompt_ids(problem.question, tokenizer, grader=problem.grader)
            ),
            sample_ids=tuple(sample_id("eval", suite, problem.id, i) for i in range(k)),
        )
        for problem in problems
    ]
    started = time.perf_counter()
    groups = engine.generate(requests, params, seed=seed, progress=progress)
    generated = time.perf_counter()
    responses = [template.response(c.text) for group in groups for c in group]
    scores, retried = grade_with_retry(grader, [p for p in problems for _ in range(k)], responses)
    graded = time.perf_counter()
    if all(score.verdict is Verdict.ERROR for score in scores):
        raise RunError(
            f"the grader failed on every sample of {suite} ({scores[0].detail or 'no detail'}): "
            "run `pellucid doctor`, then evaluate again"
        )

    results = []
    for row, (problem, request, group) in enumerate(zip(problems, requests, groups, strict=True)):
        own = slice(row * k, (row + 1) * k)
        if sink is not None:
            graded_group = zip(group, responses[own], scores[own], retried[own], strict=True)
            for record in _records(arm, suite, problem, request, graded_group):
                sink(record)
        results.append(_problem_result(problem, group, responses[own], scores[own]))
    return _reduce(
        tuple(results),
        pass_at=pass_at,
        arm=arm,
        suite=suite,
        template=template.name,
        k=k,
        seed=seed,
        sampler=_sampler(params),
        retried=sum(retried),
        prompt_tokens=sum(len(r.prompt_ids) for r in requests),
        generate_s=generated - started,
        grade_s=graded - generated,
    )


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


def _records(
    arm: str,
    suite: str,
    problem: Problem,
    request: Request,
    graded: Iterable[tuple[Completion, str, Score, bool]],
) -> Iterator[SampleRecord]:
    """The records of one problem, from its (completion, response, score, was it retried)."""
    digest = prompt_sha256(request.prompt_ids)
    for k_index, (completion, response, score, retried) in enumerate(graded):
        yield SampleRecord(
            arm=arm,
            suite=suite,
            problem_id=problem.id,
            question=problem.question,
            gold=problem.gold,
            family=problem.family or problem.id,
            k_index=k_index,
            sample_id=completion.sample_id,
            prompt_sha256=digest,
            response=response,
            token_ids=completion.token_ids,
            stop=completion.stop,
            verdict=score.verdict,
            extracted=score.extracted,
            method=score.method,
            detail=score.detail,
            retried=retried,
            n_prompt=len(request.prompt_ids),
            n_completion=len(completion.token_ids),
            logprob_sum=float(sum(completion.logprobs)),
        )


def prompt_sha256(prompt_ids: Sequence[int]) -> str:
    """Hex digest of the token ids written as a JSON array without spaces."""
    return hashlib.sha256(f"[{','.join(map(str, prompt_ids))}]".encode()).hexdigest()


def _sampler(params: SamplingParams) -> dict[str, object]:
    return {**asdict(params), "stop": list(params.stop)}


def _problem_result(
    problem: Problem,
    completions: Sequence[Completion],
    responses: Sequence[str],
    scores: Sequence[Score],
) -> ProblemResult:
    return ProblemResult(
        id=problem.id,
        family=problem.family or problem.id,
        verdicts=tuple(s.verdict for s in scores),
        answers=tuple(s.extracted for s in scores),
        truncated=sum(c.stop is StopReason.LENGTH for c in completions),
        tokens=sum(len(c.token_ids) for c in completions),
        readable=tuple(format_reward(response) == 1.0 for response in responses),
        language=tuple(
            language_reward(response, problem.language)
            for response in responses
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
