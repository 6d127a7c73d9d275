"""From the `[algo]` section of a recipe to an objective without gaps.

A preset is a published method; every field that the recipe sets by hand wins over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pellucid.config import AlgoConfig
from pellucid.errors import ConfigError

AdvantageName = Literal["grpo", "dr-grpo", "rloo", "batch-std", "maxrl"]
LossName = Literal["clip", "cispo", "gspo"]
AggregationName = Literal["sequence-mean", "token-mean", "constant"]
KLName = Literal["k1", "k2", "k3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Everything that the loss needs to know; the fields mean what they mean in `AlgoConfig`.

    Example: resolve(AlgoConfig(preset="dapo")).clip_high == 0.28
    """

    preset: str
    advantage: AdvantageName
    loss: LossName
    aggregation: AggregationName
    clip_low: float
    """The ratio's lower bound is 1 - clip_low (paper: 1 - 10, so none)."""
    clip_high: float
    """The ratio's upper bound is 1 + clip_high, for every loss."""
    dual_clip: float | None
    """Upper bound of the ratio where the advantage is negative; None: none, as in the paper."""
    kl: KLName
    beta: float
    reference: Literal["hard", "ema"]
    reference_every: int
    reference_ema: float
    mismatch: Literal["off", "tis", "mask"]
    mismatch_cap: float
    old_logprobs: Literal["recompute", "rollout"]

    @property
    def has_reference(self) -> bool:
        """True where the loss has a KL term: then zero-advantage groups carry a gradient too."""
        return self.beta > 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The fields of a published method; its source stands beside it in `PRESETS`."""

    advantage: AdvantageName
    loss: LossName
    aggregation: AggregationName
    clip_low: float
    clip_high: float
    beta: float


_CLIP_RANGE_OF_LOSS: dict[LossName, tuple[float, float]] = {
    "clip": (10.0, 10.0),
    "gspo": (3e-4, 4e-4),
    "cispo": (1.0, 4.0),
}
"""(clip_low, clip_high) where a recipe swaps the preset's loss for another: the three losses clip
on scales that have nothing in common, so a range is never carried over from one to another.

clip: DeepSeek-R1. gspo: 2507.18071 section 5.1. cispo: no lower bound (2506.13585) and ratios up to
an absolute 5 (ScaleRL, 2510.13786)."""


def _preset(
    advantage: AdvantageName,
    loss: LossName,
    aggregation: AggregationName,
    *,
    clip: tuple[float, float] | None = None,
    beta: float = 0.0,
) -> Preset:
    low, high = clip or _CLIP_RANGE_OF_LOSS[loss]
    return Preset(
        advantage=advantage,
        loss=loss,
        aggregation=aggregation,
        clip_low=low,
        clip_high=high,
        beta=beta,
    )


PRESETS: dict[str, Preset] = {
    # DeepSeek-R1, arXiv 2501.12948v2, Methods; token ratios averaged per sequence as in 2402.03300.
    "r1": _preset("grpo", "clip", "sequence-mean", beta=0.001),
    # DAPO, 2503.14476: clip-higher, token-level loss, no KL.
    "dapo": _preset("grpo", "clip", "token-mean", clip=(0.2, 0.28)),
    # Dr. GRPO, 2503.20783: no division by the standard deviation or by the length.
    "dr-grpo": _preset("dr-grpo", "clip", "constant", clip=(0.2, 0.2)),
    # GSPO, 2507.18071: ratio and clip of the whole sequence.
    "gspo": _preset("grpo", "gspo", "sequence-mean"),
    # CISPO, 2506.13585 (MiniMax-M1), with ScaleRL's bound of 5.
    "cispo": _preset("grpo", "cispo", "token-mean"),
}


def resolve(config: AlgoConfig) -> Objective:
    """The objective that `config` names: its preset, with every field set by hand in its place.

    Raises ConfigError where fields contradict each other.
    """
    preset = PRESETS[config.preset]
    loss = config.loss or preset.loss
    low, high = (
        (preset.clip_low, preset.clip_high) if loss == preset.loss else _CLIP_RANGE_OF_LOSS[loss]
    )
    objective = Objective(
        preset=config.preset,
        advantage=config.advantage or preset.advantage,
        loss=loss,
        aggregation=config.aggregation or preset.aggregation,
        clip_low=low if config.clip_low is None else config.clip_low,
        clip_high=high if config.clip_high is None else config.clip_high,
        dual_clip=config.dual_clip,
        kl=config.kl or "k3",
        beta=preset.beta if config.beta is None else config.beta,
        reference=config.reference,
        reference_every=config.reference_every,
        reference_ema=config.reference_ema,
        mismatch=config.mismatch,
        mismatch_cap=config.mismatch_cap,
        old_logprobs=config.old_logprobs,
    )
    if objective.dual_clip is not None and objective.loss == "cispo":
        raise ConfigError(
            'algo.dual_clip has no meaning with the loss "cispo", which is bounded by clip_high on '
            "both signs: remove algo.dual_clip"
        )
    return objective
