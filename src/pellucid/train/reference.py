"""The reference policy of the KL term: a frozen copy, replaced by the policy now and then.

Paper, Methods: replaced every 400 steps, since thousands of steps drift far away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.algo.presets import Objective
from pellucid.algo.reference import is_refresh_due, refresh
from pellucid.model.transformer import Decoder


class Reference:
    """A frozen copy of the policy on the same device."""

    def __init__(self, policy: Decoder, objective: Objective) -> None:
        self.objective = objective
        like = policy.embedding.weight
        self.model = Decoder(policy.spec).to(like.device, like.dtype).requires_grad_(False)
        self.model.load_state_dict(policy.state_dict())
        self.model.exact = policy.exact

    def follow(self, policy: Decoder, optimizer_steps: int) -> None:
        """Moves towards the policy if a refresh is due after this many optimiser steps."""
        if is_refresh_due(optimizer_steps, self.objective):
            refresh(list(self.model.parameters()), list(policy.parameters()), self.objective)

    def state(self) -> dict[str, Tensor]:
        """Its weights, for a checkpoint."""
        return {f"reference.{n}": p.detach() for n, p in self.model.named_parameters()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores `state()` in place."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(state[f"reference.{name}"])
