"""What of a recipe and its models takes memory."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.model.spec import ModelSpec
from pellucid.rollout.waves import MOST_ROWS
from pellucid.train import memory_sizes as sizes

SCORING_PACKS = (8192, 4096, 2048, 1024)
"""Tokens of a reward model's pack worth trying, the largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Models that stand beside the policy on its device and only read: reward models, or a teacher.

    Example: Beside(specs=(helpful.spec, safety.spec), element=2)
    """

    specs: tuple[ModelSpec, ...]
    element: int
    """Bytes of a weight."""
    is_teacher: bool = False
    """A teacher reads the trainer's packs while keys and values rest; reward models read packs of
    their own, with keys and values beside them.
    """
    is_compared_whole: bool = False
    """A teacher whose every token's probability is compared with the student's (`on_policy.estimate
    = "vocabulary"`), in place of the loss head: it reads a pack just before the student does.
    """

    @property
    def weights(self) -> int:
        """Bytes of all models; their scalar heads are nothing beside."""
        return sum(sizes.weight_bytes(spec, self.element) for spec in self.specs)

    def work(self, tokens: int, completion: int) -> int:
        """Most that reading a pack of so many tokens holds, one model at a time; of a teacher the
        logits of a chunk of its completion tokens as well, unless `divergence` has them.
        """
        return max((self._work(spec, tokens, completion) for spec in self.specs), default=0)

    def _work(self, spec: ModelSpec, tokens: int, completion: int) -> int:
        forward = sizes.forward_bytes(spec, self.element, tokens)
        if not self.is_teacher or self.is_compared_whole:
            return forward
        hidden = self.element * spec.width * tokens
        rows = sizes.logit_rows(spec.vocab_size, completion)
        return max(forward, hidden + sizes.FLOAT32 * spec.vocab_size * rows)

    def kept(self, tokens: int) -> int:
        """What stays of reading a pack while the student learns from it: the teacher's last hidden
        states, where it is compared whole.
        """
        if not self.is_compared_whole:
            return 0
        return sum(self.element * spec.width * tokens for spec in self.specs)

    def divergence(self, student: ModelSpec, element: int, completion: int) -> int:
        """What comparing the student with a teacher over the whole vocabulary holds."""
        return max(sizes.divergence_bytes(student, t, element, completion) for t in self.specs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What of one training by reinforcement takes memory."""

    spec: ModelSpec
    element: int
    """Bytes of a weight: 2 or 4."""
    prompts: int
    group_size: int
    prompt_tokens: int
    """Of the longest prompt."""
    max_new_tokens: int
    minibatches: int = 1
    has_reference: bool = False
    recomputes_old: bool = True
    """Several minibatches: the policy scores all samples before the first update."""
    slots: int | None = None
    """Set by hand; None: as many as fit."""
    tokens_per_pack: int | None = None
    """Set by hand; None: chosen."""
    beside: Beside | None = None
    """Reward models or a teacher; None: the policy is alone."""
    scoring_tokens: int | None = None
    """Of a reward model's pack, as chosen before; None: chosen."""

    @property
    def has_loss_head(self) -> bool:
        """Whether the log-probabilities of the drawn tokens are learnt from: their logits may be
        kept. Else `beside` is compared whole.
        """
        return self.beside is None or not self.beside.is_compared_whole

    @property
    def num_samples(self) -> int:
        return self.prompts * self.group_size

    @property
    def wanted_slots(self) -> int:
        """Sequences worth decoding at once, as far as a step can hold them."""
        return min(self.slots or self.num_samples, self.num_samples, MOST_ROWS)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence as the trainer feeds it."""
        return self.prompt_tokens - 1 + self.max_new_tokens

    @property
    def step_tokens(self) -> int:
        """Most tokens fed for one optimiser step."""
        tokens = self.num_samples * self.max_new_tokens + self.prompts * (self.prompt_tokens - 1)
        return -(-tokens // self.minibatches)

    def completion_tokens(self, tokens: int) -> int:
        """Most completion tokens, which have logits, in a pack that feeds so many."""
        own = self.group_size * self.max_new_tokens
        return -(-tokens * own // (own + self.prompt_tokens - 1))
