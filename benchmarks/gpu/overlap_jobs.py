"""Decoding few rows and training at once on one device: would it pay to train on finished groups
while the long tail of a rollout still decodes?

One rollout and one pass of gradients over ready sequences, first each alone, then both together:
training from a thread and on a stream of its own. What the two do to each other depends on who
goes first, so this is measured in several ways (`Way`). No weight changes, so that both must give
the same bits together as alone.

A pass launches more kernels than a device's queue holds, and a thread that waits for room in it may
keep the others from launching. CUDA_SCALE_LAUNCH_QUEUES=4x makes the queue long enough for all of
them: with and without it, seconds and `host_s` tell whether the chip or its queue was in the way.

Left out: who chooses the finished groups, their grading, and the optimiser's step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from jobs import Job
from measure import (
    Setting,
    build_model,
    engine_of,
    num_tokens,
    repeat,
    report,
    requests_of,
    sampling,
    timed,
)
from torch import nn
from train_jobs import GradientsOnly, synthetic, updater_of

import pellucid.train.update as update_module
from pellucid.records import Completion
from pellucid.rollout.captured import CapturedSteps
from pellucid.rollout.engine import InProcessEngine

SEED = 0
TRAINED_PROMPTS = 2
"""Times as many prompts are trained on as decoded: at 0.5B both then take about as long alone."""
PARTITION_SMS = 96
"""Multiprocessors of an H200's 132 that training is limited to in the way called partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the two share the device; without streams they only have threads of their own.

    Example: Way(name="equal", decoding=torch.cuda.Stream(), training=torch.cuda.Stream())
    """

    name: str
    decoding: torch.cuda.Stream | None = None
    training: torch.cuda.Stream | None = None
    sms: int | None = None
    """Multiprocessors that training may use; None: all."""


class Part(NamedTuple):
    """What one of the two took, and gave."""

    seconds: float
    host_s: float
    """Of decoding: in calls that replay steps, 0 where the host leads the loop. Of training: all
    but the wait once every pack is queued. Waits for the interpreter and for room in the device's
    queue are part of both: what grows here when both run is the host's doing."""
    value: Any


@dataclass(slots=True)
class Calls:
    """Calls of a function, and the seconds spent in them."""

    count: int = 0
    seconds: float = 0.0


class GradientNorm(GradientsOnly):
    """Says what the gradients were before it forgets them; weights stay as they are."""

    bits: int = 0
    """Sum of their bit patterns: the same whatever order it is added up in."""

    def step(self, learning_rate: float, *, where: str) -> float:
        """The norm of the gradients."""
        gradients = self._gradients()
        norm = nn.utils.get_total_norm(gradients)
        sums = [g.view(torch.int32).sum(dtype=torch.int64) for g in gradients]
        self.bits = int(torch.stack(sums).sum())
        self.clear_gradients()
        return float(norm)


def overlap(job: Job, setting: Setting) -> dict[str, Any]:
    """Both at once in every way that the device knows. `gain`: seconds of one after the other, by
    those of the first way, over seconds of both together, in the best way that kept all bits.
    """
    # Compilation and capture must be over before two threads launch kernels.
    setting = replace(setting, warmups=max(setting.warmups, 1))
    with ThreadPoolExecutor(max_workers=1) as trainer:
        pair = Pair(job, setting, trainer)
        plain = ways_of(setting.device)
        ways = {way.name: pair.measure(way) for way in plain}
        # The driver's interface is young: where it fails, the others are still worth having.
        try:
            way = partition(setting.device, plain[-1].decoding)
            ways[way.name], absent = pair.measure(way), None
        except (AttributeError, ImportError, RuntimeError, TypeError) as error:
            absent = f"{type(error).__name__}: {error}".partition("\n")[0]
    alone = [ways["equal"][name]["seconds"] for name in ("decode_alone", "train_alone")]
    for found in ways.values():
        found["gain"] = sum(alone) / found["both"]["seconds"]
    right = [name for name, found in ways.items() if all(found["is_same"].values())]
    best = max(right or ways, key=lambda name: ways[name]["gain"])
    return report(
        ways[best]["repeats"]["both"],
        setting,
        floor_s=None,
        settings={
            "slots": job.rows,
            "tokens_per_pack": setting.tokens_per_pack,
            **pair.trained,
            "launch_queues": os.environ.get("CUDA_SCALE_LAUNCH_QUEUES", "1x"),
        },
        details={
            "gain": ways[best]["gain"],
            "gain_at_most": sum(alone) / max(alone),
            "way": best,
            "is_same": best in right,
            "ways": ways,
            "partition_absent": absent,
        },
    )


def ways_of(device: torch.device) -> list[Way]:
    """The ways that need nothing special; in the last, decoding goes first."""
    if device.type != "cuda":
        return [Way(name="equal")]
    training = torch.cuda.Stream()
    return [
        Way(name="equal", decoding=torch.cuda.Stream(), training=training),
        Way(name="high", decoding=torch.cuda.Stream(priority=-1), training=training),
    ]


def partition(device: torch.device, decoding: torch.cuda.Stream | None) -> Way:
    """Training limited to a share of the multiprocessors by a green context, decoding to nothing.

    Raises RuntimeError where the driver cannot do it, ImportError without its bindings.
    Source: CUDA driver API, "Green Contexts".
    """
    if device.type != "cuda":
        raise RuntimeError("only CUDA has green contexts")
    from cuda.bindings import driver

    def call(name: str, *arguments: Any) -> Any:
        status, *values = getattr(driver, name)(*arguments)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{name}: {status.name}")
        return values[0] if len(values) == 1 else values

    handle = call("cuDeviceGet", torch.cuda.current_device())
    kind = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
    every = call("cuDeviceGetDevResource", handle, kind)
    groups, *_ = call("cuDevSmResourceSplitByCount", 1, every, 0, PARTITION_SMS)
    description = call("cuDevResourceGenerateDesc", groups[:1], 1)
    flags = driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
    context = call("cuGreenCtxCreate", description, handle, flags)
    is_apart = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
    stream = call("cuGreenCtxStreamCreate", context, is_apart, 0)
    training = torch.cuda.ExternalStream(int(stream))
    return Way(
        name="partition", decoding=decoding, training=training, sms=int(groups[0].sm.smCount)
    )


class Pair:
    """A rollout of few rows and a pass of gradients, both of one model."""

    def __init__(self, job: Job, setting: Setting, trainer: Executor) -> None:
        """`trainer`: one thread, always the same: libraries keep handles a thread."""
        self.job, self.setting, self.trainer = job, setting, trainer
        self.model = build_model(setting)
        self.requests = requests_of(job, setting)
        trained = replace(job, prompts=TRAINED_PROMPTS * job.prompts)
        self.sequences = synthetic(trained, setting)
        self.trained = {"trained_rows": trained.rows, "trained_tokens": trained.rows * trained.new}
        self.updater = updater_of(trained, setting, self.model)
        self.updater.optimizer = GradientNorm(self.model, self.updater.config.train)
        self._reference: dict[str, Any] = {}
        """What each gave when it first ran, alone."""

    def measure(self, way: Way) -> dict[str, Any]:
        """Each alone, then both, with steps captured for this way alone."""
        engine = engine_of(self.job, self.model)
        same: dict[str, bool] = {}

        def decode() -> Part:
            return self._decode(engine, way)

        def train() -> Part:
            return self.trainer.submit(self._train, way).result()

        def alone(name: str, part: Callable[[], Part]) -> dict[str, float]:
            seconds, found = timed(part, self.setting.device)
            self._compare(same, name, "alone", found)
            return {"seconds": seconds, "host_s": found.host_s}

        with watched(CapturedSteps, "put") as captures:
            repeats = {
                "decode_alone": repeat(lambda _: alone("decode", decode), self.setting),
                "train_alone": repeat(lambda _: alone("train", train), self.setting),
            }
        repeats["both"] = repeat(lambda _: self._both(engine, way, same), self.setting)
        engine.release()
        return {
            **{name: _medians(of) for name, of in repeats.items()},
            "is_same": same,
            "captured_steps": captures.count,
            "train_sms": way.sms,
            "repeats": repeats,
        }

    def _both(self, engine: InProcessEngine, way: Way, same: dict[str, bool]) -> dict[str, float]:
        def work() -> tuple[Part, Part]:
            training = self.trainer.submit(self._train, way)
            decoded = self._decode(engine, way)
            return decoded, training.result()

        with watched(CapturedSteps, "put") as captures:
            seconds, (decoded, trained) = timed(work, self.setting.device)
        if captures.count:
            # Whatever the other thread launches meanwhile may fall into the capture.
            raise RuntimeError(f"{captures.count} steps were captured while training ran")
        self._compare(same, "decode", "both", decoded)
        self._compare(same, "train", "both", trained)
        return {
            "seconds": seconds,
            "tokens": num_tokens(decoded.value),
            "decode_s": decoded.seconds,
            "decode_host_s": decoded.host_s,
            "train_s": trained.seconds,
            "train_host_s": trained.host_s,
        }

    def _compare(self, same: dict[str, bool], who: str, when: str, found: Part) -> None:
        """Notes whether it is what it was when it first ran, to the last bit."""
        is_same = found.value == self._reference.setdefault(who, found.value)
        same[f"{who}_{when}"] = same.get(f"{who}_{when}", True) and is_same

    def _decode(self, engine: InProcessEngine, way: Way) -> Part:
        with ExitStack() as stack:
            stack.enter_context(torch.cuda.stream(way.decoding))
            launches = Calls()
            if way.decoding is not None:
                from pellucid.rollout.resident_step import ResidentStep

                # torch captures on a stream of its own, and runs a graph's kernels with the
                # priority of the stream that they were captured on, whichever replays them.
                stack.enter_context(
                    patch.object(torch.cuda.graph, "default_capture_stream", way.decoding)
                )
                launches = stack.enter_context(watched(ResidentStep, "run"))
            start = time.perf_counter()
            completions: list[list[Completion]] = engine.generate(
                self.requests, sampling(self.job), seed=SEED
            )
            return Part(time.perf_counter() - start, launches.seconds, completions)

    def _train(self, way: Way) -> Part:
        with ExitStack() as stack:
            stack.enter_context(torch.cuda.stream(way.training))
            # The one wait of an update once all its packs are queued.
            waits = stack.enter_context(watched(update_module, "check_finite"))
            if way.sms is not None:
                from pellucid.kernels import matmul

                # A program for each multiprocessor there is: too many would queue for a second
                # turn. It changes no bit. (The sampler's head kernel keeps its number.)
                stack.enter_context(patch.object(matmul, "num_sms", lambda _: way.sms))
            start = time.perf_counter()
            metrics = self.updater.update(self.sequences, step=1)
            seconds = time.perf_counter() - start
        assert isinstance(self.updater.optimizer, GradientNorm), "it was given one"
        if not metrics["grad_norm"] > 0:
            raise RuntimeError(f"no gradient came: its norm is {metrics['grad_norm']}")
        gave = (metrics["grad_norm"], self.updater.optimizer.bits)
        return Part(seconds, seconds - waits.seconds, gave)


@contextmanager
def watched(owner: Any, name: str) -> Iterator[Calls]:
    """Counts and times the calls of `owner.name`, a function of a module or class."""
    calls, function = Calls(), getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            calls.count += 1
            calls.seconds += time.perf_counter() - start

    with patch.object(owner, name, call):
        yield calls


def _medians(repeats: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: median(r[name] for r in repeats) for name in repeats[0]}
