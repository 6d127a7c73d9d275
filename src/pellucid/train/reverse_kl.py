"""The update of on-policy distillation over the whole vocabulary: no estimate, no advantage.

    packs ─┬─ teacher ── hidden states ─┐
           └─ student ── hidden states ─┴─ linear_reverse_kl, backward ── Optimizer.step

The loss is the mean over the batch's completion tokens. Shapes: C completion tokens of a pack.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.algo.divergence import Head, linear_reverse_kl
from pellucid.algo.presets import Objective
from pellucid.config import RunConfig
from pellucid.model.transformer import Decoder
from pellucid.train.packing import Pack, TrainSequence
from pellucid.train.update import Denominator, PolicyUpdater, check_finite


class ReverseKlUpdater(PolicyUpdater):
    """Holds the student and its optimiser, and draws it near the teacher on its own samples."""

    def __init__(
        self,
        model: Decoder,
        config: RunConfig,
        objective: Objective,
        *,
        teacher: Decoder,
        coefficient: float,
    ) -> None:
        super().__init__(model, config, objective)
        self.teacher = teacher
        self.coefficient = coefficient

    def _accumulate(
        self, sequences: Sequence[TrainSequence], denominator: Denominator, *, step: int
    ) -> dict[str, Tensor]:
        """Adds the gradient of one minibatch, pack by pack; returns sums over its tokens."""
        num_tokens = sum(len(s.completion_ids) for s in sequences)
        names = ("loss", "reverse_kl", "entropy")
        totals = {name: torch.zeros((), device=self.device) for name in names}
        losses: list[Tensor] = []
        for groups in self._plan(sequences):
            pack = self._build(sequences, groups)
            with torch.no_grad():
                opinion = _head(self.teacher, pack)
            found = linear_reverse_kl(
                _head(self.model, pack),
                opinion,
                scale=self.coefficient / num_tokens,
                temperature=self.config.rollout.temperature,
                weight_grad=self._head_grad(),
            )
            found.loss.backward()
            losses.append(found.loss.detach())
            totals["loss"] += losses[-1]
            totals["reverse_kl"] += found.values.sum()
            totals["entropy"] += found.entropy.sum()
        check_finite(losses, where=f"step {step}")
        tokens = torch.tensor(float(num_tokens), device=self.device)
        return totals | {"tokens": tokens}


def _head(model: Decoder, pack: Pack) -> Head:
    """Where the completion tokens are predicted."""
    model.reserve_context(pack.attend.context)
    hidden = model(pack.token_ids, pack.attend)
    return Head(hidden[pack.attend.num_body_tokens :], model.head.weight)
