"""Examples of supervised fine-tuning: the prompt as a rollout would get it, the answer to learn.

    question ──── Template ────► prompt_ids        fed, never part of the loss
    response or sampled tokens ─► completion_ids   the assistant's tokens and its end token

Prompt and response are encoded apart, as sampling joins them: the model learns to continue the very
ids that it is given in a rollout. A response is never rendered by a chat template, for some of them
drop the thinking from what the assistant has said; sampled tokens are never encoded again.
Not here: which examples are worth learning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pellucid.errors import DataError, ModelError
from pellucid.protocols import Tokenizer
from pellucid.records import Completion, StopReason
from pellucid.tasks.templates import Template

_THINKING = "<think>"
_PROBE = "Pellucid"
"""Stands for the assistant's words where a chat template is asked what it writes behind them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftExample:
    """One answer to learn.

    Example: SftExample(prompt_ids=(1, 7), completion_ids=(4, 2, 0)), 0 being the end token.
    """

    prompt_ids: tuple[int, ...]
    """At least one token. None of them is part of the loss."""
    completion_ids: tuple[int, ...]
    """The assistant's tokens, its end token last. All of them are part of the loss."""

    @property
    def num_tokens(self) -> int:
        """Of prompt and completion."""
        return len(self.prompt_ids) + len(self.completion_ids)

    def ids(self) -> tuple[int, ...]:
        """All that it teaches, as integers: what a digest is taken of."""
        return (len(self.prompt_ids), *self.prompt_ids, *self.completion_ids, -1)


class ExampleMaker:
    """Makes examples for one template and tokenizer.

    Example: ExampleMaker(TEMPLATES["r1-chat"], tokenizer).from_text("2 + 2 = ?", "<think>\\n…")
    has a prompt that ends in "<think>\\n" and a completion that starts behind it.
    """

    def __init__(self, template: Template, tokenizer: Tokenizer) -> None:
        """Raises ModelError where the model has no end token: it could not learn to stop."""
        self.template = template
        self.tokenizer = tokenizer
        self.end_id = _end_id(template, tokenizer)

    def from_text(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        response: str,
        *,
        grader: str = "math",
        where: str = "example",
    ) -> SftExample:
        """A question, asked as `grader` reads answers, or messages (`role`, `content`; the last is
        not the assistant's), and the response as graders see it, the template's prefill included.

        Raises DataError, naming `where`, for a response that does not start with the prefill, is
        empty, or holds an end token; ConfigError for messages without a chat template.
        """
        prefill, name = self.template.prefill, self.template.name
        if not response.startswith(prefill):
            raise DataError(
                f"{where}: under template {name!r} a response starts with {prefill!r}, not "
                f"{response[:20]!r}: add it or choose another template"
            )
        rendered, answer = self._render(prompt, grader, where), response[len(prefill) :]
        if rendered.rstrip().endswith(_THINKING) and answer.lstrip().startswith(_THINKING):
            raise DataError(
                f"{where}: prompt and response both open the thinking: where the model's chat "
                "template opens it, use template 'r1-chat'"
            )
        ids = (*self.tokenizer.encode(answer), self.end_id)
        return self._example(rendered, ids, where)

    def from_completion(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        completion: Completion,
        *,
        grader: str = "math",
        where: str = "example",
    ) -> SftExample:
        """A sampled answer, token for token; the end token is added where a stop string ended it.

        Raises DataError also for a completion that did not end by itself: it teaches to break off.
        """
        if completion.stop is StopReason.LENGTH:
            raise DataError(f"{where}: the completion was cut off by its token limit: leave it out")
        ids = completion.token_ids
        if not ids or ids[-1] not in self.tokenizer.eos_ids:
            ids = (*ids, self.end_id)
        return self._example(self._render(prompt, grader, where), ids, where)

    def _render(self, prompt: str | Sequence[Mapping[str, str]], grader: str, where: str) -> str:
        if isinstance(prompt, str):
            return self.template.render(prompt, self.tokenizer, grader=grader)
        if not prompt or prompt[-1].get("role") == "assistant":
            raise DataError(
                f"{where}: messages end with what the assistant is to answer: give its own words "
                "as the response"
            )
        return self.template.render_messages(prompt, self.tokenizer)

    def _example(self, rendered: str, completion_ids: tuple[int, ...], where: str) -> SftExample:
        prompt_ids = tuple(self.tokenizer.encode(rendered))
        if not prompt_ids or len(completion_ids) < 2:
            raise DataError(f"{where}: the {'response' if prompt_ids else 'prompt'} is empty")
        if any(token in self.tokenizer.eos_ids for token in completion_ids[:-1]):
            raise DataError(
                f"{where}: the response holds an end token before its end: remove it, one is added"
            )
        return SftExample(prompt_ids=prompt_ids, completion_ids=completion_ids)


def _end_id(template: Template, tokenizer: Tokenizer) -> int:
    """What ends an answer: the end token that the model's chat template writes, if sampling stops
    at it; else the tokenizer's own.
    """
    if not tokenizer.eos_ids:
        raise ModelError(
            "the model names no end token, so it cannot learn to stop: set eos_token in its "
            "tokenizer_config.json"
        )
    if template.is_chat and tokenizer.chat_template is not None:
        said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
        behind = tokenizer.chat(said, add_generation_prompt=False).rpartition(_PROBE)[2]
        for token in tokenizer.encode(behind):
            if token in tokenizer.eos_ids:
                return token
    return tokenizer.eos_ids[0]
