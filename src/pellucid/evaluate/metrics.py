"""From graded problems to estimates; samples on which the instrument failed are left out."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.evaluate.records import ProblemResult
from pellucid.records import Verdict
from pellucid.stats import Estimate, bootstrap_mean, bootstrap_ratio, majority_credit, pass_at_k


def pass_at_1(problems: Sequence[ProblemResult], k: int) -> Estimate:
    """Mean over problems of the share of graded samples that are correct (paper, D.1)."""
    graded = [p for p in problems if p.num_graded]
    return bootstrap_mean(
        [p.num_correct / p.num_graded for p in graded], [p.family for p in graded], k=k
    )


def error_bounds(problems: Sequence[ProblemResult]) -> tuple[float, float]:
    """pass@1 if every instrument error hid a wrong answer, and if every one a correct one."""
    samples = [len(p.verdicts) for p in problems]
    worst = [p.num_correct / n for p, n in zip(problems, samples, strict=True)]
    best = [(p.num_correct + n - p.num_graded) / n for p, n in zip(problems, samples, strict=True)]
    return sum(worst) / len(problems), sum(best) / len(problems)


def pass_at_1_parsable(problems: Sequence[ProblemResult], k: int) -> Estimate | None:
    """Correct samples per sample with an answer: skill apart from format. None: nothing had one."""
    parsable = [p for p in problems if p.num_parsable]
    if not parsable:
        return None
    return bootstrap_ratio(
        [p.num_correct for p in parsable],
        [p.num_parsable for p in parsable],
        [p.family for p in parsable],
        k=k,
    )


def unbiased_pass_at(problems: Sequence[ProblemResult], k: int) -> Estimate | None:
    """Unbiased pass@k over the problems with at least k graded samples; None: there is none."""
    enough = [p for p in problems if p.num_graded >= k]
    if not enough:
        return None
    values = pass_at_k([p.num_graded for p in enough], [p.num_correct for p in enough], k)
    return bootstrap_mean(values, [p.family for p in enough], k=k)


def consensus(problems: Sequence[ProblemResult], k: int) -> Estimate:
    """cons@k: does the most frequent extracted answer hit? Instrument errors have no vote."""
    graded = [p for p in problems if p.num_graded]
    return bootstrap_mean([_credit(p) for p in graded], [p.family for p in graded], k=k)


def sample_mean(
    problems: Sequence[ProblemResult], values: Sequence[Sequence[float]], k: int
) -> Estimate | None:
    """Mean over problems of the mean of their samples' values, whatever the verdicts; None: none
    was measured. `values[i]` are those of `problems[i]`.
    """
    measured = [(p, v) for p, v in zip(problems, values, strict=True) if v]
    if not measured:
        return None
    means = [sum(v) / len(v) for _, v in measured]
    return bootstrap_mean(means, [p.family for p, _ in measured], k=k)


def _credit(problem: ProblemResult) -> float:
    """cons@k of one problem over its graded samples."""
    votes = [
        (answer, verdict is Verdict.CORRECT)
        for answer, verdict in zip(problem.answers, problem.verdicts, strict=True)
        if verdict.is_graded
    ]
    return majority_credit([answer for answer, _ in votes], [ok for _, ok in votes])
