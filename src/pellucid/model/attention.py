"""Attention over packed sequences that share nothing: the `attend` of scoring and of prefill.

Shapes: T tokens, N sequences.
"""

from __future__ import annotations

from torch import Tensor

from pellucid.model.shared_attention import SharedPromptAttention


class PackedCausal(SharedPromptAttention):
    """Causal attention within each of N sequences that lie one after another in a flat row of T
    tokens: samples of one empty body.
    """

    def __init__(self, lengths: Tensor) -> None:
        """`lengths` [N]: tokens of each sequence, their sum is T. On the device of the tokens."""
        super().__init__([0], [lengths.tolist()], lengths.device)
        self.longest = self.context
