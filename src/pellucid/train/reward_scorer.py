"""A trained reward model as a reward term: the `ResponseScorer` of general RL.

Scores are probabilities, so that they have the scale of the rule terms, 0 to 1 (the paper adds
rewards whose scales it does not state):

    pointwise   σ(r), the probability of the positive label
    pairwise    σ(r - centre), the probability of being preferred to an average training response

A bounded reward has nothing to give for being extreme, which is where reward models are hacked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pellucid.model.scalar_head import LoadedReward, RewardCard, RewardModel
from pellucid.protocols import Tokenizer
from pellucid.records import Problem
from pellucid.tasks.templates import get_template
from pellucid.train.reward_data import RewardReader, score_texts

NOTHING_VISIBLE = 0.0
"""Score of a response of which the model is shown nothing: thinking that never ends, or no summary
behind it. The least there is: silence is never worth a try.
"""


class RewardModelScorer:
    """Scores responses in packs, without gradients, on the device of the model."""

    def __init__(
        self,
        model: RewardModel,
        tokenizer: Tokenizer,
        card: RewardCard,
        *,
        tokens_per_pack: int = 8192,
    ) -> None:
        """Raises ConfigError where the template that the card names is not known."""
        self.model = model.eval().requires_grad_(False)
        self.card = card
        self.reader = RewardReader(get_template(card.template), tokenizer, card.sees)
        self.tokens_per_pack = tokens_per_pack
        self.num_invisible = 0
        """Responses so far that had nothing to show."""

    @classmethod
    def of(cls, loaded: LoadedReward, *, tokens_per_pack: int = 8192) -> RewardModelScorer:
        """The scorer of a model folder as it was loaded."""
        return cls(loaded.model, loaded.tokenizer, loaded.card, tokens_per_pack=tokens_per_pack)

    def score(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[float]:
        """A probability each; `responses[i]` answers `problems[i]`, the template's prefill
        included.
        """
        pairs = zip(problems, responses, strict=True)
        texts = [self.reader.text(p.question, r) for p, r in pairs]
        shown = [t for t in texts if t is not None]
        self.num_invisible += len(texts) - len(shown)
        rewards = iter(score_texts(self.model, shown, tokens_per_pack=self.tokens_per_pack))
        return [NOTHING_VISIBLE if t is None else self._probability(next(rewards)) for t in texts]

    def _probability(self, reward: float) -> float:
        centre = self.card.centre if self.card.loss == "pairwise" else 0.0
        return 0.5 + 0.5 * math.tanh((reward - centre) / 2)
