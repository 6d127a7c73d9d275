"""Supervised fine-tuning: who produces what, and what a step depends on.

    examples ── epoch_batches(seed, epoch) ── packs ── decoder ── linear_logprobs
                                                                       │
            weights ◄── Optimizer.step ◄── accumulated gradients ◄── −Σ logprob / tokens, backward

The loss is the mean negative log-probability of the assistant's tokens of an optimiser batch. Its
denominator is counted before the first pack, so that loss and gradient do not depend on packing.
Not here: what makes an example (`sft_data`), how steps follow each other and are resumed
(`epochs`), which model is trained, evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.algo.head import linear_logprobs
from pellucid.config import SftConfig
from pellucid.model.transformer import Decoder
from pellucid.train.epochs import EpochRun
from pellucid.train.optimizer import Optimizer
from pellucid.train.packing import TokenPack, build_token_pack, plan_packs
from pellucid.train.sft_data import SftExample
from pellucid.train.update import check_finite


class SftUpdater:
    """Holds the model and its optimiser, and makes one optimiser step of a batch of examples."""

    def __init__(self, model: Decoder, config: SftConfig) -> None:
        self.model = model
        self.config = config
        self.optimizer = Optimizer(model, config)
        self.optimizer_steps = 0
        self.keep_bytes: int | None = None
        """Logits kept for the backward pass at most; None: what is free decides."""
        self.device = model.embedding.weight.device

    @property
    def max_context(self) -> int:
        """Most tokens that the model takes."""
        return self.model.spec.max_context

    def update(
        self, examples: Sequence[SftExample], learning_rate: float, *, step: int
    ) -> dict[str, float]:
        """One optimiser step; returns its metrics, `loss` and `entropy` in nats per token.

        Raises NumericsError, naming the step, where loss or gradient is not finite: weights are
        left as they were.
        """
        num_tokens = sum(len(e.completion_ids) for e in examples)
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        losses: list[Tensor] = []
        num_fed = 0
        for groups in plan_packs(examples, self.config.tokens_per_pack):
            pack = build_token_pack([[examples[i] for i in g] for g in groups], self.device)
            logprobs, entropy = self._forward(pack)
            loss = -logprobs.sum() / num_tokens
            loss.backward()
            losses.append(loss.detach())
            totals += torch.stack([losses[-1], entropy.sum() / num_tokens])
            num_fed += len(pack.token_ids)
        check_finite(losses, where=f"step {step}")
        norm = self.optimizer.step(learning_rate, where=f"step {step}")
        self.optimizer_steps += 1
        mean_loss, mean_entropy = totals.tolist()
        return {
            "loss": mean_loss,
            "entropy": mean_entropy,
            "grad_norm": norm,
            "learning_rate": learning_rate,
            "sequences": float(len(examples)),
            "tokens": float(num_tokens),
            "tokens_fed": float(num_fed),
            "packs": float(len(losses)),
        }

    def state(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint."""
        return self.optimizer.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores `state()` in place. KeyError or RuntimeError where it is another model's."""
        self.optimizer.load_state(state)

    def _forward(self, pack: TokenPack) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [C] of the assistant's tokens at temperature 1."""
        model = self.model
        model.reserve_context(pack.attend.context)
        hidden = model(pack.token_ids, pack.attend)
        return linear_logprobs(
            hidden[pack.attend.num_body_tokens :],
            model.head.weight,
            pack.targets,
            keep_bytes=self.keep_bytes,
            weight_grad=self.optimizer.float32_grad(model.head.weight),
        )


class SftRun(EpochRun[SftExample]):
    """The parts of a fine-tuning stage, wired by the pipeline."""

    def describe(self) -> dict[str, float]:
        tokens = sum(len(e.completion_ids) for e in self.examples)
        return EpochRun.describe(self) | {"tokens": float(tokens)}
