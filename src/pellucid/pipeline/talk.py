"""One model, a few prompts: `generate` and `chat`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pellucid.config import RunConfig
from pellucid.errors import ConfigError
from pellucid.pipeline.workbench import Workbench, open_run_workbench
from pellucid.records import Request, SamplingParams, sample_id
from pellucid.runlog import Progress
from pellucid.tasks.templates import get_template

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
    """A loaded chat model with its sampler."""

    bench: Workbench
    params: SamplingParams
    seed: int
    is_clipped: bool = False
    """Whether a reply ends where the context does, rather than be refused."""


def open_chat(config: RunConfig, progress: Progress, *, is_clipped: bool = False) -> ChatSession:
    """Loads a model to talk to. Raises ConfigError where it has no chat template."""
    bench = open_run_workbench(config, progress)
    if bench.loaded.tokenizer.chat_template is None:
        raise ConfigError(
            f"{bench.loaded.name} has no chat template: use `pellucid generate` instead"
        )
    return ChatSession(bench=bench, params=_params(config), seed=config.seed, is_clipped=is_clipped)


def chat_reply(session: ChatSession, messages: Sequence[Message]) -> str:
    """The model's next turn. Raises UserError once the conversation outgrows the context."""
    tokenizer = session.bench.loaded.tokenizer
    prompt = tokenizer.chat(list(messages), add_generation_prompt=True)
    request = Request(
        prompt_ids=tuple(tokenizer.encode(prompt)),
        sample_ids=(sample_id("chat", len(messages)),),
    )
    params = session.params
    if session.is_clipped:
        params = _clipped(params, len(request.prompt_ids), session.bench)
    completions = session.bench.engine.generate([request], params, seed=session.seed)
    return completions[0][0].text


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
