"""One rollout's worth of optimiser steps: the data flow from packs to weights.

    sequences ── minibatches (seeded shuffle) ── packs ── decoder ── linear_logprobs
                                                                            │
            weights ◄── Optimizer.step ◄── accumulated gradients ◄── objective_loss, backward

Denominators are counted over the whole minibatch before the first pack, so that loss and gradient
do not depend on how sequences are packed. On-policy (one minibatch) the ratio's denominator is
the policy itself and no second pass is made.

The host waits for the device once per optimiser step, after all packs are queued: so the next pack
is built while the device works on those before it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pellucid.algo.head import linear_logprobs
from pellucid.algo.loss import TokenBatch, objective_loss
from pellucid.algo.presets import Objective
from pellucid.algo.schedules import learning_rate
from pellucid.config import RunConfig
from pellucid.errors import NumericsError
from pellucid.model.transformer import Decoder
from pellucid.train.optimizer import Optimizer
from pellucid.train.packing import Pack, TrainSequence, build_pack, plan_packs
from pellucid.train.reference import Reference

Denominator = Literal["policy", "rollout"] | list[Tensor]
"""Of the ratio: the policy itself (on-policy), what the sampler reported, or log-probabilities of
each sequence that the trainer computed."""


class PolicyUpdater:
    """Holds the policy, its optimiser and (where β > 0) the reference, and updates on rollouts."""

    def __init__(self, model: Decoder, config: RunConfig, objective: Objective) -> None:
        self.model = model
        self.config = config
        self.objective = objective
        self.optimizer = Optimizer(model, config.train)
        self.reference = Reference(model, objective) if objective.has_reference else None
        self.optimizer_steps = 0
        self.keep_bytes: int | None = None
        """Logits kept for the backward pass at most; None: what is free decides."""
        self.device = model.embedding.weight.device

    def update(
        self, sequences: Sequence[TrainSequence], *, step: int, rate: float | None = None
    ) -> dict[str, float]:
        """Trains on the sequences of rollout number `step`; returns its metrics (means over
        tokens). `rate`: learning rate in place of the schedule's, whose length may not be known.
        """
        totals: dict[str, Tensor] = {}
        norms: list[float] = []
        minibatches = self._split(sequences, step)
        denominators = self._denominators(minibatches)
        for minibatch, denominator in zip(minibatches, denominators, strict=True):
            sums = self._accumulate(minibatch, denominator, step=step)
            norms.append(self._step_optimizer(step=step, rate=rate))
            _merge(totals, sums)
        if "loss" in totals:
            totals["loss"] = totals["loss"] / len(minibatches)
        return _means(totals) | {"grad_norm": sum(norms) / max(len(norms), 1)}

    def logprobs(self, sequences: Sequence[TrainSequence], model: Decoder) -> list[Tensor]:
        """Log-probabilities [completion length] of each sequence under `model`, no gradient."""
        out: list[Tensor] = [torch.empty(0)] * len(sequences)
        with torch.no_grad():
            for groups in self._plan(sequences):
                members = [i for group in groups for i in group]
                values, _ = self._forward(self._build(sequences, groups), model)
                counts = [len(sequences[i].completion_ids) for i in members]
                for i, part in zip(members, values.split(counts), strict=True):
                    out[i] = part
        return out

    def state(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint: the optimiser's and the reference's."""
        reference = {} if self.reference is None else self.reference.state()
        return self.optimizer.state() | reference

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores `state()` in place. KeyError or RuntimeError where it is another model's."""
        self.optimizer.load_state(state)
        if self.reference is not None:
            self.reference.load_state(state)

    def _split(self, sequences: Sequence[TrainSequence], step: int) -> list[list[TrainSequence]]:
        """Random split into equal minibatches, a single inner epoch (paper, Methods)."""
        count = min(self.config.train.minibatches, max(len(sequences), 1))
        order = list(range(len(sequences)))
        if count > 1:
            random.Random(f"minibatches/{self.config.seed}/{step}").shuffle(order)
        return [[sequences[i] for i in order[part::count]] for part in range(count)]

    def _denominators(self, minibatches: Sequence[Sequence[TrainSequence]]) -> list[Denominator]:
        """What each minibatch's ratios divide by; recomputed before any update."""
        if len(minibatches) == 1:
            return ["policy"]
        if self.objective.old_logprobs == "recompute":
            return [self.logprobs(m, self.model) for m in minibatches]
        return ["rollout"] * len(minibatches)

    def _accumulate(
        self, sequences: Sequence[TrainSequence], denominator: Denominator, *, step: int
    ) -> dict[str, Tensor]:
        """Adds the gradient of one minibatch, pack by pack; returns sums over its tokens."""
        counts = {
            "num_sequences": len(sequences),
            "num_tokens": sum(len(s.completion_ids) for s in sequences),
            "max_tokens": self.config.rollout.max_new_tokens,
        }
        has_kl = self.reference is not None
        kept = [i for i, s in enumerate(sequences) if has_kl or s.has_advantage]
        sequences = [sequences[i] for i in kept]
        if isinstance(denominator, list):
            denominator = [denominator[i] for i in kept]
        totals: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        for groups in self._plan(sequences):
            pack = self._build(sequences, groups)
            policy, entropy = self._forward(pack, self.model, self._head_grad())
            output = objective_loss(
                TokenBatch(
                    policy_logprobs=policy,
                    old_logprobs=_old_logprobs(denominator, policy, pack, groups),
                    rollout_logprobs=pack.rollout_logprobs,
                    ref_logprobs=self._reference_logprobs(pack),
                    advantages=pack.advantages,
                    sequence=pack.sequence,
                    lengths=pack.completion_lengths,
                ),
                self.objective,
                **counts,
            )
            output.loss.backward()
            losses.append(output.loss.detach())
            _merge(totals, output.sums | {"loss": losses[-1], "entropy": entropy.sum()})
        check_finite(losses, where=f"step {step}")
        return totals

    def _step_optimizer(self, *, step: int, rate: float | None) -> float:
        train = self.config.train
        if rate is None:
            rate = learning_rate(
                self.optimizer_steps,
                train.steps * train.minibatches,
                train.schedule,
                train.learning_rate,
            )
        norm = self.optimizer.step(rate, where=f"step {step}")
        self.optimizer_steps += 1
        if self.reference is not None:
            self.reference.follow(self.model, self.optimizer_steps)
        return norm

    def _head_grad(self) -> Tensor | None:
        """Where the head's gradient is added up without being rounded on the way."""
        return self.optimizer.float32_grad(self.model.head.weight)

    def _forward(
        self, pack: Pack, model: Decoder, weight_grad: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [C] of the completion tokens."""
        model.reserve_context(pack.attend.context)
        hidden = model(pack.token_ids, pack.attend)
        return linear_logprobs(
            hidden[pack.attend.num_body_tokens :],
            model.head.weight,
            pack.targets,
            temperature=self.config.rollout.temperature,
            keep_bytes=self.keep_bytes,
            weight_grad=weight_grad,
            exact=model.exact,
        )

    def _reference_logprobs(self, pack: Pack) -> Tensor | None:
        if self.reference is None:
            return None
        with torch.no_grad():
            return self._forward(pack, self.reference.model)[0]

    def _plan(self, sequences: Sequence[TrainSequence]) -> list[list[list[int]]]:
        return plan_packs(sequences, self.config.train.tokens_per_pack)

    def _build(self, sequences: Sequence[TrainSequence], groups: list[list[int]]) -> Pack:
        return build_pack([[sequences[i] for i in group] for group in groups], self.device)


def _old_logprobs(
    denominator: Denominator, policy: Tensor, pack: Pack, groups: list[list[int]]
) -> Tensor:
    if denominator == "policy":
        return policy.detach()
    if denominator == "rollout":
        return pack.rollout_logprobs
    return torch.cat([denominator[i] for group in groups for i in group])


def check_finite(losses: Sequence[Tensor], *, where: str) -> None:
    """Raises NumericsError for the first loss that is not finite. Waits for the device once."""
    if not losses:
        return
    values = torch.stack(list(losses)).tolist()
    for number, value in enumerate(values, start=1):
        if not math.isfinite(value):
            raise NumericsError(f"{where}: the loss of pack {number} of {len(values)} is {value}")


def _merge(totals: dict[str, Tensor], sums: dict[str, Tensor]) -> None:
    """Adds sums; names ending in `_max` take the maximum."""
    for name, value in sums.items():
        if name not in totals:
            totals[name] = value
        elif name.endswith("_max"):
            totals[name] = torch.maximum(totals[name], value)
        else:
            totals[name] = totals[name] + value


def _means(totals: dict[str, Tensor]) -> dict[str, float]:
    """Per-token means of sums; the loss and maxima as they are. One transfer from the device."""
    if not totals:
        return {"trained_tokens": 0.0}
    names = list(totals)
    values = torch.stack([totals[n].detach().double() for n in names]).tolist()
    numbers = dict(zip(names, values, strict=True))
    tokens = numbers.pop("tokens")
    whole = {n: v for n, v in numbers.items() if n.endswith("_max") or n == "loss"}
    means = {n: v / tokens for n, v in numbers.items() if n not in whole}
    return whole | means | {"trained_tokens": tokens}
