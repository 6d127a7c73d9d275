"""Prompt templates: what stands around a question, and how the response begins.

The `r1-zero` text is the one of Guo et al., DeepSeek-R1 (Nature 645, 2025, main text, CC BY 4.0).
It asks for a structure and says nothing about how to think. A template decides three things: the
prompt, the *prefill* (the start of the response, written for the model) and the strings that end a
completion.
Not here: how a model's own chat template is rendered (`Tokenizer.chat`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from pellucid.artifacts import sha256_json
from pellucid.errors import ConfigError
from pellucid.protocols import Tokenizer
from pellucid.tasks.lookup import lookup

QUESTION = "{question}"
FREE_FORM = frozenset({"code", "constraints", "open", "smalltalk"})
"""Graders that read the answer as it stands: a prompt that asks for a box would mislead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A prompt template.

    Example: TEMPLATES["r1-zero-think"].render("2 + 2 = ?", tokenizer) ends in "Assistant: <think>",
    and `.response("4</think> …")` is "<think>4</think> …".
    """

    name: str
    text: str
    """The prompt, or the user's message where `is_chat`; `{question}` stands for the question."""
    free_text: str | None = None
    """In place of `text` for problems whose grader is one of `FREE_FORM`. None: `text` for all."""
    is_chat: bool = False
    """True: `text` is a user's message, rendered with the model's own chat template."""
    prefill: str = ""
    """Start of the response: last part of the prompt, first part of what the graders see."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they stay in its text."""

    def render(self, question: str, tokenizer: Tokenizer, *, grader: str = "math") -> str:
        """The whole prompt text, prefill included; `grader` is that of the problem.

        ConfigError where a chat template is missing.
        """
        text = self.text
        if self.free_text is not None and grader in FREE_FORM:
            text = self.free_text
        filled = text.replace(QUESTION, question)
        if not self.is_chat:
            return filled + self.prefill
        return self.render_messages([{"role": "user", "content": filled}], tokenizer)

    def render_messages(self, messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> str:
        """The prompt text of a conversation that the assistant is to continue, prefill included:
        its messages as they are, `text` unused. ConfigError where this is no chat template, or the
        model has none.
        """
        if not self.is_chat:
            raise ConfigError(
                f"template {self.name!r} takes a question, not messages: choose a chat template"
            )
        if tokenizer.chat_template is None:
            raise ConfigError(
                f"template {self.name!r} needs a chat template and the model has none: "
                "set task.template to 'r1-zero' or 'plain'"
            )
        prompt = tokenizer.chat(messages, add_generation_prompt=True)
        # Some released chat templates open the thinking themselves: never open it twice.
        return prompt if self.prefill and prompt.endswith(self.prefill) else prompt + self.prefill

    @property
    def sha256(self) -> str:
        """Digest of all fields. A model's own chat template is no part of it: prompts show that."""
        return sha256_json(asdict(self))

    def prompt_ids(
        self, question: str, tokenizer: Tokenizer, *, grader: str = "math"
    ) -> tuple[int, ...]:
        """Token ids of the rendered prompt: the very ids that are trained on."""
        return tuple(tokenizer.encode(self.render(question, tokenizer, grader=grader)))

    def response(self, completion_text: str) -> str:
        """What graders see: the prefill and the sampled text."""
        return self.prefill + completion_text


_CONVERSATION = (
    "A conversation between User and Assistant. The User asks a question and the Assistant solves "
    "it. The Assistant first thinks about the reasoning process in the mind and then provides the "
    "User with the answer. The reasoning process and answer are enclosed within <think>...</think> "
    "and <answer>...</answer> tags, respectively, that is, <think> reasoning process here </think> "
)
# The paper ends its slot with a full stop ("User: prompt."); questions bring their own.
_TURNS = f" User: {QUESTION} Assistant:"
_R1_ZERO = _CONVERSATION + "<answer> answer here </answer>." + _TURNS
_R1_ZERO_BOXED = (
    _CONVERSATION
    + "<answer> \\boxed{answer here} </answer>. The final answer is put within \\boxed{} inside "
    + "the answer tags."
    + _TURNS
)
# The evaluation prompt of the paper (D.1) and of the release's README.
_BOXED_MESSAGE = (
    f"{QUESTION}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
)
_ANSWER_END = ("</answer>",)

TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template(name="r1-zero", text=_R1_ZERO, stop=_ANSWER_END),
        Template(name="r1-zero-boxed", text=_R1_ZERO_BOXED, free_text=_R1_ZERO, stop=_ANSWER_END),
        Template(name="r1-zero-think", text=f"{_R1_ZERO} ", prefill="<think>", stop=_ANSWER_END),
        Template(name="chat", text=QUESTION, is_chat=True),
        Template(name="chat-boxed", text=_BOXED_MESSAGE, free_text=QUESTION, is_chat=True),
        Template(
            name="r1-chat",
            text=_BOXED_MESSAGE,
            free_text=QUESTION,
            is_chat=True,
            prefill="<think>\n",
        ),
        Template(name="plain", text=f"{QUESTION}\n"),
        # For the embedded base model, whose context is too short for the paper's text.
        Template(
            name="tiny",
            text=(
                "User asks, Assistant thinks in <think> </think> and answers in <answer> "
                "</answer>.\n"
                f"User: {QUESTION}\nAssistant:"
            ),
            stop=_ANSWER_END,
        ),
        # From the cold start on, for the embedded bilingual base: thinking, then a summary that
        # the end token closes.
        Template(name="tiny-r1", text=f"User: {QUESTION}\nAssistant: ", prefill="<think>\n"),
    )
}


def get_template(name: str) -> Template:
    """The template of that name; ConfigError with the nearest name where there is none."""
    return lookup(TEMPLATES, name, "template")
