"""The preregistration: what will be claimed and how it is decided, fixed before anything is seen.

A plan is filed when its digest stands in the run's ledger; evaluations that it speaks of must come
after. It lies in the run folder as prereg/0001.json, its signature beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pellucid.artifacts import atomic_write_bytes, atomic_write_json, sha256_file, sha256_json
from pellucid.errors import RunError
from pellucid.evaluate.records import item_sha256
from pellucid.evaluate.suites import Suite
from pellucid.evidence.claims import Comparison, PlannedEvaluation, default_claims
from pellucid.evidence.core.claims import TWO_ARM_KINDS
from pellucid.evidence.core.schema import (
    PLAN_VERSION,
    CheckpointRule,
    DataSet,
    OldPlannedSuite,
    OldPreregistration,
    PlannedArm,
    PlannedClaim,
    PlannedSuite,
    Preregistration,
)
from pellucid.evidence.fresh_items.make import generator_digest
from pellucid.evidence.recording import dossier_sampler
from pellucid.evidence.seal import Key, ledger_head, now, prereg_envelope
from pellucid.ledger import Event, EventKind, Ledger
from pellucid.stats import mde_paired
from pellucid.tasks.templates import get_template

FOLDER = "prereg"
PLAN_ID = "0001"
LAST_STEP: CheckpointRule = {"metric": "step", "pick": "last", "tie": "last"}
"""What a run releases: the weights after its last step, whatever they score."""
MAX_ATTEMPTS = 2
"""Of one suite and arm: one, and one after an interruption."""
ASSUMED = "rate 0.5, half of the variance between problems, correlation 0.5, independent problems"

Role = Literal["subject", "baseline", "control", "rival"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """Who is asked. Example: PlannedModel(name="before", role="baseline", weights="9f…")"""

    name: str
    role: Role
    weights: str | None
    """Root digest; None: it is not trained yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What a recipe says of its evaluations."""

    models: Sequence[PlannedModel]
    """The base first, then what is trained from it."""
    evaluations: Sequence[PlannedEvaluation]
    seed: int
    grader_sha256: str
    comparisons: Sequence[Comparison] = ()
    """Beside the gain over the base, of which models their difference is printed."""
    claims: Sequence[PlannedClaim] | None = None
    """None: those that a training makes by default."""
    training_seeds: int = 1
    """0: nothing is trained, the models are measured as they are."""
    sets: Mapping[str, DataSet]
    """By suite: days of publication, and what is fresh."""
    cutoff: str | None = None
    """Items first public on or after this day are newer than the model."""
    clean_below: float
    """The largest threshold that a scan of these suites may have."""
    last_step: int | None = None
    """At which the training of the released model ends; None: that follows from its data."""
    audit: int = 0
    """Samples that people will label; 0: none are promised."""


def make_plan(facts: PlanFacts, events: list[Event]) -> Preregistration:
    """The plan of what `facts` tell. `events`: of the run's ledger until now."""
    claims = planned_claims(facts)
    suites = {one.suite.key: one.suite for one in facts.evaluations}
    models = {model.name: model for model in facts.models}
    return {
        "v": PLAN_VERSION,
        "id": PLAN_ID,
        "time": max([now(), *(event.time for event in events[-1:])]),
        "ledger": ledger_head(events),
        "suites": {key: _suite(suite, facts) for key, suite in suites.items()},
        "arms": {one.arm: _arm(one, models[one.model]) for one in facts.evaluations},
        "grader_sha256": facts.grader_sha256,
        "checkpoint_rule": LAST_STEP,
        "claims": list(claims),
        "mde": _detectable(claims, suites),
        "max_attempts": MAX_ATTEMPTS,
        "training_seeds": facts.training_seeds,
        "cutoff": facts.cutoff,
        "clean_below": facts.clean_below,
        "last_step": facts.last_step,
    }


def planned_claims(facts: PlanFacts) -> Sequence[PlannedClaim]:
    """Those that are given, else those that a training makes by default."""
    if facts.claims is not None:
        return facts.claims
    by_role = {model.role: model.name for model in facts.models}
    controls = [model.name for model in facts.models if model.role == "control"]
    return default_claims(
        facts.evaluations,
        base=by_role["baseline"],
        subject=by_role["subject"],
        controls=controls,
        comparisons=facts.comparisons,
    )


def _suite(suite: Suite, facts: PlanFacts) -> PlannedSuite:
    about = facts.sets[suite.key]["items"]
    return {
        "items": {problem.id: item_sha256(problem) for problem in suite.problems},
        "k": suite.k,
        "seed": facts.seed,
        "sampler": dossier_sampler(asdict(suite.params)),
        "is_dev": False,
        "families_sha256": sha256_json({p.id: p.family or p.id for p in suite.problems}),
        "dates_sha256": sha256_json({item: one["first_public"] for item, one in about.items()}),
        "fresh_sha256": sha256_json({item: one["is_fresh"] for item, one in about.items()}),
    }


def _arm(one: PlannedEvaluation, model: PlannedModel) -> PlannedArm:
    template = get_template(one.suite.template)
    return {
        "model": model.weights,
        "template_sha256": template.sha256,
        "stop": list(template.stop),
        "role": model.role,
        "prompt_candidates": [],
    }


def _detectable(claims: Sequence[PlannedClaim], suites: Mapping[str, Suite]) -> dict[str, str]:
    """Before anything is measured the variances are unknown: assumed, and said to be."""
    words = {}
    for claim in claims:
        if claim["kind"] in TWO_ARM_KINDS and claim["test"] is not None:
            suite = suites[claim["arms"]["a"].split("/")[1]]
            effect = mde_paired(0.5, len(suite.problems), k=suite.k)
            words[claim["id"]] = f"{effect:.3f} with 80 % power at alpha 0.05 ({ASSUMED})"
    return words


# Filing


def file_plan(
    run: Path, ledger: Ledger, plan: Preregistration, key: Key | None, *, audit: int = 0
) -> Path:
    """Writes the plan and its signature, and then the ledger's event, which also names the sources
    that fresh items come from. RunError: there is one.
    """
    path = plan_path(run)
    if filed_plan(run, ledger) is not None:
        raise RunError(f"{run} has a plan already, and plans are not changed: take another --out")
    digest = atomic_write_json(path, plan)
    name = f"{FOLDER}/{path.name}"
    atomic_write_bytes(path.with_suffix(".dsse.json"), prereg_envelope(name, digest, key))
    ledger.append(
        EventKind.PREREGISTERED,
        id=plan["id"],
        sha256=digest,
        fresh_generator=generator_digest(),
        **({"audit": audit} if audit else {}),
    )
    return path


def filed_plan(run: Path, ledger: Ledger) -> Preregistration | None:
    """The plan that the ledger knows; None: none was filed. RunError where it was changed."""
    filed = ledger.last(EventKind.PREREGISTERED)
    path = plan_path(run)
    if filed is None:
        return None
    if not path.is_file() or sha256_file(path) != filed.payload["sha256"]:
        raise RunError(f"{path} is not the plan that was filed: restore it, or take another --out")
    return json.loads(path.read_bytes())


def check_same_plan(plan: Preregistration, wanted: Preregistration) -> None:
    """Raises RunError where a recipe would do something else than the plan that was filed. Of one
    that an older version filed, what that knew is compared.
    """
    moving = ("time", "ledger", "v")
    known = wanted if plan["v"] == wanted["v"] else _as_old(wanted)
    for name, value in known.items():
        if name not in moving and plan[name] != value:  # type: ignore[literal-required]
            raise RunError(
                f"the plan that was filed has other {name.replace('_', ' ')} than this recipe: "
                "restore the recipe, or take another --out and file a new plan"
            )


def _as_old(plan: Preregistration) -> dict[str, Any]:
    """What version 1 says too, but for the claims: they follow from models and suites, and this
    version makes more of them.
    """
    fields = OldPreregistration.__annotations__.keys() - {"claims", "mde"}
    suites = {
        name: {key: suite[key] for key in OldPlannedSuite.__annotations__}  # type: ignore[literal-required]
        for name, suite in plan["suites"].items()
    }
    return {name: plan[name] for name in fields} | {"suites": suites}  # type: ignore[literal-required]


def plan_path(run: Path) -> Path:
    """Where a run keeps its plan."""
    return run / FOLDER / f"{PLAN_ID}.json"
