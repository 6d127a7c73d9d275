"""A tokenizer without text and requests of uneven lengths, for rollouts on a GPU."""

from collections.abc import Sequence

import pytest
import torch

from pellucid.kernels.available import hopper_ready
from pellucid.records import Request

NEEDS_HOPPER = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(
        torch.cuda.is_available() and not hopper_ready(torch.device("cuda")),
        reason="needs a Hopper GPU",
    ),
]
VOCAB = 1000


class Numbers:
    """Tokens are numbers; `eos_ids` end a sample."""

    chat_template = None

    def __init__(self, *eos_ids: int) -> None:
        self.eos_ids = eos_ids

    def encode(self, text: str) -> list[int]:
        return [len(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return ""

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [""] * len(rows)


def uneven_requests(groups: int, longest: int, *, least: int, spread: int) -> list[Request]:
    """Eight samples a group, of which one has the limit `longest`, the others `least` up to
    `least` + `spread`."""
    return [
        Request(
            prompt_ids=tuple((7 * g + 13 * i) % VOCAB for i in range(1 + 40 * (g % 3))),
            sample_ids=tuple(100 * g + k for k in range(8)),
            limits=tuple(
                longest if k == g % 8 else least + 37 * (k + g) % spread for k in range(8)
            ),
        )
        for g in range(groups)
    ]
