"""The objective: advantages, policy losses, KL, aggregation. Pure functions over tensors, no I/O.

Path of a rollout: `presets.resolve` -> `advantages.ADVANTAGES` -> `head.linear_logprobs` ->
`loss.objective_loss`. The formulas and their sources stand in `docs/objective.md`.
"""
