"""claims.json: the planned claims with their numbers, computed as the verifier computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pellucid.evidence.claims import claim_limits, labelled_text
from pellucid.evidence.core.claims import (
    ClaimError,
    Result,
    compute_claim,
    compute_claims,
    is_capability,
    printed,
)
from pellucid.evidence.core.comparisons import WITHHELD, truths, why_withheld
from pellucid.evidence.core.schema import (
    PLAN_VERSION,
    Claim,
    Claims,
    DataSet,
    PlannedClaim,
    Printed,
)
from pellucid.evidence.core.schema_training import Scan
from pellucid.evidence.core.tally import Evaluation

PRECISION = 4
VIEWS = ("clean", "post_cutoff", "fresh")
_UNKNOWN: Printed = {
    "value": "0",
    "low": "0",
    "high": "0",
    "p": None,
    "p_adj": None,
    "n_items": 0,
    "n_clusters": 0,
    "n_samples": 0,
}


class Document(NamedTuple):
    claims: Claims
    missing: list[str]
    """Planned claims that could not be computed, and why."""


def compute_document(
    planned: Sequence[PlannedClaim],
    evaluations: Mapping[str, Evaluation],
    *,
    prereg: str,
    training_seeds: int,
    title: str,
    cutoff: str | None,
    sets: Mapping[str, DataSet],
    scan: Scan | None,
    models: Mapping[str, str],
    plan_version: int = PLAN_VERSION,
    shorter: Mapping[str, str] | None = None,
) -> Document:
    """All claims whose evaluations are there. `prereg`: id of the plan; empty: there is none.
    `shorter`: control -> that it was trained for fewer steps.
    `models`: evaluation -> root of the weights that answered. Plans of version 1 asked for no
    format control, so nothing is withheld under them.
    """
    missing, drafts = [], []
    for plan in planned:
        absent = [folder for folder in plan["arms"].values() if folder not in evaluations]
        if absent:
            missing.append(f"claim {plan['id']}: {absent[0]} was not measured")
        else:
            limits = claim_limits(plan, training_seeds, shorter)
            drafts.append(_draft(plan, evaluations, prereg, training_seeds, limits))
    families = {
        name: {
            "correction": "holm",
            "claims": [claim["id"] for claim in drafts if claim["family"] == name],
        }
        for name in sorted({claim["family"] for claim in drafts if claim["family"]})
    }
    document: Claims = {
        "v": 1,
        "title": title,
        "cutoff": cutoff,
        "families": families,
        "claims": drafts,
    }
    results, adjusted, problems = compute_claims(document, evaluations)
    missing += [f"claim {name}: {why}" for name, why in sorted(problems.items())]
    document["claims"] = [claim for claim in drafts if claim["id"] in results]
    for family in families.values():
        family["claims"] = [name for name in family["claims"] if name in results]
    true = truths(document["claims"], results, adjusted)
    for claim in document["claims"]:
        result, p_adj = results[claim["id"]], adjusted.get(claim["id"])
        claim["reported"] = printed(result, PRECISION, p_adj=p_adj)
        claim["holds"] = true[claim["id"]]
        if plan_version > 1:
            _withhold(claim, document["claims"], evaluations, models, true)
        if claim["is_capability"]:
            claim["views"] = {
                view: _view(claim, evaluations, _items(claim, view, cutoff, sets, scan))
                for view in VIEWS
            }
    return Document(document, missing)


def _draft(
    plan: PlannedClaim,
    evaluations: Mapping[str, Evaluation],
    prereg: str,
    training_seeds: int,
    limits: str,
) -> Claim:
    return {
        **plan,
        "text": labelled_text(plan, training_seeds),
        "roots": {name: evaluations[f].merkle_root for name, f in plan["arms"].items()},
        "precision": PRECISION,
        "seed": 0,
        "reported": _UNKNOWN,
        "views": {},
        "is_capability": is_capability(plan),
        "prereg": f"{prereg}#{plan['id']}",
        "holds": False,
        "level": "recomputed",
        "limits": limits,
    }


def _withhold(
    claim: Claim,
    claims: Sequence[Claim],
    evaluations: Mapping[str, Evaluation],
    models: Mapping[str, str],
    true: Mapping[str, bool],
) -> None:
    why = why_withheld(claim, claims, evaluations, models, true)
    if why is not None:
        claim["level"], claim["holds"] = WITHHELD, False
        claim["limits"] = f"Withheld: {why}. {claim['limits']}"


def _view(
    claim: Claim, evaluations: Mapping[str, Evaluation], items: set[str] | None
) -> Printed | None:
    if not items:
        return None
    try:
        result: Result = compute_claim(claim, evaluations, keep=items)
    except ClaimError:
        return None  # too few items of the view: shown as empty, which the verifier checks
    return printed(result, PRECISION)


def _items(
    claim: Claim,
    view: str,
    cutoff: str | None,
    sets: Mapping[str, DataSet],
    scan: Scan | None,
) -> set[str] | None:
    """Items of the claim's suites that belong to a view; None: it cannot be told."""
    found: set[str] = set()
    for suite in {folder.split("/")[1] for folder in claim["arms"].values()}:
        if view == "clean":
            if scan is None or suite not in scan["suites"]:
                return None
            scanned, limit = scan["suites"][suite]["items"], scan["threshold"]
            found |= {item for item, one in scanned.items() if one["containment"] < limit}
        elif suite not in sets or (view == "post_cutoff" and cutoff is None):
            return None
        elif view == "fresh":
            found |= {item for item, one in sets[suite]["items"].items() if one["is_fresh"]}
        else:
            items = sets[suite]["items"].items()
            found |= {item for item, one in items if (one["first_public"] or "") >= (cutoff or "")}
    return found
