"""Human audits: the draw is the seed's, every drawn sample has its label, the numbers follow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pellucid.evidence.core.archive import ArchiveError, read_whole
from pellucid.evidence.core.audit import (
    AUDITS,
    GRADERS,
    LABELS,
    LABELS_PREDICATE,
    MOST_DRAWN,
    SURE,
    DrawFile,
    GraderOpinions,
    Label,
    LabelsPredicate,
    SecondFile,
    Watcher,
    common_labels,
    default_seed,
)
from pellucid.evidence.core.audit_numbers import ResultFile, audit_numbers, differing
from pellucid.evidence.core.canonical import JsonError, parse_canonical, sha256_bytes
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.judged import JudgeOpinions
from pellucid.evidence.core.samples import Sample
from pellucid.evidence.core.shapes import shape_problem
from pellucid.evidence.core.signature import EnvelopeError, read_envelope

_LABELS_FILE = re.compile(r"labels-([A-Za-z][A-Za-z0-9_-]{0,39})\.(jsonl|dsse\.json)", re.A)
_FILES = ("draw.json", "second.json", "result.json")


def read_audits(case: Case) -> None:
    """Reads what was drawn, so that the samples can be looked at as they are read."""
    names = {path.split("/")[1] for path in case.archive.sizes if path.startswith(AUDITS)}
    for name in sorted(names):
        folder = f"{AUDITS}{name}"
        if name != GRADERS and name not in case.judged:
            text = "an audit of neither the graders nor of a suite with judges"
            case.find("file-malformed", folder, text, ())
            continue
        draw = case.load(f"{folder}/draw.json", DrawFile)
        if draw is None:
            continue
        problem = _draw_problem(case, name, draw)
        second = None
        if problem is None and draw["second"] is not None:
            second = _read_second(case, folder, draw["second"])
            problem = "the second grader's opinions are not those it names" * (second is None)
        if problem:
            case.find("audit-draw", f"{folder}/draw.json", problem, ())
        else:
            judged = case.judged.get(name)
            opinions = GraderOpinions(second) if judged is None else JudgeOpinions(judged)
            case.audits[name] = Watcher(draw, opinions)


def _draw_problem(case: Case, name: str, draw: DrawFile) -> str | None:
    if draw["name"] != name:
        return "of another name than its folder"
    if not (1 <= draw["n"] <= MOST_DRAWN and 0 <= draw["contested"] <= MOST_DRAWN):
        return "draws none, or too many"
    evaluations = draw["evaluations"]
    if not evaluations or sorted(set(evaluations)) != evaluations:
        return "its evaluations are none, or out of order"
    judged = case.judged.get(name)
    if judged is not None and (evaluations != sorted(judged.sizes) or draw["second"] is not None):
        return "not of the evaluations that were judged"
    missing = [folder for folder in evaluations if folder not in case.roots]
    return f"{missing[0][:80]} is not in the dossier" if missing else None


def _read_second(case: Case, folder: str, digest: str) -> SecondFile | None:
    path = f"{folder}/second.json"
    if _digest(case, path) != digest:
        return None
    found: SecondFile | None = case.load(path, SecondFile)
    return found


def watched(
    case: Case, rows: Iterable[tuple[bytes, Sample]], folder: str
) -> Iterable[tuple[bytes, Sample]]:
    """The rows of an evaluation, seen by the audits that it is part of."""
    for watcher in (*case.audits.values(), *case.judged.values()):
        if folder in watcher.sizes:
            rows = watcher.watch(rows, folder)
    return rows


def check_audits(case: Case) -> None:
    """Everything about them, once all samples were read."""
    for name, watcher in case.audits.items():
        _Check(case, f"{AUDITS}{name}", watcher).all()
    promised = [e["payload"].get("audit") for e in case.events if e["kind"] == "preregistered"]
    wanted = max((n for n in promised if type(n) is int), default=0)
    labelled = sum(label in SURE for label in case.labels.get(GRADERS, {}).values())
    if labelled < wanted:
        text = f"labels of {wanted} samples were promised with the plan, {labelled} are here"
        case.find("audit-missing", f"{AUDITS}{GRADERS}", text)


class _Check:
    """One audit."""

    def __init__(self, case: Case, folder: str, watcher: Watcher) -> None:
        self._case, self._folder, self._watcher = case, folder, watcher
        self._draw = watcher.draw
        self._digest = _digest(case, f"{folder}/draw.json")
        self._using = sorted({i for f in self._draw["evaluations"] for i in case.using(f)})

    def all(self) -> None:
        """Draw, labels, and of the graders the numbers; those of judges are theirs."""
        self._check_draw()
        sheets = self._sheets()
        if not sheets:
            self._find("audit-unlabelled", "draw.json", f"{len(self._draw['drawn'])} samples")
            return
        self._case.labels[self._draw["name"]] = common_labels(list(sheets.values()))
        if self._draw["name"] == GRADERS:
            self._check_numbers(sheets)

    def _check_numbers(self, sheets: dict[str, dict[str, str]]) -> None:
        result = self._case.load(f"{self._folder}/result.json", ResultFile)
        if result is None:
            return
        case, watcher = self._case, self._watcher
        numbers = audit_numbers(watcher, self._digest, sheets, case.claim_list(), case.evaluations)
        if (name := differing(result, numbers)) is not None:
            text = f"{name} is not what samples and labels give"
            self._find("audit-mismatch", "result.json", text)
        self._tell(result)

    def _check_draw(self) -> None:
        draw, watcher = self._draw, self._watcher
        drawn, given = watcher.drawn(), draw["drawn"]
        if drawn != given:
            right = {d["leaf"] for d in drawn}
            strange = sum(d["leaf"] not in right for d in given)
            text = f"{strange} of {len(given)} are not what the seed draws, {len(drawn)} would be"
            self._find("audit-draw", "draw.json", text)
        population = {"contested": watcher.population[True], "other": watcher.population[False]}
        if population != draw["population"]:
            text = f"{sum(population.values())} samples could be drawn, in other parts than it says"
            self._find("audit-draw", "draw.json", text)
        roots = [self._case.roots[folder]["recorded_root"] for folder in draw["evaluations"]]
        if draw["seed"] != default_seed(roots):
            text = f"the seed {draw['seed'][:40]!r} was chosen by whoever drew"
            self._find("audit-seed", "draw.json", text)

    def _sheets(self) -> dict[str, dict[str, str]]:
        """Labeller -> leaf -> label, of the drawn samples alone."""
        sheets = {}
        for path in sorted(self._case.archive.sizes):
            folder, _, file = path.rpartition("/")
            if folder == self._folder and file not in _FILES:
                match = _LABELS_FILE.fullmatch(file)
                if match is None:
                    self._case.find("file-malformed", path, "no file of an audit")
                elif match[2] == "jsonl":
                    sheets[match[1]] = self._sheet(match[1], file)
        return sheets

    def _sheet(self, by: str, file: str) -> dict[str, str]:
        case, path = self._case, f"{self._folder}/{file}"
        wanted = {drawn["leaf"] for drawn in self._watcher.drawn()}
        labels: dict[str, str] = {}
        for line in self._lines(path):
            labels[line["leaf"]] = line["label"]
        foreign = [leaf for leaf in labels if leaf not in wanted]
        missing = [leaf for leaf in wanted if leaf not in labels]
        if foreign:
            text = f"{len(foreign)} labels of samples that were not drawn: {foreign[0][:16]}…"
            self._find("audit-label-foreign", file, text)
        if missing:
            text = f"{len(missing)} of {len(wanted)} drawn samples have no label"
            self._find("audit-label-missing", file, text)
        self._check_signer(by, path, case)
        return {leaf: label for leaf, label in labels.items() if leaf in wanted}

    def _lines(self, path: str) -> Iterator[Label]:
        seen: set[str] = set()
        try:
            data = read_whole(self._case.archive, path)
        except ArchiveError as error:
            self._case.find("file-malformed", path, str(error))
            return
        if data and not data.endswith(b"\n"):
            self._case.find("file-malformed", path, "the last line has no end")
        for number, raw in enumerate(data.split(b"\n")[:-1], 1):
            problem, line = self._line(raw)
            if problem is None and line["leaf"] in seen:
                problem = "its sample has a label already"
            if problem is not None:
                self._case.find("file-malformed", f"{path} line {number}", problem)
                continue
            seen.add(line["leaf"])
            yield line

    def _line(self, raw: bytes) -> tuple[str | None, Any]:
        try:
            line = parse_canonical(raw)
        except JsonError as error:
            return str(error), None
        problem = shape_problem(line, Label)
        if problem is None and (line["v"] != 1 or line["label"] not in LABELS):
            problem = "its label is none"
        if problem is None and line["draw"] != self._digest:
            problem = "a label of another draw"
        return problem, line

    def _check_signer(self, by: str, path: str, case: Case) -> None:
        """The labels are those that their labeller, or else the importer, stated."""
        envelope = path.removesuffix(".jsonl") + ".dsse.json"
        try:
            data = read_whole(case.archive, envelope)
            signed = read_envelope(data, LABELS_PREDICATE, LabelsPredicate)
        except (ArchiveError, EnvelopeError) as error:
            self._find("audit-label-changed", envelope, f"the statement on the labels {error}")
            return
        subject = signed.statement["subject"][0]
        if subject["name"] != path or subject["digest"]["sha256"] != _digest(case, path):
            self._find("audit-label-changed", path, "not the labels that were stated")
        if signed.statement["predicate"]["by"] != by:
            self._find("audit-label-changed", envelope, "stated by somebody else")
        if signed.is_valid is False:
            self._find("audit-label-changed", envelope, "the signature does not fit")
        if signed.keyid is None or signed.keyid == case.keyid:
            why = "not signed" if signed.keyid is None else "signed with the dossier's own key"
            self._find("audit-unsigned", path, f"the labels of {by} are {why}")

    def _tell(self, result: ResultFile) -> None:
        """The numbers in a line, for who reads the verifier alone."""
        by = ", ".join(result["labellers"])
        parts = [f"{result['labelled']} labels by {by[:60]} ({result['unsure']} unsure)"]
        for name, shown in (("agreement", "agreement"), ("kappa", "kappa"),
                            ("false_positive_rate", "false positives"),
                            ("false_negative_rate", "false negatives"),
                            ("disagreement", "graders differ")):  # fmt: skip
            estimate = result[name]  # type: ignore[literal-required]
            if estimate is not None:
                parts.append(f"{shown} {estimate['value']} [{estimate['low']}, {estimate['high']}]")
        self._find("audited", "result.json", "; ".join(parts))
        for claim, bound in sorted(result["bounds"].items()):
            text = f"with the grader's errors within [{bound['low']}, {bound['high']}]"
            self._case.find("audited", claim, text, [claim])

    def _find(self, code: str, file: str, text: str) -> None:
        where = file if file.startswith(self._folder) else f"{self._folder}/{file}"
        self._case.find(code, where, text, self._using)


def _digest(case: Case, path: str) -> str:
    try:
        return sha256_bytes(read_whole(case.archive, path))
    except ArchiveError:
        return ""
