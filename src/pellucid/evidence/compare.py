"""Two dossiers side by side: what is compared is `core.diff`; here they are opened and named.

Neither is trusted: both are read by the verifier's own readers, and one that is not as it was
sealed is compared all the same, and said to be so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.evidence.core.archive import Archive, ArchiveError, open_archive, read_whole
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.diff import Diff, diff_facets
from pellucid.evidence.core.facets import FacetError, Facets, read_facets
from pellucid.evidence.core.recognise import why_no_dossier
from pellucid.evidence.core.schema import (
    MANIFEST_NAME,
    SEAL_NAME,
    SEAL_PREDICATE,
    SealPredicate,
)
from pellucid.evidence.core.signature import EnvelopeError, read_envelope
from pellucid.evidence.core.verify import READING

CLAIMS = "claims.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two dossiers. Example: Side(place="runs/x/dossier", version=2, keyid="ab…", …)"""

    place: str
    version: int | None
    """None: not sealed."""
    keyid: str | None
    """Key that signed."""
    faults: tuple[str, ...]
    """What is damaged, or not as it was sealed, a line each."""
    facets: Facets

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json, without what is compared."""
        return {
            "place": self.place,
            "version": self.version,
            "keyid": self.keyid,
            "faults": list(self.faults),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two dossiers, and what differs between them."""

    a: Side
    b: Side
    diff: Diff

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {"a": self.a.to_dict(), "b": self.b.to_dict(), **self.diff.to_dict()}


def compare(a: Path, b: Path) -> Comparison:
    """Reads both, samples too. Raises DataError, one line, for what cannot be read as a dossier."""
    for path in (a, b):  # before minutes are spent on the other
        _check_dossier(path)
    one, two = read_side(a), read_side(b)
    return Comparison(a=one, b=two, diff=diff_facets(one.facets, two.facets))


def _check_dossier(path: Path) -> None:
    if not path.exists():
        raise DataError(f"there is no {path}: name a dossier's folder, zip or tar")
    if reason := why_no_dossier(path):
        raise DataError(reason)


def read_side(path: Path) -> Side:
    """Raises DataError."""
    _check_dossier(path)
    try:
        with open_archive(path) as archive:
            case = Case(archive=archive, seed="")
            for step in READING:
                step(case)
            if case.claims is None:
                why = [f.text for f in case.findings if f.where == CLAIMS]
                raise FacetError(f"{CLAIMS}: {why[-1] if why else 'not read'}")
            return Side(
                place=str(path),
                version=_version(archive),
                keyid=case.keyid,
                faults=tuple(_faults(case)),
                facets=read_facets(case),
            )
    except (ArchiveError, FacetError) as error:
        raise DataError(f"{path} cannot be compared ({error}): verify it first") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        text = f"{path} is damaged ({type(error).__name__}): verify it first"
        raise DataError(text) from error


def _faults(case: Case) -> Iterator[str]:
    """Of a draft, that it has no seal and no manifest yet is none."""
    is_draft = SEAL_NAME not in case.archive.sizes
    for finding in case.findings:
        is_early = finding.code in ("file-unlisted", "seal-missing", "prereg-missing")
        is_early = is_early or (finding.code, finding.where) == ("file-missing", MANIFEST_NAME)
        if not finding.kind.is_note and not (is_draft and is_early):
            yield f"{finding.code} {finding.where}: {finding.text}"


def _version(archive: Archive) -> int | None:
    if SEAL_NAME not in archive.sizes:
        return None
    try:
        seal = read_envelope(read_whole(archive, SEAL_NAME), SEAL_PREDICATE, SealPredicate)
    except (ArchiveError, EnvelopeError):
        return None  # named among the faults
    version: int = seal.statement["predicate"]["version"]
    return version
