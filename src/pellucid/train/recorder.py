"""What a step leaves on disk: lines of metrics.jsonl and a frame of rollouts.jsonl.zst."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from pellucid.artifacts import StageFolder
from pellucid.jsonl import ZstdJsonlWriter
from pellucid.protocols import Tokenizer
from pellucid.records import Rollout
from pellucid.runlog import MetricsLog, MetricsRecord, Progress
from pellucid.train.collect import Batch


class Recorder:
    """Writes the two append-only files of a stage and knows their lengths."""

    def __init__(
        self,
        folder: StageFolder,
        *,
        tokenizer: Tokenizer,
        share: float,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        self.metrics = MetricsLog(folder.metrics, progress)
        self.rollouts = ZstdJsonlWriter(folder.rollouts)
        self.tokenizer = tokenizer
        self.share = share
        self.seed = seed

    def record(self, step: int, groups: Mapping[str, Mapping[str, float]], batch: Batch) -> None:
        """The metrics (by group: rollout, train, timing, eval/…) and rollouts of a step."""
        draw = random.Random(f"record/{self.seed}/{step}")
        self.rollouts.append_all(
            _rollout_record(step, rollout, float(batch.advantages[p, g]), self.tokenizer)
            for p, group in enumerate(batch.groups)
            for g, rollout in enumerate(group)
            if self.share >= 1.0 or draw.random() < self.share
        )
        for name, values in groups.items():
            self.metrics.write(MetricsRecord(step=step, name=name, values=values))

    def offsets(self, step: int) -> dict[str, int]:
        """What a checkpoint keeps: steps in the metrics, bytes of the rollouts. Both are synced
        first.
        """
        self.metrics.sync()
        self.rollouts.sync()
        return {"metrics_step": step, "rollouts_bytes": self.rollouts.offset}

    def rewind(self, offsets: Mapping[str, int] | None) -> None:
        """Drops what was written after a checkpoint (None: everything)."""
        self.metrics.truncate_after(offsets["metrics_step"] if offsets else -1)
        self.rollouts.truncate(offsets["rollouts_bytes"] if offsets else 0)

    def close(self) -> None:
        """Syncs and closes both files."""
        self.metrics.close()
        self.rollouts.close()


def _rollout_record(
    step: int, rollout: Rollout, advantage: float, tokenizer: Tokenizer
) -> dict[str, Any]:
    """One line of rollouts.jsonl.zst."""
    completion, score = rollout.completion, rollout.score
    return {
        "step": step,
        "problem": rollout.problem.id,
        "question": rollout.problem.question,
        "gold": rollout.problem.gold,
        "grader": rollout.problem.grader,
        "prompt": tokenizer.decode(rollout.prompt_ids),
        "response": completion.text,
        "token_ids": list(completion.token_ids),
        "logprobs": [round(lp, 5) for lp in completion.logprobs],
        "sample_id": completion.sample_id,
        "stop": completion.stop.value,
        "verdict": score.verdict.value,
        "extracted": score.extracted,
        "method": score.method,
        "terms": {k: float(v) for k, v in rollout.terms.items()},
        "reward": float(rollout.reward),
        "masked": rollout.masked,
        "advantage": advantage,
    }
