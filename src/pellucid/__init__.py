"""Pellucid: reinforcement learning of reasoning models, with claims a stranger can check."""

__version__ = "0.1.0"
