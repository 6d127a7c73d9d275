"""Second graders that hang, die or fail on chosen answers; imported by name in worker processes."""

import os
import time
import zlib
from pathlib import Path

from pellucid.records import Verdict
from pellucid.rewards.math import Opinion


def moody(gold: str, answer: str) -> Opinion:
    """Correct where gold and answer are equal texts; the answer says how to misbehave."""
    if "sleepy" in answer:
        time.sleep(60)
    if "busy" in answer:
        while True:
            pass
    if "deadly" in answer:
        os._exit(3)
    if "broken" in answer:
        raise RuntimeError("no such instrument")
    if "greedy" in answer:
        return Opinion(verdict=Verdict.CORRECT, detail=str(len(bytearray(8 << 30))))
    return Opinion(verdict=Verdict.CORRECT if gold == answer[::-1] else Verdict.WRONG)


def dies_once(gold: str, answer: str) -> Opinion:
    """Dies on the first question ever asked; `gold` names the file that remembers."""
    marker = Path(gold)
    if not marker.exists():
        marker.touch()
        os._exit(3)
    return Opinion(verdict=Verdict.CORRECT)


def slow_once(gold: str, answer: str) -> Opinion:
    """Sleeps through the first question, as on a machine that is busy elsewhere."""
    marker = Path(gold)
    if not marker.exists():
        marker.touch()
        time.sleep(60)
    return Opinion(verdict=Verdict.CORRECT)


def wandering(gold: str, answer: str) -> Opinion:
    """`moody` after a while that differs from answer to answer, so that replies overtake others."""
    time.sleep(zlib.crc32(answer.encode()) % 7 / 500)
    return moody(gold, answer)


def mortal(gold: str, answer: str) -> Opinion:
    """Answers one question; from then on every process dies. `gold` names the file that tells."""
    marker = Path(gold)
    if marker.exists():
        os._exit(3)
    marker.touch()
    return Opinion(verdict=Verdict.CORRECT)


def counts(gold: str, answer: str) -> Opinion:
    """Writes down every answer it is asked about, in the file that `gold` names."""
    with Path(gold).open("a") as file:
        file.write(answer)
    return Opinion(verdict=Verdict.CORRECT)
