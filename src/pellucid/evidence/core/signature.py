"""DSSE envelopes around in-toto statements: making them, reading them, checking their signatures.

Signing itself is a callable that the caller brings (`cryptography`, a hardware key); checking is
`ed25519.py`, so that no referee has to leave a signature unchecked.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, NamedTuple

from pellucid.evidence.core.canonical import (
    JsonError,
    canonical_json,
    parse_canonical,
    sha256_bytes,
)
from pellucid.evidence.core.ed25519 import is_signed_by
from pellucid.evidence.core.schema import PAYLOAD_TYPE, STATEMENT_TYPE, Envelope, Statement
from pellucid.evidence.core.shapes import shape_problem


class EnvelopeError(ValueError):
    """An envelope or statement that is not in its form: says why."""


class Signed(NamedTuple):
    """An envelope that was read."""

    statement: Statement
    keyid: str | None
    """Of the key that signed; None: not signed."""
    is_valid: bool | None
    """Whether the signature is right; None: not signed."""


def key_id(public_key: bytes) -> str:
    """Name of a raw Ed25519 key [32 bytes]: its SHA-256."""
    return sha256_bytes(public_key)


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What DSSE signs (protocol.md of secure-systems-lab/dsse, version 1)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def make_statement(
    name: str, sha256: str, predicate_type: str, predicate: dict[str, Any]
) -> Statement:
    """An in-toto statement about one file."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def make_envelope(
    statement: Statement, *, sign: Callable[[bytes], bytes] | None, public_key: bytes | None
) -> bytes:
    """The file: an envelope, signed by `sign` (message -> 64 bytes) with the key of `public_key`.

    The statement's predicate must name the same key. None, None: not signed.
    """
    payload = canonical_json(statement)
    signatures = []
    if sign is not None and public_key is not None:
        signature = sign(pre_authentication(PAYLOAD_TYPE, payload))
        signatures.append({"keyid": key_id(public_key), "sig": _encode(signature)})
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": _encode(payload),
        "signatures": signatures,
    }
    return canonical_json(envelope) + b"\n"


def read_envelope(data: bytes, predicate_type: str, predicate_shape: Any) -> Signed:
    """Reads the file and checks its signature. Raises EnvelopeError where it is not in its form.

    Every byte counts: envelope and payload must be canonical, so that nothing can be hidden.
    """
    try:
        if not data.endswith(b"\n"):
            raise EnvelopeError("does not end with a newline")
        envelope = parse_canonical(data[:-1])
        if problem := shape_problem(envelope, Envelope):
            raise EnvelopeError(problem)
        payload = _decode(envelope["payload"])
        statement = parse_canonical(payload)
    except JsonError as error:
        raise EnvelopeError(str(error)) from None
    problem = shape_problem(statement, Statement) or _statement_problem(
        statement, envelope["payloadType"], predicate_type, predicate_shape
    )
    if problem is not None:
        raise EnvelopeError(problem)
    return _signed(statement, envelope, payload)


def _statement_problem(
    statement: Statement, payload_type: str, predicate_type: str, predicate_shape: Any
) -> str | None:
    subject = statement["subject"]
    if len(subject) != 1 or subject[0]["digest"].keys() != {"sha256"}:
        return "has not exactly one subject with a SHA-256"
    given = (payload_type, statement["_type"], statement["predicateType"])
    if given != (PAYLOAD_TYPE, STATEMENT_TYPE, predicate_type):
        return "is of another type"
    return shape_problem(statement["predicate"], predicate_shape, "predicate")


def _signed(statement: Statement, envelope: Envelope, payload: bytes) -> Signed:
    signatures, key = envelope["signatures"], statement["predicate"]["public_key"]
    if not signatures:
        if key is not None:
            raise EnvelopeError("names a key but carries no signature")
        return Signed(statement, None, None)
    if len(signatures) != 1 or key is None:
        raise EnvelopeError("needs exactly one signature, and its key in the statement")
    public = _decode(key)
    signature = _decode(signatures[0]["sig"])
    is_valid = signatures[0]["keyid"] == key_id(public) and is_signed_by(
        public, pre_authentication(envelope["payloadType"], payload), signature
    )
    return Signed(statement, key_id(public), is_valid)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise EnvelopeError("is not base64") from None
    if _encode(data) != text:
        raise EnvelopeError("is not base64 in its one form")
    return data
