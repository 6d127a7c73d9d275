"""Keys and seals: who stands for a plan and for a dossier, and in which order versions came.

A seal is a DSSE envelope around an in-toto statement on MANIFEST.jsonl. It names the ledger's
length, the signing key and the seal before it, so no version can be dropped or put in between.
Signing needs the package `cryptography`; checking needs nothing (`core.ed25519`).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.artifacts import atomic_write_bytes, sha256_file, writing
from pellucid.errors import RunError
from pellucid.evidence.core.canonical import canonical_json, sha256_bytes
from pellucid.evidence.core.party import DOSSIER, EXTERNAL
from pellucid.evidence.core.schema import (
    MANIFEST_NAME,
    PREREG_PREDICATE,
    SEAL_NAME,
    SEAL_PREDICATE,
    UNLISTED,
    LedgerHead,
    ManifestLine,
    SealPredicate,
)
from pellucid.evidence.core.signature import (
    EnvelopeError,
    Signed,
    key_id,
    make_envelope,
    make_statement,
    read_envelope,
)
from pellucid.evidence.parties import prepare_parties
from pellucid.evidence.review.chain import check_citations
from pellucid.ledger import GENESIS, Event

SEALS = "seals"
"""Folder of the seals of earlier versions."""
ROLES = (
    ("claims.json", "claims"),
    ("ledger.jsonl", "ledger"),
    ("prereg/", "plan"),
    ("evals/", "evaluation"),
    ("graders/", "grader"),
    ("weights/", "weights"),
    ("train/", "training"),
    ("data/", "data"),
    ("contamination/", "contamination"),
    ("energy/", "energy"),
    ("env/", "environment"),
    ("reviews/", "review"),
    ("external/", "another party's"),
    ("audits/", "human audit"),
    ("judges/", "judgments"),
    ("seals/", "earlier seal"),
    ("VERIFY.md", "instructions"),
    ("verify.pyz", "verifier"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key that can sign."""

    public: bytes
    """Raw [32 bytes]."""
    sign: Callable[[bytes], bytes]

    @property
    def id(self) -> str:
        """What to publish, so that readers can tell your seals from others'."""
        return key_id(self.public)


def make_key(path: Path) -> Key:
    """Writes a new private key to `path` (PEM, readable by you alone), its public half beside it:
    `ed25519 BASE64 id=ID`.

    Raises RunError where a file is there already.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    if path.exists():
        raise RunError(f"{path} exists: a key is never replaced; choose another --key")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
    key = read_key(path)
    public = base64.b64encode(key.public).decode()
    line = f"ed25519 {public} id={key.id}\n"
    atomic_write_bytes(path.with_name(f"{path.name}.pub"), line.encode())
    return key


def read_key(path: Path) -> Key:
    """Raises RunError where the file is no unencrypted Ed25519 key."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.is_file():
        raise RunError(f"there is no key {path}: make one with `pellucid dossier keygen`")
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is no unencrypted PEM key ({str(error)[:80]})") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise RunError(f"{path} is no Ed25519 key: make one with `pellucid dossier keygen`")
    return Key(private.public_key().public_bytes_raw(), private.sign)


def has_cryptography() -> bool:
    """Whether this installation can sign."""
    try:
        _require_cryptography()
    except RunError:
        return False
    return True


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise RunError("signing needs a package: pip install 'pellucid[sign]'") from None


# Seals


def envelope(
    name: str, sha256: str, kind: str, predicate: dict[str, Any], key: Key | None
) -> bytes:
    """A signed (or, without a key, unsigned) statement on one file."""
    public = None if key is None else base64.b64encode(key.public).decode()
    statement = make_statement(name, sha256, kind, {**predicate, "public_key": public})
    if key is None:
        return make_envelope(statement, sign=None, public_key=None)
    return make_envelope(statement, sign=key.sign, public_key=key.public)


def prereg_envelope(name: str, sha256: str, key: Key | None) -> bytes:
    """The envelope of a plan."""
    return envelope(name, sha256, PREREG_PREDICATE, {"v": 1, "time": now()}, key)


class Sealed(NamedTuple):
    """What sealing gave. Example: Sealed(version=2, is_new=True)"""

    version: int
    is_new: bool
    """False: nothing had changed since that version was sealed by the same key, so it stays."""


def seal_dossier(folder: Path, key: Key | None, events: list[Event]) -> Sealed:
    """Writes MANIFEST.jsonl and the seal over what lies in `folder`, unless nothing has changed.

    A seal that is there becomes the previous one. `events`: of the dossier's ledger. Raises
    ReviewError where a dossier under review changed a claim without citing a point or an erratum,
    RunError where the seal that is there cannot be read, or where another party's dossier in it is
    signed with `key`.
    """
    check_citations(folder)
    prepare_parties(folder, None if key is None else key.id)
    previous, version = None, 1
    seal = folder / SEAL_NAME
    if seal.exists():
        data = seal.read_bytes()
        signed = _read_own_seal(data, seal)
        before = signed.statement["predicate"]
        if _is_still(folder, signed, key):
            return Sealed(before["version"], is_new=False)
        previous, version = sha256_bytes(data), before["version"] + 1
        kept = folder / SEALS / f"{before['version']:04d}.dsse.json"
        with writing(kept):
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(seal, kept)
            seal.unlink()
    manifest = write_manifest_lines(folder)
    predicate = {
        "v": 1,
        "version": version,
        "previous": previous,
        "ledger": ledger_head(events),
        "time": now(),
    }
    atomic_write_bytes(seal, envelope(MANIFEST_NAME, manifest, SEAL_PREDICATE, predicate, key))
    return Sealed(version, is_new=True)


def _read_own_seal(data: bytes, path: Path) -> Signed:
    try:
        return read_envelope(data, SEAL_PREDICATE, SealPredicate)
    except EnvelopeError as error:
        raise RunError(f"{path} is damaged ({error}): restore it, or build anew") from None


def _is_still(folder: Path, seal: Signed, key: Key | None) -> bool:
    """Whether that seal, by that key, is of the very files that lie in `folder` now."""
    is_own = seal.keyid == (None if key is None else key.id) and seal.is_valid is not False
    manifest, sealed = folder / MANIFEST_NAME, seal.statement["subject"][0]["digest"]["sha256"]
    if not is_own or not manifest.is_file() or sha256_file(manifest) != sealed:
        return False
    return sha256_bytes(manifest_bytes(folder)) == sealed


def write_manifest_lines(folder: Path) -> str:
    """MANIFEST.jsonl of what lies in `folder`; returns its SHA-256."""
    return atomic_write_bytes(folder / MANIFEST_NAME, manifest_bytes(folder))


def manifest_bytes(folder: Path) -> bytes:
    """A line for every file but the manifest itself and the seal."""
    redacted = _redacted_files(folder)
    lines = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = file.relative_to(folder).as_posix()
        if name in UNLISTED:
            continue
        line: ManifestLine = {
            "path": name,
            "bytes": file.stat().st_size,
            "sha256": sha256_file(file),
            "role": next((role for start, role in ROLES if name.startswith(start)), "other"),
            "redacted": name in redacted,
        }
        lines.append((name, canonical_json(line) + b"\n"))
    return b"".join(line for _, line in sorted(lines))


def _redacted_files(folder: Path) -> set[str]:
    """Samples files whose root.json counts withheld records."""
    names = set()
    of_parties = folder.glob(f"{EXTERNAL}/*/{DOSSIER}/evals/*/*/root.json")
    for root in (*folder.glob("evals/*/*/root.json"), *of_parties):
        if json.loads(root.read_bytes()).get("redacted"):
            names.add((root.parent / "samples.jsonl.gz").relative_to(folder).as_posix())
    return names


def ledger_head(events: list[Event]) -> LedgerHead:
    """How long a ledger is."""
    return {"count": len(events), "digest": events[-1].digest if events else GENESIS}


def now() -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
