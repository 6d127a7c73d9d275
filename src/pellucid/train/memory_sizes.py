"""Bytes of everything that a GRPO step keeps on a CUDA device: plain arithmetic.

It follows what the kernels of `model.ops`, `model.flash` and `algo.head` save for their backward
passes and what `train.optimizer` and `rollout` allocate. `e` below is the size of a weight.

Letters: D width, H heads, J key/value heads, K head dimension, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

import math

from pellucid.algo.divergence import LIVE_CHUNKS, chunk_rows
from pellucid.algo.head import CUDA_CHUNK_BYTES, CUDA_ROW_STEP
from pellucid.model.spec import ModelSpec
from pellucid.rollout.arena import ArenaSize
from pellucid.rollout.loop_buffers import Capacity
from pellucid.rollout.prefill import CUDA_TOKENS

FLOAT32 = 4
OVERHEAD_BYTES = 2**30
"""CUDA context, compiled kernels, cuBLAS workspaces and the nodes of captured graphs."""
STATISTICS_BLOCK = 128
"""Logits that the sampler of the rollout condenses into two float32 numbers."""
PROMPT_SPLIT = 256
"""Positions of one part of a decoding step's attention."""


def weight_bytes(spec: ModelSpec, element: int) -> int:
    """The model; a tied head is counted once."""
    return element * spec.num_parameters


def state_bytes(spec: ModelSpec, element: int) -> int:
    """Two float32 moments, and a float32 master where the weights are narrower."""
    return (2 * FLOAT32 + (FLOAT32 if element < FLOAT32 else 0)) * spec.num_parameters


def gradient_bytes(spec: ModelSpec) -> int:
    """Gradients are added up in float32 whatever the weights' type."""
    return FLOAT32 * spec.num_parameters


def kept_token_bytes(spec: ModelSpec, element: int) -> int:
    """What a block keeps of one token for the backward pass."""
    heads, kv = spec.num_heads, spec.num_kv_heads
    qkv = (heads + 2 * kv) * spec.head_dim
    # Each of two norms: the residual sum and its scale in float32, and what it returns.
    norms = 2 * (FLOAT32 * spec.width + FLOAT32 + element * spec.width)
    attention = element * (qkv + heads * spec.head_dim) + FLOAT32 * heads
    if spec.has_qk_norm:  # heads before the norm and a scale for each
        attention += element * qkv + FLOAT32 * (heads + kv)
    return norms + attention + 3 * element * spec.ffn_width


def checkpoint_token_bytes(spec: ModelSpec, element: int) -> int:
    """What a block that computes its activations again keeps of one token: its two inputs."""
    return (FLOAT32 + element) * spec.width


def final_token_bytes(spec: ModelSpec, element: int) -> int:
    """What the last norm keeps of one token."""
    return FLOAT32 * spec.width + FLOAT32 + element * spec.width


def activation_bytes(spec: ModelSpec, element: int, tokens: int, checkpointed: int) -> int:
    """All that the forward pass of a pack keeps, the loss head not counted."""
    whole = (spec.num_layers - checkpointed) * kept_token_bytes(spec, element)
    inputs = checkpointed * checkpoint_token_bytes(spec, element)
    return tokens * (whole + inputs + final_token_bytes(spec, element))


def forward_bytes(spec: ModelSpec, element: int, tokens: int) -> int:
    """Most that a forward pass without gradient holds at a time: two residual streams, and the
    feed-forward layer's input, inner values and product."""
    return tokens * ((2 * FLOAT32 + element) * spec.width + 3 * element * spec.ffn_width)


def backward_bytes(spec: ModelSpec, element: int, tokens: int, checkpointed: int) -> int:
    """Most that the backward pass holds beside activations: gradients of one block's values and
    of its largest weight; a checkpointed block's activations come back one block at a time, when
    those of all that are not are gone."""
    values = (2 * FLOAT32 + 2 * element) * spec.width + 3 * element * spec.ffn_width
    block = tokens * values + 2 * element * spec.width * spec.ffn_width
    if checkpointed < spec.num_layers:
        return block
    return block + tokens * kept_token_bytes(spec, element)


def logit_rows(vocab: int, tokens: int) -> int:
    """Rows of one chunk of the loss head for so many completion tokens."""
    rows = max(CUDA_CHUNK_BYTES // (FLOAT32 * vocab), 16)
    rows = rows // 1024 * 1024 if rows > 1024 else rows
    return min(rows, tokens)


def all_logits_bytes(vocab: int, tokens: int) -> int:
    """float32 logits of all chunks, which are of one size."""
    rows = logit_rows(vocab, tokens)
    chunks = math.ceil(tokens / rows)
    even = math.ceil(tokens / chunks)
    return FLOAT32 * vocab * chunks * min(rows, math.ceil(even / CUDA_ROW_STEP) * CUDA_ROW_STEP)


def head_work_bytes(spec: ModelSpec, element: int, tokens: int, *, keeps_all: bool) -> int:
    """What the loss head's backward pass holds beside kept logits: a chunk's gradient in the type
    of the weights, a chunk of logits where some are computed again, and gradients of the hidden
    states."""
    rows = logit_rows(spec.vocab_size, tokens)
    chunk = rows * spec.vocab_size
    again = 0 if keeps_all else FLOAT32 * chunk
    return element * chunk + again + 2 * element * tokens * spec.width


def divergence_bytes(spec: ModelSpec, teacher: ModelSpec, element: int, tokens: int) -> int:
    """What the reverse KL to a teacher over the whole vocabulary holds for so many completion
    tokens: chunks of both models' logits, the head's float32 gradient and what is being added to
    it, the gradient of the hidden states and that times the loss's own. No logits are kept.
    """
    rows = min(chunk_rows(teacher.vocab_size), tokens)
    chunks = LIVE_CHUNKS * FLOAT32 * teacher.vocab_size * rows
    head = 2 * FLOAT32 * spec.vocab_size * spec.width
    return chunks + head + 2 * element * tokens * spec.width


def loop_bytes(capacity: Capacity) -> int:
    """Rows, samples, prompts and results of the decoding loop: `rollout.loop_buffers`."""
    pages = capacity.pages
    of_pages = 4 * (pages.total + capacity.samples + capacity.slots * (pages.per_row + 3) + 4)
    return (
        (of_pages if pages.total else 0)
        + 60 * capacity.slots
        + (21 + 8 * capacity.new_tokens) * capacity.samples
        + 20 * capacity.prompts
        + (1 + 2 * capacity.stop_states) * capacity.vocab
    )


def decode_bytes(spec: ModelSpec, element: int, rows: int, body: int) -> int:
    """What a captured decoding step works on: values of a block, parts of the prompt's attention,
    and the sampler's statistics."""
    qkv = (spec.num_heads + 2 * spec.num_kv_heads) * spec.head_dim
    block = forward_bytes(spec, element, rows) + element * rows * 2 * qkv
    parts = -(-body // PROMPT_SPLIT) * rows * spec.num_heads * (spec.head_dim + 2) * FLOAT32
    statistics = 2 * FLOAT32 * rows * -(-spec.vocab_size // STATISTICS_BLOCK)
    return block + parts + statistics


def prefill_bytes(spec: ModelSpec, element: int, prompt_tokens: int) -> int:
    """What running the prompts holds at a time."""
    return forward_bytes(spec, element, min(prompt_tokens, CUDA_TOKENS))


def kv_token_bytes(spec: ModelSpec, element: int) -> int:
    """Keys and values of one position."""
    return ArenaSize(1, 0, 0).num_bytes(spec, element)
