"""On-policy distillation: a teacher judges every token that the student sampled.

The student samples; the teacher's log-probability of each of the student's tokens, less the
student's own, is that token's advantage. In expectation over the student's samples that is
-KL(student || teacher), token by token, so the policy loss seeks the teacher's modes where the
student goes itself (Agarwal et al., 2306.13649; "On-Policy Distillation", Thinking Machines Lab,
2025). Shapes: T completion tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def reverse_kl_advantages(
    policy_logprobs: Tensor, teacher_logprobs: Tensor, *, coefficient: float = 1.0
) -> Tensor:
    """[T] float32: -coefficient · (policy - teacher), for `TrainSequence.token_advantages`.

    policy_logprobs [T]: the student's, of the tokens it sampled, when it sampled them.
    teacher_logprobs [T]: the teacher's of the same tokens after the same prompt, at the same
    temperature. Both need the same vocabulary.
    """
    assert policy_logprobs.shape == teacher_logprobs.shape, "one log-probability each of a token"
    difference = teacher_logprobs.float() - policy_logprobs.float()
    return coefficient * difference
