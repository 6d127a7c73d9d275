"""One model, a few prompts: `generate` and `chat`."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.errors import ConfigError
from pellucid.pipeline.workbench import Workbench
from pellucid.records import Completion, Request, SamplingParams, sample_id
from pellucid.tasks.templates import get_template

Message = dict[str, str]
"""`{"role": "user", "content": …}`"""


def generate(
    bench: Workbench,
    prompts: Sequence[str],
    *,
    template: str,
    params: SamplingParams,
    n: int,
    seed: int,
) -> list[list[Completion]]:
    """`n` completions of each prompt under a template. The same seed gives the same completions."""
    chosen = get_template(template)
    stop = tuple(dict.fromkeys((*params.stop, *chosen.stop)))
    params = SamplingParams(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        max_new_tokens=params.max_new_tokens,
        stop=stop,
    )
    requests = [
        Request(
            prompt_ids=chosen.prompt_ids(prompt, bench.loaded.tokenizer),
            sample_ids=tuple(sample_id("generate", row, k) for k in range(n)),
        )
        for row, prompt in enumerate(prompts)
    ]
    return bench.engine.generate(requests, params, seed=seed)


def reply(
    bench: Workbench, history: Sequence[Message], *, params: SamplingParams, seed: int
) -> str:
    """The model's next turn in a conversation. Raises ConfigError without a chat template."""
    tokenizer = bench.loaded.tokenizer
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"{bench.loaded.name} has no chat template: use `pellucid generate` with --template"
        )
    prompt = tokenizer.chat(list(history), add_generation_prompt=True)
    request = Request(
        prompt_ids=tuple(tokenizer.encode(prompt)),
        sample_ids=(sample_id("chat", len(history)),),
    )
    return bench.engine.generate([request], params, seed=seed)[0][0].text
