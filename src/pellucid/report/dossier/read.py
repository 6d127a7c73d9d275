"""A dossier read back for its page. Nothing is measured here; what is damaged is named.

Whether the dossier is to be believed is the verifier's business: the page prints what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pellucid.artifacts import StageFolder
from pellucid.errors import RunError
from pellucid.evidence.core.archive import Archive, ArchiveError, open_archive, read_whole
from pellucid.evidence.core.audit import AUDITS, GRADERS
from pellucid.evidence.core.audit_numbers import ResultFile
from pellucid.evidence.core.canonical import JsonError, parse_json, sha256_bytes
from pellucid.evidence.core.claims import TWO_ARM_KINDS
from pellucid.evidence.core.judged import JUDGES
from pellucid.evidence.core.judged_numbers import JudgedFile
from pellucid.evidence.core.samples import Sample, SampleError, read_samples
from pellucid.evidence.core.schema import (
    MANIFEST_NAME,
    SEAL_NAME,
    SEAL_PREDICATE,
    Claims,
    SealPredicate,
)
from pellucid.evidence.core.schema_training import Scan
from pellucid.evidence.core.shapes import shape_problem
from pellucid.evidence.core.signature import EnvelopeError, Signed, read_envelope
from pellucid.evidence.core.verify import Verdict, verify
from pellucid.evidence.review.export import RoundView, round_views
from pellucid.evidence.review.history import broken_closings
from pellucid.report.read import Curves, stage_curves
from pellucid.report.readings import Pair, choose_pairs

SCAN_PATH, ENERGY_PATH, METRICS_PATH = (
    *("contamination/scan.json", "energy/report.json", "train/metrics.jsonl"),
)
AUDIT_PATH = f"{AUDITS}{GRADERS}/result.json"
SAMPLES_LOOKED_AT = 20_000
"""Of each evaluation: among the first so many, the samples to read are chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealView:
    """What the seal says of itself."""

    digest: str
    version: int
    time: str
    previous: str | None
    key: str | None
    """Key id; None: nobody signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DossierView:
    """Everything that the page is made of."""

    document: Claims
    seal: SealView | None
    """None: a draft."""
    manifest: tuple[Mapping[str, Any], ...]
    curves: Curves
    scan: Mapping[str, Any] | None
    audit: ResultFile | None
    """What people's labels say of the graders; None: nobody labelled."""
    judged: Mapping[str, JudgedFile]
    """Path of the result -> what judges say of a suite."""
    energy: Any
    """energy/report.json, whatever is in it; None: not there."""
    readings: tuple[tuple[str, str, tuple[Pair, ...]], ...]
    """(suite, path of the samples, pairs) of each comparison."""
    rounds: tuple[RoundView, ...]
    broken: tuple[str, ...]
    """Closings in the review that are not by who wrote the point."""
    verdict: Verdict | None
    """What examining the dossier gave, when the page was made; None: nobody asked."""


def read_dossier(path: Path, *, with_verdict: bool = False) -> DossierView:
    """Read a dossier's folder. Raises RunError, one line, for what is missing or damaged.

    `with_verdict`: examine it as well, which takes about a minute for a million samples.
    """
    try:
        with open_archive(path) as archive:
            document = _checked(archive, "claims.json", Claims)
            rounds = tuple(round_views(path)) if (path / "reviews").is_dir() else ()
            return DossierView(
                document=document,
                seal=_seal(archive),
                manifest=tuple(_manifest(archive)),
                curves=_curves(path, archive),
                scan=_optional(archive, SCAN_PATH, Scan),
                audit=_optional(archive, AUDIT_PATH, ResultFile),
                judged={p: _checked(archive, p, JudgedFile) for p in _judged_paths(archive)},
                energy=_json(archive, ENERGY_PATH) if ENERGY_PATH in archive.sizes else None,
                readings=tuple(_readings(path, document)),
                rounds=rounds,
                broken=tuple(broken_closings(view.round for view in rounds)),
                verdict=verify(path) if with_verdict else None,
            )
    except ArchiveError as error:
        raise RunError(f"{path} cannot be read as a dossier: {error}") from None


def is_dossier(path: Path) -> bool:
    """Whether a folder looks like a dossier rather than a run."""
    return (path / "claims.json").is_file() and not (path / "recipe.toml").is_file()


def _json(archive: Archive, path: str) -> Any:
    try:
        return parse_json(read_whole(archive, path))
    except ArchiveError as error:
        raise RunError(f"{path} {error}: build the dossier again") from None
    except JsonError as error:
        raise RunError(f"{path} is damaged ({error}): build the dossier again") from None


def _checked(archive: Archive, path: str, shape: Any) -> Any:
    value = _json(archive, path)
    problem = shape_problem(value, shape)
    if problem is not None:
        raise RunError(f"{path} is not in its form ({problem}): build the dossier again")
    return value


def _judged_paths(archive: Archive) -> list[str]:
    own = (p for p in archive.sizes if p.startswith(JUDGES) and p.count("/") == 2)
    return sorted(p for p in own if p.endswith("/result.json"))


def _optional(archive: Archive, path: str, shape: Any) -> Any | None:
    return _checked(archive, path, shape) if path in archive.sizes else None


def _seal(archive: Archive) -> SealView | None:
    if SEAL_NAME not in archive.sizes:
        return None
    data = read_whole(archive, SEAL_NAME)
    try:
        signed: Signed = read_envelope(data, SEAL_PREDICATE, SealPredicate)
    except EnvelopeError as error:
        raise RunError(f"{SEAL_NAME} is no seal ({error}): seal the dossier again") from None
    if signed.is_valid is False:
        raise RunError(f"{SEAL_NAME} has a wrong signature: seal the dossier again")
    predicate = signed.statement["predicate"]
    return SealView(
        digest=sha256_bytes(data),
        version=predicate["version"],
        time=predicate["time"],
        previous=predicate["previous"],
        key=signed.keyid,
    )


def _manifest(archive: Archive) -> Iterator[Mapping[str, Any]]:
    if MANIFEST_NAME not in archive.sizes:
        return
    for number, line in enumerate(read_whole(archive, MANIFEST_NAME).splitlines(), start=1):
        try:
            row = parse_json(line)
            yield {"path": str(row["path"]), "bytes": int(row["bytes"]), "sha256": row["sha256"]}
        except (JsonError, KeyError, TypeError, ValueError):
            raise RunError(f"{MANIFEST_NAME} line {number} lists no file: seal again") from None


def _curves(path: Path, archive: Archive) -> Curves:
    """The training's metrics lie in a dossier as they lay in the stage's folder."""
    return stage_curves(StageFolder(path / "train")) if METRICS_PATH in archive.sizes else {}


def _readings(path: Path, document: Claims) -> Iterator[tuple[str, str, tuple[Pair, ...]]]:
    """For each suite the first comparison's arms, read side by side."""
    seen: set[str] = set()
    for claim in document["claims"]:
        if claim["kind"] not in TWO_ARM_KINDS:
            continue
        after, before = claim["arms"]["a"], claim["arms"]["b"]
        suite = after.split("/")[1] if after.count("/") == 2 else ""
        if not suite or suite in seen:
            continue
        seen.add(suite)
        pairs = choose_pairs(_records(path, before), _records(path, after))
        yield suite, f"{after}/samples.jsonl.gz", tuple(pairs)


def _records(path: Path, folder: str) -> Iterator[dict[str, Any]]:
    """First samples of the problems, in the words that `readings` reads."""
    if ".." in folder.split("/") or not folder.startswith("evals/"):
        raise RunError(f"claims.json names {folder!r} as an evaluation: build the dossier again")
    file = path / folder / "samples.jsonl.gz"
    try:
        for _, sample in islice(read_samples(file), SAMPLES_LOOKED_AT):
            if sample["k"] == 0:
                yield _record(sample)
    except (OSError, SampleError) as error:
        raise RunError(f"{folder}/samples.jsonl.gz cannot be read: {error}") from None


def _record(sample: Sample) -> dict[str, Any]:
    withheld = sample["redacted"]["fields"] if sample["redacted"] else {}
    texts = {
        name: f"[withheld, SHA-256 {withheld[name]}]" if name in withheld else sample[name]  # type: ignore[literal-required]
        for name in ("question", "gold", "response", "extracted")
    }
    return texts | {
        "problem_id": sample["item"],
        "k_index": 0,
        "sample_id": sample["sample_id"],
        "verdict": sample["verdict"],
        "stop": sample["finish"],
        "n_completion": sample["n_out"],
        "logprob_sum": sample["logprob_sum"],
    }
