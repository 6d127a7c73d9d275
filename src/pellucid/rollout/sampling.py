"""Drawing tokens: the inverse of the cumulative distribution, in vocabulary order.

The definition, which never changes (a referee replays it):

1. Weights w_i = exp((z_i - max z) / T) in float32, z the logits as float32.
2. top-k keeps the k largest weights; then top-p keeps the shortest prefix, in falling order of
   weight, whose share of the remaining mass reaches p. Among equal weights the lower token id comes
   first. Prefix sums are float64. What is not kept has weight 0.
3. The vocabulary falls into blocks of 128 ids. A block's mass is the float32 sum of its weights;
   prefix sums over blocks, and over the ids inside a block, are float64. With u in [0, 1) and total
   mass M the token is the first id whose prefix sum exceeds u M: the block is found first, the id
   inside it second.
4. The log-probability is log w_token - log M: that of the distribution drawn from.

Temperature 0 is greedy: the id of the largest logit, whatever top-k and top-p say, with its
log-probability at T = 1.

Shapes: B rows, V vocabulary, C blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.errors import NumericsError
from pellucid.kernels.available import triton_ready
from pellucid.records import SamplingParams

BLOCK = 128
BELOW_ONE = 1 - 2.0**-53
"""x * BELOW_ONE < x for every positive float64: keeps a rounded-up target inside the
distribution."""
NUCLEUS_GUESS = 1024
"""Ids looked at first for top-p; only a flatter distribution needs the whole vocabulary sorted."""
CHUNK_BYTES = 2**20
"""On a CPU rows are turned into weights in pieces that stay in the cache of a core."""


def sample(logits: Tensor, u: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Tokens [B] int64 and log-probabilities [B] float32 from logits [B, V] and uniforms u [B]
    float64.

    Raises NumericsError where logits are NaN or infinite.
    """
    tokens, logprobs = Sampler(logits.shape[1], params, logits.device)(logits, u)
    if not bool(torch.isfinite(logprobs).all()):
        row = int(torch.nonzero(~torch.isfinite(logprobs))[0])
        raise NumericsError(f"logits of row {row} hold NaN or infinity: no token can be drawn")
    return tokens, logprobs


class Sampler:
    """Draws tokens for batch after batch with the same parameters, reusing its buffer.

    Non-finite logits give a non-finite log-probability and an arbitrary valid token: the caller
    checks, so that a device need not be waited for at each token.
    """

    def __init__(self, vocab_size: int, params: SamplingParams, device: torch.device) -> None:
        self.params = params
        self.vocab_size = vocab_size
        self.device = device
        self._padded = -(-vocab_size // BLOCK) * BLOCK
        self._buffer = torch.zeros(0, self._padded, device=device)
        self._outgrown: list[Tensor] = []
        """Smaller buffers that captured graphs may still write to."""
        self._truncate = truncate
        if triton_ready(device):
            from pellucid.kernels import truncate as kernel

            self._truncate = kernel.truncate

    @property
    def is_capturable(self) -> bool:
        """Whether a call, after one with as many rows, can be captured in a CUDA graph: without
        its kernel, top-k and top-p look at values on the host."""
        return self.device.type == "cuda" and (
            not self._is_truncated or self._truncate is not truncate
        )

    @property
    def _is_truncated(self) -> bool:
        params = self.params
        return params.temperature != 0 and (params.top_k != 0 or params.top_p < 1)

    def __call__(self, logits: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        temperature = self.params.temperature
        weights = self._weights(logits, temperature or 1.0)
        if temperature == 0:
            masses = weights.view(len(logits), -1, BLOCK).sum(-1)
            tokens, total = logits.argmax(-1), masses.double().sum(-1)
        else:
            if self._is_truncated:
                self._truncate(weights, self.params.top_k, self.params.top_p)
            tokens, total = _invert(weights, u)
            tokens = tokens.clamp_(max=self.vocab_size - 1)
        chosen = weights.gather(1, tokens[:, None])[:, 0].double()
        return tokens, (chosen.log() - total.log()).float()

    def _weights(self, logits: Tensor, temperature: float) -> Tensor:
        """[B, C * BLOCK] float32, zero beyond the vocabulary."""
        rows = len(logits)
        if len(self._buffer) < rows:
            if self.device.type == "cuda":
                self._outgrown.append(self._buffer)
            self._buffer = torch.zeros(rows, self._padded, device=self.device)
        weights = self._buffer[:rows]
        step = rows if logits.is_cuda else max(1, CHUNK_BYTES // (4 * self._padded))
        for first in range(0, rows, step):
            part = weights[first : first + step, : self.vocab_size]
            part.copy_(logits[first : first + step])
            part.sub_(part.amax(-1, keepdim=True))
            if temperature != 1:
                part.div_(temperature)
            part.exp_()
        return weights


def truncate(weights: Tensor, top_k: int, top_p: float) -> None:
    """Zeroes, in place, the weights [B, V] that top-k and top-p leave out."""
    size = weights.shape[1]
    has_top_k = 0 < top_k < size
    total = None if has_top_k else weights.sum(-1, keepdim=True, dtype=torch.float64)
    guess = top_k if has_top_k else min(size, NUCLEUS_GUESS)
    ranked = weights.topk(guess).values
    kept = _kept(ranked, total, top_p)
    if not has_top_k and guess < size and bool((kept == guess).any()):
        ranked = weights.sort(descending=True).values
        kept = _kept(ranked, total, top_p)
    least = ranked.gather(1, kept - 1)
    tied = weights == least
    spare = kept - (weights > least).sum(-1, keepdim=True)
    if bool((tied.sum(-1, keepdim=True) > spare).any()):
        tied &= tied.cumsum(-1) <= spare
    weights.masked_fill_(~(tied | (weights > least)), 0)


def _kept(ranked: Tensor, total: Tensor | None, top_p: float) -> Tensor:
    """How many of the falling weights [B, n] the nucleus holds, [B, 1]; `total`: None for their own
    sum."""
    if top_p >= 1:
        return torch.full_like(ranked[:, :1], ranked.shape[1], dtype=torch.int64)
    prefix = ranked.double().cumsum(-1)
    wanted = (prefix[:, -1:] if total is None else total) * top_p
    return ((prefix < wanted).sum(-1, keepdim=True) + 1).clamp_(max=ranked.shape[1])


def _invert(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The token [B] at the share u of the mass, and the total mass [B] float64."""
    blocks = weights.view(len(weights), -1, BLOCK)
    prefix = blocks.sum(-1).double().cumsum(-1)
    total = prefix[:, -1:]
    target = torch.minimum(u[:, None] * total, total * BELOW_ONE)
    block = torch.searchsorted(prefix, target, right=True).clamp_(max=blocks.shape[1] - 1)
    before = F.pad(prefix, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, BLOCK))[:, 0].double().cumsum(-1)
    rest = torch.minimum(target - before, inside[:, -1:] * BELOW_ONE)
    offset = torch.searchsorted(inside, rest, right=True)
    return (block * BLOCK + offset)[:, 0], total[:, 0]
