"""The whole examination by a referee who has the weights: files and claims, replay, fresh items."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.artifacts import RunFolder
from pellucid.errors import DataError, RunError
from pellucid.evidence.core.archive import (
    MAX_JSON_BYTES,
    Archive,
    ArchiveError,
    digest_of,
    open_archive,
    read_whole,
)
from pellucid.evidence.core.canonical import sha256_bytes
from pellucid.evidence.core.findings import Finding
from pellucid.evidence.core.verify import Verdict, verify
from pellucid.evidence.fresh import FreshFinding
from pellucid.evidence.fresh_dossier import fresh_dossier
from pellucid.evidence.replay_dossier import replay_dossier
from pellucid.evidence.zipapp import verifier_bytes

VERIFIER = "verify.pyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a referee asks for. Example: Request(seed="1234", replay=59, model="runs/x")"""

    seed: str = ""
    trusted_key: str | None = None
    replay: int = 0
    """Samples to teacher-force through each model."""
    fresh: int = 0
    """New problems to ask."""
    model: str | None = None
    """The released weights: a path, or a hub id. None: of the run that the dossier lies in."""
    base: str | None = None
    """What training started from, for claims of a gain."""
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of it."""

    verdict: Verdict
    lines: tuple[str, ...] = ()
    """Of replay and fresh items, for a terminal."""
    more: dict[str, Any]
    """The same, plain."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        return self.verdict.to_dict() | self.more


def examine(dossier: Path, request: Request) -> Examination:
    """Raises UserError where replay or fresh items were asked for and cannot be done."""
    verdict = verify(dossier, seed=request.seed, trusted_key=request.trusted_key)
    verdict = replace(verdict, findings=(*verdict.findings, *_foreign_verifier(dossier)))
    lines: list[str] = []
    more: dict[str, Any] = {}
    if request.replay or request.fresh:
        request = _with_model(dossier, request)
    if request.replay:
        verdict, lines, more["replayed"] = _replayed(dossier, request, verdict)
    if request.fresh:
        verdict, said, more["fresh"] = _fresh(dossier, request, verdict)
        lines += said
    return Examination(verdict=verdict, lines=tuple(lines), more=more)


def _foreign_verifier(dossier: Path) -> list[Finding]:
    """A dossier may bring a program of its own that calls itself the verifier."""
    try:
        with open_archive(dossier) as archive:
            if VERIFIER not in archive.sizes:
                return []
            _, digest = digest_of(archive, VERIFIER, MAX_JSON_BYTES)
    except ArchiveError:
        return []  # named already
    if digest == sha256_bytes(verifier_bytes()):
        return []
    text = f"SHA-256 {digest[:16]}… is another version's or somebody else's: run your own"
    return [Finding(code="verifier-foreign", where=VERIFIER, text=text)]


def _with_model(dossier: Path, request: Request) -> Request:
    if request.model is not None:
        model = request.model
        if (Path(model) / "recipe.toml").is_file():
            model = _trained(Path(model))
    elif (dossier.parent / "recipe.toml").is_file():
        model = _trained(dossier.parent)
    else:
        raise RunError("replay and fresh items need the weights: name them with --model")
    fields = {name: getattr(request, name) for name in Request.__dataclass_fields__}
    return Request(**(fields | {"model": model}))


def _trained(run: Path) -> str:
    stage = RunFolder(run).last_model()
    if stage is None:
        raise RunError(f"{run} holds no trained model: name the weights with --model")
    return str(stage.model)


def _replayed(
    dossier: Path, request: Request, verdict: Verdict
) -> tuple[Verdict, list[str], list[dict[str, Any]]]:
    """Each model that is here; a claim counts as replayed where all its arms' models were."""
    arms = _models_of_claims(dossier)
    lines, plain, done = [], [], set()
    findings: list[Finding] = []
    for model in filter(None, (request.model, request.base)):
        report = replay_dossier(dossier, model, request.replay, request.seed, device=request.device)
        lines += [f"replay of {model}: {report.verdict}", *report.lines()]
        plain.append(report.to_dict())
        if report.verdict != "unchecked":
            done.add(report.weights_root)
        if report.verdict == "fails":
            using = tuple(c for c, roots in arms.items() if report.weights_root in roots)
            text = report.text or f"{len(report.failed)} of {len(report.checks)} samples differ"
            findings.append(Finding(code="replay-mismatch", where=model, text=text, claims=using))
    checked = [claim for claim, roots in arms.items() if roots <= done]
    return verdict.with_results("replayed", checked, findings), lines, plain


def _fresh(
    dossier: Path, request: Request, verdict: Verdict
) -> tuple[Verdict, list[str], dict[str, Any]]:
    assert request.model is not None, "looked up before"
    result = fresh_dossier(
        dossier, request.model, request.fresh, request.seed, device=request.device,
        base=request.base,
    )  # fmt: skip
    share = result.result.pass_at_1
    lines = [
        f"fresh items ({', '.join(result.families)}): pass@1 {share.value:.1%} "
        f"[{share.low:.1%}, {share.high:.1%}] of {share.n}"
    ]
    # One line for all claims of which there is the same to say.
    told: dict[str, list[str]] = {}
    for c in result.comparisons:
        told.setdefault(c.text, []).append(c.claim)
    lines += [f"{', '.join(claims)}: {text}" for text, claims in told.items()]
    compared = [c for c in result.comparisons if c.finding is not FreshFinding.OTHER_DISTRIBUTION]
    findings = [
        Finding(code="fresh-mismatch", where=c.claim, text=c.text, claims=(c.claim,))
        for c in compared
        if c.finding is FreshFinding.LOWER
    ]
    checked = [c.claim for c in compared]
    if result.generator not in (sealed := _sealed_generators(dossier)):
        seals = f"the plan sealed {sealed[0][:12]}…" if sealed else "the plan sealed none"
        text = f"{seals}; here they are made by {result.generator[:12]}…"
        findings.append(Finding(code="fresh-unsealed", where="ledger.jsonl", text=text))
    return verdict.with_results("fresh", checked, findings), lines, result.to_dict()


@contextmanager
def _reading(dossier: Path) -> Iterator[Archive]:
    """The dossier, whose form nobody vouches for here. Raises DataError where it is another."""
    try:
        with open_archive(dossier) as archive:
            yield archive
    except (ArchiveError, ValueError, LookupError, TypeError, AttributeError) as error:
        text = f"{dossier.name} is damaged ({type(error).__name__}): verify it without its model"
        raise DataError(text) from error


def _sealed_generators(dossier: Path) -> list[str]:
    """Digests of the generators that stand in the ledger since a plan was filed."""
    with _reading(dossier) as archive:
        events = [json.loads(line) for line in read_whole(archive, "ledger.jsonl").splitlines()]
    plans = [event["payload"] for event in events if event["kind"] == "preregistered"]
    return [str(plan["fresh_generator"]) for plan in plans if "fresh_generator" in plan]


def _models_of_claims(dossier: Path) -> dict[str, set[str]]:
    """Claim -> roots of the models that its arms name."""
    with _reading(dossier) as archive:
        claims: Sequence[Any] = json.loads(read_whole(archive, "claims.json"))["claims"]
        folders = {folder for claim in claims for folder in claim["arms"].values()}
        models = {
            folder: json.loads(read_whole(archive, f"{folder}/root.json"))["model"]
            for folder in folders
        }
    return {c["id"]: {models[folder] for folder in c["arms"].values()} for c in claims}
