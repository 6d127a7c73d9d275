"""Memory of what a pipeline does beside reinforcement learning: sampling alone, and fine-tuning.

A `MemoryPlan` like that of `choose_plan`, what does not occur being 0. Nothing is chosen here: the
sampler takes what memory there is, and a fine-tuning has the packs of its recipe.
"""

from __future__ import annotations

from dataclasses import replace

from pellucid.algo.head import CUDA_KEEP_BYTES, CUDA_KEEP_SHARE
from pellucid.errors import ConfigError
from pellucid.model.spec import ModelSpec
from pellucid.rollout.memory import KV_MEMORY_FRAC
from pellucid.train import memory_sizes as sizes
from pellucid.train.job import Job
from pellucid.train.memory_plan import GIB, SPARE_FRAC, MemoryPlan, decoding_bytes, layout_of


def sampling_plan(job: Job, free: int) -> MemoryPlan:
    """A model that draws the samples of `job` and learns nothing.

    Raises ConfigError where not one sequence fits.
    """
    plan = replace(
        _only_weights(job.spec, job.element, free),
        prefill=sizes.prefill_bytes(job.spec, job.element, job.prompts * job.prompt_tokens),
        decoding=decoding_bytes(job, job.slots or job.num_samples),
    )
    room = int(KV_MEMORY_FRAC * (free - plan.rollout_peak))
    need = sizes.kv_token_bytes(job.spec, job.element) * job.longest
    if room < need:
        raise ConfigError(
            f"keys and values of one sequence need {need / GIB:.1f} GiB, "
            f"{max(room, 0) / GIB:.1f} are free: lower max_new_tokens"
        )
    layout = layout_of(job, room)
    return replace(
        plan,
        kv=layout.size.num_bytes(job.spec, job.element),
        kv_limit=room,
        slots=layout.rows,
        kv_pages=layout.pages.total,
    )


def tuning_plan(job: Job, free: int, tokens_per_pack: int, *, has_logits: bool) -> MemoryPlan:
    """A model that learns texts as long as those of `job`: with `has_logits` tokens, else a number
    for each text. Raises ConfigError where the packs do not fit.
    """
    spec, element = job.spec, job.element
    tokens = max(tokens_per_pack, job.longest)
    plan = replace(
        _only_weights(spec, element, free),
        states=sizes.state_bytes(spec, element),
        gradients=sizes.gradient_bytes(spec),
        activations=sizes.activation_bytes(spec, element, tokens, 0),
        block_work=sizes.backward_bytes(spec, element, tokens, 0),
        tokens_per_pack=tokens_per_pack,
    )
    if has_logits:
        plan = _with_logits(job, plan, job.completion_tokens(tokens), free)
    if plan.training_peak > plan.available:
        raise ConfigError(
            f"packs of {tokens} tokens need {plan.training_peak / GIB:.1f} of "
            f"{plan.available / GIB:.1f} GiB: lower tokens_per_pack or max_new_tokens, or take a "
            "larger GPU"
        )
    return plan


def _with_logits(job: Job, plan: MemoryPlan, completion: int, free: int) -> MemoryPlan:
    """As many logits kept as the head keeps where nobody planned for it."""
    vocab = job.spec.vocab_size
    everything = sizes.all_logits_bytes(vocab, completion)
    left = max(free - plan.resident - plan.activations, 0)
    limit = min(CUDA_KEEP_BYTES, int(CUDA_KEEP_SHARE * left))
    chunk = sizes.FLOAT32 * vocab * sizes.logit_rows(vocab, completion)
    keeps_all = everything <= limit
    return replace(
        plan,
        logits=everything if keeps_all else limit // chunk * chunk,
        head_work=sizes.head_work_bytes(job.spec, job.element, completion, keeps_all=keeps_all),
    )


def _only_weights(spec: ModelSpec, element: int, free: int) -> MemoryPlan:
    return MemoryPlan(
        available=int(free * (1 - SPARE_FRAC)),
        weights=sizes.weight_bytes(spec, element),
        states=0,
        gradients=0,
        reference=0,
        kv=0,
        decoding=0,
        prefill=0,
        activations=0,
        logits=0,
        head_work=0,
        block_work=0,
        overhead=sizes.OVERHEAD_BYTES,
        beside=0,
        scoring=0,
        scoring_tokens=0,
        is_scored_in_training=False,
        slots=0,
        tokens_per_pack=0,
        checkpointed_blocks=0,
        is_time_shared=False,
        kv_pages=0,
        kv_limit=0,
    )
