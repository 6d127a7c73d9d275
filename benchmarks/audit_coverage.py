"""How often the intervals of a human audit, and of judges corrected by labels, hold the truth.

    python benchmarks/audit_coverage.py --runs 1000

A population has samples on which two graders agree and some that are contested; a person's label
differs from the grader's verdict with given probabilities. Of each run n and at most `contested`
samples are drawn, and every interval is compared with the number of the whole population.

Judges: problems in families whose difficulty varies, a judge who is right with a given probability
and else says yes with another; the truth is the mean over all problems that there could be. Printed
beside is how often the judge's own interval holds it, uncorrected.
"""

import argparse
import json
import random
from typing import NamedTuple

from pellucid.evidence.core.agreement import CELLS, Stratum, kappa, part_of, share_of
from pellucid.evidence.core.ppi import Part, corrected
from pellucid.evidence.core.statistics import StatisticsError, jackknife


class Setting(NamedTuple):
    """One kind of population."""

    name: str
    sizes: tuple[int, int]
    """Samples that graders agree on, and that they do not."""
    drawn: tuple[int, int]
    right: float
    """Share that a person calls correct."""
    errors: tuple[float, float]
    """Wrongly accepted, wrongly refused, where graders agree; 40 % where they do not."""


SETTINGS = (
    Setting(
        "errors 2 % and 3 %, 60 contested, all labelled",
        *((5000, 60), (100, 100), 0.6, (0.02, 0.03)),
    ),
    Setting("the same, 30 of 60 labelled", (5000, 60), (100, 30), 0.6, (0.02, 0.03)),
    Setting("errors 5 % and 8 %, none contested", (5000, 0), (100, 100), 0.6, (0.05, 0.08)),
    Setting(
        "errors 0 and 1 %, 300 contested, 100 labelled",
        *((5000, 300), (100, 100), 0.9, (0.0, 0.01)),
    ),
    Setting("errors 15 % and 10 %, 300 contested", (2000, 300), (100, 100), 0.5, (0.15, 0.1)),
)
CONTESTED_ERROR = 0.4


def population(draw, size, right, errors):
    """(grader accepts, person accepts) of every sample."""
    truths = [draw.random() < right for _ in range(size)]
    return [(truth != (draw.random() < errors[truth]), truth) for truth in truths]


def numbers(strata):
    """Every number with its interval."""
    accepted, refused, right, wrong = (share_of(strata, (c,)) for c in (1, 2, 0, 3))
    return {
        "agreement": share_of(strata, (0, 3)),
        "kappa": kappa(strata),
        "false positives": accepted,
        "false negatives": refused,
        "false positive rate": part_of(accepted, wrong),
        "false negative rate": part_of(refused, right),
    }


def stratum(size, pairs):
    return Stratum(size, tuple(pairs.count(cell) for cell in CELLS))


def coverage(setting, runs, seed):
    """Share of runs whose interval holds the truth, by number."""
    draw = random.Random(f"{setting.name}/{seed}")
    hits, done = {}, {}
    for _ in range(runs):
        pops = [
            population(draw, size, setting.right, errors)
            for size, errors in zip(
                setting.sizes, (setting.errors, (CONTESTED_ERROR,) * 2), strict=True
            )
        ]
        samples = [draw.sample(p, min(n, len(p))) for p, n in zip(pops, setting.drawn, strict=True)]
        try:
            truth = numbers([stratum(len(p), p) for p in pops])
            found = numbers([stratum(len(p), s) for p, s in zip(pops, samples, strict=True)])
        except StatisticsError:
            continue
        for name, interval in found.items():
            done[name] = done.get(name, 0) + 1
            is_in = interval.low - 1e-12 <= truth[name].value <= interval.high + 1e-12
            hits[name] = hits.get(name, 0) + is_in
    return {name: hits[name] / done[name] for name in done}


class JudgeSetting(NamedTuple):
    """One kind of judge and problems."""

    name: str
    families: int
    samples: int
    """Of each family."""
    labelled: int
    right: float
    """Probability that the judge sees the truth."""
    kind: float
    """Probability of a yes where it does not."""
    rate: float
    """Mean of the families' shares of right answers, before these are cut to 0 … 1."""


JUDGES = (
    JudgeSetting("right in 80 %, else kind", 150, 4, 100, 0.8, 0.9, 0.6),
    JudgeSetting("right in 98 %", 150, 4, 100, 0.98, 0.5, 0.6),
    JudgeSetting("120 samples in all", 60, 2, 100, 0.8, 0.9, 0.6),
    JudgeSetting("a coin", 300, 4, 100, 0.0, 0.5, 0.6),
    JudgeSetting("right in 90 %, else unkind", 300, 4, 200, 0.9, 0.2, 0.9),
    JudgeSetting("never wrong", 300, 4, 100, 1.0, 0.0, 0.9),
)


def difficulty(draw, rate):
    return min(max(draw.gauss(rate, 0.25), 0.0), 1.0)


def judge_coverage(setting, runs, seed):
    """Share of runs in which the corrected interval, and the judge's own, hold the truth."""
    draw = random.Random(f"{setting.name}/{seed}")
    truth = sum(difficulty(draw, setting.rate) for _ in range(400_000)) / 400_000
    hits, own_hits, width = 0, 0, 0.0
    for _ in range(runs):
        gaps, sums = [], []
        for _ in range(setting.families):
            share, yes = difficulty(draw, setting.rate), 0
            for _ in range(setting.samples):
                is_right = draw.random() < share
                sees = draw.random() < setting.right
                says = is_right if sees else draw.random() < setting.kind
                yes += says
                gaps.append(float(is_right) - float(says))
            sums.append((float(yes), float(setting.samples)))
        judged = jackknife(sums, lambda s: s[0] / s[1], is_share=True)
        part = Part(len(gaps), draw.sample(gaps, setting.labelled))
        found = corrected(judged, [[part]])
        hits += found.low <= truth <= found.high
        own_hits += judged.low <= truth <= judged.high
        width += found.high - found.low
    return {"corrected": hits / runs, "judge alone": own_hits / runs, "mean width": width / runs}


def report(name, shares):
    print(json.dumps({"setting": name, **{n: round(s, 3) for n, s in shares.items()}}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for setting in SETTINGS:
        report(setting.name, coverage(setting, options.runs, options.seed))
    for setting in JUDGES:
        report(setting.name, judge_coverage(setting, options.runs, options.seed))


if __name__ == "__main__":
    main()
