"""One model, a few prompts: `generate` and `chat`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pellucid.config import RunConfig
from pellucid.errors import ConfigError
from pellucid.pipeline.workbench import Workbench, open_run_workbench
from pellucid.records import Request, SamplingParams, sample_id
from pellucid.runlog import Progress
from pellucid.tasks.templates import Template, get_template

Message = dict[str, str]
"""`{"role": "user", "content": …}`"""


def generate_text(
    config: RunConfig,
    prompt: str,
    *,
    num: int,
    template: str | None,
    progress: Progress,
    is_clipped: bool = False,
) -> list[str]:
    """`num` completions of a prompt, bare or under a template, with the sampler of `config.eval`.

    The same seed gives the same completions. Raises UserError where the prompt does not fit, or it
    and max_new_tokens together do not; `is_clipped`: a completion then ends where the context does.
    """
    params = _params(config)
    bench = open_run_workbench(config, progress)
    tokenizer = bench.loaded.tokenizer
    if template is None:
        prompt_ids = tuple(tokenizer.encode(prompt))
    else:
        chosen = get_template(template)
        prompt_ids = chosen.prompt_ids(prompt, tokenizer)
        params = replace(params, stop=chosen.stop)
    if is_clipped:
        params = _clipped(params, len(prompt_ids), bench)
    ids = tuple(sample_id("generate", k) for k in range(num))
    with progress.task("generating", num, "completions") as tick:
        groups = bench.engine.generate(
            [Request(prompt_ids=prompt_ids, sample_ids=ids)],
            params,
            seed=config.seed,
            progress=tick,
        )
    return [completion.text for completion in groups[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSession:
    """A loaded model with its sampler, and the prompt template that it is talked to under."""

    bench: Workbench
    template: Template
    params: SamplingParams
    seed: int
    is_clipped: bool = False
    """Whether a reply ends where the context does, rather than be refused."""

    @property
    def remembers(self) -> bool:
        """Whether the model sees what was said before: a chat template takes a conversation, any
        other one question.
        """
        return self.template.is_chat


def open_chat(
    config: RunConfig, template: str, progress: Progress, *, is_clipped: bool = False
) -> ChatSession:
    """Loads a model to talk to. Raises ConfigError where the template wants the model's own chat
    template and it has none.
    """
    chosen = get_template(template)
    bench = open_run_workbench(config, progress)
    if chosen.is_chat and bench.loaded.tokenizer.chat_template is None:
        raise ConfigError(
            f"{bench.loaded.name} has no chat template: use `pellucid generate` instead, or give "
            "--template r1-zero"
        )
    params = replace(_params(config), stop=chosen.stop)
    return ChatSession(
        bench=bench, template=chosen, params=params, seed=config.seed, is_clipped=is_clipped
    )


def chat_reply(session: ChatSession, messages: Sequence[Message]) -> str:
    """The model's next turn, with what the template began of it. Raises UserError once the
    conversation outgrows the context.
    """
    tokenizer, template = session.bench.loaded.tokenizer, session.template
    if session.remembers:
        prompt = template.render_messages(messages, tokenizer)
    else:
        prompt = template.render(messages[-1]["content"], tokenizer)
    request = Request(
        prompt_ids=tuple(tokenizer.encode(prompt)),
        sample_ids=(sample_id("chat", len(messages)),),
    )
    params = session.params
    if session.is_clipped:
        params = _clipped(params, len(request.prompt_ids), session.bench)
    completions = session.bench.engine.generate([request], params, seed=session.seed)
    return template.response(completions[0][0].text)


def _clipped(params: SamplingParams, prompt_tokens: int, bench: Workbench) -> SamplingParams:
    """No more new tokens than the context has room for; a prompt that fills it stays an error."""
    room = bench.loaded.model.spec.max_context - prompt_tokens
    return replace(params, max_new_tokens=min(params.max_new_tokens, max(1, room)))


def _params(config: RunConfig) -> SamplingParams:
    return SamplingParams(
        temperature=config.eval.temperature,
        top_p=config.eval.top_p,
        top_k=config.eval.top_k,
        max_new_tokens=config.eval.max_new_tokens,
    )
