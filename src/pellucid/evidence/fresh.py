"""A model measured on fresh items, and what that says of a claim.

    nonce → items (fresh_items) → evaluate → pass@1 by family and level → held against the claim

Fresh items cannot be contaminated. But a claim speaks of its own suite: only items of the same
distribution can refute its number, others show a skill and no more. Left out: who loads the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import sqrt
from typing import Any

from pellucid.artifacts import sha256_bytes
from pellucid.errors import DataError
from pellucid.evaluate.metrics import pass_at_1
from pellucid.evaluate.records import EvalResult, ProblemResult, SampleRecord
from pellucid.evaluate.runner import PromptTemplate, evaluate
from pellucid.evidence.fresh_items.make import (
    GENERAL,
    fresh_seed,
    generator_digest,
    items_digest,
    make_items,
)
from pellucid.protocols import Engine, Grader, ProgressFn, Tokenizer
from pellucid.records import SamplingParams
from pellucid.stats import Difference, Estimate, paired_difference

SAME_DISTRIBUTION = {"chain": ("chain", "chain/test")}
"""Family -> suites that are drawn as it is, from the same structures and numbers."""


class FreshFinding(StrEnum):
    """What fresh items say of a claim."""

    CONSISTENT = "consistent"
    LOWER = "lower"
    """The claim promises more than the model does on fresh items of the same distribution."""
    HIGHER = "higher"
    OTHER_DISTRIBUTION = "other-distribution"
    """Nothing can be concluded for the claim's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A share that a claim states for a suite. Example: Claimed(claim="C1", suite="chain/test",
    value=0.8, low=0.75, high=0.85)"""

    claim: str
    suite: str
    value: float
    low: float
    high: float
    """The interval at 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A claim held against fresh items."""

    claim: str
    finding: FreshFinding
    difference: float | None
    """Fresh less claimed, in shares; None: not comparable."""
    ci95: tuple[float, float] | None
    text: str
    """What may be concluded, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshResult:
    """A model on fresh items."""

    weights_root: str
    """Of the weights that the items were made from."""
    nonce: str
    families: tuple[str, ...]
    generator: str
    """`generator_digest`: to be compared with what the preregistration sealed."""
    items: str
    """Digest of the items asked."""
    result: EvalResult
    by_family: Mapping[str, Estimate]
    by_level: Mapping[str, Estimate]
    """`FAMILY-LEVEL` -> pass@1."""
    comparisons: tuple[Comparison, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the problems."""
        return {
            "weights_root": self.weights_root,
            "nonce": self.nonce,
            "families": list(self.families),
            "generator": self.generator,
            "items": self.items,
            "n": len(self.result.problems),
            "k": self.result.k,
            "template": self.result.template,
            "sampler": dict(self.result.sampler),
            "seed": self.result.seed,
            "pass_at_1": _plain(self.result.pass_at_1),
            "by_family": {name: _plain(e) for name, e in self.by_family.items()},
            "by_level": {name: _plain(e) for name, e in self.by_level.items()},
            "verdicts": dict(self.result.verdicts),
            "truncated_frac": self.result.truncated_frac,
            "comparisons": [asdict(c) for c in self.comparisons],
        }


def run_fresh(
    engine: Engine,
    tokenizer: Tokenizer,
    template: PromptTemplate,
    weights_root: str,
    nonce: str,
    n: int,
    *,
    grader: Grader,
    params: SamplingParams,
    families: Sequence[str] = GENERAL,
    k: int = 1,
    claims: Sequence[Claimed] = (),
    sink: Callable[[SampleRecord], None] | None = None,
    progress: ProgressFn | None = None,
) -> FreshResult:
    """Measures a model on `n` items made from the nonce; prompt and sampler are to be the claim's.

    A base model is asked the same items by giving it the trained model's `weights_root`. The seed
    of the sampler hangs on the nonce too. Raises DataError, and what `evaluate` raises.
    """
    problems = make_items(weights_root, nonce, n, families)
    seed = int.from_bytes(fresh_seed(weights_root, nonce)[:8], "big") >> 1
    result = evaluate(
        engine,
        tokenizer,
        problems,
        template=template,
        params=params,
        k=k,
        seed=seed,
        arm="fresh",
        suite="fresh-" + sha256_bytes(nonce.encode())[:8],
        grader=grader,
        sink=sink,
        progress=progress,
    )
    by_family = _by(result, lambda name: name.partition("-")[0])
    return FreshResult(
        weights_root=weights_root,
        nonce=nonce,
        families=tuple(families),
        generator=generator_digest(),
        items=items_digest(problems),
        result=result,
        by_family=by_family,
        by_level=_by(result, lambda name: name),
        comparisons=tuple(compare(by_family, claim) for claim in claims),
    )


def compare(by_family: Mapping[str, Estimate], claimed: Claimed) -> Comparison:
    """What fresh results say of a claim; the interval of the difference is Newcombe's (1998, method
    10), made of the two intervals, whatever method they came from."""
    family = next((f for f in by_family if claimed.suite in SAME_DISTRIBUTION.get(f, ())), None)
    if family is None:
        return Comparison(
            claim=claimed.claim,
            finding=FreshFinding.OTHER_DISTRIBUTION,
            difference=None,
            ci95=None,
            text=(
                f"the fresh items ({', '.join(by_family)}) are another distribution than "
                f"{claimed.suite}: they show what the model can do on problems that nobody had "
                "seen, and neither confirm nor refute the claimed number"
            ),
        )
    fresh = by_family[family]
    difference = fresh.value - claimed.value
    low = difference - sqrt((fresh.value - fresh.low) ** 2 + (claimed.high - claimed.value) ** 2)
    high = difference + sqrt((fresh.high - fresh.value) ** 2 + (claimed.value - claimed.low) ** 2)
    found = f"{fresh.value:.1%} on {fresh.n} fresh items, {claimed.value:.1%} claimed"
    if high < 0:
        finding = FreshFinding.LOWER
        text = f"{found}: lower by at least {-high:.1%}; the suite is easier than unseen problems"
    elif low > 0:
        finding, text = FreshFinding.HIGHER, f"{found}: higher, which says nothing against it"
    else:
        finding = FreshFinding.CONSISTENT
        text = f"{found}: consistent; a loss of up to {max(0.0, -low):.1%} would not have shown"
    return Comparison(
        claim=claimed.claim, finding=finding, difference=difference, ci95=(low, high), text=text
    )


def gain(before: FreshResult, after: FreshResult) -> Difference:
    """The paired difference of two models on the same fresh items. Raises DataError where they were
    asked different ones."""
    if before.items != after.items:
        raise DataError(
            "the two models were asked different fresh items: give both the nonce and the weights "
            "root of the trained one"
        )
    pairs = [
        (_share(b), _share(a), a.family)
        for b, a in zip(before.result.problems, after.result.problems, strict=True)
        if b.num_graded and a.num_graded
    ]
    return paired_difference(*zip(*pairs, strict=True))


def _share(problem: ProblemResult) -> float:
    return problem.num_correct / problem.num_graded


def _by(result: EvalResult, key: Callable[[str], str]) -> dict[str, Estimate]:
    """pass@1 of the problems, grouped by what `key` makes of `FAMILY-LEVEL`."""
    groups: dict[str, list[ProblemResult]] = defaultdict(list)
    for problem in result.problems:
        if problem.num_graded:
            groups[key(problem.id.split("/")[1])].append(problem)
    return {name: pass_at_1(group, result.k) for name, group in groups.items()}


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci95": estimate.ci95, "n": estimate.n}
