"""The in-process rollout engine: it samples from the very weights that are trained."""
