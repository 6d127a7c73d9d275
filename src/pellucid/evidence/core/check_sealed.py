"""What a plan fixes beside items and claims: families, dates, freshness, cutoff, the last step.

Intervals depend on the families, and the views on all else: who may choose them behind the results
chooses the results. Plans of version 1 say nothing of them, which is noted.
"""

from __future__ import annotations

from pellucid.evidence.core.canonical import sha256_json
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_clean import SCAN
from pellucid.evidence.core.check_training import CHECKPOINTS
from pellucid.evidence.core.schema import PlannedSuite, Preregistration
from pellucid.evidence.core.tally import Evaluation


def check_sealed(case: Case) -> None:
    """Families, views and the end of the training are those of every plan."""
    for name, plan in case.plans.items():
        if plan["v"] == 1:
            text = "it is of version 1: families, dates, cutoff, freshness and last step may be new"
            case.find("plan-older", f"prereg/{name}.json", text)
            continue
        _check_cutoff(case, name, plan)
        _check_last_step(case, name, plan)
        for suite, planned in plan["suites"].items():
            _check_items(case, suite, planned)
    for folder, evaluation in case.evaluations.items():
        for _, plan in case.planned(folder):
            if plan["v"] > 1:
                _check_families(case, folder, evaluation, plan["suites"][evaluation.suite])


def _check_cutoff(case: Case, name: str, plan: Preregistration) -> None:
    if case.claims is not None and case.claims["cutoff"] != plan["cutoff"]:
        given, planned = (ascii(day)[:20] for day in (case.claims["cutoff"], plan["cutoff"]))
        text = f"the cutoff changed after plan {name}: {given}, planned was {planned}"
        case.find("views-changed", "claims.json", text)
    if case.scan is not None and case.scan["threshold"] > plan["clean_below"]:
        text = (
            f"the threshold changed after plan {name}: items count as clean up to "
            f"{case.scan['threshold']:.4g}, planned was {plan['clean_below']:.4g}"
        )
        case.find("views-changed", SCAN, text)


def _check_last_step(case: Case, name: str, plan: Preregistration) -> None:
    """A training that goes on, or is ended, because of what it scores is told by its steps."""
    planned, index = plan["last_step"], case.checkpoints
    if planned is None or index is None:
        return
    ended = max((one["step"] for one in index["checkpoints"]), default=None)
    if ended != planned:
        where = "nowhere" if ended is None else f"at step {ended}"
        text = f"the training ended {where}, plan {name} says at step {planned}"
        case.find("stopped-otherwise", CHECKPOINTS, text)


def _check_items(case: Case, suite: str, planned: PlannedSuite) -> None:
    """data/<suite>.json tells the days and the freshness that were planned."""
    using = [
        claim for f, root in case.roots.items() if root["suite"] == suite for claim in case.using(f)
    ]
    where, data = f"data/{suite}.json", case.sets.get(suite)
    if data is None:
        if using:
            text = "it is not here: which items are newer or fresh cannot be told as planned"
            case.find("views-changed", where, text, using)
        return
    if data["items"].keys() != planned["items"].keys():
        return  # found already, as other items than were planned
    for key, digest, what in (
        ("first_public", planned["dates_sha256"], "the days of publication"),
        ("is_fresh", planned["fresh_sha256"], "what counts as fresh"),
    ):
        given = {item: about[key] for item, about in data["items"].items()}  # type: ignore[literal-required]
        if sha256_json(given) != digest:
            case.find("views-changed", where, f"{what} changed after the plan", using)


def _check_families(case: Case, folder: str, evaluation: Evaluation, planned: PlannedSuite) -> None:
    if evaluation.items.keys() != planned["items"].keys():
        return  # found already, as other items than were planned
    families = {item: tally.cluster for item, tally in evaluation.items.items()}
    if sha256_json(families) != planned["families_sha256"]:
        text = "the families of its problems changed after the plan"
        case.find("families-changed", folder, text, case.using(folder))
