"""Draws the samples that people are to label, and puts the draw into the dossier.

    samples ── a second grader on every (gold, answer) pair ── draw by the seed ──► draw.json, sheet

The rule of the draw is in `core.audit`, where the verifier applies it again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pellucid.artifacts import atomic_write_bytes
from pellucid.errors import RunError
from pellucid.evidence.core.audit import (
    AUDITS,
    GRADERS,
    MOST_DRAWN,
    DrawFile,
    GraderOpinions,
    Opinions,
    SecondFile,
    Watcher,
    default_seed,
)
from pellucid.evidence.core.canonical import leaf_hash, sha256_bytes
from pellucid.evidence.core.judged import JudgeOpinions
from pellucid.evidence.core.samples import Sample
from pellucid.evidence.core.schema import Claims, Root
from pellucid.evidence.core.tally import Evaluation
from pellucid.evidence.dossier_files import json_bytes, read_json, rows_of
from pellucid.evidence.judges.record import read_judged

DRAW, SECOND, RESULT = "draw.json", "second.json", "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is to be drawn. Example: Ask(n=100, contested=100, seed="1234")"""

    n: int = 100
    """Samples on which the graders agree, or only one spoke."""
    contested: int = 100
    """Samples on which they differ, at most."""
    seed: str | None = None
    """None: the one that the samples' roots give."""
    suites: Collection[str] = ()
    """Empty: all that a claim rests on."""
    judged: str | None = None
    """The suite whose judges are audited; None: the graders are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A drawn sample as a person is shown it: without any verdict."""

    leaf: str
    question: str
    gold: str
    response: str


def audit_folder(dossier: Path, name: str) -> Path:
    """Where an audit lies: of the graders, or of the judges of a suite."""
    return dossier / AUDITS / name


def audited_evaluations(dossier: Path, suites: Collection[str]) -> dict[str, Root]:
    """Evaluation -> its root.json, of all that a claim rests on. Raises RunError."""
    claims: Claims = read_json(dossier / "claims.json", Claims)
    folders = sorted({f for claim in claims["claims"] for f in claim["arms"].values()})
    chosen = [f for f in folders if not suites or f.split("/")[1] in suites]
    unknown = sorted(set(suites) - {f.split("/")[1] for f in folders})
    if unknown:
        raise RunError(f"no claim rests on a suite {unknown[0]}: name one as claims.json does")
    if not chosen:
        raise RunError(f"{dossier} claims nothing of any evaluation: there is nothing to audit")
    return {folder: read_json(dossier / folder / "root.json", Root) for folder in chosen}


def begin_draw(dossier: Path, ask: Ask, second: SecondFile | None) -> Watcher:
    """The samples that `ask` draws. Raises RunError where they cannot be read, or are too few."""
    if not (1 <= ask.n <= MOST_DRAWN and 0 <= ask.contested <= MOST_DRAWN):
        raise RunError(f"draw 1 to {MOST_DRAWN} samples: correct --n or --contested")
    if ask.judged is None:
        opinions: Opinions = GraderOpinions(second)
        roots = audited_evaluations(dossier, ask.suites)
    else:
        judged = read_judged(dossier, ask.judged)
        opinions = JudgeOpinions(judged)
        roots = {f: read_json(dossier / f / "root.json", Root) for f in sorted(judged.sizes)}
    draw: DrawFile = {
        "v": 1,
        "name": ask.judged or GRADERS,
        "seed": ask.seed or default_seed(root["recorded_root"] for root in roots.values()),
        "n": ask.n,
        "contested": ask.contested,
        "evaluations": sorted(roots),
        "second": None,
        "population": {"contested": 0, "other": 0},
        "drawn": [],
    }
    watcher = Watcher(draw, opinions)
    read_population(dossier, watcher)
    draw["population"] = {
        "contested": watcher.population[True],
        "other": watcher.population[False],
    }
    draw["drawn"] = watcher.drawn()
    if not draw["drawn"]:
        raise RunError("nobody came to a verdict on any sample: there is nothing to audit")
    return watcher


def file_draw(dossier: Path, watcher: Watcher, second: SecondFile | None) -> DrawFile:
    """Writes the draw into the dossier. Raises RunError where another one is there: who draws
    until the samples please proves nothing.
    """
    draw = watcher.draw
    folder = audit_folder(dossier, draw["name"])
    if second is not None:
        draw["second"] = sha256_bytes(json_bytes(second))
    path = folder / DRAW
    if path.is_file() and path.read_bytes() != json_bytes(draw):
        raise RunError(
            f"{path} is another draw: label that one, or take the folder away and say why"
        )
    if second is not None:
        atomic_write_bytes(folder / SECOND, json_bytes(second))
    atomic_write_bytes(path, json_bytes(draw))
    return draw


def read_population(dossier: Path, watcher: Watcher) -> dict[str, Evaluation]:
    """Shows every sample to the watcher; returns the evaluations. Raises RunError."""
    evaluations = {}
    for folder in watcher.draw["evaluations"]:
        _, suite, arm = folder.split("/")
        evaluation = Evaluation(suite, arm, merkle_root="")
        evaluation.keeps_answers = False
        for _, sample in watcher.watch(rows_of(dossier, folder), folder):
            evaluation.add(sample)
        evaluations[folder] = evaluation
    return evaluations


def shown_samples(dossier: Path, draw: DrawFile) -> list[Shown]:
    """The texts of the drawn samples, in the order of the draw. Raises RunError where one is
    withheld: draw from the version that has it.
    """
    wanted = {drawn["leaf"] for drawn in draw["drawn"]}
    found: dict[str, Shown] = {}
    for folder in draw["evaluations"]:
        for line, sample in rows_of(dossier, folder):
            redacted = sample["redacted"]
            leaf = leaf_hash(line).hex() if redacted is None else redacted["leaf"]
            if leaf in wanted:
                found[leaf] = _shown(leaf, sample)
    return [found[drawn["leaf"]] for drawn in draw["drawn"]]


def _shown(leaf: str, sample: Sample) -> Shown:
    question, gold, response = sample["question"], sample["gold"], sample["response"]
    if question is None or gold is None or response is None:
        raise RunError(
            f"the text of {sample['item']} is withheld: draw from the version of the dossier that "
            "has it, or leave its suite out (--suite)"
        )
    return Shown(leaf=leaf, question=question, gold=gold, response=response)
