"""Training alone, whole GRPO steps, and how far the trainer's log-probabilities are from the
rollout's."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
import workload
from floor import (
    FLOPS_PER_S,
    TRAINING_FORMULA,
    Group,
    step_floor_s,
    training_counts,
    training_floor_s,
    training_flops,
)
from jobs import Job
from measure import (
    NumberTokenizer,
    Setting,
    build_model,
    engine_of,
    groups_of,
    num_tokens,
    peak_bytes,
    repeat,
    report,
    requests_of,
    run_config,
    sampling,
    timed,
)
from planning import as_json, training_job

import pellucid.train.update as update_module
from pellucid.algo.advantages import ADVANTAGES
from pellucid.algo.presets import resolve
from pellucid.errors import UserError
from pellucid.model.transformer import Decoder
from pellucid.records import Completion, Request
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.memory import free_bytes
from pellucid.train.memory_plan import choose_plan
from pellucid.train.optimizer import Optimizer
from pellucid.train.packing import TrainSequence
from pellucid.train.step_time import peaks_of
from pellucid.train.update import PolicyUpdater

STATE_BYTES = 18
"""Per parameter: bfloat16 weight; float32 gradient, master and two moments."""
STATE_FRAC = 0.85
"""Weights and states may fill so much of the memory; the rest is for activations."""


class GradientsOnly(Optimizer):
    """For models whose moments do not fit: forward, backward and float32 gradients alone.

    AdamW makes its moments at its first step, which never comes.
    """

    def step(self, learning_rate: float, *, where: str) -> float:
        """Forgets the gradients."""
        self.clear_gradients()
        return 0.0


class FedTokens:
    """Counts tokens that go through a decoder."""

    def __init__(self, model: Decoder) -> None:
        self.count = 0
        model.register_forward_pre_hook(self._add, with_kwargs=True)

    def _add(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        token_ids = args[0] if args else kwargs["token_ids"]
        self.count += token_ids.numel()


def train(job: Job, setting: Setting) -> dict[str, Any]:
    """Updates on ready sequences of fixed length, packed, every advantage different from 0.

    MFU counts what is necessary, by `floor.TRAINING_FORMULA`: a prompt once a group, no padding,
    nothing computed twice. `seen_fed_tokens` is what really went through the decoder.
    """
    model = build_model(setting)
    has_optimizer = states_fit(setting)
    if not has_optimizer:
        update_module.Optimizer = GradientsOnly  # type: ignore[assignment, misc]
    updater = updater_of(job, setting, model)
    sequences = synthetic(job, setting)
    fed = FedTokens(model)

    def work(number: int) -> dict[str, float]:
        fed.count = 0
        seconds, _ = timed(lambda: updater.update(sequences, step=number + 1), setting.device)
        return {"seconds": seconds, "tokens": job.rows * job.new}

    repeats = repeat(work, setting)
    groups = [Group(prompt=job.prompt, completions=(job.new,) * job.group)] * job.prompts
    counts = training_counts(groups, shares_prompts=True)
    flops = training_flops(setting.spec, counts)
    floor_s = training_floor_s(setting.spec, counts, has_optimizer=has_optimizer)
    seconds = median(r["seconds"] for r in repeats)
    return report(
        repeats,
        setting,
        floor_s=floor_s,
        settings={"tokens_per_pack": setting.tokens_per_pack, "has_optimizer": has_optimizer},
        details={
            "mfu": flops / seconds / FLOPS_PER_S,
            "formula": TRAINING_FORMULA,
            "flops": flops,
            "counted_fed_tokens": counts.fed,
            "seen_fed_tokens": fed.count,
            "plain_fed_tokens": training_counts(groups, shares_prompts=False).fed,
            "fed_tokens_per_s": counts.fed / seconds,
        },
    )


def step(job: Job, setting: Setting) -> dict[str, Any]:
    """Rollout, random rewards, advantages, one update: the whole of a GRPO step but the grader."""
    model = build_model(setting)
    engine, requests = engine_of(job, model), requests_of(job, setting)
    updater = updater_of(job, setting, model)
    metrics: dict[str, float] = {}
    completions: list[list[Completion]] = []

    def one(number: int) -> tuple[float, float]:
        nonlocal metrics, completions
        rollout_s, completions = _rollout(engine, requests, job, setting, seed=number)
        sequences = _rewarded(requests, completions, updater, seed=number)
        update_s, metrics = _update(updater, engine, sequences, setting, step=number + 1)
        return rollout_s, update_s

    def work(number: int) -> dict[str, float]:
        seconds, (rollout_s, update_s) = timed(lambda: one(number), setting.device)
        return {
            "seconds": seconds,
            "tokens": num_tokens(completions),
            "rollout_s": rollout_s,
            "update_s": update_s,
        }

    repeats = repeat(work, setting)
    return report(
        repeats,
        setting,
        floor_s=step_floor_s(setting.spec, groups_of(requests, completions)),
        settings={"slots": job.rows, "tokens_per_pack": setting.tokens_per_pack},
        details={"last_metrics": metrics},
    )


def planned(job: Job, setting: Setting) -> dict[str, Any]:
    """A whole step as `pellucid run` has it: slots, packs and blocks are those that the planner
    chooses from what is free, and keys and values lend their memory where it says so. Beside what
    it took stands what the plan had said.
    """
    free = free_bytes(setting.device)
    asked = training_job(job, setting.spec, setting.dtype.itemsize)
    plan = choose_plan(asked, free)
    setting = replace(setting, tokens_per_pack=plan.tokens_per_pack)
    model = build_model(setting)
    model.checkpointed_blocks = plan.checkpointed_blocks
    engine = InProcessEngine(
        model,
        NumberTokenizer(),
        slots=plan.slots,
        kv_limit=plan.kv_limit,
        is_shared=plan.is_time_shared,
    )
    updater = updater_of(job, setting, model)
    updater.keep_bytes = plan.logits
    requests = requests_of(job, setting)

    def one(number: int) -> tuple[float, float]:
        rollout_s, completions = _rollout(engine, requests, job, setting, seed=number)
        sequences = _rewarded(requests, completions, updater, seed=number)
        engine.suspend()
        update_s, _ = _update(updater, engine, sequences, setting, step=number + 1)
        if plan.is_time_shared:
            updater.optimizer.release_gradients()
        return rollout_s, update_s

    def work(number: int) -> dict[str, float]:
        seconds, (rollout_s, update_s) = timed(lambda: one(number), setting.device)
        tokens = job.rows * job.new
        return {"seconds": seconds, "tokens": tokens, "rollout_s": rollout_s, "update_s": update_s}

    repeats = repeat(work, setting)
    group = Group(prompt=job.prompt, completions=(job.new,) * job.group)
    names = ("slots", "tokens_per_pack", "checkpointed_blocks", "is_time_shared")
    is_cuda = setting.device.type == "cuda"
    peaks = peaks_of(torch.cuda.get_device_name()) if is_cuda else None
    return report(
        repeats,
        setting,
        floor_s=step_floor_s(setting.spec, [group] * job.prompts),
        settings={name: getattr(plan, name) for name in names} | {"free_bytes": free},
        details={"planned": as_json(asked, plan, peaks)},
    )


def gap(job: Job, setting: Setting) -> dict[str, Any]:
    """|rollout - trainer| log-probabilities, as it is and in exact mode, with the time of both."""
    normal = _gap(job, setting, exact=False)
    try:
        exact = _gap(job, setting, exact=True)
    except UserError as error:
        exact = {"error": str(error)}
    details = {"normal": normal, "exact": exact}
    if "error" not in exact:
        names = ("rollout_s", "scoring_s", "update_s", "seconds")
        details["exact_time_ratio"] = {n: exact[n] / normal[n] for n in names}
    group = Group(prompt=job.prompt, completions=(job.new,) * job.group)
    whole = report(
        normal["repeats"],
        setting,
        floor_s=step_floor_s(setting.spec, [group] * job.prompts),
        settings={"slots": job.rows, "tokens_per_pack": setting.tokens_per_pack},
        details=details,
    )
    return whole | {name: normal[name] for name in peak_bytes(setting.device)}


def states_fit(setting: Setting) -> bool:
    """Whether weights, gradients and optimiser states leave room for activations."""
    if setting.device.type != "cuda":
        return True
    total = torch.cuda.get_device_properties(setting.device).total_memory
    return STATE_BYTES * setting.spec.num_parameters < STATE_FRAC * total


def _gap(job: Job, setting: Setting, *, exact: bool) -> dict[str, Any]:
    model = build_model(setting)
    model.exact = exact
    if exact:
        model.rotation()  # says at once where exactness cannot be had
    engine, requests = engine_of(job, model), requests_of(job, setting)
    updater = updater_of(job, setting, model, exact=exact)

    def work(number: int) -> dict[str, float]:
        rollout_s, completions = _rollout(engine, requests, job, setting, seed=number)
        sequences = _rewarded(requests, completions, updater, seed=number)
        scoring_s, values = timed(lambda: updater.logprobs(sequences, model), setting.device)
        sampled = torch.tensor([lp for s in sequences for lp in s.rollout_logprobs])
        difference = (torch.cat(list(values)).double().cpu() - sampled.double()).abs()
        update_s, _ = _update(updater, engine, sequences, setting, step=number + 1)
        return {
            "seconds": rollout_s + update_s,
            "tokens": num_tokens(completions),
            "rollout_s": rollout_s,
            "scoring_s": scoring_s,
            "update_s": update_s,
            "mean_gap": difference.mean().item(),
            "max_gap": difference.max().item(),
        }

    repeats = repeat(work, setting)
    names = ("seconds", "rollout_s", "scoring_s", "update_s")
    return {
        "mean_gap": sum(r["mean_gap"] for r in repeats) / len(repeats),
        "max_gap": max(r["max_gap"] for r in repeats),
        **{n: median(r[n] for r in repeats) for n in names},
        **peak_bytes(setting.device),
        "repeats": repeats,
    }


def updater_of(job: Job, setting: Setting, model: Decoder, *, exact: bool = False) -> PolicyUpdater:
    config = run_config(job, setting, exact=exact)
    return PolicyUpdater(model, config, resolve(config.algo))


def _rollout(
    engine: InProcessEngine, requests: Sequence[Request], job: Job, setting: Setting, *, seed: int
) -> tuple[float, list[list[Completion]]]:
    return timed(lambda: engine.generate(requests, sampling(job), seed=seed), setting.device)


def _update(
    updater: PolicyUpdater,
    engine: InProcessEngine,
    sequences: Sequence[TrainSequence],
    setting: Setting,
    *,
    step: int,
) -> tuple[float, dict[str, float]]:
    """One update, and what the engine needs to see it."""

    def work() -> dict[str, float]:
        metrics = updater.update(sequences, step=step)
        engine.refresh()
        return metrics

    return timed(work, setting.device)


def _rewarded(
    requests: Sequence[Request],
    completions: list[list[Completion]],
    updater: PolicyUpdater,
    *,
    seed: int,
) -> list[TrainSequence]:
    """Random rewards in [0, 1), so that no group is without advantage."""
    generator = random.Random(seed)
    rewards = torch.tensor([[generator.random() for _ in row] for row in completions])
    valid = torch.ones_like(rewards, dtype=torch.bool)
    advantages = ADVANTAGES[updater.objective.advantage](rewards, valid).tolist()
    return [
        TrainSequence(
            prompt_ids=request.prompt_ids,
            completion_ids=completion.token_ids,
            rollout_logprobs=completion.logprobs,
            advantage=advantage,
        )
        for request, row, row_advantages in zip(requests, completions, advantages, strict=True)
        for completion, advantage in zip(row, row_advantages, strict=True)
    ]


def synthetic(job: Job, setting: Setting) -> list[TrainSequence]:
    """Random completions with the log-probabilities of a uniform policy."""
    vocab = setting.spec.vocab_size
    prompts = workload.prompts(job.prompts, job.prompt, vocab)
    generator = random.Random(3)
    return [
        TrainSequence(
            prompt_ids=tuple(prompt),
            completion_ids=tuple(generator.randrange(vocab) for _ in range(job.new)),
            rollout_logprobs=(-math.log(vocab),) * job.new,
            advantage=1.0 if number % 2 else -1.0,
        )
        for prompt in prompts
        for number in range(job.group)
    ]
