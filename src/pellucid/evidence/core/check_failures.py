"""Samples that failed count in no accuracy, so no claim may hang on which of them did."""

from __future__ import annotations

from collections.abc import Mapping

from pellucid.evidence.core.case import Case
from pellucid.evidence.core.claims import (
    ClaimError,
    Result,
    compute_claim,
    compute_claims,
    does_hold,
    is_capability,
)
from pellucid.evidence.core.schema import Claim
from pellucid.evidence.core.statistics import holm
from pellucid.evidence.core.tally import Evaluation

MAX_FAILED = 0.05
"""Share of an evaluation's samples from which on what is left is no measurement of the model."""


def check_failures(case: Case) -> None:
    """Failures are few, and a claim that holds does so with all of them counted against it."""
    failed = {folder: e.num_failed for folder, e in case.evaluations.items() if e.num_failed}
    if not failed or case.claims is None:
        return
    capable = {c["id"] for c in case.claim_list() if is_capability(c)}
    for folder in failed:
        _check_share(case, folder, [i for i in case.using(folder) if i in capable])
    results, _, _ = compute_claims(case.claims, case.evaluations)
    for claim in case.claim_list():
        count = sum(failed.get(folder, 0) for folder in claim["arms"].values())
        if count and claim["holds"] and is_capability(claim) and claim["id"] in results:
            _check_claim(case, claim, count, results)


def _check_share(case: Case, folder: str, using: list[str]) -> None:
    tallies = case.evaluations[folder].items.values()
    samples, correct = sum(t.samples for t in tallies), sum(t.correct for t in tallies)
    failed = case.evaluations[folder].num_failed
    text = (
        f"{failed} of {samples} samples failed and are left out: with them "
        f"{correct / samples:.1%} to {(correct + failed) / samples:.1%} of all are right"
    )
    if using:
        is_few = failed <= MAX_FAILED * samples
        case.find("samples-failed" if is_few else "failures-decide", folder, text, using)


def _check_claim(case: Case, claim: Claim, count: int, results: Mapping[str, Result]) -> None:
    """Which direction is against a claim its rule alone knows: the failures of one arm are right
    answers while those of the other are wrong, and the other way round.
    """
    for right in ("a", "b"):
        worst = {
            folder: case.evaluations[folder].with_failed(as_correct=name == right)
            for name, folder in claim["arms"].items()
        }
        text = _failing(case, claim, {**case.evaluations, **worst}, results)
        if text is not None:
            text = f"with {count} failed samples counted as answers, {text}"
            case.find("failures-decide", claim["id"], text, [claim["id"]])
            return


def _failing(
    case: Case,
    claim: Claim,
    evaluations: Mapping[str, Evaluation],
    results: Mapping[str, Result],
) -> str | None:
    """Why the claim does not hold on these evaluations; None: it does."""
    try:
        result = compute_claim(claim, evaluations)
        p_adj = _corrected(case, claim, result, results)
        holds = does_hold(claim, result, p_adj)
    except ClaimError as error:
        return f"it cannot be computed: {error}"
    return None if holds else f"its value is {result.value:.4f}, and the rule does not hold"


def _corrected(
    case: Case, claim: Claim, result: Result, results: Mapping[str, Result]
) -> float | None:
    """p of this result among the others of the claim's family."""
    families = case.claims["families"] if case.claims is not None else {}
    family = families.get(claim["family"] or "")
    if family is None or result.p is None:
        return None
    others = [
        p
        for i in family["claims"]
        if i != claim["id"] and i in results and (p := results[i].p) is not None
    ]
    return holm([result.p, *others])[0]
