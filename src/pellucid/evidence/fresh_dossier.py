"""`pellucid verify --fresh N`: a dossier's model on items made from its root and a nonce.

Prompt and sampler are those of the evaluation that a claim rests on; items are of the claim's own
distribution where there is a generator for it, else of all general families.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.errors import DataError
from pellucid.evidence.core.archive import Archive, ArchiveError, open_archive, read_whole
from pellucid.evidence.core.samples import Sample, SampleError, samples_of
from pellucid.evidence.fresh import (
    SAME_DISTRIBUTION,
    Claimed,
    FreshResult,
    compare,
    gain,
    run_fresh,
)
from pellucid.evidence.fresh_items.make import GENERAL
from pellucid.evidence.with_model import OpenedModel, open_model, params_of, root_of, template_of
from pellucid.rewards.pool import GraderPool
from pellucid.stats import Estimate


def fresh_dossier(
    dossier: Path,
    model: str,
    n: int,
    nonce: str,
    *,
    device: str = "cpu",
    families: Sequence[str] | None = None,
    base: str | None = None,
) -> FreshResult:
    """Measures `model` on `n` fresh items and holds the dossier's claims of pass@1 against them.

    `base`: the model that a claimed gain is over; it is asked the same items. `families`: None for
    those that fit the claims. Raises DataError where no evaluation is of these weights.
    """
    root = root_of(model)
    try:
        with open_archive(dossier) as archive:
            case = _read(archive, root, None if base is None else root_of(base))
    except (ArchiveError, SampleError, ValueError, KeyError) as error:
        raise DataError(f"{dossier} has no readable claims and samples: {error}") from error
    if case.sample is None:
        raise DataError(
            f"no evaluation of the dossier is of the weights {root[:12]}… of {model}: name the "
            "model that it claims"
        )
    families = tuple(families or _fitting(case.shares + case.gains) or GENERAL)
    after = _measure(case.sample, model, device, root, nonce, n, families)
    comparisons = [compare(after.by_family, claim) for claim in case.shares]
    if base is not None:
        before = _measure(case.sample, base, device, root, nonce, n, families)
        difference = gain(before, after)
        estimate = Estimate(difference.value, difference.low, difference.high, difference.n)
        of = families[0] if len(families) == 1 else ", ".join(families)
        comparisons += [compare({of: estimate}, claim) for claim in case.gains]
    return replace(after, comparisons=tuple(comparisons))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What a dossier says of a model."""

    sample: Sample | None
    """One of its samples: template, sampler and engine."""
    shares: tuple[Claimed, ...]
    """Claims of its pass@1."""
    gains: tuple[Claimed, ...]
    """Claims of its pass@1 less the base's."""


def _read(archive: Archive, root: str, base_root: str | None) -> _Case:
    firsts = {
        path.removesuffix("/samples.jsonl.gz"): _first(archive, path)
        for path in sorted(archive.sizes)
        if path.startswith("evals/") and path.endswith("/samples.jsonl.gz")
    }
    models = {folder: sample["model"] for folder, sample in firsts.items() if sample is not None}
    claims = json.loads(read_whole(archive, "claims.json"))["claims"]
    shares, gains = [], []
    for claim in claims:
        arms: Mapping[str, str] = claim["arms"]
        subject, other = models.get(arms["a"]), models.get(arms.get("b", ""))
        if subject != root or claim["metric"]["fn"] != "pass_at_1":
            continue
        sample = firsts[arms["a"]]
        assert sample is not None, "its model is known"
        if claim["kind"] == "pass_at_1":
            shares.append(_claimed(claim, sample))
        elif claim["kind"] == "paired_difference" and base_root is not None and other == base_root:
            gains.append(_claimed(claim, sample))
    rests_on = [c["arms"]["a"] for c in claims if models.get(c["arms"]["a"]) == root]
    folders = rests_on or [folder for folder, found in models.items() if found == root]
    return _Case(
        sample=firsts[folders[0]] if folders else None, shares=tuple(shares), gains=tuple(gains)
    )


def _first(archive: Archive, path: str) -> Sample | None:
    with archive.open(path) as file:
        return next((sample for _, sample in samples_of(file, archive.sizes[path])), None)


def _claimed(claim: Mapping[str, Any], sample: Sample) -> Claimed:
    """The suite is named by its items, `chain/test/7`: what a recipe calls it proves nothing."""
    reported = claim["reported"]
    return Claimed(
        claim=claim["id"],
        suite=sample["item"].rpartition("/")[0],
        value=float(reported["value"]),
        low=float(reported["low"]),
        high=float(reported["high"]),
    )


def _fitting(claims: Sequence[Claimed]) -> list[str]:
    """Families of the same distribution as a claim's suite."""
    suites = {claim.suite for claim in claims}
    return [family for family, names in SAME_DISTRIBUTION.items() if suites & set(names)]


def _measure(
    sample: Sample, model: str, device: str, root: str, nonce: str, n: int, families: Sequence[str]
) -> FreshResult:
    engine = sample["engine"]
    opened: OpenedModel = open_model(
        model, dtype=engine["dtype"], device=device, exact=engine["batch_invariant"]
    )
    with GraderPool() as grader:
        return run_fresh(
            opened.engine,
            opened.loaded.tokenizer,
            template_of(sample["template_sha256"]),
            root,
            nonce,
            n,
            grader=grader,
            params=params_of(sample["sampler"]),
            families=families,
        )
