"""Judgments: one for every sample and probe, under the root that was stated, and their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pellucid.evidence.core.archive import READ_ERRORS
from pellucid.evidence.core.audit_numbers import differing
from pellucid.evidence.core.canonical import (
    JsonError,
    is_sha256,
    leaf_hash,
    parse_canonical,
)
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.judged import (
    AS_IT_IS,
    JUDGES,
    MAX_JUDGES,
    MAX_JUDGMENTS,
    NO,
    PROBES,
    YES,
    JudgedSuite,
    JudgeFile,
    JudgmentLine,
    Judgments,
    asked_sha256,
)
from pellucid.evidence.core.judged_numbers import JudgedFile, judged_numbers
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.samples import SampleError, gzip_lines
from pellucid.evidence.core.shapes import shape_problem

FEWEST_LABELS = 100
"""Labels of people below which a judge's agreement with them is hardly known."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", re.A)
_KINDS = ("program", "command", "endpoint")


def read_judges(case: Case) -> None:
    """Reads all judgments, so that the samples can be looked up in them as they are read."""
    folders: dict[str, set[str]] = {}
    for path in sorted(case.archive.sizes):
        if not path.startswith(JUDGES):
            continue
        match path.split("/")[1:]:
            case [suite, "result.json"]:
                folders.setdefault(suite, set())
            case [suite, judge, "judge.json" | "judgments.jsonl.gz"]:
                folders.setdefault(suite, set()).add(judge)
            case _:
                case.find("file-malformed", path, "no file of a judge", ())
    for suite, judges in folders.items():
        _read_suite(case, suite, sorted(judges))


def _read_suite(case: Case, suite: str, names: list[str]) -> None:
    where = f"{JUDGES}{suite}"
    if not 0 < len(names) <= MAX_JUDGES:
        case.find("judge-broken", where, f"{len(names)} judges, not 1 to {MAX_JUDGES}", ())
        return
    judges = {name: _read_judge(case, f"{where}/{name}") for name in names}
    found = {name: judgments for name, judgments in judges.items() if judgments is not None}
    if len({(j.about["asked"], *j.about["evaluations"]) for j in found.values()}) > 1:
        text = "its judges were asked of different evaluations, or another question"
        case.find("judge-broken", where, text, ())
    elif found:
        case.judged[suite] = JudgedSuite(suite, found)


def _read_judge(case: Case, folder: str) -> Judgments | None:
    about = case.load(f"{folder}/judge.json", JudgeFile)
    if about is None:
        return None
    if problem := _about_problem(case, folder, about):
        case.find("judge-broken", f"{folder}/judge.json", problem, ())
        return None
    judgments, tree = Judgments(about), MerkleTree()
    for number, line in _lines(case, f"{folder}/judgments.jsonl.gz", tree):
        verdicts = judgments.by_probe.setdefault(line["probe"], {})
        leaf = bytes.fromhex(line["leaf"])
        if leaf in verdicts:
            where = f"{folder}/judgments.jsonl.gz line {number}"
            case.find("judge-broken", where, "its sample was judged already", ())
        case.num_judgments += 1
        verdicts[leaf] = None if line["verdict"] is None else line["verdict"] == YES
    if (tree.count, tree.root()) != (about["count"], about["root"]):
        text = "the judgments are not those whose root judge.json states"
        case.find("judge-broken", f"{folder}/judgments.jsonl.gz", text, ())
    return judgments


def _about_problem(case: Case, folder: str, about: JudgeFile) -> str | None:
    _, suite, name = folder.split("/")
    evaluations = about["evaluations"]
    if (about["suite"], about["name"]) != (suite, name) or _NAME.fullmatch(name) is None:
        return "of another suite or judge than its folder"
    if about["kind"] not in _KINDS or about["probed"] < 0:
        return "a kind or number that is none"
    if about["asked_sha256"] != asked_sha256(about["asked"]):
        return "another question than that of its digest"
    if not evaluations or sorted(set(evaluations)) != evaluations:
        return "its evaluations are none, or out of order"
    missing = [f for f in evaluations if f not in case.roots or f.split("/")[1] != suite]
    return f"{missing[0][:80]} is no evaluation of the suite" if missing else None


def _lines(case: Case, path: str, tree: MerkleTree) -> Iterator[tuple[int, JudgmentLine]]:
    size = case.archive.sizes.get(path)
    if size is None:
        case.find("file-missing", path, "the judgments are not here", ())
        return
    try:
        with case.archive.open(path) as file:
            for number, raw in enumerate(gzip_lines(file, size), 1):
                if case.num_judgments >= MAX_JUDGMENTS:
                    text = f"more than {MAX_JUDGMENTS} judgments in all"
                    case.find("archive-refused", path, text, ())
                    return
                tree.add(leaf_hash(raw))
                problem, line = _line(raw)
                if problem is not None:
                    case.find("judge-broken", f"{path} line {number}", problem, ())
                else:
                    yield number, line
    except (SampleError, *READ_ERRORS) as error:
        case.find("archive-refused", path, str(error), ())


def _line(raw: bytes) -> tuple[str | None, Any]:
    try:
        line = parse_canonical(raw)
    except JsonError as error:
        return str(error), None
    problem = shape_problem(line, JudgmentLine)
    if problem is None and (line["v"] != 1 or not is_sha256(line["leaf"])):
        problem = "of another version, or of no sample"
    if problem is None and line["probe"] not in (AS_IT_IS, *PROBES):
        problem = "of a probe that is not known"
    if problem is None and line["verdict"] not in (YES, NO, None):
        problem = "its verdict is none"
    if problem is None and (line["verdict"] is None) != bool(line["error"]):
        problem = "verdict and error disagree: a failure has no verdict, and says why"
    return problem, line


def check_judges(case: Case) -> None:
    """Every sample was judged, probes are those of the rule, and the numbers follow."""
    for name, suite in case.judged.items():
        using = sorted({i for folder in suite.sizes for i in case.using(folder)})
        for judge, judgments in suite.judges.items():
            _check_complete(case, suite, judge, judgments, using)
        labels = case.labels.get(name, {})
        path = f"{JUDGES}{name}/result.json"
        result = case.load(path, JudgedFile)
        if result is None:
            continue
        numbers = judged_numbers(suite, labels)
        if (what := differing(result, numbers)) is not None:
            case.find("judge-mismatch", path, f"{what} is not what the judgments give", using)
        _tell(case, suite, numbers, path, using)


def _check_complete(
    case: Case, suite: JudgedSuite, name: str, judgments: Judgments, using: list[str]
) -> None:
    where = f"{JUDGES}{suite.suite}/{name}/judgments.jsonl.gz"
    probed = judgments.about["probed"]
    wanted = {AS_IT_IS: {row.leaf for row in suite.rows}}
    if probed:
        first = set(suite.probed(probed))
        for probe in PROBES:
            wanted[probe] = first
    for probe, leaves in wanted.items():
        given = judgments.by_probe.get(probe, {}).keys()
        what = f"under the probe {probe}" if probe else "as they are"
        if missing := len(leaves - given):
            text = f"{missing} of {len(leaves)} samples were not judged {what}"
            case.find("judgment-missing", where, text, using)
        if surplus := len(given - leaves):
            text = f"{surplus} judgments {what} of samples that were not to be judged"
            case.find("judge-broken", where, text, using)
    if not probed and any(probe for probe in judgments.by_probe):
        case.find("judge-broken", where, "judgments of probes that were not announced", using)


def _tell(case: Case, suite: JudgedSuite, numbers: Any, path: str, using: list[str]) -> None:
    """What a reader should know before believing a judge."""
    if len(suite.judges) < 2:
        case.find("judge-alone", path, "one judge: nothing says how another would judge", using)
    for name, judge in numbers["judges"].items():
        missing = sum(arm["missing"] for arm in judge["evaluations"].values())
        total = sum(suite.sizes.values())
        agreement = judge["kappa"]
        known = "none" if agreement is None else f"{agreement['value']:.2f}"
        text = f"{name}: {missing} of {total} verdicts missing; kappa with people {known}"
        flipped = {p: f for p, f in judge["flips"].items() if f["share"] is not None}
        if flipped:
            worst = max(flipped, key=lambda p: flipped[p]["share"]["value"])
            text += f"; {flipped[worst]['share']['value']:.0%} flip under the probe {worst}"
        case.find("judged", path, text, using)
        if judge["labelled"] < FEWEST_LABELS:
            text = f"{name}: {judge['labelled']} labels of people, {FEWEST_LABELS} are asked for"
            case.find("judge-unchecked", path, text, using)
