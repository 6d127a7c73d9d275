"""When and how the reference of the KL term follows the policy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.algo.presets import Objective


def is_refresh_due(steps_done: int, objective: Objective) -> bool:
    """True after every `reference_every`-th optimiser step, if there is a reference at all.

    steps_done counts finished optimiser steps of the whole run, so a resumed run keeps the rhythm.
    """
    return (
        objective.has_reference and steps_done > 0 and steps_done % objective.reference_every == 0
    )


@torch.no_grad()
def refresh(reference: Sequence[Tensor], policy: Sequence[Tensor], objective: Objective) -> None:
    """Moves the reference to the policy in place: `hard` replaces it (R1: every 400 steps), `ema`
    mixes.

    ref <- (1 - a) · ref + a · policy with a = `reference_ema` (TR-DPO, 2404.09656).
    """
    for old, new in zip(reference, policy, strict=True):
        if objective.reference == "hard":
            old.copy_(new)
        else:
            old.lerp_(new.to(old.dtype), objective.reference_ema)
