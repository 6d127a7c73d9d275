"""One decoding step over static buffers: model, head, sampling and bookkeeping, with nothing read back.

Shapes: S slots, B rows decoded (the first slots), W columns of a window of steps.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from pellucid.model.transformer import Decoder
from pellucid.rollout.cache import CachedAttention, KVCache
from pellucid.rollout.sampling import Sampler

log = logging.getLogger(__name__)


class DecodeStep:
    """Buffers of all slots and the step that advances the first B of them by one token.

    Everything a step reads and writes lives at a fixed address, so that on CUDA a step can be captured once
    per (rows, context) and replayed.
    """

    def __init__(self, model: Decoder, cache: KVCache, sampler: Sampler, window: int) -> None:
        self.model = model
        self.cache = cache
        self.sampler = sampler
        self.window = window
        device, slots = cache.k.device, cache.k.shape[1]
        self.token = torch.zeros(slots, dtype=torch.int64, device=device)
        """Newest token of each slot, to be fed next [S]."""
        self.position = torch.zeros(slots, dtype=torch.int64, device=device)
        """Where that token stands in its sequence [S]."""
        self.column = torch.zeros(1, dtype=torch.int64, device=device)
        """Which column of the window the step fills."""
        self.uniforms = torch.zeros(slots, window, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(slots, window, dtype=torch.int64, device=device)
        self.logprobs = torch.zeros(slots, window, device=device)
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        # Truncated sampling looks at values on the host, which a graph cannot.
        is_whole = not sampler.params.top_k and sampler.params.top_p >= 1
        self._can_capture = device.type == "cuda" and (is_whole or sampler.params.temperature == 0)

    def run(self, rows: int, context: int, num_steps: int) -> None:
        """Advances `rows` slots by `num_steps` tokens. Positions of live rows stay below `context`."""
        graph = self._graph(rows, context) if self._can_capture else None
        for _ in range(num_steps):
            if graph is not None:
                graph.replay()
            else:
                self._step(rows, context)

    def _step(self, rows: int, context: int) -> None:
        token, position = self.token[:rows], self.position[:rows]
        # A finished row runs on until the host notices, an empty one for ever: keep it inside the cache.
        position.clamp_(max=context - 1)
        attend = CachedAttention(self.cache, position, context)
        hidden = self.model(token, position, attend)
        logits = self.model.head(hidden)
        u = self.uniforms[:rows].index_select(1, self.column)[:, 0]
        new, logprob = self.sampler(logits, u)
        self.tokens[:rows].index_copy_(1, self.column, new[:, None])
        self.logprobs[:rows].index_copy_(1, self.column, logprob[:, None])
        token.copy_(new)
        position.add_(1)
        self.column.add_(1)

    def _graph(self, rows: int, context: int) -> torch.cuda.CUDAGraph | None:
        """The captured step for this shape; None, for good, if capture fails."""
        key = (rows, context)
        if key in self._graphs:
            return self._graphs[key]
        saved = [b.clone() for b in self._state()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        try:
            with torch.cuda.stream(stream):
                self.column.zero_()
                self._step(rows, context)  # fills caches and workspaces outside the capture
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph, pool=pool):
                self._step(rows, context)
        except RuntimeError as error:
            log.warning("decoding without CUDA graphs: %s", str(error).splitlines()[0])
            self._can_capture = False
        finally:
            for buffer, value in zip(self._state(), saved, strict=True):
                buffer.copy_(value)
        if not self._can_capture:
            return None
        self._graphs[key] = graph
        return graph

    def _state(self) -> list[Tensor]:
        return [self.token, self.position, self.column, self.tokens, self.logprobs]
