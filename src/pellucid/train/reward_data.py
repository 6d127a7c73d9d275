"""From prompts and responses to what a reward model is fed, and to packs of it.

    question ── template without its prefill ──► prompt_ids
    what the model is to see of the response ──► completion_ids, the end token last

The helpful model sees the summary only, the safety model thinking and summary (paper, Methods).
The reward is read behind the end token: a cut-off answer and a finished one are told apart by what
stands before it, never by a missing token.

Shapes: T tokens fed, N sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pellucid.data.preferences import LabelledResponse, PreferencePair, Prompt
from pellucid.model.scalar_head import RewardModel, View
from pellucid.model.shared_attention import SharedPromptAttention, upload
from pellucid.protocols import Tokenizer
from pellucid.rewards.extract import THINK_OPEN, split_thinking
from pellucid.rewards.table import OPEN
from pellucid.tasks.templates import Template
from pellucid.train.packing import build_token_pack, plan_packs
from pellucid.train.sft_data import ExampleMaker

_NEVER_FED = 0
"""Stands where packing expects a token to be predicted behind the last one."""


class ScoredText(NamedTuple):
    """A response to be given a number. Example: ScoredText((1, 7), (4, 2, 0)), 0 ending it."""

    prompt_ids: tuple[int, ...]
    """At least one token."""
    completion_ids: tuple[int, ...]
    """What is seen of the response, and the end token."""

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairExample:
    """A pair to learn: `chosen` is to have the higher reward. Both have one prompt."""

    chosen: ScoredText
    rejected: ScoredText

    @property
    def texts(self) -> tuple[ScoredText, ...]:
        return (self.chosen, self.rejected)

    @property
    def num_tokens(self) -> int:
        """Of the longer one."""
        return max(text.num_tokens for text in self.texts)

    def ids(self) -> tuple[int, ...]:
        return tuple(i for t in self.texts for i in (*t.prompt_ids, -1, *t.completion_ids, -2))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelExample:
    """A response to learn the label of: positive ones are to have a reward above 0."""

    text: ScoredText
    label: bool

    @property
    def texts(self) -> tuple[ScoredText, ...]:
        return (self.text,)

    @property
    def num_tokens(self) -> int:
        return self.text.num_tokens

    def ids(self) -> tuple[int, ...]:
        return (*self.text.prompt_ids, -1, *self.text.completion_ids, -3 - int(self.label))


class RewardReader:
    """Makes what a reward model is fed, for one template, tokenizer and view.

    Example: RewardReader(TEMPLATES["r1-chat"], tokenizer, "summary").text("2 + 2 = ?",
    "<think>\\n…</think>4") has the completion "4" and the end token.
    """

    def __init__(self, template: Template, tokenizer: Tokenizer, sees: View) -> None:
        """Raises ModelError where the model has no end token."""
        self.template = replace(template, prefill="")
        self.tokenizer = tokenizer
        self.sees = sees
        self.end_id = ExampleMaker(template, tokenizer).end_id

    def visible(self, response: str) -> str | None:
        """What the model is shown of a response as graders see it; None where its thinking never
        ends, so that it has no summary to show.
        """
        if self.sees == "response":
            return response
        answer = split_thinking(response).answer
        return None if answer is None else answer.strip()

    def text(self, prompt: Prompt, response: str) -> ScoredText | None:
        """What is fed; None where nothing of the response is visible."""
        seen = self.visible(response)
        if not seen:
            return None
        prompt_ids = tuple(self.tokenizer.encode(self._render(prompt)))
        return ScoredText(prompt_ids, (*self.tokenizer.encode(seen), self.end_id))

    def pair(self, pair: PreferencePair) -> PairExample | None:
        """None where one of the answers has nothing to show."""
        chosen, rejected = (self.text(pair.prompt, r) for r in (pair.chosen, pair.rejected))
        if chosen is None or rejected is None:
            return None
        return PairExample(chosen=chosen, rejected=rejected)

    def labelled(self, response: LabelledResponse) -> LabelExample | None:
        """None where the response is empty."""
        text = self.text(response.prompt, response.response)
        return None if text is None else LabelExample(text=text, label=response.safe)

    def _render(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            rendered = self.template.render(prompt, self.tokenizer, grader=OPEN)
        elif self.template.is_chat:
            rendered = self.template.render_messages(prompt, self.tokenizer)
        else:
            rendered = self.template.render(_transcript(prompt), self.tokenizer, grader=OPEN)
        # Chat templates that open the thinking themselves: the response brings its own tag.
        return rendered.rstrip().removesuffix(THINK_OPEN) if _opens(rendered) else rendered


class ScorePack(NamedTuple):
    """Texts as tensors on the model's device; equal prompts stand there once."""

    token_ids: Tensor
    """[T] int64."""
    attend: SharedPromptAttention
    last: Tensor
    """[N] int64: where each text ends, in the order given."""


def num_fed(texts: Sequence[ScoredText]) -> int:
    """Tokens of some texts of one prompt in a pack."""
    return len(texts[0].prompt_ids) - 1 + sum(len(t.completion_ids) + 1 for t in texts)


def build_score_pack(texts: Sequence[ScoredText], device: torch.device | str) -> ScorePack:
    """One pack of all `texts`."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, text in enumerate(texts):
        groups.setdefault(text.prompt_ids, []).append(index)
    pack = build_token_pack([[_fed(texts[i]) for i in g] for g in groups.values()], device)
    order = [i for group in groups.values() for i in group]
    lengths = [len(texts[i].completion_ids) + 1 for i in order]
    last = np.empty(len(texts), dtype=np.int64)
    last[order] = pack.attend.num_body_tokens + np.cumsum(lengths) - 1
    return ScorePack(pack.token_ids, pack.attend, upload(last, device))


def forward(model: RewardModel, texts: Sequence[ScoredText]) -> tuple[Tensor, int]:
    """Rewards [N] float32 of one pack, and the tokens fed for them."""
    pack = build_score_pack(texts, model.device)
    model.decoder.reserve_context(pack.attend.context)
    return model(pack.token_ids, pack.attend, pack.last), len(pack.token_ids)


@torch.no_grad()
def score_texts(
    model: RewardModel, texts: Sequence[ScoredText], *, tokens_per_pack: int = 8192
) -> list[float]:
    """The reward of each text, however long: one that exceeds a pack has a pack of its own."""
    rewards = [0.0] * len(texts)
    for groups in plan_packs([_fed(t) for t in texts], tokens_per_pack):
        members = [i for group in groups for i in group]
        values, _ = forward(model, [texts[i] for i in members])
        for index, value in zip(members, values.tolist(), strict=True):
            rewards[index] = value
    return rewards


def _fed(text: ScoredText) -> ScoredText:
    """Packing feeds all but the last token of a completion: with one more, all of them."""
    return ScoredText(text.prompt_ids, (*text.completion_ids, _NEVER_FED))


def _opens(rendered: str) -> bool:
    return rendered.rstrip().endswith(THINK_OPEN)


def _transcript(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as one question, for templates that know no turns; a single message alone."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)
