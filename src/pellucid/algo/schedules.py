"""Learning rate over the optimiser steps of a run."""

from __future__ import annotations

import math

from pellucid.config import ScheduleConfig


def learning_rate(step: int, total: int, schedule: ScheduleConfig, peak: float) -> float:
    """Learning rate of optimiser step `step` (0-based) of `total`.

    Rises linearly to `peak` at the last of the warm-up steps (never 0: the first step counts), then
    stays, or falls to `final_fraction * peak` at step total - 1, where it remains.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return peak
    # The peak is held by the last warm-up step; without warm-up by step 0.
    start = max(schedule.warmup_steps - 1, 0)
    progress = min((step - start) / max(total - 1 - start, 1), 1.0)
    fall = progress if schedule.kind == "linear" else 0.5 * (1.0 - math.cos(math.pi * progress))
    return peak * (1.0 - (1.0 - schedule.final_fraction) * fall)
