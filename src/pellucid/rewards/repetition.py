"""How much a response repeats itself. The value is a share to avoid: give it a negative weight."""

from __future__ import annotations

import re

NGRAM = 6
"""Words per n-gram: long enough that set phrases of worked mathematics do not count."""
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")


def repetition_share(response: str, n: int = NGRAM) -> float:
    """Share of n-grams that occurred before in the response: near 1.0 is one phrase for ever."""
    tokens = _TOKEN.findall(response)
    total = len(tokens) - n + 1
    if total < 1:
        return 0.0
    return 1.0 - len(set(zip(*(tokens[i:] for i in range(n)), strict=False))) / total
