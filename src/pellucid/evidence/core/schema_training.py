"""The shapes of what training and scanning leave in a dossier; the rest is in `schema.py`."""

from __future__ import annotations

from typing import Any, TypedDict

from pellucid.evidence.core.schema import CheckpointRule

# Weights and training


class WeightsFile(TypedDict):
    bytes: int
    sha256: str


class Weights(TypedDict):
    """weights/manifest.json: the released model. `root` is `sha256_json(files)`."""

    v: int
    root: str
    files: dict[str, WeightsFile]
    tensors: dict[str, Any]
    """Name -> {"sha256", "dtype", "shape"}."""
    parent: str | None
    """Root of the model that training started from."""


class Checkpoint(TypedDict):
    step: int
    weights: str
    """Root digest."""
    scores: dict[str, float]
    """Dev metric -> value."""
    evals: list[str]
    """Evaluations (`evals/<suite>/<arm>`) in the dossier that the scores come from."""


class Checkpoints(TypedDict):
    """train/checkpoints.json: all that were saved, not only the chosen one."""

    v: int
    stage: str | None
    """Only `checkpoint_saved` events with this `stage` belong here; None: all."""
    rule: CheckpointRule
    chosen: int
    """Step."""
    checkpoints: list[Checkpoint]


class TrainingRollout(TypedDict):
    """One rollout of training, as recorded when it was made."""

    step: int
    item: str
    grader: str
    gold: str | None
    response: str | None
    """None, like `gold`: withheld."""
    verdict: str
    terms: dict[str, float]
    """Reward term -> value before weighting."""
    weights: dict[str, float]
    """Reward term -> weight."""
    reward: float
    """Sum of term times weight; 0 where masked."""
    masked: bool


class Rollouts(TypedDict):
    """train/rollouts.json: a declared share of the training's rollouts."""

    v: int
    total: int
    """Rollouts of the whole training."""
    rollouts: list[TrainingRollout]


# Contamination


class ItemScan(TypedDict):
    """What the scanner found of one item."""

    containment: float
    """Largest share of the item's n-grams in one training document, 0 … 1."""
    matches: list[Any]
    """Row references of the documents."""


class SuiteScan(TypedDict):
    items: dict[str, ItemScan]
    """Every item of the suite."""


class Scan(TypedDict):
    """contamination/scan.json: what the verifier reads of it; a scanner may add keys."""

    v: int
    threshold: float
    """Items with a containment of at least this are not clean."""
    suites: dict[str, SuiteScan]
    self_test: dict[str, Any]
    """{"recall": {leak kind: 0 … 1}, "false_positives": int, "documents": int}"""


# The ledger: events of `pellucid.ledger`, whose payloads the verifier reads as follows


LEDGER_PAYLOADS: dict[str, tuple[str, ...]] = {
    "preregistered": ("id", "sha256"),
    "evaluation_started": ("serial", "suite", "arm"),
    "evaluation_ended": ("serial", "suite", "arm"),
    "evaluation_aborted": ("serial", "suite", "arm"),
    "checkpoint_saved": ("step",),
}
"""Kind -> keys that must be there. `sha256` is of the plan's file; `serial` counts attempts 1, 2, …
without holes. Checked where they are there: `weights`, `template_sha256`, `seed`, `samples`, `k` of
a started evaluation; `merkle_root` (the `recorded_root` of its root.json), `samples`,
`verdicts_sha256` and `votes_sha256` (`tally.Evaluation`) of an ended one, `grading` of the started
ones that a claim compares (`check_grading`); by `pellucid verify
--fresh`, `fresh_generator` of a plan. Every started evaluation is either in evals/ or ended by
`evaluation_aborted`; both count as attempts. `audit` of a plan: so many human labels are promised.
"""
