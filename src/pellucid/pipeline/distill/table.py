"""arms.json: what each arm cost and what its model can do, in one table.

    {"budget": {"tokens", "warm_start_tokens", "flops", …}, "arms": [{"name": "sft",
     "measured_as": "distill", "trained", "generated", "scored", "flops", "budget_share",
     "teacher_flops", "seconds", "suites": {…}}, …]}

The first row is the student before any arm; with a warm start, the second is the student behind
it, and every arm's costs have those of the warm start in them. Costs are those of `train.compute`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pellucid.artifacts import StageFolder
from pellucid.config import ModelConfig
from pellucid.config_stages import DistillConfig
from pellucid.evaluate.records import EvalResult, arm_summary
from pellucid.pipeline.distill.setting import ARMS_FOLDER, ArmResult
from pellucid.pipeline.distill.warm_start import WARM_START
from pellucid.train.compute import Budget

TABLE_NAME = "arms.json"
UNTAUGHT = "student"
"""The row of the student before any arm."""
WARMED = "student, warmed"
"""The row of the student that all arms started from."""


class ArmModel(NamedTuple):
    """One model of the table."""

    name: str
    """`student`, `sft`, …"""
    measured_as: str
    """Name of its evaluations in the stage's `evals/`."""
    model: ModelConfig


def arm_models(config: DistillConfig, stage: StageFolder) -> list[ArmModel]:
    """The student, untaught and warmed, and all arms of a finished stage; the first arm's model is
    the stage's.
    """
    models = [ArmModel(UNTAUGHT, f"{config.name}.{UNTAUGHT}", config.student)]
    if config.warm_start.examples:
        path = StageFolder(stage.root / ARMS_FOLDER / WARM_START).model
        name = f"{config.name}.{WARM_START}"
        models.append(ArmModel(WARMED, name, ModelConfig(id=name, path=str(path))))
    for arm in config.arms:
        is_first = arm == config.arms[0]
        name = config.name if is_first else f"{config.name}.{arm}"
        path = stage.model if is_first else StageFolder(stage.root / ARMS_FOLDER / arm).model
        models.append(ArmModel(arm, name, ModelConfig(id=name, path=str(path))))
    return models


def other_arms(config: DistillConfig, stage: StageFolder) -> list[ArmModel]:
    """`arm_models` but the stage's own model: further rows of the stage table."""
    return [model for model in arm_models(config, stage) if model.measured_as != config.name]


def build_arms(
    models: Sequence[ArmModel],
    taken: Mapping[str, ArmResult],
    measured: Mapping[str, Mapping[str, EvalResult]],
    budget: Budget,
    warm_start_tokens: int,
) -> dict[str, Any]:
    """The table; `taken` and `measured` by name of the row, `budget` with the warm start in it."""
    return {
        "unit": "operations on the student's weights: 6 a parameter and token trained, 2 a "
        "parameter and token generated; what the teacher reads is counted apart",
        "budget": {
            "tokens": budget.tokens,
            "warm_start_tokens": warm_start_tokens,
            "flops": budget.flops,
            "student_parameters": budget.student,
            "teacher_parameters": budget.teacher,
        },
        "arms": [
            _row(model, taken.get(model.name), measured[model.name], budget) for model in models
        ],
    }


def _row(
    model: ArmModel, taken: ArmResult | None, measured: Mapping[str, EvalResult], budget: Budget
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": model.name,
        "measured_as": model.measured_as,
        "suites": {key: arm_summary(result) for key, result in measured.items()},
    }
    if taken is None:
        return row | {"steps": None}
    return row | {
        **taken.compute.to_dict(),
        "steps": taken.steps,
        "flops": budget.student_flops(taken.compute),
        "budget_share": budget.share(taken.compute),
        "teacher_flops": budget.teacher_flops(taken.compute),
        "seconds": round(taken.seconds, 3),
        "stopped": taken.stopped,
    }


def cost_line(name: str, taken: ArmResult, budget: Budget) -> str:
    """What an arm took, for the console."""
    compute = taken.compute
    parts = [
        f"{name}: {budget.share(compute):.1%} of the budget of {budget.flops:.3g} operations",
        f"{compute.trained:,} tokens trained in {taken.steps} steps",
        f"{compute.generated:,} generated",
    ]
    if compute.scored:
        teacher = budget.teacher_flops(compute)
        parts.append(f"{compute.scored:,} read by the teacher ({teacher:.3g} operations apart)")
    if taken.stopped != "budget":
        parts.append(taken.stopped)
    return ", ".join(parts)


def read_arms(stage: StageFolder) -> dict[str, Any] | None:
    """The table of a finished stage; None: it has none."""
    path = stage.root / TABLE_NAME
    return dict(json.loads(path.read_text())) if path.is_file() else None
