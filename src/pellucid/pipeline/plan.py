"""What a run will take of a GPU, and the choices that a recipe leaves to it.

`settle` makes them before anything is loaded onto the device; `plan_recipe` tells of them, also
for a GPU that is not here. Neither reads weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

import torch

from pellucid.algo.presets import resolve as resolve_objective
from pellucid.config import AUTO, RunConfig
from pellucid.data.load import load_problems
from pellucid.errors import ConfigError, DataError, ModelError
from pellucid.kernels.available import triton_ready
from pellucid.model.load import Outline, find_outline, read_outline, resolve
from pellucid.pipeline.workbench import (
    DEFAULT_SLOTS,
    resolve_device,
    resolve_dtype,
    trained_or_given,
)
from pellucid.protocols import Tokenizer
from pellucid.records import Problem
from pellucid.tasks.templates import Template, get_template
from pellucid.train.job import Beside, Job
from pellucid.train.memory_plan import GIB, MemoryPlan, choose_plan
from pellucid.train.step_time import PEAKS, DevicePeaks, StepTime, peaks_of, predict

DEFAULT_TOKENS_PER_PACK = 8192
ALL_TRIED = 20_000
"""Up to so many prompts are all counted in tokens before any work: a second or two."""
LONGEST_TRIED = 50
"""Of more, those of so many of the longest questions, where they tell."""
TYPICAL_TRIED = 200
"""Of so many problems the prompts are counted for their mean length, and to see whether the longest
questions do tell."""
ASSUMED_PROMPT = 256
"""Tokens of a prompt where its tokenizer or its data are not here."""
CHOICES = ("slots", "tokens_per_pack", "checkpointed_blocks")
"""Of a plan, what a continued run takes over: other packs would end in other bits."""


def choices_of(memory: MemoryPlan) -> dict[str, int]:
    """What a continued run takes over, for the ledger."""
    chosen = {name: getattr(memory, name) for name in CHOICES}
    return chosen | ({"scoring_tokens": memory.scoring_tokens} if memory.scoring_tokens else {})


class Settled(NamedTuple):
    """A configuration without anything left to choose."""

    config: RunConfig
    memory: MemoryPlan | None
    """None: not planned, because the kernels whose memory is known do not run here."""


def settle(
    config: RunConfig,
    problems: Sequence[Problem],
    template: Template,
    *,
    earlier: Mapping[str, int] | None = None,
    beside: Beside | None = None,
) -> Settled:
    """Replaces "auto" by what fits the device, `earlier` choices of the same run first. What is
    `beside` the policy lies on the device already.

    Raises ConfigError with one line where the model, or a number set by hand, does not fit.
    """
    device = torch.device(resolve_device(config.device))
    dtype = resolve_dtype(config.dtype, device.type)
    if device.type == "cuda":  # by its number, as engine and trainer ask: the answer is said once
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type != "cuda" or dtype != torch.bfloat16 or not triton_ready(device):
        return Settled(_chosen(config, DEFAULT_SLOTS, DEFAULT_TOKENS_PER_PACK), None)
    outline = read_outline(resolve(trained_or_given(config.model)))
    longest = longest_prompt(problems, template, outline.tokenizer())
    job = job_of(config, outline, longest, beside)
    there = beside.weights if beside is not None else 0
    free = bounded(torch.cuda.mem_get_info(device)[0] + there, config.train.memory_gib)
    memory = _plan_again(job, free, earlier or {}) or choose_plan(job, free)
    return Settled(_chosen(config, memory.slots, memory.tokens_per_pack), memory)


def longest_prompt(problems: Sequence[Problem], template: Template, tokenizer: Tokenizer) -> int:
    """Tokens of the longest prompt. Of very many prompts only a part is counted, unless a random
    sample shows that the longest questions are not those of most tokens.
    """

    def most(some: Iterable[Problem]) -> int:
        return max(_prompt_length(p, template, tokenizer) for p in some)

    if len(problems) <= ALL_TRIED:
        return most(problems)
    by_length = sorted(problems, key=lambda p: len(p.question), reverse=True)
    longest = most(by_length[:LONGEST_TRIED])
    typical = random.Random(0).sample(by_length[LONGEST_TRIED:], TYPICAL_TRIED)
    return longest if most(typical) <= longest else most(problems)


def _prompt_length(problem: Problem, template: Template, tokenizer: Tokenizer) -> int:
    return len(template.prompt_ids(problem.question, tokenizer, grader=problem.grader))


def job_of(
    config: RunConfig, outline: Outline, prompt_tokens: int, beside: Beside | None = None
) -> Job:
    """What of a recipe takes memory. Raises ConfigError where it exceeds the model's context."""
    context, objective = outline.spec.max_context, resolve_objective(config.algo)
    check_fit(prompt_tokens, config.rollout.max_new_tokens, context)
    return Job(
        spec=outline.spec,
        element=2,
        prompts=config.rollout.prompts,
        group_size=config.rollout.group_size,
        prompt_tokens=prompt_tokens,
        max_new_tokens=config.rollout.max_new_tokens,
        minibatches=config.train.minibatches,
        has_reference=objective.has_reference,
        recomputes_old=objective.old_logprobs == "recompute",
        slots=None if config.rollout.slots == AUTO else config.rollout.slots,
        tokens_per_pack=(
            None if config.train.tokens_per_pack == AUTO else config.train.tokens_per_pack
        ),
        beside=beside,
    )


def check_fit(prompt_tokens: int, max_new_tokens: int, context: int) -> None:
    """Raises ConfigError where prompt and completion do not fit into the model's context."""
    if prompt_tokens + max_new_tokens > context:
        raise ConfigError(
            f"rollout.max_new_tokens = {max_new_tokens} and a prompt of {prompt_tokens} tokens do "
            f"not fit into the model's context of {context}: lower it, or choose a shorter "
            "task.template"
        )


def bounded(free: int, memory_gib: float | None) -> int:
    """Bytes that may be used where `free` are free."""
    return free if memory_gib is None else min(free, int(memory_gib * GIB))


def _plan_again(job: Job, free: int, earlier: Mapping[str, int]) -> MemoryPlan | None:
    """The plan with choices made before; None where there are none, or they fit no longer."""
    if not set(CHOICES) <= set(earlier):
        return None
    tokens = job.tokens_per_pack or earlier["tokens_per_pack"]
    try:
        return choose_plan(
            replace(
                job,
                slots=job.slots or earlier["slots"],
                tokens_per_pack=tokens,
                scoring_tokens=earlier.get("scoring_tokens"),
            ),
            free,
        )
    except ConfigError:  # another device: choose as if for the first time
        return None


def _chosen(config: RunConfig, slots: int, tokens_per_pack: int) -> RunConfig:
    """The configuration with numbers in place of "auto"."""
    rollout, train = config.rollout, config.train
    if rollout.slots == AUTO:
        rollout = rollout.model_copy(update={"slots": slots})
    if train.tokens_per_pack == AUTO:
        train = train.model_copy(update={"tokens_per_pack": tokens_per_pack})
    return config.model_copy(update={"rollout": rollout, "train": train})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What `pellucid plan` tells."""

    job: Job
    memory: MemoryPlan
    device: str
    free: int
    """Bytes that the run may use."""
    mean_length: float
    mean_prompt: float
    time: StepTime | None
    """None: how fast the device is, is not known."""
    notes: tuple[str, ...]
    """What was assumed."""

    def as_json(self) -> dict[str, Any]:
        """Bytes, choices and seconds by name."""
        memory, time = self.memory, self.time
        names = "weights states gradients reference kv decoding prefill activations logits"
        names += " head_work block_work overhead beside scoring"
        names += " rollout_peak training_peak peak"
        return {
            "device": self.device,
            "free_bytes": self.free,
            "bytes": {name: getattr(memory, name) for name in names.split()},
            "choices": choices_of(memory)
            | {
                "keep_bytes": memory.logits,
                "kv_pages": memory.kv_pages,
                "is_time_shared": memory.is_time_shared,
            },
            "prompt_tokens": {"longest": self.job.prompt_tokens, "mean": self.mean_prompt},
            "mean_length": self.mean_length,
            "seconds": None
            if time is None
            else {
                "prefill": time.prefill_s,
                "decode": time.decode_s,
                "training": time.training_s,
                "optimizer": time.optimizer_s,
                "scoring": time.scoring_s,
                "step": time.step_s,
            },
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a person may say instead of having it looked up."""

    memory_gib: float | None = None
    device_name: str | None = None
    mean_length: float | None = None
    prompt_tokens: int | None = None


def plan_recipe(config: RunConfig, options: PlanOptions) -> PlanReport:
    """Plans a recipe for the GPU here, or for one that is named. Raises ConfigError where it does
    not fit, or is not meant for a GPU.
    """
    notes: list[str] = []
    target = find_target(config, options, notes)
    outline = find_outline(trained_or_given(config.model))
    prompts = _prompts(config, options, outline, notes)
    return plan_job(config, options, target, outline, prompts, notes)


def plan_job(
    config: RunConfig,
    options: PlanOptions,
    target: Target,
    outline: Outline,
    prompts: PromptLengths,
    notes: Sequence[str],
    beside: Beside | None = None,
) -> PlanReport:
    """The plan of one training by reinforcement. Raises ConfigError where it does not fit."""
    job = job_of(config, outline, prompts.longest, beside)
    memory = choose_plan(job, target.free)
    limit = config.rollout.max_new_tokens
    mean_length = options.mean_length or float(limit)
    if not 0 < mean_length <= limit:
        raise ConfigError(
            f"--mean-length {mean_length:g} is not between 1 and rollout.max_new_tokens = {limit}"
        )
    typical = replace(job, prompt_tokens=max(round(prompts.mean), 1))
    peaks = target.peaks
    return PlanReport(
        job=job,
        memory=memory,
        device=target.name,
        free=target.free,
        mean_length=mean_length,
        mean_prompt=prompts.mean,
        time=predict(typical, memory, peaks, mean_length) if peaks is not None else None,
        notes=tuple(notes),
    )


class Target(NamedTuple):
    """The GPU that is planned for."""

    name: str
    free: int
    """Usable bytes."""
    peaks: DevicePeaks | None
    """None: how long a step takes there, is not known."""


class PromptLengths(NamedTuple):
    """In tokens."""

    longest: int
    mean: float


def find_target(config: RunConfig, options: PlanOptions, notes: list[str]) -> Target:
    """Raises ConfigError where the recipe is not meant for a GPU, or its memory is not known."""
    if config.device == "cpu" or config.dtype == "float32":
        raise ConfigError(
            "plans are for bfloat16 on a GPU, and this recipe asks for something else: "
            "add --set device=auto --set dtype=auto"
        )
    name, free, peaks = _device(config, options, notes)
    if peaks is None:
        notes.append(f"no step time: how fast {name} is, is not known here")
    elif not peaks.has_rollout_kernels:
        notes.append(f"no step time: on {name} the host leads decoding, slower and not exact")
        peaks = None
    return Target(name, free, peaks)


def _device(
    config: RunConfig, options: PlanOptions, notes: list[str]
) -> tuple[str, int, DevicePeaks | None]:
    """Name, usable bytes and speed of the GPU that is planned for."""
    bound = options.memory_gib or config.train.memory_gib
    if options.device_name is None and torch.cuda.is_available():
        name = str(torch.cuda.get_device_name())
        return name, bounded(torch.cuda.mem_get_info()[0], bound), peaks_of(name)
    name = options.device_name or PEAKS[0].name
    peaks = peaks_of(name)
    if options.device_name is None:
        notes.append(f"no GPU here: planned for an {name}; --device-name names another")
    if peaks is None and bound is None:
        known = ", ".join(p.name for p in PEAKS)
        raise ConfigError(
            f"how much memory {name} has is not known here (known: {known}): add --memory-gib"
        )
    free = peaks.memory if peaks is not None else int((bound or 0.0) * GIB)
    return name, bounded(free, bound), peaks


def _prompts(
    config: RunConfig, options: PlanOptions, outline: Outline, notes: list[str]
) -> PromptLengths:
    task = config.task

    def load() -> list[Problem]:
        return load_problems(
            task.name, task.split, limit=task.limit, data_dir=task.data_dir, seed=config.seed
        )

    return prompt_lengths(load, task.template, options, outline, notes)


def prompt_lengths(
    load: Callable[[], Sequence[Problem]],
    template_name: str,
    options: PlanOptions,
    outline: Outline,
    notes: list[str],
) -> PromptLengths:
    """Of the problems that `load` gives; assumed, with a note, where data or tokenizer lack."""
    if options.prompt_tokens is not None:
        return PromptLengths(options.prompt_tokens, float(options.prompt_tokens))
    template = get_template(template_name)
    try:
        tokenizer = outline.tokenizer()
        problems = load()
    except (ModelError, DataError) as error:
        notes.append(f"prompts of {ASSUMED_PROMPT} tokens assumed (--prompt-tokens): {error}")
        return PromptLengths(ASSUMED_PROMPT, float(ASSUMED_PROMPT))
    few = problems[:TYPICAL_TRIED]
    mean = fmean(_prompt_length(p, template, tokenizer) for p in few)
    return PromptLengths(longest_prompt(problems, template, tokenizer), mean)
