"""The trainer: collects rollouts, packs them, steps the optimiser, and can be killed at any
moment.
"""
