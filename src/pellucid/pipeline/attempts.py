"""Every attempt to measure is in the ledger before it begins, and gets an end afterwards.

An attempt that was stopped, failed or was killed stays in the ledger as what it was: whoever reads
a run sees how often a suite was looked at, and which look is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pellucid.artifacts import sha256_json
from pellucid.evaluate.records import EvalResult, item_sha256
from pellucid.evaluate.suites import Suite
from pellucid.ledger import EventKind, evaluation_attempts
from pellucid.pipeline.diary import Diary
from pellucid.protocols import ProgressFn
from pellucid.tasks.templates import get_template

KILLED = "the process ended without a word"


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One evaluation that is under way."""

    serial: int
    """1, 2, 3, … in the order of the ledger."""
    samples: int = 0
    """Drawn so far."""
    ended: Mapping[str, Any] | None = None
    """What the ledger says of its end; to be set by who measures."""

    def counting(self, tick: ProgressFn | None) -> ProgressFn:
        """Progress that is also counted here."""

        def advance(done: int, total: int) -> None:
            self.samples = done
            if tick is not None:
                tick(done, total)

        return advance


@contextmanager
def attempt(diary: Diary, facts: Mapping[str, Any]) -> Iterator[Attempt]:
    """An attempt from its first to its last event; whatever ends it early is named in the ledger.

    `facts` name it: arm, suite and what it is made of (`suite_facts`).
    """
    earlier = evaluation_attempts(diary.ledger.events)
    running = Attempt(serial=1 + max((one.serial for one in earlier), default=0))
    diary.note(EventKind.EVALUATION_STARTED, serial=running.serial, **facts)
    names = {"serial": running.serial, "arm": facts["arm"], "suite": facts["suite"]}
    try:
        yield running
    except BaseException as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        diary.note(
            EventKind.EVALUATION_ABORTED, **names, samples=running.samples, reason=reason[:200]
        )
        raise
    diary.note(EventKind.EVALUATION_ENDED, **names, **(running.ended or {}))


def suite_facts(
    suite: Suite, arm: str, *, seed: int, weights: str, grading: Mapping[str, Any]
) -> dict[str, Any]:
    """What an attempt is made of, known before its first sample; `grading`: settings of the
    graders.
    """
    return {
        "arm": suite.arm(arm),
        "suite": suite.key,
        "problems": len(suite.problems),
        "k": suite.k,
        "samples": len(suite.problems) * suite.k,
        "items_sha256": sha256_json({p.id: item_sha256(p) for p in suite.problems}),
        "template": suite.template,
        "template_sha256": get_template(suite.template).sha256,
        "seed": seed,
        "weights": weights,
        "grading": dict(grading),
    }


def ending(result: EvalResult) -> dict[str, Any]:
    """What the ledger keeps of a result."""
    return {
        "samples": result.n_samples,
        "merkle_root": result.samples_root,
        **result.sealed_verdicts,
        "pass_at_1": result.pass_at_1.value,
    }


def close_lost(diary: Diary, arm: str, suite: Suite, kept: EvalResult | None) -> None:
    """Ends the attempts at this suite that a killed process left open: the one whose result is on
    the disk as ended, any other as aborted.
    """
    for lost in evaluation_attempts(diary.ledger.events):
        if lost.end is not None or (lost.arm, lost.suite) != (suite.arm(arm), suite.key):
            continue
        names = {"serial": lost.serial, "arm": lost.arm, "suite": lost.suite}
        if kept is not None and kept.origin.eval_serial == lost.serial and kept.samples_root:
            diary.note(EventKind.EVALUATION_ENDED, **names, **ending(kept))
        else:
            diary.note(EventKind.EVALUATION_ABORTED, **names, reason=KILLED)
