"""How often the 95 % intervals of claims contain the truth, by simulation: a table in Markdown.

    python benchmarks/interval_coverage.py [--runs 2000] [--seed 0]

Every run draws a new set of problem families from a population whose truth is known, asks both
arms, and computes the claims with the functions that dossiers are computed with. Families have one
to three problems; half of a family's problems share their difficulty, the others have their own.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable

from pellucid.evidence.core.claims import compute_claim
from pellucid.evidence.core.schema import Claim
from pellucid.evidence.core.tally import Evaluation, ItemTally

FAMILIES = (10, 20, 40, 100, 300)
K, PASS_K = 8, 4
LOW, HIGH = 0.93, 0.97
Difficulty = Callable[[random.Random], float]


def middling(draw: random.Random) -> float:
    """Mean 2/3, all degrees."""
    return draw.betavariate(2, 1)


def hard(draw: random.Random) -> float:
    """Mean 1/3: E[1 - (1 - p)^4] = 2/3."""
    return draw.betavariate(1, 2)


def easy(draw: random.Random) -> float:
    """Mean 0.95, nearly all near 1."""
    return draw.betavariate(9.5, 0.5)


def seldom(draw: random.Random) -> float:
    """Mean 0.05."""
    return draw.betavariate(1, 19)


def claim(kind: str, metric: dict[str, object], *, unit: str = "problem", arms: str = "a") -> Claim:
    """A claim with what `compute_claim` reads."""
    made: Claim = {
        "kind": kind, "metric": metric, "arms": {name: name for name in arms}, "unit": unit,
        "cluster": "family", "test": None, "seed": 0,
    }  # type: ignore[typeddict-item]  # fmt: skip
    return made


PASS_1 = {"fn": "pass_at_1"}
TRUNCATED = {"fn": "rate", "of": "truncated", "among": "samples"}
PASS_4 = {"fn": "pass_at_k", "k": PASS_K}
DESIGNS: dict[str, tuple[Claim, Difficulty, float]] = {
    "pass@1, 67 %": (claim("pass_at_1", PASS_1), middling, 2 / 3),
    "pass@1, 95 %": (claim("pass_at_1", PASS_1), easy, 0.95),
    "pass@4 of 8 samples, 67 %": (claim("pass_at_k", PASS_4), hard, 2 / 3),
    "truncated samples, 5 %": (claim("rate", TRUNCATED, unit="sample"), seldom, 0.05),
    "paired difference, + 13 points": (
        claim("paired_difference", PASS_1, arms="ab"), middling, 2 / 15,
    ),
    "paired difference, none": (claim("paired_difference", PASS_1, arms="ab"), middling, 0.0),
}  # fmt: skip


def simulated(draw: random.Random, families: int, difficulty: Difficulty, loss: float):
    """Both arms; the second gets right what the first does, less a share."""
    arms = {name: Evaluation("suite", name, merkle_root="") for name in "ab"}
    for family in range(families):
        shared = difficulty(draw)
        for number in range(draw.randrange(1, 4)):
            p = shared if draw.random() < 0.5 else difficulty(draw)
            for name, chance in (("a", p), ("b", p * (1 - loss))):
                right = sum(draw.random() < chance for _ in range(K))
                tally = ItemTally(f"family-{family}", "c" * right + "w" * (K - right))
                tally.truncated = right
                arms[name].items[f"{family}/{number}"] = tally
    return arms


def coverage(name: str, families: int, runs: int, seed: int) -> float:
    """Share of runs whose interval contains the truth."""
    made, difficulty, truth = DESIGNS[name]
    draw = random.Random(f"{seed} {name} {families}")
    loss = 0.2 if "13" in name else 0.0
    inside = 0
    for _ in range(runs):
        result = compute_claim(made, simulated(draw, families, difficulty, loss))
        inside += result.low <= truth <= result.high
    return inside / runs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| families | " + " | ".join(map(str, FAMILIES)) + " |")
    print("|---|" + "---|" * len(FAMILIES))
    for name in DESIGNS:
        cells = []
        for families in FAMILIES:
            share = coverage(name, families, options.runs, options.seed)
            mark = "" if LOW <= share <= HIGH else " *"
            cells.append(f"{share:.1%}{mark}".replace("%", " %"))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    error = math.sqrt(0.95 * 0.05 / options.runs)
    print(f"\n{options.runs} runs a cell: ± {2 * error:.1%} by chance. *: outside of 93 … 97 %.")


if __name__ == "__main__":
    main()
