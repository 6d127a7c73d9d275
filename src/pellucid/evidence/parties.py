"""Another party's dossier inside one's own: theirs byte for byte, and what it differs in.

Only what they sealed with their own key is taken, and only where it holds and is of the released
weights: what the verifier would call a fraud (`core.check_parties`) is refused here, in one line.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pellucid.artifacts import atomic_write_json, writing
from pellucid.errors import DataError, RunError
from pellucid.evidence.compare import read_side
from pellucid.evidence.core.archive import open_archive, read_whole
from pellucid.evidence.core.canonical import parse_json
from pellucid.evidence.core.diff import Diff, diff_facets
from pellucid.evidence.core.facets import Facets
from pellucid.evidence.core.party import (
    DIFF,
    DOSSIER,
    EXTERNAL,
    MAX_PARTIES,
    is_party_name,
)
from pellucid.evidence.core.recognise import why_no_dossier
from pellucid.evidence.core.samples import SampleError, read_samples
from pellucid.evidence.core.schema import SEAL_NAME, SEAL_PREDICATE, SealPredicate
from pellucid.evidence.core.signature import EnvelopeError, read_envelope
from pellucid.evidence.core.verify import verify

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What was taken in. Example: Attached(folder=…, keyid="ab…", evaluations=2, released=1, …)"""

    folder: Path
    keyid: str
    """Key that they signed with."""
    evaluations: int
    released: int
    """Of these, of the weights that the dossier around them releases."""
    samples: int
    diff: Diff


def attach(dossier: Path, theirs: Path, name: str) -> Attached:
    """Puts `theirs` (folder, zip or tar) under external/NAME of `dossier`, which must be sealed
    afterwards. Raises RunError or DataError where it does not hold, or is not what it should be.
    """
    if not (dossier / "claims.json").is_file():
        raise RunError(f"{dossier} is no dossier: make one with `pellucid dossier build`")
    if not is_party_name(name):
        raise RunError(f"--party {name!r}: a name of letters, digits, '.', '_' and '-' is needed")
    target = dossier / EXTERNAL / name
    if target.exists():
        raise RunError(f"{target} exists: remove that folder first, or choose another --party")
    if len(party_folders(dossier)) >= MAX_PARTIES:
        raise RunError(f"{dossier} holds {MAX_PARTIES} parties, and a verifier reads no more")
    keyid, evaluations, released = _accept(dossier, theirs)
    own, other = read_side(dossier).facets, read_side(theirs).facets
    diff = diff_facets(own, other)
    samples = _copy(theirs, target, diff)
    return Attached(
        folder=target,
        keyid=keyid,
        evaluations=evaluations,
        released=released,
        samples=samples,
        diff=diff,
    )


def _accept(dossier: Path, theirs: Path) -> tuple[str, int, int]:
    """(their key's id, their evaluations, those of the released weights), where all is right."""
    if not theirs.exists():
        raise DataError(f"there is no {theirs}: name a dossier's folder, zip or tar")
    if reason := why_no_dossier(theirs):
        raise DataError(reason)
    verdict = verify(theirs)
    faults = [f for f in verdict.findings if not f.kind.is_note]
    if faults:
        first = f"{faults[0].code}, {faults[0].where}: {faults[0].text}"
        raise DataError(f"{theirs} does not hold ({first}): its party must mend it")
    if verdict.keyid is None:
        raise DataError(f"{theirs} is not signed: its party must seal it with a key of its own")
    check_signer(theirs.name, verdict.keyid, sealed_by(dossier))
    with open_archive(theirs) as archive:
        roots = [name for name in archive.sizes if name.startswith("evals/")]
        models = [
            parse_json(read_whole(archive, name))["model"]
            for name in roots
            if name.endswith("/root.json")
        ]
    weights = dossier / "weights/manifest.json"
    if not weights.is_file():
        raise RunError(f"{dossier} does not say which weights it releases: build it anew")
    own = parse_json(weights.read_bytes())["root"]
    if own not in models:
        raise DataError(
            f"{theirs} asked other weights than {dossier} releases ({own[:16]}…): it is no word "
            "on these"
        )
    return verdict.keyid, len(models), models.count(own)


def _copy(theirs: Path, target: Path, diff: Diff) -> int:
    """Writes the folder of a party, whole or not at all; returns the number of their samples."""
    dossier = target.parent.parent
    partial = dossier.with_name(f".partial-{target.name}-{os.getpid()}")
    samples = 0
    with writing(target):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with open_archive(theirs) as archive:
                for name in sorted(archive.sizes):
                    place = partial / DOSSIER / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as source, place.open("wb") as file:
                        shutil.copyfileobj(source, file, _CHUNK)
                    if name.startswith("evals/") and name.endswith("/root.json"):
                        samples += parse_json(place.read_bytes())["count"]
            atomic_write_json(partial / DIFF, diff.to_dict())
            target.parent.mkdir(exist_ok=True)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return samples


# Before a seal


def party_folders(dossier: Path) -> list[Path]:
    """Of all parties whose dossiers were attached."""
    return sorted(p for p in (dossier / EXTERNAL).glob("*") if (p / DOSSIER).is_dir())


def prepare_parties(dossier: Path, keyid: str | None) -> None:
    """Compares every party's dossier with this one as it is now. Raises RunError where one of them
    is signed with the key that is about to sign.
    """
    folders = party_folders(dossier)
    own: Facets | None = None
    for folder in folders:
        check_signer(f"{EXTERNAL}/{folder.name}", sealed_by(folder / DOSSIER), keyid)
        own = own if own is not None else read_side(dossier).facets
        diff = diff_facets(own, read_side(folder / DOSSIER).facets)
        atomic_write_json(folder / DIFF, diff.to_dict())


def check_signer(what: str, theirs: str | None, ours: str | None) -> None:
    """RunError where another party's dossier and one's own are signed with one key."""
    if theirs is not None and theirs == ours:
        raise RunError(f"{what} is signed with your own key: a party signs with its own")


def sealed_by(dossier: Path) -> str | None:
    """Id of the key that sealed a dossier; None: none did. Raises RunError for a damaged seal."""
    seal = dossier / SEAL_NAME
    if not seal.is_file():
        return None
    try:
        return read_envelope(seal.read_bytes(), SEAL_PREDICATE, SealPredicate).keyid
    except EnvelopeError as error:
        raise RunError(f"{seal} is damaged ({error}): restore it, or build anew") from None


# When texts are withheld


def check_nothing_shown(dossier: Path, suites: Collection[str], items: Collection[str]) -> None:
    """RunError where a party's dossier shows texts that are to be withheld: nobody but the party
    can take them out of what it signed.
    """
    for folder in party_folders(dossier):
        for suite, item in _shown(folder / DOSSIER):
            if suite in suites or item in items:
                raise RunError(
                    f"{EXTERNAL}/{folder.name} holds texts of {item}: ask its party for a redacted "
                    "dossier, or remove that folder first"
                )


def _shown(dossier: Path) -> Iterator[tuple[str, str]]:
    """(suite, item) of every sample with its text."""
    for path in sorted(dossier.glob("evals/*/*/samples.jsonl.gz")):
        try:
            for _, sample in read_samples(path):
                if sample["redacted"] is None:
                    yield sample["suite"], sample["item"]
        except SampleError as error:
            raise RunError(f"{path} is damaged: {error}") from None
