"""What the page says in numbers: headline, suites, elicited and added, prompts, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.records import Verdict
from pellucid.report.read import EvalView, RunView
from pellucid.stats import Difference, Estimate, bootstrap_mean, holm, paired_difference, pass_at_k

CURVE_RESAMPLES = 2000
"""A band in a figure needs no more; numbers in tables use the full count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRow:
    """One suite before and after; without `after`, only the base was measured."""

    label: str
    before: EvalView | None
    after: EvalView | None
    difference: dict[str, Any] | None
    """As `evaluate.compare` wrote it into result.json."""
    p_holm: float | None
    """p value, adjusted over all suites of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What RL elicited and what it added on one suite."""

    k: int
    before: dict[int, Estimate]
    """Number of attempts -> pass@k."""
    after: dict[int, Estimate] | None
    added: Difference | None
    """Paired difference of pass@k at the largest k."""

    @property
    def elicited(self) -> float | None:
        """Gain in pass@1, as far as the base model's pass@k reaches."""
        if self.after is None:
            return None
        return min(self.after[1].value, self.before[self.k].value) - self.before[1].value


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """The base model under one prompt, against the trained model under the headline's."""

    label: str
    base: EvalView
    gain: Difference


def suite_rows(view: RunView) -> list[SuiteRow]:
    """All suites, the headline first; p values adjusted by Holm over the suites of the run."""
    entries = {e["key"]: e for e in view.result["suites"]} if view.result else {}
    tested = [s for s in view.suites if entries.get(s, {}).get("difference")]
    adjusted = holm([entries[s]["difference"]["p"] for s in tested])
    p_holm = dict(zip(tested, adjusted, strict=True))
    return [
        SuiteRow(
            label=view.label(suite),
            before=view.find("before", suite),
            after=view.find("after", suite),
            difference=entries.get(suite, {}).get("difference"),
            p_holm=p_holm.get(suite),
        )
        for suite in view.suites
    ]


def deepest(rows: Sequence[SuiteRow]) -> SuiteRow | None:
    """The suite to read elicited and added from: the most samples per problem, on problems of the
    headline. What four attempts seem to have added, sixty-four may show to have been there.
    """
    if not rows or rows[0].before is None:
        return rows[0] if rows else None
    ids, headline = set(rows[0].before.ids), rows[0]
    same = [
        row
        for row in rows
        if row.before
        and (row.after or not headline.after)
        and row.before.template == headline.before.template
        and ids.issuperset(row.before.ids)
    ]
    return max(same, key=_depth, default=headline)


def _depth(row: SuiteRow) -> int:
    return min(arm.k for arm in (row.before, row.after) if arm)


def coverage(before: EvalView, after: EvalView | None) -> Coverage | None:
    """pass@1 … pass@k of both arms; None for a single sample per problem."""
    k = min(before.k, after.k) if after else before.k
    if k < 2:
        return None
    ks = [2**i for i in range(k.bit_length()) if 2**i < k] + [k]
    shared = _fully_graded(before, after, k)
    if not shared:
        return None
    families = [before.families[before.ids.index(i)] for i in shared]
    old, new = _values(before, shared, ks), _values(after, shared, ks) if after else None
    return Coverage(
        k=k,
        before=_estimates(old, families),
        after=_estimates(new, families) if new else None,
        added=paired_difference(old[k], new[k], families) if new else None,
    )


def _fully_graded(before: EvalView, after: EvalView | None, k: int) -> list[str]:
    """Problems with at least k graded samples in each arm."""
    arms = [before] if after is None else [before, after]
    whole = [{i for i, n in zip(a.ids, a.graded, strict=True) if n >= k} for a in arms]
    return [i for i in before.ids if all(i in ids for ids in whole)]


def _values(arm: EvalView, ids: Sequence[str], ks: Sequence[int]) -> dict[int, list[float]]:
    rows = {i: row for row, i in enumerate(arm.ids)}
    graded, correct = [arm.graded[rows[i]] for i in ids], [arm.correct[rows[i]] for i in ids]
    return {k: pass_at_k(graded, correct, k).tolist() for k in ks}


def _estimates(values: dict[int, list[float]], families: Sequence[str]) -> dict[int, Estimate]:
    return {
        k: bootstrap_mean(v, families, k=k, resamples=CURVE_RESAMPLES) for k, v in values.items()
    }


def prompt_rows(view: RunView, headline: EvalView) -> list[PromptRow]:
    """The trained model against the base under every prompt that was tried on the same problems."""
    rows = []
    for base in view.evals:
        if base.arm == "before" and set(base.ids) == set(headline.ids):
            old, new = _rates(base), _rates(headline)
            ids = [i for i in headline.ids if i in old and i in new]
            families = dict(zip(headline.ids, headline.families, strict=True))
            if ids:
                gain = paired_difference(
                    [old[i] for i in ids], [new[i] for i in ids], [families[i] for i in ids]
                )
                rows.append(PromptRow(label=view.label(base.suite), base=base, gain=gain))
    return rows


def _rates(arm: EvalView) -> dict[str, float]:
    rows = zip(arm.ids, arm.correct, arm.graded, strict=True)
    return {i: correct / graded for i, correct, graded in rows if graded}


def verdict_shares(arm: EvalView) -> list[tuple[str, int, float]]:
    """(verdict, samples, share) in a fixed order."""
    return [
        (v.value, arm.verdicts.get(v.value, 0), arm.verdicts.get(v.value, 0) / arm.num_samples)
        for v in Verdict
    ]
