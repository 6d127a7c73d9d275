"""Numbers of claims, computed anew from the dossier's samples: all items, and each view."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pellucid.errors import ReviewError
from pellucid.evidence.core.archive import ArchiveError, open_archive
from pellucid.evidence.core.canonical import JsonError, leaf_hash, parse_json
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_claims import VIEWS
from pellucid.evidence.core.check_claims import view_items as items_of_view
from pellucid.evidence.core.check_clean import read_sets
from pellucid.evidence.core.claims import ClaimError, compute_claim, compute_claims
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.samples import SampleError, read_samples
from pellucid.evidence.core.tally import Evaluation
from pellucid.evidence.review.sealed import CLAIMS

Numbers = dict[str, dict[str, dict[str, float | None] | None]]
"""Claim -> view -> number; a view is None where no item of it was asked."""


def recomputed(dossier: Path, wanted: Collection[str]) -> Numbers:
    """The numbers of some claims, unrounded, from the samples that the claims name.

    Raises ReviewError where samples are damaged, are not the ones that were sealed, or give no
    number.
    """
    document = _document(dossier / CLAIMS)
    claims = {claim["id"]: claim for claim in document["claims"]}
    family = {
        m for f in document["families"].values() for m in f["claims"] if wanted & {*f["claims"]}
    }
    needed = [claims[i] for i in claims if i in wanted or i in family]
    evaluations = _evaluations(dossier, needed)
    results, adjusted, problems = compute_claims(
        {**document, "claims": needed, "families": _only(document["families"], family)}, evaluations
    )
    numbers: Numbers = {}
    for claim_id in sorted(wanted):
        if claim_id in problems:
            raise ReviewError(f"claim {claim_id} cannot be recomputed: {problems[claim_id]}")
        numbers[claim_id] = {"all": results[claim_id]._asdict() | {"p_adj": adjusted.get(claim_id)}}
        for view, keep in view_items(dossier, document, claims[claim_id]).items():
            numbers[claim_id][view] = _view(claims[claim_id], evaluations, keep)
    return numbers


def view_items(
    dossier: Path, document: Mapping[str, Any], claim: Mapping[str, Any]
) -> dict[str, set[str]]:
    """Items of the views `clean`, `post_cutoff` and `fresh`, as the verifier tells them."""
    try:
        with open_archive(dossier) as archive:
            case = Case(archive=archive, seed="")
            case.claims = document  # type: ignore[assignment]
            read_sets(case)
            return {v: set(items_of_view(case, claim, v) or ()) for v in VIEWS}  # type: ignore[arg-type]
    except ArchiveError as error:
        raise ReviewError(f"{dossier} cannot be read: {error}") from None


def _view(
    claim: Any, evaluations: Mapping[str, Evaluation], keep: set[str]
) -> dict[str, float | None] | None:
    try:
        return compute_claim(claim, evaluations, keep=keep)._asdict()
    except ClaimError:
        return None  # no item of this view, or too few clusters for an interval


def _only(families: Mapping[str, Any], members: Collection[str]) -> dict[str, Any]:
    return {n: f for n, f in families.items() if set(f["claims"]) <= set(members)}


def _evaluations(dossier: Path, claims: list[Any]) -> dict[str, Evaluation]:
    roots: dict[str, str] = {}
    for claim in claims:
        roots |= {claim["arms"][arm]: claim["roots"][arm] for arm in claim["arms"]}
    return {folder: _evaluation(dossier, folder, root) for folder, root in roots.items()}


def _evaluation(dossier: Path, folder: str, root: str) -> Evaluation:
    parts = folder.split("/")
    if len(parts) != 3 or parts[0] != "evals" or any(p in ("", ".", "..") for p in parts):
        raise ReviewError(f"{folder!r} is no evaluation: write evals/SUITE/ARM")
    path = dossier / folder / "samples.jsonl.gz"
    tree, evaluation = MerkleTree(), Evaluation(parts[1], parts[2], merkle_root=root)
    try:
        for line, sample in read_samples(path):
            tree.add(leaf_hash(line))
            evaluation.add(sample)
    except OSError as error:
        raise ReviewError(f"{folder}/samples.jsonl.gz cannot be read: {error.strerror}") from None
    except SampleError as error:
        raise ReviewError(f"{folder}/samples.jsonl.gz: {error}") from None
    if tree.root() != root:
        raise ReviewError(f"{folder}: its samples are not the ones that the claims were made from")
    return evaluation


def _document(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (OSError, JsonError) as error:
        raise ReviewError(f"{path.name} cannot be read ({error})") from None
