"""What a dossier says of the training: weights, code, checkpoints, a share of the rollouts."""

from __future__ import annotations

import heapq
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.artifacts import RunFolder, StageFolder, atomic_write_json
from pellucid.evidence.core.schema import CheckpointRule
from pellucid.evidence.core.schema_training import Checkpoint, TrainingRollout
from pellucid.jsonl import read_zstd_jsonl
from pellucid.ledger import Event, EventKind

WEIGHTS = "weights/manifest.json"
MAX_ROLLOUTS = 256
"""Rollouts that a dossier shows, chosen by their sample ids alone; all lie in the run folder."""
MAX_EARLIER_ROLLOUTS = 64
"""Of each stage before the one whose model is released."""
STAGE_RECORDS = (
    "manifest.json",
    "metrics.jsonl",
    "filters.json",
    "*.data.json",
    "accuracy.json",
    "probe.jsonl",
    "arms.json",
    "arms/**/arm.json",
    "arms/**/filters.json",
)
"""What is small and tells how a stage came to its model: digests of all that it made, the curve,
filters with their counts, reward models on held-out pairs, what was watched, the students' costs.
"""


def write_checkpoints(
    out: Path, events: list[Event], rule: CheckpointRule, released: str, stage: str
) -> bool:
    """train/checkpoints.json of all that a stage saved; False where it saved none."""
    saved: dict[int, Checkpoint] = {}
    for event in events:
        if event.kind is EventKind.CHECKPOINT_SAVED and event.payload.get("stage") == stage:
            step, digest = event.payload["step"], event.payload.get("weights", "")
            saved[step] = {"step": step, "weights": digest, "scores": {}, "evals": []}
    if saved:
        # What is released is what the last checkpoint holds: the exported model is named by its
        # own root.
        saved[max(saved)]["weights"] = released
    index = {
        "v": 1,
        "stage": stage,
        "rule": rule,
        "chosen": max(saved, default=0),
        "checkpoints": [saved[step] for step in sorted(saved)],
    }
    atomic_write_json(out / "train/checkpoints.json", index)
    return bool(saved)


def copy_records(
    out: Path, run: RunFolder, stages: list[StageFolder], released: StageFolder
) -> list[str]:
    """Recipe, code and what the stages recorded; returns what is not there. The metrics of the
    stage whose model is released lie in train/, all else of a stage in train/stages/.
    """
    train, missing = out / "train", []
    train.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.recipe, train / "recipe.toml")
    if released.metrics.is_file():
        shutil.copyfile(released.metrics, train / "metrics.jsonl")
    else:
        missing.append("train/metrics.jsonl: the stage recorded none")
    for stage in stages:
        for pattern in STAGE_RECORDS:
            for path in sorted(stage.root.glob(pattern)):
                if path == released.metrics:
                    continue
                place = train / "stages" / stage.name / path.relative_to(stage.root)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
    return missing + write_code_and_environment(out, stages)


def write_code_and_environment(out: Path, stages: list[StageFolder]) -> list[str]:
    """train/code.json and env/environment.json, from the stages' manifests; what is not there."""
    manifests = {stage.name: json.loads(stage.manifest.read_text())
                 for stage in stages if stage.manifest.is_file()}  # fmt: skip
    if not manifests:
        return ["train/code.json, env/environment.json: no stage has a manifest"]
    code = {name: manifest["code"] for name, manifest in manifests.items()}
    atomic_write_json(out / "train/code.json", code)
    environment = {
        name: {key: manifest.get(key) for key in ("python", "platform", "packages", "device")}
        for name, manifest in manifests.items()
    }
    atomic_write_json(out / "env/environment.json", environment)
    return []


def ship_models(out: Path, run: RunFolder, stages: list[StageFolder]) -> str:
    """What was measured, and how: weights/NAME.json of every model, weights/manifest.json of the
    last, the options. Returns the last one's root.
    """
    (out / "weights").mkdir(parents=True, exist_ok=True)
    for stage in stages:
        shutil.copyfile(stage.root / WEIGHTS, out / "weights" / f"{stage.stage_name}.json")
    shutil.copyfile(stages[-1].root / WEIGHTS, out / WEIGHTS)
    shutil.copyfile(run.recipe, out / run.recipe.name)
    return json.loads((out / WEIGHTS).read_bytes())["root"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """How a stage of reinforcement learning came to its rewards."""

    weights: Mapping[str, float]
    """Reward term -> weight."""
    prefill: str
    """Start of every response, as the prompt template wrote it for the model."""


def write_rollouts(path: Path, stage: StageFolder, by: Rewarded, most: int) -> bool:
    """`most` rollouts of a stage; False where none were recorded with their grader."""
    if not stage.rollouts.is_file():
        return False
    total, chosen = 0, []
    for number, record in enumerate(read_zstd_jsonl(stage.rollouts)):
        total += 1
        if "grader" in record:
            entry = (-record["sample_id"], number, record)
            (heapq.heappush if len(chosen) < most else heapq.heappushpop)(chosen, entry)
    in_order = sorted(chosen, key=lambda entry: entry[1])
    rollouts = [_rollout(record, by) for _, _, record in in_order]
    atomic_write_json(path, {"v": 1, "total": total, "rollouts": rollouts})
    return bool(rollouts)


def _rollout(record: Mapping[str, Any], by: Rewarded) -> TrainingRollout:
    return {
        "step": record["step"],
        "item": record["problem"],
        "grader": record["grader"],
        "gold": record["gold"],
        "response": by.prefill + record["response"],
        "verdict": record["verdict"],
        "terms": record["terms"],
        "weights": {name: by.weights[name] for name in record["terms"]},
        "reward": record["reward"],
        "masked": record["masked"],
    }
