"""VERIFY.md: how a referee checks a dossier, and what it does not hold; numbers in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.evidence.core.comparisons import WITHHELD
from pellucid.evidence.core.schema import Claim, Claims

_HOW = """\
# How to check this dossier

You need Python 3.11 or newer and nothing else:

    python verify.pyz . --seed 1234        # any number of your own

It reads every file, recomputes every claim from the samples and prints one table: each claim, and
whether its *integrity* holds, whether it was *recomputed*, *replayed*, tried on *fresh* items, and
is *clean* of test items in the training data. The exit code is 0 only if all that can be checked
holds. Do you trust the verifier that came with what it is to judge? Take your own: build it from
Pellucid's sources (`pellucid dossier verifier`), its bytes are the same.

With the weights and Pellucid installed:

    pellucid verify . --seed 1234 --replay 59 --fresh 200

teacher-forces 59 samples of your seed's choice through the weights and asks the model 200 new
problems that nobody could have seen.
"""


def counted(number: int, noun: str) -> str:
    """`1 claim`, `2 claims`"""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def claims_hold(held: int, tested: int) -> str:
    """`2 of 3 claims hold`, `1 of 1 claim holds`"""
    return f"{held} of {counted(tested, 'claim')} {'holds' if 1 in (held, tested) else 'hold'}"


def said(claim: Claim) -> str:
    """What became of a claim."""
    if claim["level"] == WITHHELD:
        return "withheld"
    return "holds" if claim["holds"] else "does not hold"


def verify_md(claims: Claims, missing: Sequence[str]) -> str:
    """The whole file."""
    lines = [_HOW, "## Claims", ""]
    for claim in claims["claims"]:
        if claim["test"] is not None:
            reported = claim["reported"]
            lines.append(
                f"- {claim['id']}: {claim['text']}: {reported['value']} "
                f"[{reported['low']}, {reported['high']}], "
                f"{said(claim)}. {claim['limits']}"
            )
    lines += ["", "## What is not here", ""]
    lines += [f"- {line}" for line in missing] or ["Nothing that the format asks for."]
    return "\n".join(lines) + "\n"
