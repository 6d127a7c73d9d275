"""What a dossier says of the training: weights, code, checkpoints, a share of the rollouts."""

from __future__ import annotations

import heapq
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.artifacts import RunFolder, StageFolder, atomic_write_json
from pellucid.evidence.core.canonical import sha256_json
from pellucid.evidence.core.schema import CheckpointRule
from pellucid.evidence.core.schema_training import Checkpoint, TrainingRollout, Weights
from pellucid.evidence.weights import model_files, tensor_digests
from pellucid.jsonl import read_zstd_jsonl
from pellucid.ledger import Event, EventKind

MAX_ROLLOUTS = 256
"""Rollouts that a dossier shows, chosen by their sample ids alone; all lie in the run folder."""


def write_weights(out: Path, model: Path, parent: str | None) -> str:
    """weights/manifest.json of the released model; returns its root."""
    files = model_files(model)
    weights: Weights = {
        "v": 1,
        "root": sha256_json(files),
        "files": files,
        "tensors": tensor_digests(model),
        "parent": parent,
    }
    atomic_write_json(out / "weights/manifest.json", weights)
    return weights["root"]


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


def copy_records(out: Path, run: RunFolder, stages: list[StageFolder]) -> list[str]:
    """Recipe, metrics and code of a run; returns what is not there. The last stage's metrics lie in
    train/, those of earlier stages in train/stages/.
    """
    train, missing = out / "train", []
    train.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.recipe, train / "recipe.toml")
    trained = [stage for stage in stages if stage.metrics.is_file()]
    for stage in trained:
        place = train if stage is trained[-1] else train / "stages" / stage.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(stage.metrics, place / "metrics.jsonl")
    if not trained:
        missing.append("train/metrics.jsonl: no stage recorded any")
    manifests = {stage.name: json.loads(stage.manifest.read_text())
                 for stage in stages if stage.manifest.is_file()}  # fmt: skip
    if not manifests:
        missing.append("train/code.json, env/environment.json: no stage has a manifest")
        return missing
    atomic_write_json(train / "code.json", {name: m["code"] for name, m in manifests.items()})
    environment = {
        name: {key: manifest.get(key) for key in ("python", "platform", "packages", "device")}
        for name, manifest in manifests.items()
    }
    atomic_write_json(out / "env/environment.json", environment)
    return missing


def write_rollouts(
    out: Path, stage: StageFolder, weights: Mapping[str, float], prefill: str
) -> bool:
    """train/rollouts.json: a few rollouts; False where none were recorded with their grader.

    `prefill`: start of every response, as the prompt template wrote it for the model.
    """
    if not stage.rollouts.is_file():
        return False
    total, chosen = 0, []
    for number, record in enumerate(read_zstd_jsonl(stage.rollouts)):
        total += 1
        if "grader" in record:
            entry = (-record["sample_id"], number, record)
            (heapq.heappush if len(chosen) < MAX_ROLLOUTS else heapq.heappushpop)(chosen, entry)
    in_order = sorted(chosen, key=lambda entry: entry[1])
    rollouts = [_rollout(record, weights, prefill) for _, _, record in in_order]
    atomic_write_json(out / "train/rollouts.json", {"v": 1, "total": total, "rollouts": rollouts})
    return bool(rollouts)


def _rollout(
    record: Mapping[str, Any], weights: Mapping[str, float], prefill: str
) -> TrainingRollout:
    return {
        "step": record["step"],
        "item": record["problem"],
        "grader": record["grader"],
        "gold": record["gold"],
        "response": prefill + record["response"],
        "verdict": record["verdict"],
        "terms": record["terms"],
        "weights": {name: weights[name] for name in record["terms"]},
        "reward": record["reward"],
        "masked": record["masked"],
    }
