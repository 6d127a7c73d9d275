"""Attention over packed sequences that share nothing: the `attend` of scoring and of prefill.

Shapes: T tokens, N sequences.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.model.shared_attention import SharedPromptAttention


class PackedCausal(SharedPromptAttention):
    """Causal attention within each of N sequences that lie one after another in a flat row of T
    tokens: samples of one empty body.
    """

    def __init__(
        self, lengths: Sequence[int] | Tensor, device: torch.device | str | None = None
    ) -> None:
        """`lengths` [N]: tokens of each sequence, their sum is T; those of a tensor on a device are
        waited for. `device` of the tokens; None: that of `lengths`.
        """
        if isinstance(lengths, Tensor):
            device = lengths.device if device is None else device
            lengths = lengths.tolist()
        super().__init__([0], [lengths], "cpu" if device is None else device)
        self.longest = self.context
