"""Claims against their plan, and their numbers against the samples."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_comparisons import check_withheld
from pellucid.evidence.core.check_controls import check_controls
from pellucid.evidence.core.claims import (
    ClaimError,
    Result,
    compute_claim,
    compute_claims,
    does_hold,
    is_capability,
    is_printed_as,
)
from pellucid.evidence.core.comparisons import WITHHELD
from pellucid.evidence.core.schema import Claim, PlannedClaim, Preregistration, Printed

VIEWS = ("clean", "post_cutoff", "fresh")
"""What a capability claim is shown on beside all items."""
MAX_PRECISION = 12
SAYS_RL = "rl improves"
"""A claim of a cause, so it needs trainings on rewards that know no answer."""


def check_planned(case: Case) -> None:
    """Claims and evaluations are those of their plan."""
    for name, plan in case.plans.items():
        here = {c["prereg"]: c for c in case.claim_list()}
        for planned in plan["claims"]:
            claim = here.get(f"{name}#{planned['id']}")
            if claim is None:
                _check_unreported(case, name, planned)
            else:
                _check_same(case, claim, planned)
    ids = [c["id"] for c in case.claim_list()]
    for claim in case.claim_list():
        if ids.count(claim["id"]) > 1:
            case.find("claim-changed", claim["id"], "two claims have this id")
        name, _, own = claim["prereg"].partition("#")
        plan = case.plans.get(name)
        if not case.plans:
            continue  # found once, for all claims
        if plan is None or own not in [p["id"] for p in plan["claims"]]:
            case.find("prereg-missing", claim["id"], "no plan announced it", [claim["id"]])
    for folder in case.roots:
        for _, plan in case.planned(folder):
            _check_arm(case, folder, plan)


def _check_unreported(case: Case, name: str, planned: PlannedClaim) -> None:
    """A planned claim is left out only where the samples, which are all here, do not give it."""
    draft: Any = {**planned, "seed": 0}
    is_measured = all(folder in case.evaluations for folder in planned["arms"].values())
    try:
        compute_claim(draft, case.evaluations)
    except ClaimError as error:
        if is_measured:
            text = f"plan {name} announced it; it cannot be computed: {error}"
            case.find("claim-impossible", planned["id"], text)
            return
    text = f"plan {name} announced it, but it is not reported"
    case.find("claim-changed", planned["id"], text)


def _check_same(case: Case, claim: Claim, planned: PlannedClaim) -> None:
    for key in PlannedClaim.__annotations__:
        if claim[key] != planned[key]:  # type: ignore[literal-required]
            case.find("claim-changed", claim["id"], f"{key} is not what was planned", [claim["id"]])


def _check_arm(case: Case, folder: str, plan: Preregistration) -> None:
    """The arm was asked with its prompt, graded by the plan's grader, and is the right model."""
    root, using = case.roots[folder], case.using(folder)
    arm = plan["arms"].get(root["arm"])
    if arm is None:
        if using:
            case.find("prereg-missing", folder, "its arm was not planned", using)
        return
    is_dev = plan["suites"][root["suite"]]["is_dev"]
    if is_dev and using:
        case.find("claim-unsupported", folder, "a suite to choose by carries no claim", using)
    if root["template_sha256"] != arm["template_sha256"] and not is_dev:
        case.find("prompt-changed", folder, "its template is not the planned one", using)
    if root["grader_sha256"] != plan["grader_sha256"]:
        case.find("grader-changed", folder, "its grader is not the planned one", using)
    model = arm["model"]
    if model is None and arm["role"] in ("control", "rival"):
        model = root["model"]  # trained by the same run and not released
        is_own = "itself"
    elif model is None:
        model = case.weights["root"] if case.weights is not None else root["model"]
        is_own = "the released weights (weights/manifest.json)"
    else:
        is_own = "the planned model"
    if root["model"] != model and not (is_dev and arm["role"] == "subject"):
        code = "baseline-wrong" if arm["role"] == "baseline" else "weights-swapped"
        case.find(code, folder, f"what answered is not {is_own}", using)
    _check_best_prompt(case, folder, root["template_sha256"], arm["prompt_candidates"])


def _check_best_prompt(case: Case, folder: str, template: str, candidates: list[str]) -> None:
    using = case.using(folder)
    if not candidates or not using:
        return
    shares = {}
    for candidate in candidates:
        if candidate not in case.evaluations:
            case.find("baseline-weak", folder, f"{candidate[:80]} is not in the dossier", using)
            continue
        tallies = case.evaluations[candidate].items.values()
        graded = sum(t.graded for t in tallies)
        shares[candidate] = sum(t.correct for t in tallies) / graded if graded else 0.0
    best = max(shares.values(), default=0.0)
    if shares and not any(
        share == best and case.roots[candidate]["template_sha256"] == template
        for candidate, share in shares.items()
    ):
        winner = max(shares, key=lambda c: shares[c])
        case.find("baseline-weak", folder, f"the prompt of {winner[:80]} did better", using)


# Numbers


def check_numbers(case: Case) -> None:
    """Every claim's numbers, rule and views, computed again."""
    if case.claims is None:
        return
    _check_families(case)
    results, adjusted, problems = compute_claims(case.claims, case.evaluations)
    withheld = check_withheld(case, results, adjusted)
    for claim in case.claim_list():
        own = [claim["id"]]
        _check_words(case, claim)
        if claim["id"] in problems:
            case.find("claim-unsupported", claim["id"], problems[claim["id"]], own)
            continue
        result, p_adj = results[claim["id"]], adjusted.get(claim["id"])
        if not 0 <= claim["precision"] <= MAX_PRECISION:
            case.find("claim-mismatch", claim["id"], "its precision is out of range", own)
            continue
        _check_roots(case, claim)
        _compare(case, claim, claim["reported"], result, p_adj, "claim-mismatch")
        _check_rule(case, claim, result, p_adj, is_withheld=claim["id"] in withheld)
        _check_views(case, claim, result)
        check_controls(case, claim)


def _check_words(case: Case, claim: Claim) -> None:
    """What a claim says of itself beside its numbers, where that can be held to something."""
    own = [claim["id"]]
    if claim["level"] not in ("recomputed", WITHHELD):
        text = f"it calls itself {claim['level']}: nothing that was sealed before can show that"
        case.find("claim-unsupported", claim["id"], text, own)
    if SAYS_RL in claim["text"].casefold() and not _has_control(case, claim):
        text = "it says that RL improves something, and requires no control"
        case.find("control-missing", claim["id"], text, own)


def _has_control(case: Case, claim: Claim) -> bool:
    plan = case.plans.get(claim["prereg"].partition("#")[0])
    arms = plan["arms"] if plan is not None else {}
    return any(arm in arms and arms[arm]["role"] == "control" for arm in claim["requires"])


def _check_families(case: Case) -> None:
    assert case.claims is not None, "called with claims"
    families = case.claims["families"]
    for name, family in families.items():
        declared = [c["id"] for c in case.claim_list() if c["family"] == name]
        if sorted(declared) != sorted(family["claims"]):
            case.find("claim-changed", f"family {name[:60]}", "its members are not those declared")
    for claim in case.claim_list():
        if claim["family"] is not None and claim["family"] not in families:
            case.find("claim-changed", claim["id"], "its family is not declared", [claim["id"]])


def _check_roots(case: Case, claim: Claim) -> None:
    for name, folder in claim["arms"].items():
        evaluation = case.evaluations.get(folder)
        if evaluation is not None and claim["roots"].get(name) != evaluation.merkle_root:
            text = f"it was computed from other samples than {folder[:80]} holds"
            case.find("claim-mismatch", claim["id"], text, [claim["id"]])
    if claim["roots"].keys() != claim["arms"].keys():
        case.find("claim-mismatch", claim["id"], "roots and arms differ", [claim["id"]])


def _compare(
    case: Case, claim: Claim, given: Printed, result: Result, p_adj: float | None, code: str
) -> None:
    numbers = {
        "value": result.value,
        "low": result.low,
        "high": result.high,
        "p": result.p,
        "p_adj": p_adj,
    }
    precision = claim["precision"]
    for name, number in numbers.items():
        text = given[name]  # type: ignore[literal-required]
        is_right = text is None if number is None else is_printed_as(number, text, precision)
        if not is_right:
            again = "none" if number is None else f"{number:.{precision}f}"
            text = f"{name} is {again}, printed as {ascii(text)[:40]}"
            case.find(code, claim["id"], text, [claim["id"]])
    for name in ("n_items", "n_clusters", "n_samples"):
        if given[name] != getattr(result, name):  # type: ignore[literal-required]
            text = f"{name} is {getattr(result, name)}, printed as {given[name]}"  # type: ignore[literal-required]
            case.find(code, claim["id"], text, [claim["id"]])


def _check_rule(
    case: Case, claim: Claim, result: Result, p_adj: float | None, *, is_withheld: bool
) -> None:
    """`is_withheld`: with a reason, so that it is not called true."""
    try:
        holds = does_hold(claim, result, p_adj) and not is_withheld
    except ClaimError as error:
        case.find("claim-unsupported", claim["id"], str(error), [claim["id"]])
        return
    if holds != claim["holds"]:
        text = f"the rule {'holds' if holds else 'does not hold'}, the claim says otherwise"
        case.find("claim-fails", claim["id"], text, [claim["id"]])


# Views


def _check_views(case: Case, claim: Claim, whole: Result) -> None:
    own = [claim["id"]]
    missing = [view for view in VIEWS if view not in claim["views"]]
    if is_capability(claim) and not claim["is_capability"]:
        case.find("view-missing", claim["id"], "it says how able a model is, and denies it", own)
    elif is_capability(claim) and missing:
        case.find("view-missing", claim["id"], f"not shown on {', '.join(missing)} items", own)
    for view, given in claim["views"].items():
        if view == "all" and given == claim["reported"]:
            continue
        keep = view_items(case, claim, view)
        if view not in VIEWS:
            case.find("view-mismatch", claim["id"], f"there is no view {view[:40]!r}", own)
        elif keep is None:
            if given is not None:
                text = f"which items are {view} cannot be told from the dossier"
                case.find("view-mismatch", claim["id"], text, own)
        else:
            _check_view(case, claim, whole, view, keep)


def _check_view(case: Case, claim: Claim, whole: Result, view: str, keep: Collection[str]) -> None:
    given, own = claim["views"][view], [claim["id"]]
    try:
        result = compute_claim(claim, case.evaluations, keep=keep)
    except ClaimError as error:
        if given is not None:
            case.find("view-mismatch", claim["id"], f"on {view} items: {error}", own)
        return
    if given is None:
        text = f"{result.n_items} items are {view}, but the view is left empty"
        case.find("view-missing", claim["id"], text, own)
        return
    _compare(case, claim, given, result, None, "view-mismatch")
    if _sign(claim, result) * _sign(claim, whole) < 0:
        text = f"{result.value:+.4f} on {result.n_items} {view} items, {whole.value:+.4f} on all"
        case.find("view-reverses", claim["id"], text, own)


def view_items(case: Case, claim: Claim, view: str) -> Collection[str] | None:
    """Items of the claim's suites that belong to a view; None: it cannot be told."""
    suites = {folder.split("/")[1] for folder in claim["arms"].values() if folder.count("/") == 2}
    items: set[str] = set()
    for suite in suites:
        part = _suite_view(case, suite, view)
        if part is None:
            return None
        items |= part
    return items


def _suite_view(case: Case, suite: str, view: str) -> set[str] | None:
    if view == "clean":
        scan = case.scan["suites"].get(suite) if case.scan is not None else None
        if scan is None or case.scan is None:
            return None
        limit = case.scan["threshold"]
        return {item for item, found in scan["items"].items() if found["containment"] < limit}
    data = case.sets.get(suite)
    if data is None:
        return None
    if view == "fresh":
        return {item for item, about in data["items"].items() if about["is_fresh"]}
    cutoff = case.claims["cutoff"] if case.claims is not None else None
    if cutoff is None:
        return None
    return {
        item for item, about in data["items"].items() if (about["first_public"] or "") >= cutoff
    }


def _sign(claim: Claim, result: Result) -> int:
    """On which side of "no difference" a result lies; 0 where there is no such point."""
    if claim["kind"] == "non_inferiority":
        distance = result.value + claim["metric"]["margin"]
    elif claim["kind"] == "paired_difference":
        distance = result.value
    elif claim["kind"] == "ratio" and len(claim["arms"]) == 2:
        distance = result.value - 1.0
    else:
        return 0
    return (distance > 0) - (distance < 0)
