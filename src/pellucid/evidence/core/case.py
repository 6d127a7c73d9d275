"""What all checks share: the dossier's files as read so far, and the findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pellucid.evidence.core.archive import Archive, ArchiveError, read_whole
from pellucid.evidence.core.audit import Watcher
from pellucid.evidence.core.canonical import JsonError, parse_json
from pellucid.evidence.core.findings import Finding
from pellucid.evidence.core.judged import JudgedSuite
from pellucid.evidence.core.party import Party
from pellucid.evidence.core.schema import (
    Claim,
    Claims,
    DataSet,
    ManifestLine,
    Preregistration,
    Root,
)
from pellucid.evidence.core.schema_training import Checkpoints, Scan, Weights
from pellucid.evidence.core.shapes import shape_problem
from pellucid.evidence.core.tally import Evaluation

MAX_PER_CODE = 20
"""Findings of one code that are kept; the others are counted."""


@dataclass(slots=True, kw_only=True)
class Case:
    """One dossier under examination."""

    archive: Archive
    seed: str
    """The referee's own: which samples are chosen for replay depends on it."""
    trusted_key: str | None = None
    """Key id that must have signed; None: any."""
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """Findings by code, those included that were not kept."""
    beyond: dict[str, set[str] | None] = field(default_factory=dict)
    """Claims that findings spoil which were not kept, by code; None: all."""
    manifest: dict[str, ManifestLine] = field(default_factory=dict)
    is_sealed: bool = False
    """Whether there is a seal that could be read."""
    keyid: str | None = None
    """Key that signed the seal."""
    events: list[dict[str, Any]] = field(default_factory=list)
    plans: dict[str, Preregistration] = field(default_factory=dict)
    claims: Claims | None = None
    weights: Weights | None = None
    models: dict[str, str] = field(default_factory=dict)
    """Name -> root of every model in weights/."""
    checkpoints: Checkpoints | None = None
    scan: Scan | None = None
    sets: dict[str, DataSet] = field(default_factory=dict)
    roots: dict[str, Root] = field(default_factory=dict)
    """`evals/<suite>/<arm>` -> root.json"""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    audits: dict[str, Watcher] = field(default_factory=dict)
    """Human audits by name: they see the samples as these are read."""
    judged: dict[str, JudgedSuite] = field(default_factory=dict)
    """Suites with judges: they see the samples too."""
    num_judgments: int = 0
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    """Audit -> leaf -> what its labellers say."""
    parties: list[Party] = field(default_factory=list)
    """Dossiers of others in external/, examined."""
    replay: list[dict[str, Any]] = field(default_factory=list)
    """Samples that the referee's seed chose."""
    num_samples: int = 0
    num_regraded: int = 0

    def find(self, code: str, where: str, text: str, claims: Iterable[str] | None = None) -> None:
        """Note one thing; `claims`: ids that it spoils, None: all."""
        self.counts[code] += 1
        spoiled = None if claims is None else tuple(claims)
        if self.counts[code] > MAX_PER_CODE:
            known = self.beyond.setdefault(code, set())
            if spoiled is None:
                self.beyond[code] = None
            elif known is not None:
                known.update(spoiled)
        else:
            one_line = ascii_safe(text)[:300]
            finding = Finding(
                code=code, where=ascii_safe(where)[:200], text=one_line, claims=spoiled
            )
            self.findings.append(finding)

    def load(self, path: str, shape: Any, *, code: str = "file-malformed") -> Any | None:
        """A JSON file in its shape; None where it is missing or wrong, and that found.

        `shape`: of version 1, or a dict of the shapes of all versions that are known.
        """
        try:
            value = parse_json(read_whole(self.archive, path))
        except ArchiveError as error:
            if path not in self.archive.sizes:
                code = "file-missing"
            self.find(code, path, str(error))
            return None
        except JsonError as error:
            self.find(code, path, str(error))
            return None
        shapes = shape if type(shape) is dict else {1: shape}
        version = value.get("v", 1) if type(value) is dict else 1
        if type(version) is int and version in shapes:
            problem = shape_problem(value, shapes[version])
        else:
            problem = f"version {ascii(version)[:20]} is not known: use a newer verifier"
        if problem is not None:
            self.find(code, path, problem)
            return None
        return value

    def using(self, folder: str) -> list[str]:
        """Ids of the claims that rest on an evaluation."""
        return [c["id"] for c in self.claim_list() if folder in c["arms"].values()]

    def claim_list(self) -> list[Claim]:
        return self.claims["claims"] if self.claims is not None else []

    def planned(self, folder: str) -> list[tuple[str, Preregistration]]:
        """Plans of the claims that rest on an evaluation, else all that speak of its suite."""
        ids = {
            c["prereg"].partition("#")[0] for c in self.claim_list() if folder in c["arms"].values()
        }
        suite = folder.split("/")[1]
        found = [(i, p) for i, p in self.plans.items() if suite in p["suites"]]
        return [(i, p) for i, p in found if i in ids] or found


def ascii_safe(text: str) -> str:
    """Text of a stranger that cannot act on a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
