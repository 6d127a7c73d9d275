"""How long a GRPO step will take: the larger of bytes and arithmetic, over what is reached of them.

Grading, host work and the first steps, which compile and capture, are not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pellucid.rollout.waves import PAGE, round_rows
from pellucid.train import memory_sizes as sizes
from pellucid.train.job import Job
from pellucid.train.memory_plan import MemoryPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePeaks:
    """What a device reaches on large copies and products, measured, not of its data sheet."""

    name: str
    flops: float
    """bfloat16 operations a second."""
    bytes_per_s: float
    memory: int
    """Bytes free on an empty device."""
    has_rollout_kernels: bool = True
    """Hopper and later: `kernels.available.hopper_ready`."""


PEAKS = (
    DevicePeaks(name="H200", flops=790e12, bytes_per_s=4.3e12, memory=139 * 2**30),
    DevicePeaks(name="H100", flops=790e12, bytes_per_s=3.0e12, memory=79 * 2**30),
    DevicePeaks(
        name="A100", flops=260e12, bytes_per_s=1.75e12, memory=79 * 2**30, has_rollout_kernels=False
    ),
    DevicePeaks(
        name="4090", flops=160e12, bytes_per_s=0.92e12, memory=23 * 2**30, has_rollout_kernels=False
    ),
)
"""The H200 as measured; the others by the shares of their data sheets that it reached."""

SMALL, MIDDLE = 1.0e9, 3.0e9
"""Parameters where a size class ends."""
DECODE_EFFICIENCY = (0.46, 0.54, 0.65)
"""Share of the floor that the kernels of decoding reach, for small, middle and large models."""
LAYER_S = (24e-6, 34e-6, 0.0)
"""What a layer of a decoding step takes beside that, however few rows there are: launches, and the
first and last of each kernel's work. In large models it hides behind their weights. Both fitted to
the rollouts in benchmarks/results, 64 to 1,024 rows on an H200."""
TRAINING_MFU = (0.53, 0.65, 0.55)
"""Fitted to `planned-*` in benchmarks/results. A large model's packs are small, as its states leave
little memory."""
PREFILL_MFU = (0.35, 0.45, 0.55)
SECTIONS = 64
"""Into so many parts of equal length a rollout is cut for the sum of its steps."""
SHARED_READS = 16
"""Rows of a group that read their prompt's keys and values together."""
OPTIMIZER_BYTES = 32
"""Read and written per parameter by clipping, AdamW and the copy to the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of a step's parts."""

    prefill_s: float
    decode_s: float
    training_s: float
    optimizer_s: float
    scoring_s: float = 0.0
    """By reward models, where they score every response, or by a teacher."""

    @property
    def step_s(self) -> float:
        parts = self.prefill_s + self.decode_s + self.training_s + self.optimizer_s
        return parts + self.scoring_s


def peaks_of(device_name: str) -> DevicePeaks | None:
    """The known device whose name occurs in this one."""
    for peaks in PEAKS:
        if peaks.name.lower() in device_name.lower():
            return peaks
    return None


def predict(job: Job, plan: MemoryPlan, peaks: DevicePeaks, mean_length: float) -> StepTime:
    """The time of a step whose completions have `mean_length` tokens on average."""
    size = _size_class(job.spec.num_parameters)
    body = job.prompts * (job.prompt_tokens - 1)
    generated = job.num_samples * mean_length
    return StepTime(
        prefill_s=_forward_flops(job, body, 0, job.prompt_tokens / 2)
        / (peaks.flops * PREFILL_MFU[size]),
        decode_s=_decode_s(job, plan, peaks, mean_length),
        training_s=_training_flops(job, plan, body + generated, generated, mean_length)
        / (peaks.flops * TRAINING_MFU[size]),
        optimizer_s=job.minibatches * OPTIMIZER_BYTES * job.spec.num_parameters / peaks.bytes_per_s,
        scoring_s=_scoring_s(job, peaks, body, generated, mean_length),
    )


def _scoring_s(
    job: Job, peaks: DevicePeaks, body: float, generated: float, mean_length: float
) -> float:
    """A response has one reward model at most, the largest here; a teacher scores every token, and
    so does the student.
    """
    if job.beside is None:
        return 0.0
    scored = generated if job.beside.is_teacher else 0.0
    context = job.prompt_tokens - 1 + mean_length / 2
    specs = job.beside.specs + ((job.spec,) if job.beside.is_teacher else ())
    seconds = [
        _forward_flops(replace(job, spec=spec), body + generated, scored, context)
        / (peaks.flops * PREFILL_MFU[_size_class(spec.num_parameters)])
        for spec in specs
    ]
    return sum(seconds) if job.beside.is_teacher else max(seconds)


def _decode_s(job: Job, plan: MemoryPlan, peaks: DevicePeaks, mean_length: float) -> float:
    """All steps. While samples wait all slots are busy, or as many as pages hold; then rows end one
    by one."""
    slots = max(min(plan.slots, job.num_samples), 1)
    if plan.kv_pages:
        slots = max(min(slots, plan.kv_pages // math.ceil(mean_length / PAGE)), 1)
    full_steps = (job.num_samples - slots) * mean_length / slots
    span = job.max_new_tokens / SECTIONS
    decay = _decay(job.max_new_tokens, mean_length)
    seconds = full_steps * _step_s(job, peaks, slots, _mean_age(job.max_new_tokens, decay))
    for section in range(SECTIONS):
        own = (section + 0.5) * span
        live = slots * math.exp(-decay * own)
        rows = min(round_rows(math.ceil(live)), slots)
        seconds += span * _step_s(job, peaks, rows, own)
    return seconds


def _step_s(job: Job, peaks: DevicePeaks, rows: float, own: float) -> float:
    size = _size_class(job.spec.num_parameters)
    floor_s = _step_floor_s(job, peaks, rows, own)
    return floor_s / DECODE_EFFICIENCY[size] + LAYER_S[size] * job.spec.num_layers


def _decay(longest: int, mean: float) -> float:
    """Rate at which samples end, so that the mean of lengths cut at `longest` comes out."""
    if mean >= longest:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        found = (1 - math.exp(-rate * longest)) / rate
        low, high = (rate, high) if found > mean else (low, rate)
    return (low + high) / 2


def _mean_age(longest: int, decay: float) -> float:
    """Tokens that a row has generated on average while samples wait: those that last long are seen
    for long."""
    owns = [(section + 0.5) * longest / SECTIONS for section in range(SECTIONS)]
    shares = [math.exp(-decay * own) for own in owns]
    return sum(own * share for own, share in zip(owns, shares, strict=True)) / sum(shares)


def _step_floor_s(job: Job, peaks: DevicePeaks, rows: float, own: float) -> float:
    """One step of so many rows that have generated `own` tokens each."""
    spec, body = job.spec, job.prompt_tokens - 1
    token = sizes.kv_token_bytes(spec, job.element)
    groups = rows / min(job.group_size, SHARED_READS)
    bytes_read = _matrix_parameters(job) * job.element + token * (rows * own + groups * body)
    flops = _forward_flops(job, rows, rows, own + body)
    return max(bytes_read / peaks.bytes_per_s, flops / peaks.flops)


def _matrix_parameters(job: Job) -> int:
    """All that a token is multiplied with: an embedding of its own is only looked up."""
    spec = job.spec
    return spec.num_parameters - (0 if spec.is_head_tied else spec.vocab_size * spec.width)


def _forward_flops(job: Job, tokens: float, scored: float, context: float) -> float:
    """`tokens` through the blocks, each attending to `context` positions, `scored` through the
    head."""
    spec = job.spec
    head = spec.vocab_size * spec.width
    attention = 4 * spec.num_layers * spec.num_heads * spec.head_dim * context
    return tokens * (2 * (_matrix_parameters(job) - head) + attention) + 2 * scored * head


def _training_flops(
    job: Job, plan: MemoryPlan, fed: float, completion: float, mean_length: float
) -> float:
    """Forward and twice as much backward, and all passes beside them."""
    context = job.prompt_tokens - 1 + mean_length / 2
    forward = _forward_flops(job, fed, completion, context)
    blocks = _forward_flops(job, fed, 0, context)
    scores_before = job.minibatches > 1 and job.recomputes_old
    passes = 3.0 + (1.0 if job.has_reference else 0.0) + (1.0 if scores_before else 0.0)
    return passes * forward + blocks * plan.checkpointed_blocks / job.spec.num_layers


def _size_class(parameters: int) -> int:
    return 0 if parameters < SMALL else 1 if parameters < MIDDLE else 2
