"""What every system is asked to do, from the standard library alone: peers import this file too.

Prompts are random token ids, lengths are drawn once: each system gets the same ones.
"""

from __future__ import annotations

import math
import random

MIXED_MEAN = 300.0
MIXED_SIGMA = 0.8
"""Of the logarithm. With this mean the median is 218 and one sample in a hundred passes 1,400."""
MIXED_LONGEST = 2048

PAGED_MEAN = 400.0
PAGED_LONGEST = 8192
PAGED_KV_GIB = 12
"""Limits far above what is written, and little memory for keys and values, as beside a training:
where a slot for the longest is mostly empty."""

PROMPT_SEED = 1
LENGTH_SEED = 2


def prompts(count: int, length: int, vocab_size: int) -> list[list[int]]:
    """`count` prompts of `length` token ids. The last 2,000 ids, where Qwen keeps its special
    tokens, are left out of a large vocabulary."""
    generator = random.Random(PROMPT_SEED)
    top = vocab_size - 2000 if vocab_size > 10_000 else vocab_size
    return [[generator.randrange(top) for _ in range(length)] for _ in range(count)]


def mixed_limits(
    count: int, *, longest: int = MIXED_LONGEST, mean: float = MIXED_MEAN
) -> list[int]:
    """Most new tokens of each sample: lognormal with the given mean, clipped to [1, longest]."""
    generator = random.Random(LENGTH_SEED)
    location = math.log(mean) - MIXED_SIGMA**2 / 2
    drawn = (generator.lognormvariate(location, MIXED_SIGMA) for _ in range(count))
    return [min(max(round(length), 1), longest) for length in drawn]
