"""One decoding step that needs no host: model, head, draw, stops, refill, all on the device.

Captured once per shape as a CUDA graph and replayed; nothing of it changes between replays but what
lies in its tensors. Shapes: S slots, B rows decoded (the first rows), H query heads, J key/value
heads, K head dimension.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Protocol

import torch
from torch import Tensor

from pellucid.algo.head import float32_logits
from pellucid.kernels.attention import KeySource, attend_rows
from pellucid.kernels.attention_alone import attend_alone, reads_alone
from pellucid.kernels.attention_few import FEW_ROWS, attend_few
from pellucid.kernels.attention_step import StepRows
from pellucid.kernels.bookkeeping import advance
from pellucid.kernels.drafts import accept, propose
from pellucid.kernels.head_sample import HeadSampler
from pellucid.kernels.rope import rotate_append
from pellucid.model.rope import Rotation
from pellucid.model.transformer import Decoder
from pellucid.records import SamplingParams
from pellucid.rollout.arena import ArenaSize, KVArena, KVStore
from pellucid.rollout.captured import CapturedSteps, StepShape, give_up_capture
from pellucid.rollout.drafts import DraftRows
from pellucid.rollout.loop_buffers import Capacity
from pellucid.rollout.loop_state import LoopState
from pellucid.rollout.pages import Pages
from pellucid.rollout.sampling import BLOCK, Sampler


class Draw(Protocol):
    """hidden [B, D] and uniforms [B] -> tokens [B] int64 and log-probabilities [B] float32."""

    def __call__(self, hidden: Tensor, u: Tensor) -> tuple[Tensor, Tensor]: ...


class ResidentStep:
    """The step, the arena and the state it works on, and the shapes captured so far, for one way of
    sampling."""

    def __init__(
        self,
        model: Decoder,
        params: SamplingParams,
        size: ArenaSize,
        capacity: Capacity,
        store: KVStore,
    ) -> None:
        """`store`: where keys and values lie; other steps may use it in turns with this one."""
        weight = model.head.weight.detach()
        self.model, self.params = model, params
        self.device = weight.device
        self.arena = KVArena(model.spec, size, weight.dtype, store)
        self.state = LoopState.sized(capacity, weight.device)
        self.drafts = DraftRows.create(weight.device)
        widest = max(capacity.slots, len(self.drafts.token))
        self.draw, can_capture = new_draw(weight, params, widest)
        # Truncation takes float32 logits, and weights of the same size.
        a_row = 8 * len(weight) if is_truncated(params) else 8 * len(weight) // BLOCK
        self._draw_bytes = widest * a_row
        self.captured = CapturedSteps()
        self._weights = _addresses(model)
        self._can_capture = self.device.type == "cuda" and can_capture
        self._exact = model.exact

    def fits(
        self,
        model: Decoder,
        params: SamplingParams,
        size: ArenaSize,
        capacity: Capacity,
    ) -> bool:
        """Whether this step, with what it has captured, can serve another call."""
        mine, theirs = ((p.temperature, p.top_k, p.top_p) for p in (self.params, params))
        is_same = model is self.model and model.exact == self._exact and mine == theirs
        return (
            is_same
            and self._weights == _addresses(model)
            and self.state.capacity.holds(capacity)
            and self.arena.fits(size, model.head.weight)
        )

    @property
    def num_bytes(self) -> int:
        """What it holds beside keys and values: the loop's state and what it draws with."""
        state = sum(
            getattr(self.state, f.name).nbytes
            for f in fields(self.state)
            if isinstance(getattr(self.state, f.name), Tensor)
        )
        pages = () if self.state.pages is None else self.state.pages.volatile
        return state + sum(tensor.nbytes for tensor in pages) + self._draw_bytes

    def run(self, shape: StepShape, num_steps: int) -> None:
        """Advances all live rows by `num_steps` tokens, or more where drafts come true, without
        waiting for the device."""
        graph = self._graph(shape) if self._can_capture else None
        for _ in range(num_steps):
            if graph is not None:
                graph.replay()
            else:
                self._step(shape)

    def _step(self, shape: StepShape) -> None:
        state, rows = self.state, shape.rows
        if not shape.drafts:
            tokens, logprobs = self._draws(state, shape)
            advance(state, tokens, logprobs, rows)
            return
        propose(state, self.drafts, rows, shape.drafts)
        each = shape.drafts + 1
        wide = shape._replace(rows=rows * each, siblings=shape.siblings * each)
        tokens, logprobs = self._draws(self.drafts, wide)
        accept(state, self.drafts, tokens, logprobs, rows, shape.drafts)

    def _draws(self, fed: LoopState | DraftRows, shape: StepShape) -> tuple[Tensor, Tensor]:
        """A token and its log-probability for each row fed."""
        attend = SlotAttention(self.arena, fed, shape, self.state.pages)
        hidden = self.model(fed.token[: shape.rows], attend)
        return self.draw(hidden, fed.uniform[: shape.rows])

    def _graph(self, shape: StepShape) -> torch.cuda.CUDAGraph | None:
        """The captured step; None, for good, where capture fails. Raises torch.OutOfMemoryError."""
        table = self.model.rotation().table
        found = self.captured.find(shape, table)
        if found is not None:
            return found
        graph = torch.cuda.CUDAGraph()
        # Kernels are compiled and libraries set up by a step outside the capture. Afterwards the
        # rows are put back; what it wrote to the arena and to the outputs, the real step writes
        # again.
        saved = [row.clone() for row in self._volatile]
        stream = torch.cuda.Stream()
        try:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._step(shape)
            torch.cuda.current_stream().wait_stream(stream)
            self._put_back(saved)
            with torch.cuda.graph(graph, pool=self.captured.pool()):
                self._step(shape)
        except RuntimeError as error:
            torch.cuda.current_stream().wait_stream(stream)
            self._put_back(saved)
            give_up_capture(error)
            self._can_capture = False
            return None
        self.captured.put(shape, graph, table)
        return graph

    def _put_back(self, saved: list[Tensor]) -> None:
        for row, value in zip(self._volatile, saved, strict=True):
            row.copy_(value)

    @property
    def _volatile(self) -> tuple[Tensor, ...]:
        return (*self.state.volatile, self.drafts.counts)


def _addresses(model: Decoder) -> list[int]:
    """Where the weights lie: captured steps read them there and nowhere else."""
    return [parameter.data_ptr() for parameter in model.parameters()]


def is_truncated(params: SamplingParams) -> bool:
    """Whether top-k or top-p leaves anything out."""
    return bool(params.top_k) or params.top_p < 1


def new_draw(weight: Tensor, params: SamplingParams, rows: int) -> tuple[Draw, bool]:
    """Draws from hidden states with the output head [V, D], and whether a graph can hold it: fused
    unless the distribution is truncated, which takes all its logits."""
    if not is_truncated(params):
        return HeadSampler(weight, temperature=params.temperature, max_rows=rows), True
    sampler = Sampler(len(weight), params, weight.device)
    return lambda hidden, u: sampler(float32_logits(hidden, weight), u), sampler.is_capturable


class SlotAttention:
    """The `attend` of a resident step: each row adds a token to its slot, or its page, and looks
    back at its own past and at the body of its prompt."""

    def __init__(
        self,
        arena: KVArena,
        state: LoopState | DraftRows,
        shape: StepShape,
        pages: Pages | None = None,
    ) -> None:
        """`pages`: those of `state`; drafts have none."""
        self.arena, self.shape, self.state, self.pages = arena, shape, state, pages
        rows, spec, size = shape.rows, arena.spec, arena.size
        self.stride = spec.num_kv_heads * size.own * spec.head_dim
        each = self.stride if pages is None else pages.size.per_row
        self.own_start = state.slot[:rows].long() * each
        self.slot, self.at = (
            (state.slot[:rows], state.own[:rows])
            if pages is None
            else (pages.page[:rows], pages.place[:rows])
        )
        """Where a row's newest key and value go."""

    def __call__(self, layer: int, heads: Tensor, rotation: Rotation) -> Tensor:
        own, body = self._own(layer), self._body(layer)
        spec, state, shape = self.arena.spec, self.state, self.shape
        rows = shape.rows
        # Drafted rows share a slot: there a key must be written before another row looks at it.
        if isinstance(state, LoopState):
            step = self._step_rows(heads, rotation, own, body if shape.body else None)
            if reads_alone(step, shape.siblings):
                return attend_alone(step)
            if rows <= FEW_ROWS:
                return attend_few(step)
        q = rotate_append(
            heads,
            spec.num_heads,
            spec.num_kv_heads,
            rotation.table,
            state.position[:rows],
            own.k,
            own.v,
            self.slot,
            self.at,
        )
        return attend_rows(
            q,
            own,
            body,
            state.group[:rows],
            num_kv=spec.num_kv_heads,
            max_own=shape.own,
            max_prompt=shape.body,
            siblings=shape.siblings,
        )

    def _step_rows(
        self, heads: Tensor, rotation: Rotation, own: KeySource, body: KeySource | None
    ) -> StepRows:
        spec, shape = self.arena.spec, self.shape
        return StepRows(
            heads,
            rotation.table,
            self.state.position[: shape.rows],
            self.slot,
            self.at,
            own,
            body,
            slot_stride=self.stride,
            num_heads=spec.num_heads,
            num_kv=spec.num_kv_heads,
            max_own=shape.own,
            max_prompt=shape.body,
        )

    def _own(self, layer: int) -> KeySource:
        """The rows' own positions."""
        head_dim, size = self.arena.spec.head_dim, self.arena.size
        return KeySource(
            k=self.arena.own[0, layer],
            v=self.arena.own[1, layer],
            start=self.own_start,
            length=self.state.own_length[: self.shape.rows],
            head_stride=size.own * head_dim,
            position_stride=head_dim,
            pages=None if self.pages is None else self.pages.table,
            page=0 if self.pages is None else self.pages.size.positions,
            page_stride=0 if self.pages is None else self.stride,
        )

    def _body(self, layer: int) -> KeySource:
        """The bodies of their prompts."""
        head_dim, size = self.arena.spec.head_dim, self.arena.size
        return KeySource(
            k=self.arena.prompts[0, layer],
            v=self.arena.prompts[1, layer],
            start=self.state.body_start[: self.shape.rows],
            length=self.state.body[: self.shape.rows],
            head_stride=size.prompt_tokens * head_dim,
            position_stride=head_dim,
        )
