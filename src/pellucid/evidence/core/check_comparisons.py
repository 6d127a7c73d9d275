"""Comparisons of two models: answers found alike, engines alike, and of how many trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.evidence.core.case import Case
from pellucid.evidence.core.claims import ClaimError, Result, compute_claim, is_capability
from pellucid.evidence.core.comparisons import (
    FEW_SEEDS,
    WITHHELD,
    format_control,
    format_draft,
    found_shares,
    is_comparison,
    is_gap,
    run_label,
    truths,
    why_withheld,
)
from pellucid.evidence.core.schema import Claim, Preregistration


def check_withheld(
    case: Case, results: Mapping[str, Result], adjusted: Mapping[str, float]
) -> set[str]:
    """Claims that are withheld with a reason. One that is not, and has a reason, is a finding: what
    it calls better may be that more answers were found. Plans of version 1 could not ask for what
    tells these apart; there the gap is noted alone.
    """
    claims, true = case.claim_list(), truths(case.claim_list(), results, adjusted)
    models = {folder: root["model"] for folder, root in case.roots.items()}
    withheld = set()
    for claim in claims:
        name, plan = claim["id"], _plan(case, claim)
        if name not in results or (plan is not None and plan["v"] == 1):
            continue
        why = why_withheld(claim, claims, case.evaluations, models, true)
        if why is None:
            if claim["level"] == WITHHELD:
                case.find("claim-fails", name, "it is withheld, and nothing asks for that", [name])
        elif claim["level"] != WITHHELD:
            case.find("format-decides", name, why, [name])
        else:
            withheld.add(name)
            case.find("claim-withheld", name, why, [name])
    return withheld


def check_comparisons(case: Case) -> None:
    """What is to be known of every claim of two arms beside its numbers."""
    for claim in case.claim_list():
        arms = claim["arms"].values()
        if is_comparison(claim) and all(folder in case.evaluations for folder in arms):
            _check_gap(case, claim)
            _check_engines(case, claim)
    for name, plan in case.plans.items():
        if 0 < plan["training_seeds"] < FEW_SEEDS:
            _check_label(case, name, plan)


def _check_gap(case: Case, claim: Claim) -> None:
    shares = found_shares(claim, case.evaluations)
    if is_gap(shares):
        text = f"an answer was found in {shares[0]:.1%} and {shares[1]:.1%} of the samples"
        text += _found_alone(case, claim)
        case.find("extraction-gap", claim["id"], text, [claim["id"]])


def _found_alone(case: Case, claim: Claim) -> str:
    """What the answers found show, where the plan asked for it, and where it did not."""
    if not is_capability(claim):
        return ""
    control = format_control(claim, case.claim_list())
    if control is not None:
        return f"; of the answers found alone speaks {control['id']}"
    draft: Any = format_draft(claim)
    try:
        result = compute_claim(draft, case.evaluations)
    except ClaimError:
        return "; the answers found alone tell nothing"
    return (
        f"; of the answers found alone it is {result.value:.4f} ({result.low:.4f} to "
        f"{result.high:.4f}), unplanned"
    )


def _check_engines(case: Case, claim: Claim) -> None:
    """Two models are compared by what one engine of one kind of number made of them."""
    made = {
        tuple(str(engine.get(name)) for name in ("name", "version", "dtype"))
        for folder in claim["arms"].values()
        for engine in case.evaluations[folder].engines
    }
    if len(made) > 1:
        text = ", ".join(" ".join(parts)[:40] for parts in sorted(made))
        case.find("engine-differs", claim["id"], text, [claim["id"]])


def _check_label(case: Case, name: str, plan: Preregistration) -> None:
    """Few trainings are noted, and said in the very words of each comparison: these are what a
    report, a model card and a table repeat.
    """
    compared = [c for c in case.claim_list() if is_comparison(c) and _plan(case, c) is plan]
    if not case.claim_list():
        return
    text = f"{plan['training_seeds']} training run(s): chance between runs is not measured"
    ids = [claim["id"] for claim in compared]
    case.find("single-seed", f"prereg/{name}.json", text, ids or None)
    label = run_label(plan["training_seeds"])
    for claim in compared:
        if plan["v"] > 1 and not claim["text"].startswith(label):
            text = f"its text does not begin with {label.strip()!r}"
            case.find("single-run-unsaid", claim["id"], text, [claim["id"]])


def _plan(case: Case, claim: Claim) -> Preregistration | None:
    return case.plans.get(claim["prereg"].partition("#")[0])
