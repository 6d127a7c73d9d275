"""Samples replayed through the weights: did this model, with this seed, draw these tokens?

    sealed leaves → choice by HMAC(referee's seed, leaf) → teacher forcing → tolerance → findings

Nothing is generated: one forward pass per sample says at each position which token the counter
gives. Rounding differs between machines, so how near is near enough is calibrated by replaying
samples that are known to be honest, on the same class of hardware. Left out: reading a dossier
(`replay_dossier`), and what a failure was caused by (`replay_causes`).
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pellucid.errors import DataError
from pellucid.protocols import Tokenizer
from pellucid.records import SamplingParams, StopReason
from pellucid.stats import wilson

if TYPE_CHECKING:
    from pellucid.model.transformer import Decoder
    from pellucid.rollout.teacher_force import Recorded, Replayed

T = TypeVar("T")

FLOORS = {"float32": (1e-4, 1e-3), "bfloat16": (0.03, 0.015)}
"""Type of the weights -> smallest limits: of the gap, as a share of the probability, and of the
error of a sample's log-probability, nats per token. A calibration of a few hundred tokens has not
seen the worst: over 4,800 tokens of bfloat16 it was 0.015 and 0.009 (docs/replay.md)."""
GAP_CEILING = 0.25
"""A calibration that needs a wider limit than this could not tell frauds apart: rounding to 4 bits
gives 0.6, an honest bfloat16 model of half a billion weights 0.08 (docs/replay.md)."""
LOGPROB_CEILING = 0.05
ELSEWHERE_FRAC = 0.05
"""Honest tokens that may differ on other hardware; arXiv 2511.20621 finds under 2 in 100."""
MARGIN = 2.0
"""How much wider than the worst honest token or sample the limits are."""
RARE = 1e-3
"""A pooled number of mismatches less likely than this under the calibration is a finding."""

LARGE = 200.0
"""Expected counts beyond this are normal, and their exponential would vanish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySample:
    """One recorded sample with all that replay needs."""

    where: str
    """For people: `evals/chain/after chain/test/7 #2`."""
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    """The completion's text as recorded, without what the prompt had begun."""
    sample_id: int
    seed: int
    params: SamplingParams
    logprob_sum: float
    stop: StopReason

    def recorded(self) -> Recorded:
        """The part that goes through the weights."""
        from pellucid.rollout.teacher_force import Recorded

        return Recorded(
            prompt_ids=self.prompt_ids,
            token_ids=self.token_ids,
            sample_id=self.sample_id,
            seed=self.seed,
            params=self.params,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What rounding alone may do on a class of hardware."""

    hardware: str
    """Device and type of the weights, in words. Empty: not calibrated, the floors hold."""
    samples: int
    tokens: int
    gap_worst: float
    """Largest gap of an honest token."""
    gap: float
    """Limit: an honest token's gap is not beyond it."""
    logprob: float
    """Limit of |recorded - recomputed| log-probability of a sample, nats per token."""
    mismatch_frac: float
    """Upper 99 % bound of the honest share of tokens that differ."""

    @property
    def false_alarm_frac(self) -> float:
        """Upper 95 % bound of the share of honest tokens beyond the limit (rule of three)."""
        return min(1.0, 3.0 / self.tokens) if self.tokens else 1.0

    def for_other_hardware(self, drawn_on: str) -> Tolerance:
        """The widest limits: the samples come from hardware that this was not calibrated on."""
        return replace(
            self,
            hardware=f"{self.hardware}; drawn on {drawn_on}",
            gap=GAP_CEILING,
            logprob=LOGPROB_CEILING,
            mismatch_frac=max(ELSEWHERE_FRAC, self.mismatch_frac),
        )

    @classmethod
    def floors(cls) -> Tolerance:
        """Not calibrated: what float32 keeps to on one machine."""
        return cls(
            hardware="",
            samples=0,
            tokens=0,
            gap_worst=0.0,
            gap=FLOORS["float32"][0],
            logprob=FLOORS["float32"][1],
            mismatch_frac=0.001,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCheck:
    """What replay found of one sample."""

    where: str
    num_tokens: int
    num_matched: int
    """Tokens that the weights and the counters give again."""
    num_hard: int
    """Tokens further off than rounding explains."""
    first_hard: int | None
    """Position of the first of them."""
    gap_mean: float
    gap_max: float
    logprob_error: float | None
    """|recorded - recomputed|, nats per token; None: a recorded token was cut by top-k or top-p."""
    findings: tuple[str, ...]
    """In words; empty for an honest sample."""

    @property
    def is_honest(self) -> bool:
        return not self.findings


# Which samples


def choose(leaves: Iterable[tuple[bytes, T]], seed: str, m: int) -> list[T]:
    """The `m` with the smallest HMAC-SHA-256(seed, leaf hash): who wrote the leaves before the
    referee named the seed could not know which. Streams; memory grows with m alone.
    """
    if m < 1:
        raise DataError(f"--replay {m}: ask for at least one sample")
    keyed = (
        (hmac.digest(seed.encode(), leaf, hashlib.sha256), number, item)
        for number, (leaf, item) in enumerate(leaves)
    )
    return [item for _, _, item in heapq.nsmallest(m, keyed, key=lambda entry: entry[:2])]


def detection_probability(m: int, forged_share: float) -> float:
    """That at least one of m samples is among the forged share."""
    return 1.0 - (1.0 - forged_share) ** m


def samples_to_detect(forged_share: float, confidence: float = 0.95) -> int:
    """Samples that catch a forged share with this probability: 59 for 5 %, 299 for 1 %."""
    return math.ceil(math.log(1.0 - confidence) / math.log(1.0 - forged_share))


def detectable_share(m: int, confidence: float = 0.95) -> float:
    """Smallest forged share that m samples catch with this probability."""
    return 1.0 - (1.0 - confidence) ** (1.0 / m)


# What they show


def calibrate(model: Decoder, samples: Sequence[ReplaySample], hardware: str) -> Tolerance:
    """The tolerance from samples that are known to be honest: drawn by this engine from these
    weights. Raises DataError where rounding is so coarse that frauds could hide in it.
    """
    from pellucid.rollout.teacher_force import replay

    replayed = replay(model, [s.recorded() for s in samples])
    gaps = np.concatenate([r.gap for r in replayed])
    matched = sum(
        int((r.token_ids == np.array(s.token_ids)).sum())
        for s, r in zip(samples, replayed, strict=True)
    )
    errors = [logprob_error_of(s, r) for s, r in zip(samples, replayed, strict=True)]
    worst = max((e for e in errors if e is not None), default=0.0)
    gap, logprob = MARGIN * float(gaps.max()), MARGIN * worst
    if gap > GAP_CEILING or logprob > LOGPROB_CEILING:
        raise DataError(
            f"honest samples are off by {gap / MARGIN:.3f} of the probability and "
            f"{logprob / MARGIN:.4f} nats per token on {hardware}: replay cannot judge there; use "
            "the precision that the samples were drawn in"
        )
    gap_floor, logprob_floor = FLOORS[str(model.embedding.weight.dtype).removeprefix("torch.")]
    return Tolerance(
        hardware=hardware,
        samples=len(samples),
        tokens=len(gaps),
        gap_worst=float(gaps.max()),
        gap=max(gap_floor, gap),
        logprob=max(logprob_floor, logprob),
        mismatch_frac=wilson(len(gaps) - matched, len(gaps), level=0.98).high,
    )


def check(
    sample: ReplaySample, replayed: Replayed, tolerance: Tolerance, tokenizer: Tokenizer
) -> SampleCheck:
    """One sample held against the tolerance."""
    hard = np.flatnonzero(replayed.gap > tolerance.gap)
    error = logprob_error_of(sample, replayed)
    findings = []
    if len(hard):
        findings.append(
            f"{len(hard)} of {len(sample.token_ids)} tokens are not those of the counters, first "
            f"at {hard[0]}"
        )
    if error is not None and error > tolerance.logprob:
        findings.append(f"the log-probability is off by {error:.2g} nats per token")
    if tokenizer.decode(sample.token_ids) != sample.text:
        findings.append("the text is not that of the tokens")
    if not _ends_well(sample, tokenizer):
        findings.append(f"it does not end as recorded ({sample.stop})")
    return SampleCheck(
        where=sample.where,
        num_tokens=len(sample.token_ids),
        num_matched=int((replayed.token_ids == np.array(sample.token_ids)).sum()),
        num_hard=len(hard),
        first_hard=int(hard[0]) if len(hard) else None,
        gap_mean=float(replayed.gap.mean()),
        gap_max=float(replayed.gap.max()),
        logprob_error=error,
        findings=tuple(findings),
    )


def logprob_error_of(sample: ReplaySample, replayed: Replayed) -> float | None:
    """Nats per token; None where rounding at the border of top-p may have cut a recorded token."""
    total = float(replayed.logprobs.sum())
    if not math.isfinite(total):
        return None
    return abs(sample.logprob_sum - total) / len(sample.token_ids)


def _ends_well(sample: ReplaySample, tokenizer: Tokenizer) -> bool:
    ends = [token in tokenizer.eos_ids for token in sample.token_ids]
    if any(ends[:-1]):
        return False
    if sample.stop is StopReason.EOS:
        return ends[-1]
    if sample.stop is StopReason.LENGTH:
        return len(sample.token_ids) == sample.params.max_new_tokens
    return any(string in sample.text for string in sample.params.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What replay says of the samples of one model."""

    weights_root: str
    """Of the weights that replayed."""
    seed: str
    """The referee's."""
    eligible: int
    """Samples that claim these weights."""
    withheld: int
    """Chosen, but redacted: their text was not there to be replayed."""
    tolerance: Tolerance
    checks: tuple[SampleCheck, ...]
    cause: str | None = None
    """`replay_causes.Cause`; None where nothing is wrong."""
    text: str = ""
    """The cause with its grounds, in a sentence."""

    @property
    def failed(self) -> tuple[SampleCheck, ...]:
        return tuple(c for c in self.checks if not c.is_honest)

    @property
    def match_frac(self) -> float:
        """Share of all tokens that came out again."""
        return sum(c.num_matched for c in self.checks) / sum(c.num_tokens for c in self.checks)

    @property
    def has_too_many_mismatches(self) -> bool:
        """Whether the tokens that differ are more than the calibration explains, although each is
        within reach of rounding."""
        tokens = sum(c.num_tokens for c in self.checks)
        mismatches = tokens - sum(c.num_matched for c in self.checks)
        return _poisson_tail(mismatches, tokens * self.tolerance.mismatch_frac) < RARE

    @property
    def holds(self) -> bool:
        """Whether all replayed samples are what the weights and the counters give."""
        return bool(self.checks) and not self.failed and not self.has_too_many_mismatches

    @property
    def verdict(self) -> str:
        """`holds`, `fails`, or `unchecked` where nothing could be replayed."""
        if not self.checks:
            return "unchecked" if self.cause is None else "fails"
        return "holds" if self.holds else "fails"

    def with_cause(self, cause: str, text: str) -> ReplayReport:
        return replace(self, cause=cause, text=text)

    def lines(self) -> list[str]:
        """The report for a terminal."""
        number, tolerance = len(self.checks), self.tolerance
        if not number:
            return [self.text or "nothing replayed: all chosen samples are withheld"]
        basis = (
            f"calibrated on {tolerance.tokens} honest tokens ({tolerance.hardware})"
            if tolerance.hardware
            else "not calibrated: limits for float32 on one machine"
        )
        worst = max(c.gap_max for c in self.checks)
        lines = [
            f"{number} of {self.eligible} samples replayed, {self.match_frac:.2%} of the tokens "
            f"came out again, largest gap {worst:.2g} (limit {tolerance.gap:.2g}, {basis})",
            f"{number} samples find a forged share of {detectable_share(number):.1%} with 95 % "
            f"probability; {samples_to_detect(0.05)} find 5 %, {samples_to_detect(0.01)} find 1 %",
        ]
        if self.withheld:
            lines.append(f"{self.withheld} chosen samples are withheld and were not replayed")
        if self.cause is not None:
            lines.append(f"{self.cause}: {self.text}")
        return lines + [f"{c.where}: {'; '.join(c.findings)}" for c in self.failed[:5]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a verdict."""
        number = len(self.checks)
        errors = [c.logprob_error for c in self.checks if c.logprob_error is not None]
        return {
            "verdict": self.verdict,
            "weights_root": self.weights_root,
            "seed": self.seed,
            "eligible": self.eligible,
            "replayed": number,
            "withheld": self.withheld,
            "failed": len(self.failed),
            "cause": self.cause,
            "text": self.text,
            "match_frac": self.match_frac if number else None,
            "gap_max": max((c.gap_max for c in self.checks), default=None),
            "logprob_error_max": max(errors, default=None),
            "detectable_share": detectable_share(number) if number else None,
            "tolerance": asdict(self.tolerance)
            | {"false_alarm_frac": self.tolerance.false_alarm_frac},
            "samples": [asdict(c) for c in self.checks],
        }


def _poisson_tail(count: int, expected: float) -> float:
    """P(X >= count) of a Poisson variable, from above for a binomial with small shares."""
    if expected > LARGE:
        return 1.0 - NormalDist(expected, math.sqrt(expected)).cdf(count - 0.5)
    term = below = math.exp(-expected)
    for i in range(1, count):
        term *= expected / i
        below += term
    return 1.0 if count == 0 else max(0.0, 1.0 - below)
