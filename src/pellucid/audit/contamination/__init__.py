"""Evaluation items in training data: which, where, how much of them, and how well that is seen."""
