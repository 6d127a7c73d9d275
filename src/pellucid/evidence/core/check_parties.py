"""Dossiers of other parties inside a dossier: whole, theirs, of these weights, told as they are.

Each is examined as any dossier is, one level deep: what it holds of others in turn is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pellucid.evidence.core.archive import ArchiveError, read_whole
from pellucid.evidence.core.canonical import canonical_json, parse_json
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.diff import DIFF_VERSION, diff_facets, same_programs
from pellucid.evidence.core.facets import FacetError, Facets, read_facets
from pellucid.evidence.core.findings import Finding
from pellucid.evidence.core.party import (
    DIFF,
    DOSSIER,
    EXTERNAL,
    MAX_PARTIES,
    Inner,
    Party,
    is_party_name,
    worst,
    worst_by_column,
)
from pellucid.evidence.core.schema import Claim

Examine = Callable[[Inner, str], tuple[Case, Any]]
"""(archive, seed) -> the case and its verdict."""
SAMPLES = "samples.jsonl.gz"
ALTERED = frozenset({
    "path-unsafe", "archive-refused", "file-missing", "file-unlisted", "file-changed",
    "file-malformed", "seal-missing", "seal-mismatch", "seal-chain-broken", "signature-invalid",
    "ledger-truncated", "ledger-broken", "sample-edited", "sample-malformed", "redaction-broken",
})  # fmt: skip
"""What an examination finds in a dossier that is not as it was sealed."""


def check_parties(case: Case, examine: Examine) -> None:
    """Every dossier in external/, after all else has been read."""
    names = _names(case)
    own: Facets | FacetError | None = None
    for name in names[:MAX_PARTIES]:
        nested, verdict = examine(Inner(case.archive, f"{EXTERNAL}/{name}/{DOSSIER}"), case.seed)
        one = _Check(case, name, nested)
        one.check_findings(verdict.findings)
        one.check_signer()
        one.check_origin()
        num_released = one.check_weights()
        if one.is_whole:
            own = own if own is not None else _facets(case)
            one.check_diff(own)
        status = worst_by_column(verdict.table())
        case.parties.append(
            Party(
                name=name,
                keyid=nested.keyid,
                status={**status, "integrity": one.integrity(status["integrity"])},
                num_evaluations=len(nested.roots),
                num_released=num_released,
                num_samples=nested.num_samples,
                verdict=verdict.to_dict(),
            )
        )
    if len(names) > MAX_PARTIES:
        text = f"{len(names)} parties; more than {MAX_PARTIES} are not examined"
        case.find("archive-refused", EXTERNAL, text, ())


def _names(case: Case) -> list[str]:
    """Parties by their folders; files that belong to none are named."""
    names = set()
    for path in sorted(case.archive.sizes):
        top, *rest = path.split("/")
        if top != EXTERNAL:
            continue
        is_known = len(rest) > 1 and (rest[1] == DOSSIER or rest[1:] == [DIFF])
        if not is_known or not is_party_name(rest[0]):
            case.find("file-malformed", path, "of no party's dossier", ())
        else:
            names.add(rest[0])
    return sorted(names)


def _facets(case: Case) -> Facets | FacetError:
    try:
        return read_facets(case)
    except FacetError as error:
        return error


@dataclass(slots=True)
class _Check:
    """One party's dossier (`nested`) inside `case`."""

    case: Case
    name: str
    nested: Case
    is_whole: bool = True
    """As it was sealed, so that comparing it has a meaning."""

    def integrity(self, own: str) -> str:
        """The cell of its line: `own`, or what was found against it here."""
        found = [f for f in self.case.findings if f.where == self._where]
        if any(not f.kind.is_note for f in found):
            return "FAILS"
        return worst([own, *("in part" for f in found if f.code == "check-impossible")])

    @property
    def _where(self) -> str:
        return f"{EXTERNAL}/{self.name}"

    def _find(self, code: str, text: str, claims: tuple[str, ...] = ()) -> None:
        self.case.find(code, self._where, text, claims)

    def check_findings(self, findings: tuple[Finding, ...]) -> None:
        """What its own examination found, called for what it means here."""
        faults = [f for f in findings if not f.kind.is_note]
        lost = [f for f in faults if f.code == "file-missing" and f.where.endswith(SAMPLES)]
        follow = ("sample-", "redaction-") if lost else ()  # from what is lost
        altered = [f for f in faults if f.code in ALTERED and f not in lost]
        altered = [f for f in altered if not f.code.startswith(follow)]
        if not altered:
            lost = lost or [f for f in faults if f.code == "sample-missing"]
        self.is_whole = not (lost or altered)
        if lost:
            self._tell("party-samples-missing", lost)
        if altered:
            self._tell("party-altered", altered)
        if faults and self.is_whole:
            self._tell("party-fails", faults)
        if any(path.startswith(f"{EXTERNAL}/") for path in self.nested.archive.sizes):
            self._find("check-impossible", "what it holds of others in turn is not examined")

    def _tell(self, code: str, found: list[Finding]) -> None:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        first = found[0]
        self._find(code, f"{first.code}, {first.where}: {first.text[:160]}{more}")

    def check_signer(self) -> None:
        """It is signed, and by another than who signed the dossier around it."""
        keyid = self.nested.keyid
        if keyid is None:
            if self.is_whole:  # else its seal may be what is altered
                self._find("party-unsigned", "nobody signed it, so it is nobody's word")
            return
        if keyid == self.case.keyid:
            self._find("party-own-key", f"signed by the key of this dossier, {keyid}")
            return
        self._find("party-key", f"signed by {keyid}; compare it with the one that they publish")
        others = [party.name for party in self.case.parties if party.keyid == keyid]
        if others:
            self._find("party-key", f"the same key as {others[0]}: one party, not two")

    def check_origin(self) -> None:
        """Its evaluations are not ours under another signature."""
        ours = {e["digest"] for e in self.case.events if e["kind"] == "evaluation_started"}
        theirs = {e["digest"] for e in self.nested.events if e["kind"] == "evaluation_started"}
        if ours & theirs:
            self._find("party-copied", "evaluations of its ledger are those of this dossier")
            return
        roots = {root["recorded_root"] for root in self.case.roots.values()}
        if any(root["recorded_root"] in roots for root in self.nested.roots.values()):
            text = "samples equal to ours, bit by bit: a copy, or the same seed on like machines"
            self._find("party-same-samples", text)

    def check_weights(self) -> int:
        """How many of its evaluations are of the released weights; none is named."""
        if self.case.weights is None:
            self._find("check-impossible", "which weights are released is not known")
            return 0
        released = self.case.weights["root"]
        number = sum(root["model"] == released for root in self.nested.roots.values())
        if self.nested.roots and not number:
            asked = sorted({root["model"] for root in self.nested.roots.values()})
            text = f"it asked weights {asked[0][:16]}…, released are {released[:16]}…"
            self._find("party-other-weights", text)
        return number

    def check_diff(self, own: Facets | FacetError) -> None:
        """The diff is what comparing gives again, and where numbers lie apart, that is told."""
        try:
            stored = parse_json(read_whole(self.case.archive, f"{self._where}/{DIFF}"))
            written = canonical_json(stored)
        except (ArchiveError, ValueError) as error:
            self._find("party-diff", f"{DIFF} {error}")
            return
        version = stored.get("v") if type(stored) is dict else None
        if type(version) is int and 0 < version < DIFF_VERSION:
            self._find("check-impossible", f"{DIFF} is of a version before this verifier's")
            return
        theirs = _facets(self.nested)
        if isinstance(own, FacetError) or isinstance(theirs, FacetError):
            self._find("check-impossible", "samples that cannot be read cannot be compared")
            return
        if canonical_json(diff_facets(own, theirs).to_dict()) != written:
            is_newer = type(version) is int and version > DIFF_VERSION
            why = "is newer than this verifier" if is_newer else "is not what comparing them gives"
            self._find("party-diff", f"{DIFF} {why}")
        self._compare_numbers(own, theirs)

    def _compare_numbers(self, own: Facets, theirs: Facets) -> None:
        ours = {c["id"]: c for c in self.case.claim_list()}
        others = {c["id"]: c for c in self.nested.claim_list()}
        for claim, other in same_programs(own, theirs).items():
            if claim not in ours or other not in others:
                continue
            a, b = _interval(ours[claim]), _interval(others[other])
            if a is not None and b is not None and (a[1] < b[0] or b[1] < a[0]):
                text = f"{other} is {theirs.claims[other]['value']}, {claim} of this dossier is "
                self._find("party-differs", f"{text}{own.claims[claim]['value']}", (claim,))


def _interval(claim: Claim) -> tuple[float, float] | None:
    try:
        return float(claim["reported"]["low"]), float(claim["reported"]["high"])
    except ValueError:
        return None
