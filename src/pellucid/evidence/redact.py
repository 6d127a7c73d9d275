"""Withholds texts from a dossier: harmful, licensed or private ones. Digests and roots stay.

A withheld record keeps the hash of the whole record, so the root that the ledger recorded can still
be rebuilt, no sample can vanish, and whoever holds the text can show that it is the one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from pellucid.artifacts import atomic_write_json, writing
from pellucid.errors import RunError
from pellucid.evidence.core.canonical import canonical_json, leaf_hash
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.samples import SampleError, read_samples, redact_sample
from pellucid.evidence.evaluations import (
    ROOT_NAME,
    SAMPLES_NAME,
    SamplesWriter,
    packed_texts,
)
from pellucid.evidence.parties import check_nothing_shown

ROLLOUTS = ("train/rollouts.json", "train/stages/*/rollouts.json")


def redact(
    dossier: Path, out: Path, *, suites: Collection[str] = (), items: Collection[str] = ()
) -> int:
    """Writes to `out` a copy of `dossier` without the texts of whole suites or of some items;
    returns how many texts were withheld. It has to be sealed again, as the next version.

    Raises RunError where nothing fits, `out` exists, the dossier is damaged, or another party's
    dossier in it shows what is to be withheld.
    """
    roots = sorted(dossier.glob(f"evals/*/*/{ROOT_NAME}"))
    if not roots:
        raise RunError(f"{dossier} is no dossier: it has no evaluations")
    if out.exists():
        raise RunError(f"{out} exists: choose another --out")
    check_nothing_shown(dossier, suites, items)
    with writing(out):
        shutil.copytree(dossier, out)
    done = [_redact_one(out / r.parent.relative_to(dossier), suites, items) for r in roots]
    count = sum(one.samples for one in done)
    for pattern in ROLLOUTS:
        count += sum(_redact_rollouts(path, items) for path in sorted(out.glob(pattern)))
    if not count:
        shutil.rmtree(out)
        raise RunError("no sample is of these suites or items: name them as claims.json does")
    _follow_roots(out / "claims.json", {one.old_root: one.new_root for one in done})
    return count


class Withheld(NamedTuple):
    """What became of one evaluation."""

    samples: int
    """Withheld now."""
    old_root: str
    new_root: str


def _redact_one(folder: Path, suites: Collection[str], items: Collection[str]) -> Withheld:
    root = json.loads((folder / ROOT_NAME).read_bytes())
    tree, total, new = MerkleTree(), 0, 0
    path, partial = folder / SAMPLES_NAME, folder / f".partial-{SAMPLES_NAME}"
    try:
        with SamplesWriter(partial, packed_texts(path)) as writer:
            for line, sample in read_samples(path):
                if root["suite"] in suites or sample["item"] in items:
                    new += sample["redacted"] is None
                    sample = redact_sample(sample)
                    line = canonical_json(sample)
                total += sample["redacted"] is not None
                tree.add(leaf_hash(line))
                writer.add(line, sample)
    except SampleError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    partial.replace(path)
    atomic_write_json(folder / ROOT_NAME, root | {"merkle_root": tree.root(), "redacted": total})
    return Withheld(new, root["merkle_root"], tree.root())


def _redact_rollouts(path: Path, items: Collection[str]) -> int:
    """Training rollouts on withheld items lose their texts too."""
    document = json.loads(path.read_bytes())
    chosen = [r for r in document["rollouts"] if r["item"] in items and r["response"] is not None]
    for rollout in chosen:
        rollout["gold"] = rollout["response"] = None
    if chosen:
        atomic_write_json(path, document)
    return len(chosen)


def _follow_roots(path: Path, changed: dict[str, str]) -> None:
    """Claims name the samples as shipped; their numbers are the same."""
    document = json.loads(path.read_bytes())
    for claim in document["claims"]:
        claim["roots"] = {arm: changed.get(root, root) for arm, root in claim["roots"].items()}
    atomic_write_json(path, document)
