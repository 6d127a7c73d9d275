"""The run's diary: an append-only chain of events; a changed or missing one shows.

Each line carries its serial number and the digest of the line before it. The chain shows tampering
and holes; who wrote it is the business of signatures, not of this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pellucid.artifacts import canonical_json, sha256_bytes
from pellucid.errors import RunError
from pellucid.jsonl import JsonlWriter

GENESIS = "0" * 64
"""`prev` of the first event."""


class EventKind(StrEnum):
    """What can happen in a run."""

    RUN_STARTED = "run_started"
    RESUMED = "resumed"
    STAGE_STARTED = "stage_started"
    STAGE_ENDED = "stage_ended"
    STAGE_SET_ASIDE = "stage_set_aside"
    """What lay in a stage's folder was of another address, and is kept under another name."""
    MEMORY_PLANNED = "memory_planned"
    """What a stage chose for the device: kept to when it is continued."""
    CHECKPOINT_SAVED = "checkpoint_saved"
    EVALUATION_STARTED = "evaluation_started"
    EVALUATION_ENDED = "evaluation_ended"
    EVALUATION_ABORTED = "evaluation_aborted"
    PREREGISTERED = "preregistered"
    """A sealed plan was filed: its digest, before what it announces."""
    CONTAMINATION_SCANNED = "contamination_scanned"
    """The training problems were held against the evaluation suites: counts, recall, what was done.
    """
    ARTEFACT_DAMAGED = "artefact_damaged"
    """A file or checkpoint found torn or altered, and what was used in its place."""
    WARNED = "warned"
    """Something that a person should look at, such as signs of reward hacking."""
    RUN_ENDED = "run_ended"
    REVIEW_STARTED = "review_started"
    """A round on a sealed dossier; this kind and the next four are of a dossier's reviews."""
    POINTS_IMPORTED = "points_imported"
    POINT_ANSWERED = "point_answered"
    POINT_RERUN = "point_rerun"
    POINT_CLOSED = "point_closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line. Example: {"serial":0,"time":"2026-11-21T09:00:00Z","kind":"run_started",…}"""

    serial: int
    """0, 1, 2, … without holes."""
    time: str
    """UTC, ISO 8601, seconds."""
    kind: EventKind
    payload: dict[str, Any]
    prev: str
    """`digest` of the event before."""
    digest: str
    """SHA-256 of the canonical JSON of all other fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationAttempt:
    """An evaluation as the ledger knows it. Example: serial=3, arm="after", suite="gsm8k", …"""

    serial: int
    """1, 2, 3, …: one for every evaluation that was begun."""
    arm: str
    suite: str
    start: Event
    end: Event | None
    """`evaluation_ended` or `evaluation_aborted`; None: the process was killed."""

    @property
    def is_complete(self) -> bool:
        return self.end is not None and self.end.kind is EventKind.EVALUATION_ENDED


def evaluation_attempts(events: Iterable[Event]) -> list[EvaluationAttempt]:
    """All evaluations in the order in which they were begun.

    Events of older runs carry no serial: they count in their order, and an end belongs to the last
    open start of the same arm and suite.
    """
    attempts: list[EvaluationAttempt] = []
    for event in events:
        payload = event.payload
        arm, suite = payload.get("arm", ""), payload.get("suite", "")
        if event.kind is EventKind.EVALUATION_STARTED:
            serial = payload.get("serial", len(attempts) + 1)
            new = EvaluationAttempt(serial=serial, arm=arm, suite=suite, start=event, end=None)
            attempts.append(new)
        elif event.kind in (EventKind.EVALUATION_ENDED, EventKind.EVALUATION_ABORTED):
            serial = payload.get("serial")
            for index in reversed(range(len(attempts))):
                one = attempts[index]
                named = serial is None and (one.arm, one.suite) == (arm, suite)
                if one.end is None and (named or one.serial == serial):
                    attempts[index] = replace(one, end=event)
                    break
    return attempts


class Ledger:
    """Opened by the one process that writes the run. A torn last line is cut, and that recorded."""

    def __init__(self, path: Path) -> None:
        """Raises RunError where the chain is broken anywhere but in a torn last line."""
        self._writer = JsonlWriter(path)
        self.events: list[Event] = []
        problems = verify_ledger(path, into=self.events)
        if problems:
            raise RunError(f"{problems[0]}: restore {path}, or start afresh with another --out")
        if self._writer.cut_bytes:
            self.append(
                EventKind.ARTEFACT_DAMAGED, artefact=path.name, cut_bytes=self._writer.cut_bytes
            )

    def append(self, kind: EventKind, /, **payload: Any) -> Event:
        """Record an event; it is on the disk when this returns. No host names in payloads.

        Where a clock was put back, or a run goes on elsewhere, an event is as late as the last one.
        """
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "serial": len(self.events),
            "time": max(time, self.events[-1].time) if self.events else time,
            "kind": str(kind),
            "payload": json.loads(canonical_json(payload)),
            "prev": self.events[-1].digest if self.events else GENESIS,
        }
        line = body | {"digest": sha256_bytes(canonical_json(body))}
        self._writer.append(line)
        self._writer.sync()
        event = _event(line)
        self.events.append(event)
        return event

    def last(self, kind: EventKind) -> Event | None:
        """The newest event of a kind."""
        return next((e for e in reversed(self.events) if e.kind is kind), None)

    def close(self) -> None:
        """Sync and close the file."""
        self._writer.close()


def verify_ledger(path: Path, *, into: list[Event] | None = None) -> list[str]:
    """Every break of the chain as `ledger.jsonl line 7: …`; empty for an honest ledger.

    `into` collects the events as they are read.
    """
    problems: list[str] = []
    previous = GENESIS
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            where = f"{path.name} line {number + 1}"
            try:
                line = json.loads(raw)
                event = _event(line)
            except (ValueError, KeyError, TypeError):
                problems.append(f"{where}: not an event")
                continue
            body = {key: value for key, value in line.items() if key != "digest"}
            if event.digest != sha256_bytes(canonical_json(body)):
                problems.append(f"{where}: its content was changed")
            if event.serial != number:
                problems.append(f"{where}: serial {event.serial} instead of {number}")
            if event.prev != previous:
                problems.append(f"{where}: it does not follow the line before it")
            previous = event.digest
            if into is not None:
                into.append(event)
    return problems


def _event(line: dict[str, Any]) -> Event:
    return Event(
        serial=line["serial"],
        time=line["time"],
        kind=EventKind(line["kind"]),
        payload=line["payload"],
        prev=line["prev"],
        digest=line["digest"],
    )
