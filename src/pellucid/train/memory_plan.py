"""Who gets how much of a CUDA device's memory, chosen before anything is loaded onto it.

Weights, optimiser states, gradients and the reference are there all the time. On top of them come,
in turn, keys and values (rollout) and activations with logits (training). Reward models and
teachers (`beside`) bring their weights, and what scoring works on. Where both fit side by
side they stay; else keys and values give their memory back while training runs. Of the packs the
largest wins for which no block has to compute its activations again; where there is none, as few
blocks do as fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pellucid.errors import ConfigError
from pellucid.records import Request, SamplingParams
from pellucid.rollout.loop_buffers import Capacity
from pellucid.rollout.pages import NO_PAGES, PageSize
from pellucid.rollout.waves import PAGE, Layout, plan_waves, round_rows
from pellucid.train import memory_sizes as sizes
from pellucid.train.job import SCORING_PACKS, Job

GIB = 2**30
SPARE_FRAC = 0.04
"""Share of the memory left alone: blocks that torch holds but cannot use as they are cut."""
LARGEST_PACK = 16_384
"""Tokens. Matrix products gain nothing from more, and activations grow with it."""
COMFORTABLE_PACK = 8192
"""Below it matrix products slow down: rather compute activations again."""
PACK_GRAIN = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes by class, and the choices that lead to them."""

    available: int
    """What the plan may use."""
    weights: int
    states: int
    """Optimiser: master and moments."""
    gradients: int
    reference: int
    kv: int
    decoding: int
    """Loop state, results, and what a captured step works on."""
    prefill: int
    activations: int
    """What a pack keeps for its backward pass."""
    logits: int
    """Kept by the loss head for the backward pass: its `keep_bytes`."""
    head_work: int
    """What comes on top of kept logits: the head's backward pass, the reference's forward pass, or
    the comparison with a teacher over the whole vocabulary.
    """
    block_work: int
    """What the blocks' backward pass needs beside activations, when the logits are gone."""
    overhead: int
    beside: int
    """Weights of reward models or of a teacher."""
    scoring: int
    """What these work on."""
    scoring_tokens: int
    """Of a reward model's pack; 0: there is none."""
    is_scored_in_training: bool
    """By a teacher, while keys and values rest; by reward models else, beside them."""
    slots: int
    tokens_per_pack: int
    checkpointed_blocks: int
    is_time_shared: bool
    """Keys, values and gradients give their memory back when it is the other phase's turn."""
    kv_pages: int
    """0: every slot has room for the longest completion. Else `slots` are the most rows."""
    kv_limit: int
    """Bytes that keys and values may take, for evaluations with longer completions as well."""

    @property
    def resident(self) -> int:
        """What is there in both phases."""
        fixed = self.overhead + self.weights + self.states + self.reference + self.decoding
        fixed += self.beside
        return fixed + (0 if self.is_time_shared else self.gradients + self.kv)

    @property
    def rollout_peak(self) -> int:
        work = self.prefill if self.is_scored_in_training else max(self.prefill, self.scoring)
        return self.resident + work + (self.kv if self.is_time_shared else 0)

    @property
    def training_peak(self) -> int:
        gradients = self.gradients if self.is_time_shared else 0
        work = self.activations + max(self.logits + self.head_work, self.block_work)
        scoring = self.scoring if self.is_scored_in_training else 0
        return self.resident + gradients + max(work, scoring)

    @property
    def peak(self) -> int:
        return max(self.rollout_peak, self.training_peak)

    @property
    def places(self) -> str:
        """Slots, or the most rows and their pages, in words."""
        if not self.kv_pages:
            return f"{self.slots} slots"
        return f"{self.slots} rows over {self.kv_pages} pages of {PAGE} tokens"

    def summary(self) -> str:
        """One line of the choices and the peak."""
        again = self.checkpointed_blocks
        return (
            f"memory: {self.places}, packs of {self.tokens_per_pack} tokens, "
            + (f"{again} blocks compute activations again, " if again else "")
            + ("keys and values in turns with training, " if self.is_time_shared else "")
            + (f"scoring packs of {self.scoring_tokens} tokens, " if self.scoring_tokens else "")
            + f"peak {self.peak / GIB:.1f} of {self.available / GIB:.1f} GiB"
        )


def choose_plan(job: Job, free: int) -> MemoryPlan:
    """The fastest plan that fits `free` bytes.

    Raises ConfigError with one line that names what does not fit and its bytes.
    """
    available = int(free * (1 - SPARE_FRAC))
    fixed = _fixed(job, available)
    _check_fixed(job, fixed, available)
    bases = _with_scoring(job, fixed)
    for base in bases:
        for attempt in _attempts(job):
            plan = _try(job, base, attempt)
            if plan is not None:
                return plan
    raise ConfigError(_why_not(job, bases[-1]))


def _with_scoring(job: Job, base: MemoryPlan) -> list[MemoryPlan]:
    """`base` with the reward models' packs worth trying, the largest first."""
    if job.beside is None or job.beside.is_teacher:
        return [base]
    # A text longer than the pack has a pack of its own; the model feeds its end token as well.
    longest = job.prompt_tokens + job.max_new_tokens + 1
    tried = [t for t in SCORING_PACKS if t >= longest] or [longest]
    return [
        replace(base, scoring=job.beside.work(max(t, longest), 0), scoring_tokens=t)
        for t in ([job.scoring_tokens] if job.scoring_tokens else tried)
    ]


@dataclass(frozen=True, slots=True)
class _Attempt:
    tokens: int
    checkpointed: int
    is_time_shared: bool
    keeps_logits: bool


def _attempts(job: Job) -> Iterator[_Attempt]:
    """From the fastest to the smallest."""
    packs = pack_sizes(job)
    comfortable = [t for t in packs if t >= min(COMFORTABLE_PACK, packs[0])]
    for keeps_logits in (True, False):
        for is_time_shared in (False, True):
            for tokens in comfortable:
                yield _Attempt(tokens, 0, is_time_shared, keeps_logits)
    for tokens in packs[len(comfortable) - 1 :]:
        for checkpointed in range(job.spec.num_layers + 1):
            yield _Attempt(tokens, checkpointed, True, False)


def pack_sizes(job: Job) -> list[int]:
    """Tokens of a pack worth trying, the largest first."""
    if job.tokens_per_pack is not None:
        return [job.tokens_per_pack]
    least = -(-job.longest // PACK_GRAIN) * PACK_GRAIN
    needed = -(-job.step_tokens // PACK_GRAIN) * PACK_GRAIN
    found = []
    tokens = LARGEST_PACK
    while tokens > least:
        found.append(_whole_groups(job, tokens))
        tokens //= 2
    found.append(least)
    fitting = [t for t in found if t <= needed]
    # One pack for all is smaller than the next size up.
    return [needed, *fitting] if len(fitting) < len(found) and needed not in fitting else fitting


def _whole_groups(job: Job, tokens: int) -> int:
    """About so many tokens, in whole groups of the longest samples where a group is not larger:
    a pack that ends inside a group would be left partly empty."""
    group = job.prompt_tokens - 1 + job.group_size * job.max_new_tokens
    return max(round(tokens / group), 1) * group if group <= tokens else tokens


def _fixed(job: Job, available: int) -> MemoryPlan:
    spec, element = job.spec, job.element
    weights = sizes.weight_bytes(spec, element)
    return MemoryPlan(
        available=available,
        weights=weights,
        states=sizes.state_bytes(spec, element),
        gradients=sizes.gradient_bytes(spec),
        reference=weights if job.has_reference else 0,
        kv=0,
        decoding=0,
        prefill=sizes.prefill_bytes(spec, element, job.prompts * job.prompt_tokens),
        activations=0,
        logits=0,
        head_work=0,
        block_work=0,
        overhead=sizes.OVERHEAD_BYTES,
        beside=job.beside.weights if job.beside is not None else 0,
        scoring=0,
        scoring_tokens=0,
        is_scored_in_training=job.beside is not None and job.beside.is_teacher,
        slots=0,
        tokens_per_pack=0,
        checkpointed_blocks=0,
        is_time_shared=False,
        kv_pages=0,
        kv_limit=0,
    )


def _check_fixed(job: Job, base: MemoryPlan, available: int) -> None:
    """What nothing can make smaller comes first, class by class."""
    used = base.overhead
    classes = {
        "weights": base.weights,
        "optimizer states": base.states,
        "float32 gradients": base.gradients,
        "weights of the reference (algo.beta > 0)": base.reference,
        "weights of the reward models or the teacher": base.beside,
    }
    for name, need in classes.items():
        if used + need > available:
            raise ConfigError(
                _misfit(name, need, used, available, "take a smaller model or a larger GPU")
            )
        used += need


def _try(job: Job, base: MemoryPlan, attempt: _Attempt) -> MemoryPlan | None:
    """The plan of an attempt, None where it does not fit."""
    training = _with_training(job, base, attempt)
    if training.training_peak > training.available:
        return None
    used = training.rollout_peak if attempt.is_time_shared else training.peak
    plan = _with_rollout(job, training, training.available - used)
    if plan is None or plan.peak > plan.available:
        return None
    has_all_slots = plan.slots >= job.wanted_slots and not plan.kv_pages
    if not has_all_slots and not attempt.is_time_shared:
        return None  # all slots are worth taking turns
    has_all = attempt.keeps_logits or not job.has_loss_head
    return plan if has_all else _with_spare_logits(job, plan)


def _with_training(job: Job, base: MemoryPlan, attempt: _Attempt) -> MemoryPlan:
    """`base` with activations, logits and work; the loop state is estimated for all slots."""
    spec, element = job.spec, job.element
    # A sequence longer than the pack gets a pack of its own.
    tokens = max(attempt.tokens, job.longest)
    completion = job.completion_tokens(tokens)
    everything = sizes.all_logits_bytes(spec.vocab_size, completion)
    head = sizes.head_work_bytes(spec, element, completion, keeps_all=attempt.keeps_logits)
    if job.has_reference:
        chunk = sizes.FLOAT32 * spec.vocab_size * sizes.logit_rows(spec.vocab_size, completion)
        head = max(head, chunk, sizes.forward_bytes(spec, element, tokens))
    activations = sizes.activation_bytes(spec, element, tokens, attempt.checkpointed)
    if job.beside is not None and not job.has_loss_head:
        everything, head = 0, job.beside.divergence(spec, element, completion)
        activations += job.beside.kept(tokens)
    return replace(
        base,
        decoding=decoding_bytes(job, job.slots or job.num_samples),
        activations=activations,
        logits=everything if attempt.keeps_logits else 0,
        head_work=head,
        block_work=sizes.backward_bytes(spec, element, tokens, attempt.checkpointed),
        scoring=(
            job.beside.work(tokens, completion)
            if job.beside is not None and job.beside.is_teacher
            else base.scoring
        ),
        tokens_per_pack=attempt.tokens,
        checkpointed_blocks=attempt.checkpointed,
        is_time_shared=attempt.is_time_shared,
    )


def _with_spare_logits(job: Job, plan: MemoryPlan) -> MemoryPlan:
    """Keeps the logits of as many chunks as there is memory left for."""
    vocab = job.spec.vocab_size
    completion = job.completion_tokens(max(plan.tokens_per_pack, job.longest))
    chunk = sizes.FLOAT32 * vocab * sizes.logit_rows(vocab, completion)
    beside = max(plan.block_work - plan.head_work, 0)
    spare = plan.available - plan.training_peak + beside
    return replace(
        plan, logits=min(spare, sizes.all_logits_bytes(vocab, completion)) // chunk * chunk
    )


def _with_rollout(job: Job, plan: MemoryPlan, room: int) -> MemoryPlan | None:
    """`plan` with the keys and values that `room` bytes hold; None where not one sequence fits."""
    if room < sizes.kv_token_bytes(job.spec, job.element) * job.longest:
        return None
    layout = layout_of(job, room)
    wanted = job.slots
    if wanted is not None and layout.rows < job.wanted_slots:
        return None
    return replace(
        plan,
        kv=layout.size.num_bytes(job.spec, job.element),
        slots=min(layout.rows, round_rows(job.num_samples)) if wanted is None else wanted,
        kv_pages=layout.pages.total,
        kv_limit=room,
        decoding=decoding_bytes(job, layout.rows, layout.pages),
    )


def layout_of(job: Job, room: int) -> Layout:
    """How the engine will use `room` bytes for keys and values."""
    prompt = (0,) * job.prompt_tokens
    requests = [
        Request(prompt_ids=prompt, sample_ids=tuple(range(job.group_size)))
        for _ in range(job.prompts)
    ]
    params = SamplingParams(max_new_tokens=job.max_new_tokens)
    slots = job.slots or job.num_samples
    return plan_waves(
        requests, params, job.spec, slots=slots, budget=room, element_size=job.element
    )


def decoding_bytes(job: Job, slots: int, pages: PageSize = NO_PAGES) -> int:
    rows = min(slots, job.num_samples)
    capacity = Capacity(
        slots=slots,
        samples=job.num_samples,
        prompts=job.prompts,
        new_tokens=job.max_new_tokens,
        vocab=job.spec.vocab_size,
        stop_states=0,
        pages=pages,
    )
    step = sizes.decode_bytes(job.spec, job.element, rows, job.prompt_tokens)
    return sizes.loop_bytes(capacity) + step


def _why_not(job: Job, base: MemoryPlan) -> str:
    """The line for a job whose model fits but whose work does not: the smallest attempt's."""
    smallest = _Attempt(pack_sizes(job)[-1], job.spec.num_layers, True, False)
    plan = _with_training(job, base, smallest)
    if plan.training_peak > plan.available:
        need = plan.activations + max(plan.logits + plan.head_work, plan.block_work)
        return _misfit(
            f"activations of {max(smallest.tokens, job.longest)} tokens",
            need,
            plan.training_peak - need,
            plan.available,
            "lower rollout.max_new_tokens"
            if job.tokens_per_pack is None or job.tokens_per_pack <= job.longest
            else 'lower train.tokens_per_pack, or set it to "auto"',
        )
    token = sizes.kv_token_bytes(job.spec, job.element)
    used = plan.rollout_peak
    if job.slots is None:
        what, need = "keys and values of one sequence", token * job.longest
        remedy = "lower rollout.max_new_tokens"
    else:
        slots = job.wanted_slots
        what = f"keys and values of {slots} slots, {PAGE} tokens each at first,"
        least = min(job.max_new_tokens, PAGE)
        need = token * (slots * least + job.prompts * job.prompt_tokens)
        remedy = 'lower rollout.slots, or set it to "auto"'
    return _misfit(what, need, used, plan.available, remedy)


def _misfit(what: str, need: int, used: int, available: int, remedy: str) -> str:
    return (
        f"{what} need {need / GIB:.1f} GiB beside {used / GIB:.1f} GiB of what comes first, "
        f"{max(available - used, 0) / GIB:.1f} of {available / GIB:.1f} GiB are free: {remedy}"
    )
