"""A referee's Ed25519 signature that a point is settled. Making one needs `pellucid[sign]`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.artifacts import atomic_write_text
from pellucid.errors import ReviewError
from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.ed25519 import is_signed_by

_SIGNATURE_BYTES = 64
_CONTEXT = b"pellucid-review-closing-v1\n"
"""Before what is signed: a signature for one purpose never serves another."""


def is_signed(key: str, statement: Mapping[str, Any], signature: bytes) -> bool:
    """Whether this closing statement was signed with the key [32 bytes, hexadecimal]."""
    return is_signed_by(bytes.fromhex(key), _CONTEXT + canonical_json(statement), signature)


def write_signature(key_file: Path, statement: Mapping[str, Any], out: Path) -> None:
    """Sign with a private key in PEM and write the signature in hexadecimal."""
    ed25519, serialization = _cryptography()
    try:
        private = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except OSError as error:
        raise ReviewError(f"{key_file} cannot be read ({error.strerror})") from None
    except (TypeError, ValueError):
        raise ReviewError(f"{key_file} is no private key in PEM without a password") from None
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise ReviewError(f"{key_file} is no Ed25519 key: make one with `openssl genpkey`")
    atomic_write_text(out, private.sign(_CONTEXT + canonical_json(statement)).hex() + "\n")


def read_signature(path: Path) -> bytes:
    """The signature in a file of `write_signature`. Raises ReviewError for anything else."""
    try:
        signature = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        raise ReviewError(f"{path} holds no signature: make one with `review sign`") from None
    if len(signature) != _SIGNATURE_BYTES:
        raise ReviewError(f"{path} holds {len(signature)} bytes, a signature has 64")
    return signature


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise ReviewError(
            "signing needs another package: pip install 'pellucid[sign]', or use the token"
        ) from None
    return ed25519, serialization
