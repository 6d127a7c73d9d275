"""How often the intervals of a human audit hold the truth, by simulation.

    python benchmarks/audit_coverage.py --runs 1000

A population has samples on which two graders agree and some that are contested; a person's label
differs from the grader's verdict with given probabilities. Of each run n and at most `contested`
samples are drawn, and every interval is compared with the number of the whole population.
"""

import argparse
import json
import random
from typing import NamedTuple

from pellucid.evidence.core.agreement import CELLS, Stratum, kappa, part_of, share_of
from pellucid.evidence.core.statistics import StatisticsError


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for setting in SETTINGS:
        shares = coverage(setting, options.runs, options.seed)
        print(json.dumps({"setting": setting.name, **{n: round(s, 3) for n, s in shares.items()}}))


if __name__ == "__main__":
    main()
