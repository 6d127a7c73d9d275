"""Why replay failed: each fraud leaves its own marks.

    forged completion    some samples only, or tokens that the model would hardly have drawn
    another seed         plausible tokens with the right log-probabilities, matching no better than
                         chance
    4-bit weights        rounded weights replay the samples; or all differ as much as rounding does
    another checkpoint   the log-probabilities are those of other weights

Suspects that can be tried are tried: other seeds, other weights at hand, rounded weights. A sample
that one of them replays exactly settles the matter; the marks decide otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pellucid.evidence.replay import ReplayReport, ReplaySample, Tolerance, logprob_error_of

if TYPE_CHECKING:
    from pellucid.model.transformer import Decoder
    from pellucid.rollout.teacher_force import Replayed

TRIED = 16
"""Failed samples that suspects are tried on."""
TYPICAL = 5.0
"""Standard deviations within which the log-probability of drawn tokens lies of its expectation."""
NEAR = 2.0
"""Times the effect of rounding to 4 bits: no more than that looks like rounding."""


class Cause(StrEnum):
    """What explains a failed replay best."""

    FORGED = "forged-completion"
    SEED = "another-seed"
    FOUR_BIT = "low-precision-weights"
    CHECKPOINT = "another-checkpoint"
    PROMPT = "another-prompt"
    """The prompt that was answered is not the one that is claimed."""
    ROUNDING = "unexplained-rounding"
    """No sample is beyond the limit, yet too many tokens differ."""


class Named(NamedTuple):
    """A cause with its grounds in words."""

    cause: Cause
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """What might have drawn the samples instead."""

    seeds: Sequence[int] = (*range(10), 42, 123, 1234)
    """Tried in place of the recorded one."""
    models: Mapping[str, Callable[[], Decoder]] | None = None
    """Other weights at hand, such as the base: name -> how to load them."""


def name_cause(
    model: Decoder, report: ReplayReport, samples: Sequence[ReplaySample], suspects: Suspects
) -> ReplayReport:
    """The report with what explains its failures; `samples[i]` is that of `report.checks[i]`."""
    if report.holds or not report.checks:
        return report
    failed = [s for s, c in zip(samples, report.checks, strict=True) if not c.is_honest]
    if not failed:
        pooled = _Inquest(model, samples, report.tolerance, 1.0)
        found = pooled.by_suspect(suspects, pooled.halves) or Named(
            Cause.ROUNDING, "more tokens differ than was calibrated, each within reach of rounding"
        )
        return report.with_cause(*found)
    share = f"{len(failed)} of {len(samples)} samples"
    inquest = _Inquest(model, failed[:TRIED], report.tolerance, len(failed) / len(samples))
    found = (
        inquest.text_alone() or inquest.by_suspect(suspects, inquest.explains) or inquest.by_marks()
    )
    return report.with_cause(found.cause, f"{share}: {found.text}")


class _Inquest:
    """The failed samples of one report, looked at again."""

    def __init__(
        self,
        model: Decoder,
        failed: Sequence[ReplaySample],
        tolerance: Tolerance,
        failed_frac: float,
    ) -> None:
        self.model, self.failed, self.tolerance = model, failed, tolerance
        self.failed_frac = failed_frac
        self.own = self._replay(model)
        self.num_tokens = sum(len(s.token_ids) for s in failed)
        self._rounded: dict[str, list[Replayed]] = {}

    def _replay(self, model: Decoder, seed: int | None = None) -> list[Replayed]:
        from pellucid.rollout.teacher_force import replay

        recorded = [s.recorded() for s in self.failed]
        return replay(model, [r if seed is None else replace(r, seed=seed) for r in recorded])

    def text_alone(self) -> Named | None:
        """Tokens and log-probabilities are honest: somebody edited the text beside them."""
        if all(self._fits(s, r) for s, r in zip(self.failed, self.own, strict=True)):
            return Named(Cause.FORGED, "the tokens are honest, but text or ending are not theirs")
        return None

    def _fits(self, sample: ReplaySample, replayed: Replayed) -> bool:
        error = logprob_error_of(sample, replayed)
        is_near = error is None or error <= self.tolerance.logprob
        return is_near and not (replayed.gap > self.tolerance.gap).any()

    # Suspects

    def by_suspect(
        self, suspects: Suspects, explains: Callable[[Sequence[Replayed]], bool]
    ) -> Named | None:
        """The first suspect whose replay explains the samples."""
        for seed in suspects.seeds:
            if explains(self._replay(self.model, seed)):
                return Named(Cause.SEED, f"drawn with seed {seed}, not the recorded one")
        for name, load in (suspects.models or {}).items():
            if explains(self._replay(load())):
                return Named(Cause.CHECKPOINT, f"drawn from {name}, not from the claimed weights")
        from pellucid.rollout.low_precision import SCHEMES, low_precision

        for scheme in SCHEMES:
            self._rounded[scheme] = self._replay(low_precision(self.model, scheme))
            if explains(self._rounded[scheme]):
                return Named(Cause.FOUR_BIT, f"drawn from the weights rounded to 4 bits ({scheme})")
        return None

    def halves(self, others: Sequence[Replayed]) -> bool:
        """Whether no more than half as many tokens differ, of samples that are all near."""
        return 2 * (1 - self._matched_frac(others)) <= 1 - self._matched_frac(self.own)

    def explains(self, others: Sequence[Replayed]) -> bool:
        """Whether most failed samples come out again. Their log-probabilities need not: a forger
        may have computed them from the claimed weights, unless they are all that failed."""
        good = 0
        for sample, own, other in zip(self.failed, self.own, others, strict=True):
            was_hard = bool((own.gap > self.tolerance.gap).any())
            is_hard = bool((other.gap > self.tolerance.gap).any())
            good += not is_hard and (was_hard or self._fits(sample, other))
        return 2 * good > len(self.failed)

    # Marks

    def by_marks(self) -> Named:
        """What the failures look like."""
        matched = self._matched_frac(self.own)
        chance = float(np.mean(np.concatenate([np.exp(r.logprobs) for r in self.own])))
        noise = 4 * math.sqrt(chance * (1 - chance) / self.num_tokens)
        surprise = self._surprise()
        if matched <= chance + noise and abs(surprise) < TYPICAL and self._has_right_logprobs():
            return Named(
                Cause.SEED,
                f"{matched:.0%} of the tokens match, {chance:.0%} would by chance, and their "
                "log-probabilities are right: drawn from these weights with another seed",
            )
        if self.failed_frac <= 0.5:
            return Named(Cause.FORGED, "the others replay exactly, so these were changed or chosen")
        if self._has_right_logprobs():
            return Named(
                Cause.FORGED,
                "the log-probabilities are of these weights, the tokens not drawn from them "
                f"({surprise:+.0f} standard deviations)",
            )
        if self._looks_rounded():
            return Named(
                Cause.FOUR_BIT,
                f"{1 - matched:.1%} of the tokens differ, about as many as 4-bit rounding of the "
                "weights changes; a nearly equal checkpoint would look the same",
            )
        return Named(
            Cause.CHECKPOINT,
            f"{1 - matched:.0%} of the tokens and the log-probabilities differ by more than 4-bit "
            "rounding would explain",
        )

    def _matched_frac(self, replayed: Sequence[Replayed]) -> float:
        pairs = zip(self.failed, replayed, strict=True)
        return sum(int((r.token_ids == s.token_ids).sum()) for s, r in pairs) / self.num_tokens

    def _surprise(self) -> float:
        """How far the tokens' log-probability lies from that of tokens drawn from the weights, in
        standard deviations; -inf where a token cannot be drawn."""
        total = sum(float((r.logprobs + r.entropy).sum()) for r in self.own)
        return total / math.sqrt(sum(float(r.variance.sum()) for r in self.own) + 1e-9)

    def _errors(self) -> list[float]:
        errors = [logprob_error_of(s, r) for s, r in zip(self.failed, self.own, strict=True)]
        return [math.inf if e is None else e for e in errors]

    def _has_right_logprobs(self) -> bool:
        return float(np.median(self._errors())) <= self.tolerance.logprob

    def _looks_rounded(self) -> bool:
        """Whether tokens and log-probabilities are off by no more than rounding makes them."""
        differing = max(
            np.mean(np.concatenate([a.token_ids != b.token_ids for a, b in self._beside(scheme)]))
            for scheme in self._rounded
        )
        shift = max(
            np.median([abs((a.logprobs - b.logprobs).mean()) for a, b in self._beside(scheme)])
            for scheme in self._rounded
        )
        is_near = float(np.median(self._errors())) <= NEAR * shift
        return bool(is_near and 1 - self._matched_frac(self.own) <= NEAR * differing)

    def _beside(self, scheme: str) -> list[tuple[Replayed, Replayed]]:
        return list(zip(self.own, self._rounded[scheme], strict=True))
