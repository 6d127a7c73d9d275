"""Training whose blocks torch.compile has fused, beside the kernels fused by hand.

A compiled block is two graphs with the project's own attention between them, which nothing could be
fused with. Embedding, final norm, head, loss and optimiser are the same throughout. Packs are of
one fixed size, so that nothing is compiled twice.

Shapes: T tokens, D width, N heads of the fused projection, K head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from floor import (
    FLOPS_PER_S,
    TRAINING_FORMULA,
    Group,
    training_counts,
    training_floor_s,
    training_flops,
)
from jobs import Job
from measure import Setting, build_model, forget_peak, peak_bytes, repeat, report, timed
from torch import Tensor
from train_jobs import synthetic, updater_of

from pellucid.algo.head import CUDA_KEEP_BYTES
from pellucid.errors import UserError
from pellucid.model.ops import PLAIN
from pellucid.model.rope import Rotation
from pellucid.model.shared_attention import SharedPromptAttention
from pellucid.model.shortage import shortage
from pellucid.model.transformer import Block, Decoder
from pellucid.train.optimizer import Optimizer
from pellucid.train.packing import TrainSequence

Prepare = Callable[[Decoder], None]
COMPARED = ("grad_norm", "entropy", "mismatch")
"""Of the first update. `mismatch` is the distance of its log-probabilities from the given ones."""
FIRST_BLOCK = "blocks.0."
"""Its gradients have come through all other blocks."""


def compiled(job: Job, setting: Setting, backend: str = "inductor") -> dict[str, Any]:
    """The updates of `train`, by each way of computing the blocks; the record's own figures are
    those of the compiled blocks.

    `fused`: the project's kernels. `exact`: those of the exact mode. `plain`: torch, one operation
    at a time. A way that memory or device do not allow is recorded with its error, unless it is one
    of the two that are compared.
    """
    setting = replace(setting, tokens_per_pack=fixed_pack(job, setting.tokens_per_pack))
    mode = "max-autotune-no-cudagraphs" if job.has_autotune else "default"
    ways = _ways(job, setting, partial(compile_blocks, backend=backend, mode=mode))
    groups = [Group(prompt=job.prompt, completions=(job.new,) * job.group)] * job.prompts
    counts = training_counts(groups, shares_prompts=True)
    flops = training_flops(setting.spec, counts)
    for way in ways.values():
        if "error" not in way:
            way["mfu"] = flops / way["seconds"] / FLOPS_PER_S
            way["fed_tokens_per_s"] = counts.fed / way["seconds"]
    ours = ways["compiled"]
    whole = report(
        ours["repeats"],
        setting,
        floor_s=training_floor_s(setting.spec, counts),
        settings={
            "tokens_per_pack": setting.tokens_per_pack,
            "packs": counts.fed // setting.tokens_per_pack,
            "backend": backend,
            "mode": mode,
        },
        details={
            "mfu": ours["mfu"],
            "formula": TRAINING_FORMULA,
            "flops": flops,
            "fed_tokens_per_s": ours["fed_tokens_per_s"],
            "gain": ways["fused"]["seconds"] / ours["seconds"],
            "ways": ways,
        },
    )
    return whole | {name: ours[name] for name in peak_bytes(setting.device)}


def _ways(job: Job, setting: Setting, compile_: Prepare) -> dict[str, dict[str, Any]]:
    measure = partial(_measure, job, setting, synthetic(job, setting))
    fused, reference = measure(_leave)
    way, gradients = measure(compile_)
    ways = {"fused": fused, "compiled": way | _difference(way, fused, gradients, reference)}
    for name, prepare in () if job.has_autotune else (("exact", _be_exact), ("plain", _be_plain)):
        try:
            way, gradients = measure(prepare)
            ways[name] = way | _difference(way, fused, gradients, reference)
        except UserError as error:
            ways[name] = {"error": str(error)}
        except torch.OutOfMemoryError as error:
            ways[name] = {"error": shortage(error)}
    return ways


def fixed_pack(job: Job, about: int) -> int:
    """Tokens of a pack near `about` that whole groups fill, as many in each pack."""
    group = job.prompt - 1 + job.group * job.new
    most = max(round(about / group), 1)
    return group * max(n for n in range(1, most + 1) if job.prompts % n == 0)


def compile_blocks(model: Decoder, *, backend: str = "inductor", mode: str = "default") -> None:
    """Makes the blocks of a model without QK-norm compute by torch's own operations, compiled."""
    assert not model.spec.has_qk_norm, "the benchmarks' shapes have no QK-norm"
    torch.compiler.reset()
    how: dict[str, Any] = {"dynamic": False, "fullgraph": True, "backend": backend, "mode": mode}
    before, after = torch.compile(_before, **how), torch.compile(_after, **how)
    for block in model.blocks:
        assert isinstance(block, Block), "a decoder is made of these"
        block.forward = partial(_forward, before, after, block)  # type: ignore[method-assign]


def _forward(
    before: Callable[..., tuple[Tensor, Tensor]],
    after: Callable[..., tuple[Tensor, Tensor]],
    block: Block,
    x: Tensor,
    delta: Tensor | None,
    layer: int,
    attend: SharedPromptAttention,
    rotation: Rotation,
) -> tuple[Tensor, Tensor]:
    """As `Block.forward`."""
    s = block.attention.spec
    x, heads = before(block, x, delta, rotation.table, attend.positions)
    q, k, v = heads.split([s.num_heads, s.num_kv_heads, s.num_kv_heads], dim=1)
    return after(block, x, attend.attend(q, k, v))


def _before(
    block: Block, x: Tensor, delta: Tensor | None, table: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Residual stream [T, D] and rotated heads [T, N, K]."""
    s = block.attention.spec
    x, h = PLAIN.add_norm(x, delta, block.attention_norm.weight, s.norm_eps)
    heads = block.attention.qkv(h).view(x.shape[0], -1, s.head_dim)
    return x, PLAIN.rotate(heads, s.num_heads + s.num_kv_heads, table, positions)


def _after(block: Block, x: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
    """Residual stream and what the feed-forward adds to it, both [T, D]."""
    written, eps = block.attention.out(attended), block.attention.spec.norm_eps
    x, h = PLAIN.add_norm(x, written, block.mlp_norm.weight, eps)
    return x, block.mlp(h, PLAIN)


def _leave(model: Decoder) -> None:
    """The fastest kernels that the device has."""


def _be_exact(model: Decoder) -> None:
    model.exact = True
    model.rotation()  # says at once where exactness cannot be had


def _be_plain(model: Decoder) -> None:
    model.ops = PLAIN


def _measure(
    job: Job, setting: Setting, sequences: Sequence[TrainSequence], prepare: Prepare
) -> tuple[dict[str, Any], Tensor]:
    """Updates of a new model, and the first block's gradient in the first of them.

    `graphs_later` is 0 unless something is compiled again; memory is that of the later updates, as
    compilers try kernels out in the first.
    """
    forget_peak(setting.device)
    model = build_model(replace(setting, is_exact=False))
    prepare(model)
    updater = updater_of(job, setting, model, exact=model.exact)
    # What is free would decide otherwise, and give a smaller way the faster head as well.
    updater.keep_bytes = CUDA_KEEP_BYTES
    gradients = _FirstGradients(updater.optimizer)
    updates: list[tuple[float, dict[str, float]]] = []
    counted = [_graphs_and_breaks()]

    def work(number: int) -> dict[str, float]:
        update = partial(updater.update, sequences, step=number + 1)
        seconds, metrics = timed(update, setting.device)
        updates.append((seconds, metrics))
        counted.append(_graphs_and_breaks())
        if len(updates) == 1 and setting.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(setting.device)
        return {"seconds": seconds, "tokens": job.rows * job.new}

    repeats = repeat(work, setting)
    seconds = median(r["seconds"] for r in repeats)
    first_s, metrics = updates[0]
    way = {
        "seconds": seconds,
        "compile_s": first_s - seconds,
        "graphs": counted[1][0] - counted[0][0],
        "graphs_later": counted[-1][0] - counted[1][0],
        "graph_breaks": counted[-1][1] - counted[0][1],
        "first_update": {name: metrics[name] for name in ("loss", *COMPARED)},
        **peak_bytes(setting.device),
        "repeats": repeats,
    }
    return way, gradients.flat


def _graphs_and_breaks() -> tuple[int, int]:
    """Compiled so far in this process."""
    # Late: it loads the compiler, which the processes of other jobs do without.
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], counters["graph_break"].total()


class _FirstGradients:
    """Keeps what the first step of an optimiser is given for the first block."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.flat = torch.empty(0)
        self._masters = optimizer.masters
        optimizer.adam.register_step_pre_hook(self._keep)

    def _keep(self, *_: Any) -> None:
        if not len(self.flat):
            kept = [m.grad for name, m in self._masters.items() if name.startswith(FIRST_BLOCK)]
            self.flat = torch.cat([g.flatten() for g in kept if g is not None]).cpu()


def _difference(
    way: dict[str, Any], fused: dict[str, Any], gradients: Tensor, reference: Tensor
) -> dict[str, Any]:
    """How far the first update is from that of the hand-fused kernels; relative but for the loss,
    which is a sum of about 0."""
    mine, theirs = way["first_update"], fused["first_update"]
    error = (gradients - reference).norm() / reference.norm()
    return {
        "difference": {
            "loss": mine["loss"] - theirs["loss"],
            **{name: mine[name] / theirs[name] - 1.0 for name in COMPARED},
            "first_block_gradient": error.item(),
        }
    }
