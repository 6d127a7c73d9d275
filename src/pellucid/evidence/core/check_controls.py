"""Controls: measured, without the claimed gain, and for how many steps they were trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pellucid.evidence.core.case import Case
from pellucid.evidence.core.claims import TWO_ARM_KINDS, ClaimError, compute_claim, does_hold
from pellucid.evidence.core.schema import Claim

LEDGER = "ledger.jsonl"


def check_controls(case: Case, claim: Claim) -> None:
    """The controls that a claim requires were measured, and what it says does not hold of them."""
    own = [claim["id"]]
    for arm in claim["requires"]:
        suites = [folder.split("/")[1] for folder in claim["arms"].values()]
        folder = f"evals/{suites[0]}/{arm}"
        if folder not in case.evaluations:
            case.find("control-missing", claim["id"], f"{folder[:100]} is not in the dossier", own)
            continue
        if _is_control(case, claim, arm) and claim["kind"] in TWO_ARM_KINDS and claim["holds"]:
            _check_control(case, claim, folder)


def _check_control(case: Case, claim: Claim, folder: str) -> None:
    """What the claim says of its arm must not hold of a control in its place."""
    control: Claim = {**claim, "arms": {**claim["arms"], "a": folder}}
    try:
        result = compute_claim(control, case.evaluations)
        gains = does_hold(control, result, result.p)
    except ClaimError as error:
        case.find("control-missing", claim["id"], f"{folder[:100]}: {error}", [claim["id"]])
        return
    if gains:
        text = f"{folder[:100]} gains {result.value:+.4f} and passes the same rule"
        case.find("control-gains", claim["id"], text, [claim["id"]])


def _is_control(case: Case, claim: Claim, arm: str) -> bool:
    plan = case.plans.get(claim["prereg"].partition("#")[0])
    return plan is not None and arm in plan["arms"] and plan["arms"][arm]["role"] == "control"


# Budgets


def check_budgets(case: Case) -> None:
    """A control that trained for fewer steps had less time to gain: said of the claims that
    require it, once for all of them.
    """
    requiring: dict[str, list[str]] = {}
    for claim in case.claim_list():
        measured = {root["arm"] for root in case.roots.values()}
        for arm in sorted(measured & set(claim["requires"])):
            if _is_control(case, claim, arm):
                requiring.setdefault(arm, []).append(claim["id"])
    if case.checkpoints is None:
        return  # found already: without them nothing is known of the claim's own run
    events = [(event["kind"], event["payload"]) for event in case.events]
    for arm, ids in requiring.items():
        steps = trained_steps(events, arm)
        if steps is None:
            text = f"for how many steps the control {arm[:60]} was trained is not told"
            case.find("control-steps-unknown", LEDGER, text, ids)
        elif steps < case.checkpoints["chosen"]:
            text = shorter_text(arm[:60], steps, case.checkpoints["chosen"])
            case.find("control-shorter", LEDGER, text, ids)


def trained_steps(events: Iterable[tuple[str, Mapping[str, Any]]], stage: str) -> int | None:
    """Step of the last checkpoint of a stage, as ledger events (kind, payload) tell; of a control,
    whose arm is called like its stage, the last one before it was measured. None: there is none.
    """
    steps = None
    for kind, payload in events:
        if kind == "evaluation_started" and payload["arm"] == stage:
            break
        if kind == "checkpoint_saved" and payload.get("stage") == stage:
            steps = payload["step"]
    return steps


def shorter_text(control: str, steps: int, own: int) -> str:
    """That a control had the smaller budget."""
    return f"control {control} trained {steps} steps, the claim's run {own}"
