"""Has judges judge a suite of a dossier, and records every judgment."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.artifacts import atomic_write_bytes, atomic_write_json
from pellucid.errors import RunError
from pellucid.evidence.core.archive import open_archive
from pellucid.evidence.core.audit import AUDITS
from pellucid.evidence.core.audit_numbers import printed_numbers
from pellucid.evidence.core.canonical import canonical_json, leaf_hash
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_evals import read_roots
from pellucid.evidence.core.check_judges import read_judges
from pellucid.evidence.core.judged import (
    AS_IT_IS,
    JUDGES,
    NO,
    PROBES,
    YES,
    JudgedSuite,
    JudgeFile,
    JudgmentLine,
    asked_sha256,
    probe_order,
)
from pellucid.evidence.core.judged_numbers import judged_numbers
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.samples import Sample
from pellucid.evidence.dossier_files import rows_of
from pellucid.evidence.judges.ask import AnswerJudge, Question, Verdict
from pellucid.rewards.extract import THINK_CLOSE
from pellucid.runlog import Progress

RESULT = "result.json"
LOT = 512
"""Questions asked between two signs of progress."""


class Answered(NamedTuple):
    """A sample as a judge is shown it."""

    prompt: str
    gold: str
    answer: str
    error: str
    """Why nobody can judge it; empty: one can."""


def judge_suite(
    dossier: Path, suite: str, judge: AnswerJudge, *, asked: str, probed: int, progress: Progress
) -> None:
    """Asks one judge about every sample of a suite, and about the first `probed` of them under
    every probe, and writes its folder.

    Raises RunError where the suite is not there, was judged by this judge, or is under audit.
    """
    folder = dossier / JUDGES / suite / judge.name
    if folder.exists():
        raise RunError(f"{folder} is there: what was judged is not judged anew")
    if (dossier / AUDITS / suite).exists():
        raise RunError(f"{dossier / AUDITS / suite} was drawn for the judges that are there: "
                       "another one comes too late")  # fmt: skip
    evaluations = [p.parent.relative_to(dossier).as_posix()
                   for p in sorted(dossier.glob(f"evals/{suite}/*/root.json"))]  # fmt: skip
    if not evaluations:
        raise RunError(f"{dossier} has no suite {suite}: name one of its folder evals")
    _check_same_question(dossier, suite, asked)
    answers = _answers(dossier, evaluations)
    about: JudgeFile = {
        "v": 1,
        "name": judge.name,
        "suite": suite,
        "kind": judge.kind,
        "model": judge.model,
        "asked_sha256": asked_sha256(asked),
        "asked": asked,
        "evaluations": evaluations,
        "probed": probed,
        "count": 0,
        "root": "",
    }
    order = probe_order(answers)[:probed]
    lots = [(AS_IT_IS, list(answers))] + [(name, order) for name in PROBES if probed]
    lines: list[JudgmentLine] = []
    with progress.task(f"judged by {judge.name}", sum(len(o) for _, o in lots), "answers") as tick:
        for probe, leaves in lots:
            for start in range(0, len(leaves), LOT):
                lot = leaves[start : start + LOT]
                lines += _judged(judge, asked, probe, {leaf: answers[leaf] for leaf in lot})
                tick(len(lines), tick.total)
    _write(folder, about, lines)


def _check_same_question(dossier: Path, suite: str, asked: str) -> None:
    for path in sorted((dossier / JUDGES / suite).glob("*/judge.json")):
        before = json.loads(path.read_bytes())["asked"]
        if before != asked:
            raise RunError(f"{path} asked {before!r}: ask the same (--asked)")


def _answers(dossier: Path, evaluations: Sequence[str]) -> dict[bytes, Answered]:
    found = {}
    for folder in evaluations:
        for line, sample in rows_of(dossier, folder):
            redacted = sample["redacted"]
            leaf = leaf_hash(line) if redacted is None else bytes.fromhex(redacted["leaf"])
            found[leaf] = _answered(sample)
    return found


def _answered(sample: Sample) -> Answered:
    prompt, response = sample["question"], sample["response"]
    if prompt is None or response is None:
        return Answered("", "", "", "its text is withheld")
    answer = response.rpartition(THINK_CLOSE)[2].strip()
    error = "no answer was made" if sample["finish"] == "error" or not answer else ""
    return Answered(prompt, sample["gold"] or "", answer, error)


def _judged(
    judge: AnswerJudge, asked: str, probe: str, answers: Mapping[bytes, Answered]
) -> list[JudgmentLine]:
    suffix, turn = PROBES.get(probe, ""), int(probe == "again")
    open_ones = {leaf: one for leaf, one in answers.items() if not one.error}
    questions = [
        Question(
            id=f"{leaf.hex()[:16]} {probe}".strip(),
            prompt=one.prompt,
            gold=one.gold,
            answer=one.answer + suffix,
            turn=turn,
        )
        for leaf, one in open_ones.items()
    ]
    said = dict(zip(open_ones, judge.judge(questions, asked), strict=True))
    lines: list[JudgmentLine] = []
    for leaf, one in answers.items():
        verdict = said.get(leaf) or Verdict(None, one.error)
        word = None if verdict.is_yes is None else YES if verdict.is_yes else NO
        lines.append(
            {"v": 1, "leaf": leaf.hex(), "probe": probe, "verdict": word, "error": verdict.error}
        )
    return lines


def _write(folder: Path, about: JudgeFile, lines: Sequence[JudgmentLine]) -> None:
    tree, packed = MerkleTree(), []
    for line in lines:
        raw = canonical_json(line)
        tree.add(leaf_hash(raw))
        packed.append(raw + b"\n")
    folder.mkdir(parents=True)
    atomic_write_bytes(folder / "judgments.jsonl.gz", gzip.compress(b"".join(packed), mtime=0))
    atomic_write_json(folder / "judge.json", about | {"count": tree.count, "root": tree.root()})


def read_judged(dossier: Path, suite: str) -> JudgedSuite:
    """A suite with all its judges and samples. Raises RunError where they are none, or damaged."""
    with open_archive(dossier) as archive:
        case = Case(archive=archive, seed="")
        read_roots(case)
        read_judges(case)
    about = [f for f in case.findings if f.where.startswith(f"{JUDGES}{suite}")]
    if about or suite not in case.judged:
        why = f"{about[0].where}: {about[0].text}" if about else "nobody judged it"
        raise RunError(f"the judges of {suite} cannot be read ({why}): `pellucid dossier judge` it")
    judged = case.judged[suite]
    for folder in judged.sizes:
        for _ in judged.watch(rows_of(dossier, folder), folder):
            pass
    return judged


def write_result(dossier: Path, suite: JudgedSuite, labels: Mapping[str, str]) -> dict[str, Any]:
    """Computes and writes judges/SUITE/result.json, which it returns."""
    result: dict[str, Any] = printed_numbers(judged_numbers(suite, labels))
    atomic_write_json(dossier / JUDGES / suite.suite / RESULT, result)
    return result
