"""The sealed dossier under review: its seal, its claims, its evaluations. Read, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import ReviewError
from pellucid.evidence.core.canonical import JsonError, parse_json, sha256_bytes
from pellucid.evidence.core.schema import MANIFEST_NAME as MANIFEST
from pellucid.evidence.core.schema import SEAL_NAME as SEAL
from pellucid.evidence.core.schema import SEAL_PREDICATE, SealPredicate, Statement
from pellucid.evidence.core.signature import EnvelopeError, read_envelope

REVIEWS = "reviews"
"""Folder of all rounds, inside the dossier; the seal that is reviewed does not cover its round."""
CLAIMS = "claims.json"
_LARGEST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Which version of a dossier this is."""

    seal: str
    """SHA-256 of the seal's file."""
    manifest: str
    """SHA-256 of MANIFEST.jsonl, as the seal states it."""
    claims: str
    """SHA-256 of claims.json."""
    previous: str | None
    """`seal` of the version before, as the seal states it."""


def read_version(dossier: Path) -> Version:
    """The sealed version. Raises ReviewError where there is no seal, or it does not fit."""
    seal_path = dossier / SEAL
    if not seal_path.is_file():
        raise ReviewError(f"{dossier} is not sealed: `pellucid dossier seal` it first")
    statement = _statement(seal_path)
    manifest = sha256_bytes(_bytes(dossier / MANIFEST))
    if statement["subject"][0]["digest"]["sha256"] != manifest:
        raise ReviewError(f"{SEAL} is not of this {MANIFEST}: seal the dossier again")
    claims = sha256_bytes(_bytes(dossier / CLAIMS))
    if _listed(dossier).get(CLAIMS) != claims:
        raise ReviewError(f"{CLAIMS} is not the one that was sealed: seal the dossier again")
    return Version(
        seal=sha256_bytes(_bytes(seal_path)),
        manifest=manifest,
        claims=claims,
        previous=statement["predicate"]["previous"],
    )


def read_claims(path: Path) -> dict[str, dict[str, Any]]:
    """Claims by id, in order. Raises ReviewError for what is no claims.json."""
    value = _json(path)
    claims = value.get("claims") if isinstance(value, dict) else None
    if not isinstance(claims, list) or not all(
        isinstance(claim, dict) and isinstance(claim.get("id"), str) for claim in claims
    ):
        raise ReviewError(f"{path.name} is no list of claims with ids: build the dossier again")
    return {claim["id"]: claim for claim in claims}


def evaluation_serials(dossier: Path) -> list[int]:
    """Serials of the evaluations whose samples are in the dossier."""
    roots = (_json(path) for path in sorted(dossier.glob("evals/*/*/root.json")))
    return sorted(root["eval_serial"] for root in roots if isinstance(root.get("eval_serial"), int))


def _statement(path: Path) -> Statement:
    """The seal's statement, whose signature (if it has one) is right."""
    try:
        signed = read_envelope(_bytes(path), SEAL_PREDICATE, SealPredicate)
    except EnvelopeError as error:
        raise ReviewError(f"{path.name} is no seal ({error}): seal the dossier again") from None
    if signed.is_valid is False:
        raise ReviewError(f"{path.name} has a wrong signature: seal the dossier again")
    return signed.statement


def _listed(dossier: Path) -> dict[str, str]:
    """Path -> SHA-256, as the manifest lists them."""
    return {row["path"]: row["sha256"] for row in _manifest_rows(dossier / MANIFEST)}


def _manifest_rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_bytes(path).splitlines(), start=1):
        try:
            row = parse_json(line)
        except JsonError as error:
            raise ReviewError(f"{path.name} line {number}: {error}") from None
        if not isinstance(row, dict) or not {"path", "sha256"} <= row.keys():
            raise ReviewError(f"{path.name} line {number} lists no file")
        yield row


def _json(path: Path) -> Any:
    try:
        return parse_json(_bytes(path))
    except JsonError as error:
        raise ReviewError(f"{path.name} is damaged ({error})") from None


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ReviewError(f"{path.name} is larger than any of ours: this is no dossier")
        return path.read_bytes()
    except OSError as error:
        raise ReviewError(f"{path} cannot be read ({error.strerror}): is this a dossier?") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a small file of a round."""
    return hashlib.sha256(_bytes(path)).hexdigest()
