"""Graders and reward terms: one table each, the same for training and for evaluation. No torch.

`GraderPool` grades batches, `RewardTable` turns scores into terms and rewards, `settle` applies the
rules for truncated and failed samples, `check_gold` refuses golds no grader can use.
"""

from pellucid.rewards.extract import extract_answer, split_thinking
from pellucid.rewards.format import format_reward, format_strict_reward
from pellucid.rewards.language import language_share
from pellucid.rewards.math import grade_math
from pellucid.rewards.pool import GraderPool
from pellucid.rewards.repetition import repetition_share
from pellucid.rewards.table import GRADERS, check_gold, find_grader
from pellucid.rewards.terms import (
    TERMS,
    Outcome,
    RewardTable,
    check_terms,
    overlong_penalty,
    settle,
    weighted,
)
from pellucid.rewards.vectors import self_test

__all__ = [
    "GRADERS",
    "TERMS",
    "GraderPool",
    "Outcome",
    "RewardTable",
    "check_gold",
    "check_terms",
    "extract_answer",
    "find_grader",
    "format_reward",
    "format_strict_reward",
    "grade_math",
    "language_share",
    "overlong_penalty",
    "repetition_share",
    "self_test",
    "settle",
    "split_thinking",
    "weighted",
]
