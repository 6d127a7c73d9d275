"""Training of reward models: who produces what.

    examples ── epoch_batches ── packs of whole examples ── RewardModel ── rewards [N]
                                                                            │
      weights ◄── Optimizer.step ◄── accumulated gradients ◄── sum of losses / batch, backward

    pairwise   -log σ(r_chosen - r_rejected)             (Bradley and Terry 1952; helpful)
    pointwise  -log σ(r) if positive, else -log σ(-r)    (safe against unsafe)

Both responses of a pair lie in one pack, behind one copy of their prompt. The denominator is the
number of examples of the whole batch, so that loss and gradient do not depend on packing.
Not here: what a response is shown as (`reward_data`), how steps follow each other (`epochs`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.config_rewards import RewardTrainConfig
from pellucid.model.scalar_head import Loss, RewardModel
from pellucid.train.epochs import EpochRun
from pellucid.train.optimizer import Optimizer
from pellucid.train.packing import level_packs
from pellucid.train.reward_data import LabelExample, PairExample, forward, num_fed
from pellucid.train.update import check_finite

RewardExample = PairExample | LabelExample


class RewardUpdater:
    """Holds the model and its optimiser, and makes one optimiser step of a batch of examples."""

    def __init__(self, model: RewardModel, config: RewardTrainConfig, loss: Loss) -> None:
        self.model = model
        self.config = config
        self.loss: Loss = loss
        self.optimizer = Optimizer(model, config)
        self.optimizer_steps = 0

    @property
    def max_context(self) -> int:
        """Most tokens that the model takes."""
        return self.model.spec.max_context

    def update(
        self, examples: Sequence[RewardExample], learning_rate: float, *, step: int
    ) -> dict[str, float]:
        """One optimiser step; returns its metrics, of the weights before it.

        Raises NumericsError, naming the step, where loss or gradient is not finite: weights are
        left as they were.
        """
        losses: list[Tensor] = []
        sums = torch.zeros(3, device=self.model.device)
        fed = 0
        for members in self._plan(examples):
            pack = [examples[i] for i in members]
            rewards, num_tokens = forward(self.model, [t for e in pack for t in e.texts])
            terms, right = self._terms(pack, rewards)
            loss = terms.sum() / len(examples)
            loss.backward()
            losses.append(loss.detach())
            kept = rewards.detach()
            sums += torch.stack([right.sum(), kept.sum(), kept.square().sum()])
            fed += num_tokens
        check_finite(losses, where=f"step {step}")
        norm = self.optimizer.step(learning_rate, where=f"step {step}")
        self.optimizer_steps += 1
        total, (right_sum, reward_sum, square_sum) = sum(losses), sums.tolist()
        count = sum(len(e.texts) for e in examples)
        mean = reward_sum / count
        return {
            "loss": float(total),
            "accuracy": right_sum / len(examples),
            "reward_mean": mean,
            "reward_sd": max(square_sum / count - mean * mean, 0.0) ** 0.5,
            "grad_norm": norm,
            "learning_rate": learning_rate,
            "sequences": float(count),
            "tokens_fed": float(fed),
            "packs": float(len(losses)),
        }

    def state(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint."""
        return self.optimizer.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores `state()` in place. KeyError or RuntimeError where it is another model's."""
        self.optimizer.load_state(state)

    def _plan(self, examples: Sequence[RewardExample]) -> list[list[int]]:
        """Examples of each pack; an example is never divided."""
        sizes = [num_fed(example.texts) for example in examples]
        return level_packs(sizes, self.config.tokens_per_pack)

    def _terms(self, pack: Sequence[RewardExample], rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each example, and whether its reward is on the right side, a tie one half."""
        if self.loss == "pairwise":
            chosen, rejected = rewards.view(-1, 2).unbind(dim=1)
            margin = chosen - rejected
        else:
            labels = [isinstance(e, LabelExample) and e.label for e in pack]
            sign = torch.tensor(labels, dtype=rewards.dtype, device=rewards.device) * 2.0 - 1.0
            margin = sign * rewards
        return -F.logsigmoid(margin), 0.5 + 0.5 * margin.detach().sign()


class RewardRun(EpochRun[RewardExample]):
    """The parts of a reward model's training, wired by the pipeline."""

    section = "train"

    def describe(self) -> dict[str, float]:
        texts = [t for e in self.examples for t in e.texts]
        return EpochRun.describe(self) | {"tokens": float(sum(t.num_tokens for t in texts))}
