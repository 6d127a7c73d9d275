"""What teaching a student costs, counted alike whatever the way: operations on its weights.

    6 N for a token trained on (forward and backward), 2 N for one only read or sampled, where N is
    the number of its parameters (Kaplan et al., 2001.08361, 2.1)

A teacher of M parameters reads a token for 2 M. That is counted beside the budget: the samples of
the curated set were paid for by their stage, too. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

TRAINED = 3
"""Cost of a trained token, in tokens that are only read."""
OPERATIONS = 2
"""Floating-point operations of a parameter and a token that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Tokens by what was done with them.

    Example: Compute(trained=100) + Compute(generated=30) == Compute(trained=100, generated=30)
    """

    trained: int = 0
    """Fed forward and backward: prompts (once a pack) and completions."""
    generated: int = 0
    """Fed forward to sample: prompts, once for all samples of them, and what was sampled."""
    scored: int = 0
    """Fed forward through the teacher."""

    def __add__(self, other: Compute) -> Compute:
        return Compute(
            trained=self.trained + other.trained,
            generated=self.generated + other.generated,
            scored=self.scored + other.scored,
        )

    @property
    def units(self) -> int:
        """Cost to the student, in tokens that are only read."""
        return TRAINED * self.trained + self.generated

    def to_dict(self) -> dict[str, int]:
        """Plain values that `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, int]) -> Compute:
        """The counts of that name in `values`, which may hold more."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What every arm may spend. Example: Budget(tokens=10**4, student=2 * 10**6).flops == 12e10"""

    tokens: int
    """As much as training on so many tokens takes."""
    student: int
    """Parameters."""
    teacher: int = 0
    """Parameters; 0 without a teacher."""

    @property
    def units(self) -> int:
        return TRAINED * self.tokens

    @property
    def flops(self) -> int:
        return OPERATIONS * self.student * self.units

    def share(self, compute: Compute) -> float:
        """Of the budget that is spent; above 1 by what the last batch was too much."""
        return compute.units / self.units

    def student_flops(self, compute: Compute) -> int:
        """What counts against the budget."""
        return OPERATIONS * self.student * compute.units

    def teacher_flops(self, compute: Compute) -> int:
        """What does not."""
        return OPERATIONS * self.teacher * compute.scored
