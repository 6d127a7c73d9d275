"""One decoding step over static buffers: model, head, sampling and bookkeeping, nothing read back.

Shapes: S slots, B rows decoded (the first slots), W columns of a window of steps, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.algo.head import float32_logits
from pellucid.model.transformer import Decoder
from pellucid.records import SamplingParams
from pellucid.rollout.cache import CachedAttention, Extent, KVCache
from pellucid.rollout.captured import give_up_capture
from pellucid.rollout.sampling import Sampler


class DecodeStep:
    """Buffers of all slots and the step that advances the first B of them by one token.

    Everything a step reads and writes lives at a fixed address, so that on CUDA a step can be
    captured once per extent and replayed.
    """

    def __init__(
        self, model: Decoder, head: Tensor, cache: KVCache, sampler: Sampler, window: int
    ) -> None:
        """`head` [V, D]: the output head, in the type that logits are computed in."""
        self.model, self.head = model, head
        self.cache = cache
        self.sampler = sampler
        device, slots = cache.k.device, cache.k.shape[1]

        def integers(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self.token = integers(slots)
        """Newest token of each slot, to be fed next [S]."""
        self.position = integers(slots)
        """Where that token stands in its sequence [S]."""
        self.prompt = integers(slots)
        """Length of the prompt, less its last token [S]."""
        self.place, self.lane = integers(slots), integers(slots)
        """Where the prompt is kept, and the row's lane there [S]."""
        self.uniforms = torch.zeros(slots, window, dtype=torch.float64, device=device)
        self.column = integers(1)
        """Which column of the window the step reads and fills."""
        self.tokens = integers(slots, window)
        self.logprobs = torch.zeros(slots, window, device=device)
        self._graphs: dict[Extent, torch.cuda.CUDAGraph] = {}
        self._table = model.rotation().table
        """Of rotations: captured steps read it at its address."""
        self._can_capture = device.type == "cuda" and sampler.is_capturable

    def fits(self, model: Decoder, head: Tensor, extent: Extent, params: SamplingParams) -> bool:
        """Whether this step, with what it has captured, can serve another call."""
        mine, theirs = ((p.temperature, p.top_k, p.top_p) for p in (self.sampler.params, params))
        is_same = model is self.model and head.data_ptr() == self.head.data_ptr()
        is_same &= not self._graphs or model.rotation().table is self._table
        return is_same and mine == theirs and self.cache.fits(extent, model.embedding.weight)

    def reset(self, own: int) -> None:
        """Starts again with all slots empty, and room for `own` positions in each."""
        self.cache.reset(own)
        for buffer in (*self.per_slot, self.column):
            buffer.zero_()

    @property
    def per_slot(self) -> tuple[Tensor, ...]:
        """What moves along when a sample changes its slot."""
        return self.token, self.position, self.prompt, self.place, self.lane, self.uniforms

    def run(self, extent: Extent, num_steps: int) -> None:
        """Advances the rows by `num_steps` tokens. Live rows stay inside the extent."""
        graph = self._graph(extent) if self._can_capture else None
        for _ in range(num_steps):
            if graph is not None:
                graph.replay()
            else:
                self._step(extent)

    def _step(self, extent: Extent) -> None:
        rows = extent.rows
        token, position, prompt = self.token[:rows], self.position[:rows], self.prompt[:rows]
        # A finished row runs on until the host notices, an empty one for ever: keep it inside.
        torch.minimum(position, prompt + (extent.own - 1), out=position)
        lanes = self.place[:rows], self.lane[:rows]
        attend = CachedAttention(self.cache, extent, position, prompt, *lanes)
        hidden = self.model(token, attend)
        # The trainer's product, so that both report the same log-probabilities.
        logits = float32_logits(hidden.to(self.head.dtype), self.head)
        u = self.uniforms[:rows].index_select(1, self.column)[:, 0]
        new, logprob = self.sampler(logits, u)
        self.tokens[:rows].index_copy_(1, self.column, new[:, None])
        self.logprobs[:rows].index_copy_(1, self.column, logprob[:, None])
        token.copy_(new)
        position.add_(1)
        self.column.add_(1)

    def _graph(self, extent: Extent) -> torch.cuda.CUDAGraph | None:
        """The captured step for this extent; None, for good, if capture fails. Raises
        torch.OutOfMemoryError.
        """
        if extent in self._graphs:
            return self._graphs[extent]
        # The warm-up writes a token's keys and values, which the real step then writes again.
        state = [self.token, self.position, self.column, self.tokens, self.logprobs]
        saved = [buffer.clone() for buffer in state]
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                self._step(extent)  # lets libraries set up their workspaces outside the capture
            torch.cuda.current_stream().wait_stream(stream)
            for buffer, value in zip(state, saved, strict=True):
                buffer.copy_(value)
            with torch.cuda.graph(graph, pool=pool):
                self._step(extent)
        except RuntimeError as error:
            torch.cuda.current_stream().wait_stream(stream)
            for buffer, value in zip(state, saved, strict=True):
                buffer.copy_(value)
            give_up_capture(error)
            self._can_capture = False
            return None
        self._graphs[extent] = graph
        return graph
