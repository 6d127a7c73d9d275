"""What another grader says of the answers that the first one graded: math-verify, on every pair of
gold and extracted answer, in processes that can be killed.

Both graders see the one answer that was extracted, so what they disagree on is mathematics and not
where the answer stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from importlib.metadata import version

from pellucid.errors import RunError
from pellucid.evidence.core.audit import SECOND_METHOD, SecondFile, answer_pair, pair_key
from pellucid.evidence.core.canonical import sha256_json
from pellucid.evidence.core.samples import Sample
from pellucid.evidence.core.tally import NOT_GRADED
from pellucid.records import Verdict
from pellucid.rewards.opinions import OpinionDesk
from pellucid.rewards.pool import MATH_VERIFY
from pellucid.runlog import Progress

PACKAGE = "math-verify"
ASKED = ("integer", "math")
"""Graders of numbers and formulas, which a grader of mathematics can read."""
TIMEOUT_S = 5.0
MEMORY_MIB = 4096


def second_opinions(
    samples: Iterable[Sample],
    *,
    judge: str = MATH_VERIFY,
    num_workers: int = 1,
    progress: Progress,
) -> SecondFile | None:
    """Asks about every pair once; None where no sample has one. `judge`: `module:function`.

    Raises RunError where the second grader cannot run.
    """
    verdicts, unread = _pairs(samples)
    if not verdicts and not unread:
        return None
    differ, failed = [], list(unread)
    with (
        closing(_desk(judge, num_workers)) as desk,
        progress.task("second opinions", len(verdicts), "answers") as tick,
    ):
        asked = [(pair, desk.ask(pair[1:])) for pair in verdicts]
        for number, (pair, future) in enumerate(asked, 1):
            opinion = future.result()
            key = pair_key(pair[0], *map(sha256_json, pair[1:]))
            if opinion.verdict is Verdict.ERROR and "cannot run" in opinion.detail:
                raise RunError(
                    f"{opinion.detail[:120]}: pip install {PACKAGE}, or leave the second grader "
                    "out (--no-second)"
                )
            if opinion.verdict in (Verdict.ERROR, Verdict.TIMEOUT):
                failed.append(key)
            elif (opinion.verdict is Verdict.CORRECT) != verdicts[pair]:
                differ.append(key)
            tick(number, len(asked))
    return {
        "v": 1,
        "name": PACKAGE,
        "version": version(PACKAGE),
        "graders": list(ASKED),
        "pairs": len(verdicts),
        "differ": sorted(differ),
        "failed": sorted(failed),
    }


def _desk(judge: str, num_workers: int) -> OpinionDesk:
    return OpinionDesk(judge, num_workers=num_workers, timeout_s=TIMEOUT_S, memory_mib=MEMORY_MIB)


def _pairs(samples: Iterable[Sample]) -> tuple[dict[tuple[str, str, str], bool], set[str]]:
    """(grader, gold, answer) -> whether the grader takes it; keys of pairs that are withheld."""
    verdicts: dict[tuple[str, str, str], bool] = {}
    unread: set[str] = set()
    for sample in samples:
        pair = answer_pair(sample)
        if (
            pair is None
            or sample["grader"] not in ASKED
            or sample["verdict"] in NOT_GRADED
            or sample["method"] == SECOND_METHOD
        ):
            continue
        gold, answer = sample["gold"], sample["extracted"]
        if gold is None or answer is None:
            unread.add(pair_key(sample["grader"], *pair))
        else:
            verdicts[sample["grader"], gold, answer] = sample["verdict"] == "correct"
    return verdicts, unread
