"""How a recipe has answers graded: its knobs beside the graders themselves, and the pool."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.config import RunConfig
from pellucid.config_stages import PipelineConfig
from pellucid.rewards.pool import GraderPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """What decides a verdict beside the graders' sources.

    Example: Grading(math_verify=True, math_verify_timeout_s=5.0, code_timeout_s=3.0)
    """

    math_verify: bool
    """Whether math-verify is asked where the strict grader finds no match."""
    math_verify_timeout_s: float
    """Of one answer."""
    code_timeout_s: float
    """Of a program with all its tests."""

    def words(self) -> str:
        """`math-verify 5 s an answer, programs 3 s`"""
        second = f"{self.math_verify_timeout_s:g} s an answer" if self.math_verify else "off"
        return f"math-verify {second}, programs {self.code_timeout_s:g} s"


def grading_of(recipe: RunConfig | PipelineConfig, *, math_verify: bool | None = None) -> Grading:
    """Of a recipe; of a stage of a pipeline with the stage's own `math_verify`."""
    if math_verify is None:
        is_pipeline = isinstance(recipe, PipelineConfig)
        math_verify = recipe.math_verify if is_pipeline else recipe.reward.math_verify
    return Grading(
        math_verify=math_verify,
        math_verify_timeout_s=recipe.math_verify_timeout_s,
        code_timeout_s=recipe.code_timeout_s,
    )


def open_grader(
    recipe: RunConfig | PipelineConfig, *, math_verify: bool | None = None
) -> GraderPool:
    """The graders of a recipe, as for `grading_of`: a context manager."""
    grading = grading_of(recipe, math_verify=math_verify)
    return GraderPool(
        math_verify=grading.math_verify,
        timeout_s=grading.math_verify_timeout_s,
        code_timeout_s=grading.code_timeout_s,
        unsafe_code=recipe.unsafe_code,
    )
