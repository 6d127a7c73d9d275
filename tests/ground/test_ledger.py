"""The ledger: an honest chain verifies, and every way of tampering is named."""

import json

import pytest

from pellucid.artifacts import canonical_json, sha256_bytes
from pellucid.errors import RunError
from pellucid.ledger import GENESIS, EventKind, Ledger, evaluation_attempts, verify_ledger


@pytest.fixture
def path(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(EventKind.RUN_STARTED, seed=1)
    ledger.append(EventKind.CHECKPOINT_SAVED, step=20)
    ledger.append(EventKind.EVALUATION_STARTED, suite="chain")
    ledger.append(EventKind.RUN_ENDED)
    ledger.close()
    return tmp_path / "ledger.jsonl"


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path, lines):
    path.write_bytes(b"".join(canonical_json(line) + b"\n" for line in lines))


def _seal(line):
    body = {k: v for k, v in line.items() if k != "digest"}
    return body | {"digest": sha256_bytes(canonical_json(body))}


def test_an_honest_ledger_verifies_and_is_continued_over_openings(path):
    assert verify_ledger(path) == []
    ledger = Ledger(path)
    event = ledger.append(EventKind.RESUMED, step=20)
    ledger.close()
    assert (event.serial, event.kind) == (4, EventKind.RESUMED)
    assert ledger.last(EventKind.CHECKPOINT_SAVED).payload == {"step": 20}
    assert ledger.last(EventKind.ARTEFACT_DAMAGED) is None
    assert verify_ledger(path) == []
    assert [line["serial"] for line in _lines(path)] == [0, 1, 2, 3, 4]


def test_the_first_event_starts_from_genesis_and_hashes_its_own_line(path):
    first = _lines(path)[0]
    assert first["prev"] == GENESIS
    assert first == _seal(first)


def test_a_changed_payload_is_named(path):
    lines = _lines(path)
    lines[1]["payload"]["step"] = 21
    _write(path, lines)
    assert verify_ledger(path) == ["ledger.jsonl line 2: its content was changed"]


def test_a_changed_and_resealed_event_breaks_the_link_after_it(path):
    lines = _lines(path)
    lines[1]["payload"]["step"] = 21
    lines[1] = _seal(lines[1])
    _write(path, lines)
    assert verify_ledger(path) == ["ledger.jsonl line 3: it does not follow the line before it"]


def test_a_removed_event_leaves_a_hole(path):
    lines = _lines(path)
    del lines[2]
    _write(path, lines)
    assert verify_ledger(path) == [
        "ledger.jsonl line 3: serial 3 instead of 2",
        "ledger.jsonl line 3: it does not follow the line before it",
    ]


def test_a_broken_ledger_is_not_continued(path):
    lines = _lines(path)
    lines[0]["time"] = "2020-01-01T00:00:00Z"
    _write(path, lines)
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"line 1: its content was changed: restore"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_torn_last_line_is_cut_and_the_cut_recorded(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    ledger = Ledger(path)
    ledger.close()
    assert [e.kind for e in ledger.events[-2:]] == [
        EventKind.EVALUATION_STARTED,
        EventKind.ARTEFACT_DAMAGED,
    ]
    cut = len(whole.splitlines(keepends=True)[-1]) - 30
    assert ledger.events[-1].payload == {"artefact": "ledger.jsonl", "cut_bytes": cut}
    assert verify_ledger(path) == []


def test_attempts_at_evaluations_have_their_serial_and_their_end(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for serial, arm in enumerate(("before", "before", "after"), 1):
        ledger.append(EventKind.EVALUATION_STARTED, serial=serial, arm=arm, suite="chain")
        if serial == 2:
            ledger.append(EventKind.EVALUATION_ABORTED, serial=1, arm=arm, suite="chain")
    ledger.append(EventKind.EVALUATION_ENDED, serial=2, arm="before", suite="chain")
    attempts = evaluation_attempts(ledger.events)
    assert [(a.serial, a.arm, a.end and str(a.end.kind)) for a in attempts] == [
        (1, "before", "evaluation_aborted"),
        (2, "before", "evaluation_ended"),
        (3, "after", None),
    ]
    assert [a.is_complete for a in attempts] == [False, True, False]
    ledger.close()


def test_attempts_of_older_ledgers_are_counted_and_paired_by_name(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for kind in (EventKind.EVALUATION_STARTED, EventKind.EVALUATION_ENDED):
        ledger.append(kind, arm="before", suite="chain")
    ledger.append(EventKind.EVALUATION_STARTED, arm="after", suite="chain")
    attempts = evaluation_attempts(ledger.events)
    assert [(a.serial, a.is_complete) for a in attempts] == [(1, True), (2, False)]
    ledger.close()


def test_a_clock_that_was_put_back_makes_no_event_older_than_the_last(path):
    lines = _lines(path)[:1]
    lines[0] = _seal(lines[0] | {"time": "2999-01-01T00:00:00Z"})
    _write(path, lines)
    ledger = Ledger(path)
    event = ledger.append(EventKind.RESUMED)
    ledger.close()
    assert event.time == "2999-01-01T00:00:00Z"
    assert verify_ledger(path) == []
