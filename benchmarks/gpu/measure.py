"""Building a model, timing work, and putting together what one job reports."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import torch
import workload
from floor import Group
from jobs import Job
from power import ChipWatch
from shapes import EOS_IDS
from torch import nn

from pellucid.config import AlgoConfig, RolloutConfig, RunConfig, TrainConfig
from pellucid.errors import UserError
from pellucid.kernels.available import hopper_ready
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder
from pellucid.records import Completion, Request, SamplingParams, sample_id
from pellucid.rollout.engine import InProcessEngine

T = TypeVar("T")

TOKENS_PER_PACK = {"0.5b": 32768, "1.5b": 16384, "7b": 8192, "tiny": 64}
"""About 30 GB of activations in one pass without recomputation."""
ENOUGH_REPEATS = 3
"""Of a job whose time is limited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a job is run, whatever it is."""

    device: torch.device
    spec: ModelSpec
    repeats: int
    warmups: int
    tokens_per_pack: int
    job_seconds: float = float("inf")
    """After so many seconds three repeats are enough."""
    is_exact: bool = True
    """As a recipe does unless it says otherwise, where the device can."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32


class NumberTokenizer:
    """Stands in for a tokenizer. Decoding is left out, as the peers are told to leave it out."""

    chat_template = None

    def __init__(self, eos_ids: tuple[int, ...] = ()) -> None:
        self.eos_ids = eos_ids

    def encode(self, text: str) -> list[int]:
        return [len(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return ""

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [""] * len(rows)


def build_model(setting: Setting) -> Decoder:
    """Random weights, made on the device: normal(0, 0.02) as in transformers; biases 0, norms 1."""
    with torch.device(setting.device):
        model = Decoder(setting.spec)
    model.to(setting.dtype)
    generator = torch.Generator(setting.device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    can_be_exact = setting.dtype is torch.bfloat16 and hopper_ready(setting.device)
    model.exact = setting.is_exact and can_be_exact
    forget_peak(setting.device)
    return model


def forget_peak(device: torch.device) -> None:
    """Gives back what nobody holds; the next peak is measured from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def run_config(job: Job, setting: Setting, *, exact: bool = False) -> RunConfig:
    """β = 0, one update a rollout."""
    # Where the configuration has no such field the model's own switch decides alone.
    more: dict[str, Any] = {"exact": True} if exact and "exact" in RunConfig.model_fields else {}
    return RunConfig(
        dtype="bfloat16" if setting.dtype is torch.bfloat16 else "float32",
        rollout=RolloutConfig(
            prompts=job.prompts,
            group_size=max(job.group, 2),
            max_new_tokens=job.new,
            slots=job.rows,
        ),
        algo=AlgoConfig(beta=0.0),
        train=TrainConfig(steps=1000, tokens_per_pack=setting.tokens_per_pack),
        **more,
    )


def requests_of(job: Job, setting: Setting, limits: Sequence[int] | None = None) -> list[Request]:
    """The job's prompts, with the most new tokens of each sample where they differ."""
    more: list[dict[str, Any]] = [{} for _ in range(job.prompts)]
    if limits is not None:
        if "limits" not in Request.__dataclass_fields__:
            raise UserError("Request.limits is missing: this version has one limit for all samples")
        more = [
            {"limits": tuple(limits[p * job.group : (p + 1) * job.group])}
            for p in range(job.prompts)
        ]
    ids = workload.prompts(job.prompts, job.prompt, setting.spec.vocab_size)
    return [
        Request(
            prompt_ids=tuple(ids[p]),
            sample_ids=tuple(sample_id("benchmark", p, k) for k in range(job.group)),
            **more[p],
        )
        for p in range(job.prompts)
    ]


def engine_of(job: Job, model: Decoder) -> InProcessEngine:
    """Stops at real end tokens in the mixed job; elsewhere lengths are fixed and no token ends."""
    eos = tuple(i for i in EOS_IDS if i < model.spec.vocab_size) if job.is_mixed else ()
    return InProcessEngine(model, NumberTokenizer(eos), slots=job.rows, drafts=job.drafts)


def sampling(job: Job) -> SamplingParams:
    return SamplingParams(temperature=1.0, max_new_tokens=job.new)


def groups_of(requests: Sequence[Request], completions: list[list[Completion]]) -> list[Group]:
    """What was sampled, for the floor."""
    return [
        Group(prompt=len(r.prompt_ids), completions=tuple(len(c.token_ids) for c in row))
        for r, row in zip(requests, completions, strict=True)
    ]


def num_tokens(completions: list[list[Completion]]) -> int:
    return sum(len(c.token_ids) for row in completions for c in row)


def repeat(work: Callable[[int], dict[str, float]], setting: Setting) -> list[dict[str, float]]:
    """What `work` reports of each repeat after the warm-ups, and the chip's clock and power in it;
    it is given a number of its own."""
    repeats: list[dict[str, float]] = []
    with ChipWatch() as watch:
        for number in range(setting.warmups):
            work(number)
        start = time.perf_counter()
        for number in range(setting.repeats):
            begin = time.perf_counter()
            if begin - start > setting.job_seconds and number >= ENOUGH_REPEATS:
                break
            found = work(setting.warmups + number)
            repeats.append(found | watch.between(begin, time.perf_counter()))
    return repeats


def timed(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Seconds until the device has finished, and what the work returned."""
    synchronize(device)
    start = time.perf_counter()
    value = work()
    synchronize(device)
    return time.perf_counter() - start, value


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> dict[str, int | None]:
    """Most memory since the model was built, the model included."""
    if device.type != "cuda":
        return {"peak_allocated_bytes": None, "peak_reserved_bytes": None}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
    }


def report(
    repeats: list[dict[str, float]],
    setting: Setting,
    *,
    floor_s: float | None,
    settings: dict[str, Any],
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the JSON says of a job: every repeat, medians, share of the floor, memory."""
    seconds = median(r["seconds"] for r in repeats)
    return {
        "repeats": repeats,
        "median_s": seconds,
        "tokens_per_s": median(r["tokens"] / r["seconds"] for r in repeats),
        "floor_s": floor_s,
        "share_of_floor": None if floor_s is None else floor_s / seconds,
        **peak_bytes(setting.device),
        "settings": {"warmups": setting.warmups, **settings},
        "details": details or {},
    }
