"""The whole examination of a dossier: what was found, and a table of claims by kinds of checking.

Left out: replaying samples through the weights and running fresh items, which need a model. Their
results come from outside (`pellucid verify`) and are added with `Verdict.with_results`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pellucid.evidence.core.archive import Archive, ArchiveError, open_archive
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_audit import check_audits, read_audits
from pellucid.evidence.core.check_claims import check_numbers, check_planned
from pellucid.evidence.core.check_clean import check_scan, read_sets
from pellucid.evidence.core.check_comparisons import check_comparisons
from pellucid.evidence.core.check_controls import check_budgets
from pellucid.evidence.core.check_energy import check_energy
from pellucid.evidence.core.check_evals import check_evaluations, read_roots
from pellucid.evidence.core.check_failures import check_failures
from pellucid.evidence.core.check_files import check_files, check_seal
from pellucid.evidence.core.check_judges import check_judges, read_judges
from pellucid.evidence.core.check_ledger import check_attempts, check_plans, read_ledger
from pellucid.evidence.core.check_parties import check_parties
from pellucid.evidence.core.check_reviews import check_reviews
from pellucid.evidence.core.check_sealed import check_sealed
from pellucid.evidence.core.check_training import (
    check_graders,
    check_models,
    check_rollouts,
    check_selection,
    check_weights,
)
from pellucid.evidence.core.claims import is_capability
from pellucid.evidence.core.findings import CODES, COLUMNS, Column, Finding
from pellucid.evidence.core.party import Party
from pellucid.evidence.core.schema import Claims

Status = Literal["ok", "in part", "FAILS", "not done"]
NO_CLAIMS = "(dossier)"
"""Row of the table where a dossier has no readable claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an examination gave. Example: verify(Path("dossier"), seed="1234").is_ok"""

    findings: tuple[Finding, ...]
    more: Mapping[str, int]
    """Code -> findings beyond those listed."""
    beyond: Mapping[str, frozenset[str] | None]
    """Code -> claims that those spoil; None: all."""
    claims: Mapping[str, str]
    """Id -> text."""
    reported: Mapping[str, str]
    """Id -> the number claimed and its interval; empty: none."""
    done: Mapping[Column, tuple[str, ...]]
    """Column -> claims that were checked in it; absent: not done for any."""
    keyid: str | None
    """Key that signed the seal."""
    num_samples: int
    num_regraded: int
    replay: tuple[Mapping[str, Any], ...]
    """Samples that the seed chose for a replay: evaluation, line, item, k, leaf."""
    seed: str
    parties: tuple[Party, ...] = ()
    """Dossiers of others in it."""

    @property
    def is_ok(self) -> bool:
        """Whether all that was checked holds: notes do not count."""
        return all(finding.kind.is_note for finding in self.findings)

    @property
    def exit_code(self) -> int:
        return 0 if self.is_ok else 1

    def status(self, claim: str, column: Column) -> Status:
        """One cell of the table."""
        if claim not in self.done.get(column, ()):
            return "not done"
        spoiled = [(f.code, f.claims) for f in self.findings] + list(self.beyond.items())
        own = {
            code
            for code, claims in spoiled
            if CODES[code].column == column and (claims is None or claim in claims)
        }
        if any(not CODES[code].is_note for code in own):
            return "FAILS"
        return "ok" if own.isdisjoint(PARTIAL) else "in part"

    def table(self) -> dict[str, dict[Column, Status]]:
        """Claim -> column -> status."""
        return {c: {column: self.status(c, column) for column in COLUMNS} for c in self.claims}

    def with_results(
        self, column: Column, claims: Sequence[str], findings: Sequence[Finding] = ()
    ) -> Verdict:
        """With what a replay or fresh items gave for these claims."""
        done = {**self.done, column: (*self.done.get(column, ()), *claims)}
        return replace(self, done=done, findings=(*self.findings, *findings))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {
            "v": 1,
            "ok": self.is_ok,
            "claims": [{"id": c, "text": self.claims[c], **r} for c, r in self.table().items()],
            "parties": [party.to_dict() for party in self.parties],
            "findings": [finding.to_dict() for finding in self.findings],
            "more_findings": dict(self.more),
            "keyid": self.keyid,
            "samples": self.num_samples,
            "regraded": self.num_regraded,
            "seed": self.seed,
            "replay": [dict(entry) for entry in self.replay],
        }


PARTIAL = (
    "grade-not-redone",
    "samples-withheld",
    "claim-withheld",
    "verdicts-unbound",
    "samples-failed",
    "fresh-unsealed",
    "check-impossible",
    "scan-coarse",
    "seal-unsigned",
    "plan-older",
)
"""Notes that leave part of a column unchecked."""


def verify(dossier: Path, *, seed: str = "", trusted_key: str | None = None) -> Verdict:
    """Examine a dossier, a folder, zip or tar. Never raises over what is in it.

    `seed`: the referee's own random number. `trusted_key`: id of the key that must have signed.
    """
    try:
        with open_archive(dossier) as archive:
            case = Case(archive=archive, seed=seed, trusted_key=trusted_key)
            return _examine(case, (*STEPS, check_external))
    except ArchiveError as error:
        finding = Finding(code="archive-refused", where=dossier.name, text=str(error))
        return Verdict(
            findings=(finding,),
            more={},
            beyond={},
            claims={NO_CLAIMS: ""},
            reported={},
            done={"integrity": (NO_CLAIMS,)},
            keyid=None,
            num_samples=0,
            num_regraded=0,
            replay=(),
            seed=seed,
        )


def _examine(case: Case, steps: Sequence[Callable[[Case], None]]) -> Verdict:
    for step in steps:
        _take(case, step)
    claims = {c["id"]: c["text"] for c in case.claim_list()} or {NO_CLAIMS: ""}
    capable = tuple(c["id"] for c in case.claim_list() if is_capability(c))
    more = {code: n - _kept(case, code) for code, n in case.counts.items()}
    return Verdict(
        findings=tuple(case.findings),
        more={code: n for code, n in more.items() if n},
        beyond={c: None if ids is None else frozenset(ids) for c, ids in case.beyond.items()},
        claims=claims,
        reported={c["id"]: _reported(c) for c in case.claim_list()},
        done={"integrity": tuple(claims), "recomputed": tuple(claims), "clean": capable},
        keyid=case.keyid,
        num_samples=case.num_samples,
        num_regraded=case.num_regraded,
        replay=tuple(case.replay),
        seed=case.seed,
        parties=tuple(case.parties),
    )


def _reported(claim: Mapping[str, Any]) -> str:
    number = claim.get("reported")
    return f"{number['value']} [{number['low']}, {number['high']}]" if number else ""


def _kept(case: Case, code: str) -> int:
    return sum(f.code == code for f in case.findings)


def _take(case: Case, step: Callable[[Case], None]) -> None:
    """One check. What stops it is a finding too: a dossier must not be able to end the others."""
    try:
        step(case)
    except Exception as error:  # noqa: BLE001 - the boundary to a stranger's data
        case.find("verifier-stopped", step.__name__, f"{type(error).__name__}: {error}")


def read_claims(case: Case) -> None:
    """Reads claims.json, which everything else refers to."""
    case.claims = case.load("claims.json", Claims)


def check_external(case: Case) -> None:
    """The dossiers of other parties, each as this one but for those that it holds in turn."""

    def examine(archive: Archive, seed: str) -> tuple[Case, Verdict]:
        nested = Case(archive=archive, seed=seed)
        return nested, _examine(nested, STEPS)

    check_parties(case, examine)


READING: tuple[Callable[[Case], None], ...] = (
    check_files,
    read_ledger,
    check_seal,
    read_claims,
    check_plans,
    check_weights,
    read_sets,
    read_roots,
)
"""The checks that read a dossier's files, but for the samples."""
STEPS: tuple[Callable[[Case], None], ...] = (
    *READING,
    check_models,
    read_judges,
    read_audits,
    check_evaluations,
    check_attempts,
    check_planned,
    check_selection,
    check_sealed,
    check_graders,
    check_rollouts,
    check_numbers,
    check_comparisons,
    check_budgets,
    check_failures,
    check_audits,
    check_judges,
    check_scan,
    check_energy,
    check_reviews,
)
"""In this order: later checks read what earlier ones put into the case."""
