"""When a comparison of two models may be called true, beside what its rule says.

A model that does not know in which form to answer scores low whatever it can do. Where an answer
is found in one arm more often than in the other by over `GAP`, "better" may mean no more than that,
and the claim is withheld unless its plan asked for what tells the two apart, and that holds:

    format control   the same claim of the answers found alone: {"fn": "rate", "of": "correct",
                     "among": "parsable"}. With f the shares found and a the shares of these that
                     are right, the gain is f1 a1 - f0 a0. Were the missing answers of the weaker
                     arm as good as those of the stronger one, f0 (a1 - a0) of it would be left: it
                     has the sign of what this control compares.
    other prompts    the same claim against the same model under every other prompt it was planned
                     with, each with its own format control where it needs one
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pellucid.evidence.core.claims import (
    TWO_ARM_KINDS,
    ClaimError,
    Result,
    does_hold,
    is_capability,
)
from pellucid.evidence.core.schema import Claim
from pellucid.evidence.core.tally import Evaluation

GAP = 0.02
"""Difference in the shares of samples with an answer from which on it may be all that is seen."""
_ROUNDING = 1e-9
FORMAT_METRIC = {"fn": "rate", "of": "correct", "among": "parsable"}
NO_CLAIM = "low <= high"
"""The rule of a difference that is printed, and of which nothing is claimed."""
WITHHELD: Final = "withheld"
"""`Claim.level` of a comparison that is not called true."""
FEW_SEEDS = 3
"""Trainings from which on chance between them is measured."""
_SAME = ("kind", "unit", "cluster", "family", "rule")


def run_label(seeds: int) -> str:
    """How the text of a comparison begins whose model was trained so few times; 0: not trained."""
    return {1: "single run: ", 2: "two runs: "}.get(seeds, "")


def is_comparison(claim: Mapping[str, Any]) -> bool:
    """Whether two arms are held against each other."""
    return claim["kind"] in TWO_ARM_KINDS or len(claim["arms"]) > 1


def found_shares(claim: Claim, evaluations: Mapping[str, Evaluation]) -> list[float]:
    """Of the graded samples of every arm, the share in which an answer was found."""
    return [evaluations[folder].found_share() for _, folder in sorted(claim["arms"].items())]


def truths(
    claims: Sequence[Claim], results: Mapping[str, Result], adjusted: Mapping[str, float]
) -> dict[str, bool]:
    """Id -> what the rule says of the numbers; a claim without numbers is not true."""
    found = {}
    for claim in claims:
        name = claim["id"]
        try:
            found[name] = name in results and does_hold(claim, results[name], adjusted.get(name))
        except ClaimError:
            found[name] = False
    return found


def format_draft(claim: Mapping[str, Any]) -> dict[str, Any]:
    """What `format_control` looks for. Its test is a t test: how many answers there are differs
    between problems, so that signs are not flipped.
    """
    margin = {k: v for k, v in claim["metric"].items() if k == "margin"}
    test = None if claim["test"] is None else "clustered_t"
    return {**claim, "metric": FORMAT_METRIC | margin, "test": test}


def format_control(claim: Claim, claims: Sequence[Claim]) -> Claim | None:
    """The same claim of the answers found alone, from the same plan; None: there is none."""
    metric = format_draft(claim)["metric"]
    for other in claims:
        is_tested = claim["test"] is None or other["test"] is not None
        is_of_arms = other["metric"] == metric and other["arms"] == claim["arms"]
        if is_of_arms and is_tested and _is_alike(other, claim):
            return other
    return None


def why_withheld(
    claim: Claim,
    claims: Sequence[Claim],
    evaluations: Mapping[str, Evaluation],
    models: Mapping[str, str],
    true: Mapping[str, bool],
) -> str | None:
    """Why a comparison is not to be called true, whatever its rule says; None: it may be.

    `models`: evaluation -> root of the weights that answered. `true`: `truths` of all claims.
    """
    why = _why_format(claim, claims, evaluations, true)
    if why is not None or not _is_gapped(claim, evaluations):
        return why
    for other in _other_prompts(claim, claims, models):
        if other["arms"]["b"] not in evaluations:
            return f"{_gap_words(claim, evaluations)}; {other['id']} was not measured"
        if not true[other["id"]] or _why_format(other, claims, evaluations, true) is not None:
            against = f"{other['id']}, against the same model under another prompt, does not hold"
            return f"{_gap_words(claim, evaluations)}; {against}"
    return None


def _why_format(
    claim: Claim,
    claims: Sequence[Claim],
    evaluations: Mapping[str, Evaluation],
    true: Mapping[str, bool],
) -> str | None:
    if not _is_gapped(claim, evaluations):
        return None
    control = format_control(claim, claims)
    if control is None:
        return f"{_gap_words(claim, evaluations)}; no claim of the answers found alone is here"
    if not true[control["id"]]:
        words = f"{control['id']}, of the answers found alone, does not hold"
        return f"{_gap_words(claim, evaluations)}; {words}"
    return None


def _is_gapped(claim: Claim, evaluations: Mapping[str, Evaluation]) -> bool:
    """Whether something is claimed of the ability of two arms that differ in answers found."""
    if not (is_comparison(claim) and is_capability(claim)) or claim["rule"] == NO_CLAIM:
        return False
    return is_gap(found_shares(claim, evaluations))


def is_gap(shares: Sequence[float]) -> bool:
    """Whether shares of answers found differ by more than `GAP`."""
    return max(shares) - min(shares) > GAP + _ROUNDING


def _gap_words(claim: Claim, evaluations: Mapping[str, Evaluation]) -> str:
    shares = " and ".join(f"{share:.1%}" for share in found_shares(claim, evaluations))
    return f"an answer was found in {shares} of the samples"


def _other_prompts(
    claim: Claim, claims: Sequence[Claim], models: Mapping[str, str]
) -> Iterator[Claim]:
    """The same claim against the same model, asked with other prompts."""
    own = claim["arms"]
    for other in claims:
        arms = other["arms"]
        if arms.get("a") != own["a"] or arms.get("b") in (None, own["b"]):
            continue
        model = models.get(own["b"])
        is_of_model = model is not None and models.get(arms["b"]) == model
        if is_of_model and other["metric"] == claim["metric"] and _is_alike(other, claim):
            yield other


def _is_alike(first: Claim, second: Claim) -> bool:
    """Whether two claims of one plan are computed and decided alike."""
    plans = {claim["prereg"].partition("#")[0] for claim in (first, second)}
    return len(plans) == 1 and all(first[key] == second[key] for key in _SAME)  # type: ignore[literal-required]
