"""Before against after on the same problems: how large is the difference, and what is it made of?

A base model often gives no answer that can be read at all, so a gain has two parts: more answers
(*format*) and more of the answers right (*learning*). With f the share of samples with an answer,
and a the share of those that are right, pass = f · a, and the difference splits exactly into
    format   (f₁ - f₀) · (a₀ + a₁) / 2
    learning (a₁ - a₀) · (f₀ + f₁) / 2
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pellucid.errors import DataError
from pellucid.evaluate.records import EvalResult, ProblemResult
from pellucid.records import Verdict
from pellucid.stats import Difference, paired_difference


class FormatSplit(NamedTuple):
    """The parts of a difference, over all graded samples of shared problems: sum `total`."""

    total: float
    format: float
    learning: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One suite before and after, paired by problem.

    Example: Comparison(suite="gsm8k", difference=Difference(0.21, 0.18, …), wrong_to_right=412, …)
    """

    suite: str
    before_arm: str
    after_arm: str
    difference: Difference
    """after - before of pass@1."""
    parsable_difference: Difference | None
    """That of pass@1 given an answer, over problems answered in both arms; None: no such."""
    split: FormatSplit
    wrong_to_right: int
    """Samples (same problem and index) not correct before and correct after."""
    right_to_wrong: int
    problems_better: int
    """Problems with a higher share correct."""
    problems_worse: int
    transitions: dict[str, int]
    """`before>after` verdicts -> samples, e.g. {"unparsable>correct": 31}."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for result.json: {"value", "ci95", "p", "n", "mde", …} of the difference."""
        parsable = self.parsable_difference
        return _plain(self.difference) | {
            "suite": self.suite,
            "before_arm": self.before_arm,
            "after_arm": self.after_arm,
            "parsable_difference": _plain(parsable) if parsable else None,
            "split": self.split._asdict(),
            "wrong_to_right": self.wrong_to_right,
            "right_to_wrong": self.right_to_wrong,
            "problems_better": self.problems_better,
            "problems_worse": self.problems_worse,
            "transitions": dict(self.transitions),
        }


def compare(before: EvalResult, after: EvalResult) -> Comparison:
    """Pair two results of one suite by problem id.

    Problems without a graded sample in either arm are left out. DataError where the arms hold
    different problems: the difference of two samplings of a suite is no paired difference.
    """
    pairs = _pairs(before, after)
    graded = [(b, a) for b, a in pairs if b.num_graded and a.num_graded]
    if not graded:
        raise DataError(f"suite {before.suite}: no problem was graded in both arms; evaluate again")
    families = [b.family for b, _ in graded]
    rates_before = [b.num_correct / b.num_graded for b, _ in graded]
    rates_after = [a.num_correct / a.num_graded for _, a in graded]
    answered = [(b, a) for b, a in graded if b.num_parsable and a.num_parsable]
    transitions = Counter(
        (v, w) for b, a in pairs for v, w in zip(b.verdicts, a.verdicts, strict=False)
    )
    right = Verdict.CORRECT
    return Comparison(
        suite=before.suite,
        before_arm=before.arm,
        after_arm=after.arm,
        difference=paired_difference(rates_before, rates_after, families),
        parsable_difference=_parsable_difference(answered),
        split=_format_split([b for b, _ in graded], [a for _, a in graded]),
        wrong_to_right=_count(transitions, lambda v, w: v is not right and w is right),
        right_to_wrong=_count(transitions, lambda v, w: v is right and w is not right),
        problems_better=sum(x < y for x, y in zip(rates_before, rates_after, strict=True)),
        problems_worse=sum(x > y for x, y in zip(rates_before, rates_after, strict=True)),
        transitions={f"{v.value}>{w.value}": n for (v, w), n in sorted(transitions.items())},
    )


def _pairs(before: EvalResult, after: EvalResult) -> list[tuple[ProblemResult, ProblemResult]]:
    others = {p.id: p for p in after.problems}
    if {p.id for p in before.problems} != others.keys():
        raise DataError(
            f"{before.arm} and {after.arm} of suite {before.suite} hold different problems: "
            "evaluate both with the same suite, split and limit"
        )
    return [(p, others[p.id]) for p in before.problems]


def _parsable_difference(pairs: Sequence[tuple[ProblemResult, ProblemResult]]) -> Difference | None:
    if not pairs:
        return None
    return paired_difference(
        [b.num_correct / b.num_parsable for b, _ in pairs],
        [a.num_correct / a.num_parsable for _, a in pairs],
        [b.family for b, _ in pairs],
    )


def _format_split(before: Sequence[ProblemResult], after: Sequence[ProblemResult]) -> FormatSplit:
    f0, a0 = _format_and_skill(before)
    f1, a1 = _format_and_skill(after)
    return FormatSplit(
        total=f1 * a1 - f0 * a0,
        format=(f1 - f0) * (a0 + a1) / 2,
        learning=(a1 - a0) * (f0 + f1) / 2,
    )


def _format_and_skill(problems: Sequence[ProblemResult]) -> tuple[float, float]:
    """Share of graded samples with an answer, and share of those that are right (0 without any)."""
    graded = sum(p.num_graded for p in problems)
    parsable = sum(p.num_parsable for p in problems)
    correct = sum(p.num_correct for p in problems)
    return parsable / graded, correct / parsable if parsable else 0.0


def _count(transitions: Counter, chosen) -> int:
    """Transitions between verdicts on the model: instrument errors are no flips."""
    return sum(
        n for (v, w), n in transitions.items() if chosen(v, w) and v.is_graded and w.is_graded
    )


def _plain(difference: Difference) -> dict[str, Any]:
    return {
        "value": difference.value,
        "ci95": difference.ci95,
        "p": difference.p,
        "n": difference.n,
        # Of one problem there is no spread to tell it from, and JSON knows no NaN.
        "mde": difference.mde if math.isfinite(difference.mde) else None,
    }
