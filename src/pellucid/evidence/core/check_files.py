"""Files against the manifest, the manifest against the seal, the seals against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pellucid.evidence.core.archive import (
    MAX_FILE_BYTES,
    ArchiveError,
    digest_of,
    path_problem,
    read_whole,
)
from pellucid.evidence.core.canonical import JsonError, is_sha256, parse_canonical, sha256_bytes
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.schema import (
    MANIFEST_NAME,
    SEAL_NAME,
    SEAL_PREDICATE,
    UNLISTED,
    ManifestLine,
    SealPredicate,
)
from pellucid.evidence.core.shapes import shape_problem
from pellucid.evidence.core.signature import EnvelopeError, Signed, read_envelope

MAX_VERSIONS = 1000
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def is_time(text: str) -> bool:
    """Whether it is UTC in seconds, as all times here."""
    return _TIME.fullmatch(text) is not None


def check_files(case: Case) -> None:
    """Reads the manifest and holds every file to it."""
    for path, why in case.archive.problems:
        case.find("path-unsafe", path, why)
    try:
        data = read_whole(case.archive, MANIFEST_NAME)
    except ArchiveError as error:
        case.find("file-missing", MANIFEST_NAME, str(error))
        data = b""
    for line in _manifest_lines(case, data):
        case.manifest[line["path"]] = line
        _check_file(case, line)
    for path in case.archive.sizes:
        if path not in case.manifest and path not in UNLISTED:
            case.find("file-unlisted", path, _why_unlisted(path))


def _why_unlisted(path: str) -> str:
    """A review goes on after a seal, another party's dossier comes later: both need the next."""
    if path.startswith("reviews/"):
        return "written after the seal: whoever reviews or answers must seal the next version"
    if path.startswith("external/"):
        return "attached after the seal: it is not yet part of a version"
    return "the manifest does not list it"


def _manifest_lines(case: Case, data: bytes) -> Iterator[ManifestLine]:
    last = ""
    if data and not data.endswith(b"\n"):
        case.find("file-malformed", MANIFEST_NAME, "the last line has no end")
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        where = f"{MANIFEST_NAME} line {number}"
        try:
            line = parse_canonical(raw)
        except JsonError as error:
            case.find("file-malformed", where, str(error))
            continue
        problem = shape_problem(line, ManifestLine)
        if problem is None and (why := path_problem(line["path"])):
            case.find("path-unsafe", where, f"{line['path']}: {why}")
            continue
        if problem is None and not is_sha256(line["sha256"]):
            problem = "its sha256 is none"
        if problem is None and (line["path"] <= last or line["path"] in UNLISTED):
            problem = "out of order, twice, or of a file that is not to be listed"
        if problem is not None:
            case.find("file-malformed", where, problem)
            continue
        last = line["path"]
        yield line


def _check_file(case: Case, line: ManifestLine) -> None:
    path = line["path"]
    if path not in case.archive.sizes:
        case.find("file-missing", path, "the manifest lists it")
        return
    if case.archive.sizes[path] != line["bytes"]:
        text = f"{case.archive.sizes[path]} bytes instead of {line['bytes']}"
        case.find("file-changed", path, text)
        return
    try:
        size, digest = digest_of(case.archive, path, min(line["bytes"], MAX_FILE_BYTES))
    except ArchiveError as error:
        case.find("archive-refused", path, str(error))
        return
    if size != line["bytes"] or digest != line["sha256"]:
        case.find("file-changed", path, f"SHA-256 {digest[:16]}… instead of {line['sha256'][:16]}…")


# Seals


def check_seal(case: Case) -> None:
    """The seal is of this manifest and this ledger, and follows the versions before it."""
    seal = _read_seal(case, SEAL_NAME)
    if seal is None:
        return
    case.is_sealed, case.keyid = True, seal.keyid
    subject = seal.statement["subject"][0]
    manifest = sha256_bytes(_bytes_of(case, MANIFEST_NAME))
    if subject["name"] != MANIFEST_NAME or subject["digest"]["sha256"] != manifest:
        case.find("seal-mismatch", SEAL_NAME, "sealed was another manifest than this one")
    _check_signer(case, SEAL_NAME, seal)
    _check_head(case, SEAL_NAME, seal.statement["predicate"]["ledger"], is_whole=True)
    _check_chain(case, seal)


def _read_seal(case: Case, path: str) -> Signed | None:
    if path not in case.archive.sizes:
        is_own = path == SEAL_NAME
        text = "there is no seal" if is_own else "the seal of an earlier version is not here"
        case.find("seal-missing" if is_own else "seal-chain-broken", path, text)
        return None
    try:
        seal = read_envelope(_bytes_of(case, path), SEAL_PREDICATE, SealPredicate)
    except EnvelopeError as error:
        case.find("file-malformed", path, str(error))
        return None
    predicate = seal.statement["predicate"]
    if predicate["v"] != 1 or not is_time(predicate["time"]):
        case.find("file-malformed", path, "an unknown version, or no time")
    if seal.is_valid is False:
        case.find("signature-invalid", path, "the signature is not of this text by this key")
    return seal


def _check_signer(case: Case, path: str, seal: Signed) -> None:
    if case.trusted_key is not None:
        if seal.keyid != case.trusted_key:
            signer = f"by {seal.keyid[:16]}…" if seal.keyid else "by nobody"
            case.find("foreign-signature", path, f"signed {signer}, not by the key asked for")
    elif seal.keyid is None:
        case.find("seal-unsigned", path, "only the digests hold it together")
    else:
        case.find("signature-unpinned", path, f"signed by {seal.keyid}; --key ID demands a key")


def _check_head(case: Case, path: str, head: dict, *, is_whole: bool) -> None:  # type: ignore[type-arg]
    count, events = head["count"], case.events
    if count > len(events):
        text = f"sealed were {count} events, {len(events)} are here"
        case.find("ledger-truncated", "ledger.jsonl", text)
    elif is_whole and count < len(events):
        case.find("seal-mismatch", path, f"sealed were {count} events of {len(events)}")
    elif not is_head(case, head):
        case.find("seal-mismatch", path, f"event {count} of the ledger is not the one sealed")


def is_head(case: Case, head: dict) -> bool:  # type: ignore[type-arg]
    """Whether the ledger, at that length, ended as `head` says."""
    count = head["count"]
    if not 0 <= count <= len(case.events):
        return False
    last = case.events[count - 1]["digest"] if count else "0" * 64
    return bool(last == head["digest"])


def _check_chain(case: Case, seal: Signed) -> None:
    for _ in range(MAX_VERSIONS):
        predicate = seal.statement["predicate"]
        version, previous = predicate["version"], predicate["previous"]
        if version == 1 and previous is None:
            return
        path = f"seals/{version - 1:04d}.dsse.json" if 1 < version <= MAX_VERSIONS else ""
        if not path or previous is None:
            case.find("seal-chain-broken", SEAL_NAME, f"version {version} follows no other")
            return
        earlier = _read_seal(case, path)
        if earlier is None:
            return
        if sha256_bytes(_bytes_of(case, path)) != previous:
            case.find("seal-chain-broken", path, f"version {version} names another seal before it")
        if earlier.statement["predicate"]["version"] != version - 1:
            case.find("seal-chain-broken", path, "its version is not one less")
        if earlier.keyid != seal.keyid:
            case.find("foreign-signature", path, f"version {version} is signed with another key")
        _check_head(case, path, earlier.statement["predicate"]["ledger"], is_whole=False)
        seal = earlier


def _bytes_of(case: Case, path: str) -> bytes:
    try:
        return read_whole(case.archive, path)
    except ArchiveError:
        return b""  # named already, where the manifest's files are read
