"""The ledger's chain, the plans that were filed in it, and every attempt that it knows of."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pellucid.evidence.core.archive import ArchiveError, read_whole
from pellucid.evidence.core.canonical import JsonError, parse_json, sha256_bytes, sha256_json
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_files import is_head, is_time
from pellucid.evidence.core.check_grading import check_grading
from pellucid.evidence.core.schema import (
    PLAN_SHAPES,
    PREREG_PREDICATE,
    Preregistration,
    PreregPredicate,
)
from pellucid.evidence.core.schema_training import LEDGER_PAYLOADS
from pellucid.evidence.core.signature import EnvelopeError, read_envelope

LEDGER = "ledger.jsonl"
_FIELDS = {"serial": int, "time": str, "kind": str, "payload": dict, "prev": str, "digest": str}


def read_ledger(case: Case) -> None:
    """Reads the run's events into the case, and checks their chain."""
    case.events = read_chain(case, LEDGER)


def read_chain(case: Case, path: str) -> list[dict[str, Any]]:
    """The events of a ledger, each of which names the one before it."""
    events: list[dict[str, Any]] = []
    try:
        data = read_whole(case.archive, path)
    except ArchiveError as error:
        case.find("file-missing", path, str(error))
        return events
    previous, time = "0" * 64, ""
    if not data.endswith(b"\n"):
        case.find("ledger-broken", path, "the last line has no end")
    for number, raw in enumerate(data.split(b"\n")[:-1]):
        where = f"{path} line {number + 1}"
        event = _event(case, where, raw)
        if event is None:
            continue
        if event["serial"] != number:
            case.find("ledger-broken", where, f"serial {event['serial']} instead of {number}")
        if event["prev"] != previous:
            case.find("ledger-broken", where, "it does not follow the line before it")
        if event["time"] < time:
            case.find("ledger-time", where, f"{event['time']} comes after {time}")
        previous, time = event["digest"], event["time"]
        events.append(event)
    return events


def _event(case: Case, where: str, raw: bytes) -> dict[str, Any] | None:
    try:
        event = parse_json(raw)
    except JsonError as error:
        case.find("ledger-broken", where, str(error))
        return None
    if type(event) is not dict or event.keys() != _FIELDS.keys():
        case.find("ledger-broken", where, "not an event")
        return None
    if any(type(event[name]) is not kind for name, kind in _FIELDS.items()):
        case.find("ledger-broken", where, "a field of another type")
        return None
    body = {name: event[name] for name in _FIELDS if name != "digest"}
    try:
        is_own = sha256_json(body) == event["digest"]
    except ValueError:
        is_own = False
    if not is_own:
        case.find("ledger-broken", where, "its content was changed")
    if not is_time(event["time"]):
        case.find("ledger-broken", where, "its time is none")
        return None
    payload = event["payload"]
    for name in LEDGER_PAYLOADS.get(event["kind"], ()):
        if type(payload.get(name)) is not (int if name in ("serial", "step") else str):
            case.find("ledger-broken", where, f"a {event['kind']} without a right {name}")
            return None
    return event


# Plans


def check_plans(case: Case) -> None:
    """Every plan is the one that the ledger recorded, when it says, and signed by the same key."""
    filed = {e["payload"]["id"]: e for e in reversed(case.events) if e["kind"] == "preregistered"}
    for path in sorted(case.archive.sizes):
        name = path.removeprefix("prereg/")
        if name == path or not name.endswith(".json") or name.endswith(".dsse.json"):
            continue
        plan = case.load(path, PLAN_SHAPES)
        if plan is None:
            continue
        if plan["id"] != name.removesuffix(".json"):
            case.find("file-malformed", path, f"its id is {plan['id']}")
            continue
        case.plans[plan["id"]] = plan
        digest = sha256_bytes(read_whole(case.archive, path))
        _check_plan_event(case, path, plan, digest, filed.pop(plan["id"], None))
        _check_plan_envelope(case, path, digest)
    if not case.plans:
        case.find("prereg-missing", "prereg", "there is no plan")
    for name, event in filed.items():
        where = f"{LEDGER} line {event['serial'] + 1}"
        case.find("prereg-missing", where, f"plan {str(name)[:20]} was filed but is not here")


def _check_plan_event(
    case: Case, path: str, plan: Preregistration, digest: str, event: dict[str, Any] | None
) -> None:
    if event is None:
        case.find("prereg-missing", path, "the ledger does not know this plan")
        return
    if event["payload"]["sha256"] != digest:
        case.find("prereg-changed", path, "not the bytes whose digest the ledger recorded")
    head = plan["ledger"]
    if not is_head(case, head) or head["count"] > event["serial"]:
        case.find(
            "prereg-late", path, "it names a state that the ledger was not in when it was filed"
        )
    elif head["count"] and plan["time"] < case.events[head["count"] - 1]["time"]:
        case.find("prereg-late", path, "its date lies before events that it names: back-dated")
    if not is_time(plan["time"]) or plan["time"] > event["time"]:
        case.find("prereg-late", path, f"dated {plan['time'][:20]}, filed {event['time']}")


def _check_plan_envelope(case: Case, path: str, digest: str) -> None:
    envelope = path.removesuffix(".json") + ".dsse.json"
    if envelope not in case.archive.sizes:
        if case.keyid is not None:
            case.find("seal-unsigned", path, "the seal is signed, this plan is not")
        return
    try:
        signed = read_envelope(
            read_whole(case.archive, envelope), PREREG_PREDICATE, PreregPredicate
        )
    except (EnvelopeError, ArchiveError) as error:
        case.find("file-malformed", envelope, str(error))
        return
    subject = signed.statement["subject"][0]
    if subject["name"] != path or subject["digest"]["sha256"] != digest:
        case.find("prereg-changed", path, "not the plan that was signed")
    if signed.is_valid is False:
        case.find("signature-invalid", envelope, "the signature is not of this text by this key")
    if case.is_sealed and signed.keyid != case.keyid:
        case.find("foreign-signature", envelope, "plan and dossier are signed with different keys")


# Attempts


def check_attempts(case: Case) -> None:
    """Every attempt has a number and an end, and is reported; everything reported is an attempt."""
    starts: dict[int, dict[str, Any]] = {}
    ends: dict[int, dict[str, Any]] = {}
    for event in case.events:
        serial = event["payload"].get("serial")
        where = f"{LEDGER} line {event['serial'] + 1}"
        if event["kind"] == "evaluation_started":
            if serial != len(starts) + 1:
                text = f"attempt {serial} instead of {len(starts) + 1}: a hole"
                case.find("ledger-broken", where, text)
            starts[serial] = event
        elif event["kind"] in ("evaluation_ended", "evaluation_aborted"):
            if serial not in starts or serial in ends:
                case.find("ledger-broken", where, "an end without its start, or a second one")
            ends[serial] = event
    reported = {root["eval_serial"]: folder for folder, root in case.roots.items()}
    if len(reported) != len(case.roots):
        case.find("ledger-broken", "evals", "two evaluations claim to be the same attempt")
    for serial, event in starts.items():
        _check_attempt(case, event, ends.get(serial), reported.get(serial))
    for serial, folder in reported.items():
        if serial not in starts:
            text = f"attempt {serial} is not in the ledger"
            case.find("ledger-truncated", folder, text, case.using(folder))
    _check_number(case, starts.values())
    _check_order(case, starts)
    check_grading(case, starts)


def _check_attempt(
    case: Case, start: dict[str, Any], end: dict[str, Any] | None, folder: str | None
) -> None:
    facts = start["payload"]
    where = f"{LEDGER} line {start['serial'] + 1}"
    name = f"attempt {facts['serial']}, {facts['arm']} on {facts['suite']}"
    if folder is None:
        if end is not None and end["kind"] == "evaluation_aborted":
            case.find("attempt-reported", where, f"{name}, was aborted", ())
        else:
            case.find("unreported-attempt", where, f"{name}, is not in the dossier")
        return
    if end is None or end["kind"] == "evaluation_aborted":
        text = f"{name}, was not finished, but is reported"
        case.find("ledger-truncated" if end is None else "unreported-attempt", where, text)
    root, using = case.roots[folder], case.using(folder)
    if (root["suite"], root["arm"]) != (facts["suite"], facts["arm"]):
        case.find("ledger-broken", folder, f"{name}, is another evaluation", using)
    pairs = (
        ("weights-swapped", "weights", "model"),
        ("prompt-changed", "template_sha256", "template_sha256"),
        ("grader-changed", "grader_sha256", "grader_sha256"),
        ("seed-changed", "seed", "seed"),
        ("sample-missing", "k", "k"),
        ("sample-missing", "samples", "expected"),
    )
    for code, key, field in pairs:
        if key in facts and facts[key] != root[field]:  # type: ignore[literal-required]
            case.find(code, folder, f"the ledger's {key} at the start was another", using)
    if end is not None:
        ended = end["payload"]
        if ended.get("merkle_root", root["recorded_root"]) != root["recorded_root"]:
            case.find("sample-edited", folder, "the ledger recorded another Merkle root", using)
        if ended.get("samples", root["count"]) != root["count"]:
            text = f"{root['count']} samples, the ledger recorded {ascii(ended['samples'])[:20]}"
            case.find("sample-missing", folder, text, using)
        _check_verdicts(case, folder, ended)


def _check_verdicts(case: Case, folder: str, ended: dict[str, Any]) -> None:
    """They are those that were recorded when the evaluation ended: a sample that was withheld since
    cannot be graded again, and has the verdict that it had with its text.
    """
    evaluation, using = case.evaluations.get(folder), case.using(folder)
    if evaluation is None:
        return
    verdicts, votes = ended.get("verdicts_sha256"), ended.get("votes_sha256")
    if verdicts is None or votes is None:
        if case.roots[folder]["redacted"]:
            text = "made before ledgers kept verdicts: those of withheld samples are only said"
            case.find("verdicts-unbound", folder, text, using)
        return
    if verdicts != evaluation.verdicts_sha256():
        text = "its verdicts, families or lengths are not those recorded when it ended"
        case.find("verdicts-changed", folder, text, using)
    if evaluation.keeps_answers and votes != evaluation.votes_sha256():
        text = "which of its answers are equal is not what was recorded when it ended"
        case.find("verdicts-changed", folder, text, using)


def _check_number(case: Case, starts: Any) -> None:
    tried = Counter((e["payload"]["suite"], e["payload"]["arm"]) for e in starts)
    for (suite, arm), count in tried.items():
        folder = f"evals/{suite}/{arm}"
        for name, plan in case.plans.items():
            if suite in plan["suites"] and arm in plan["arms"] and count > plan["max_attempts"]:
                text = f"{count} attempts, plan {name} allows {plan['max_attempts']}"
                case.find("attempts-exceeded", folder, text, case.using(folder))


def _check_order(case: Case, starts: dict[int, dict[str, Any]]) -> None:
    """No evaluation that a claim rests on began before its plan was filed."""
    filed = {e["payload"]["id"]: e["serial"] for e in reversed(case.events)
             if e["kind"] == "preregistered"}  # fmt: skip
    for claim in case.claim_list():
        plan = claim["prereg"].partition("#")[0]
        for folder in claim["arms"].values():
            root = case.roots.get(folder)
            start = starts.get(root["eval_serial"]) if root else None
            if start is not None and filed.get(plan, -1) > start["serial"]:
                case.find(
                    "prereg-late", folder, f"it began before plan {plan} was filed", [claim["id"]]
                )
