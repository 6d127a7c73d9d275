"""What people and judges add to the honest little dossier: audits/ and judges/, honestly made."""

import json

from honest_dossier import STRANGER, SUITE, public_key, signer, write

from pellucid.evidence.core.audit import SECOND_METHOD, answer_pair, pair_key
from pellucid.evidence.core.canonical import sha256_bytes
from pellucid.evidence.human_audit.draw import Ask, begin_draw, file_draw, shown_samples
from pellucid.evidence.human_audit.labels import import_labels
from pellucid.evidence.human_audit.sheet import write_sheets
from pellucid.evidence.judges.ask import Verdict
from pellucid.evidence.judges.record import judge_suite, read_judged, write_result
from pellucid.evidence.seal import Key
from pellucid.runlog import Progress

SILENT = Progress(is_silent=True)
ASKED = "Is the sum right?"
AUDIT = "audits/graders"
MISTAKEN = 7
"""The person calls this row of the sheet other than the grader does."""


class Reader:
    """Reads the box, and is wrong or silent in its own way."""

    kind = "program"

    def __init__(self, name, *, generous=(), silent=(), swayed_by=""):
        self.name = self.model = name
        self._generous, self._silent, self._swayed_by = generous, silent, swayed_by

    def judge(self, questions, asked):
        assert asked == ASKED
        return [self._one(q) for q in questions]

    def _one(self, question):
        if question.gold in self._silent:
            return Verdict(None, "I would rather not say")
        is_right = f"boxed{{{question.gold}}}" in question.answer or question.gold in self._generous
        if self._swayed_by and self._swayed_by in question.answer:
            is_right = not is_right
        return Verdict(is_right)


GENEROUS = Reader("generous", generous=("13", "21", "33"), silent=("17",))
SWAYED = Reader("swayed", swayed_by="excellent judge")


def own_key(secret):
    return Key(public_key(secret), signer(secret))


def second_of(maker):
    """A second grader that refuses every answer 25 that the first one takes."""
    pairs = {answer_pair(s) for arm in maker.samples for s in maker.samples[arm]
             if s["extracted"] == "25" and s["verdict"] == "correct"}  # fmt: skip
    return {
        "v": 1,
        "name": SECOND_METHOD,
        "version": "0",
        "graders": ["integer"],
        "pairs": 40,
        "differ": sorted(pair_key("integer", *pair) for pair in pairs),
        "failed": [],
    }


def draw(folder, *, seed=None, second=None, n=40):
    ask = Ask(n=n, contested=20, seed=seed)
    watcher = begin_draw(folder, ask, second)
    file_draw(folder, watcher, second)
    digest = sha256_bytes((folder / AUDIT / "draw.json").read_bytes())
    return watcher, write_sheets(shown_samples(folder, watcher.draw), digest, folder / "../sheet")


def fill(sheet, watcher, *, unsure=()):
    """A person who agrees with the grader but for one row."""
    head, *rows = [json.loads(line) for line in sheet.read_text().splitlines()]
    verdicts = {chosen.leaf: chosen.is_right for chosen in watcher.chosen()}
    for number, row in enumerate(rows):
        is_right = verdicts[row["leaf"]] != (number == MISTAKEN)
        row["label"] = "unsure" if number in unsure else "correct" if is_right else "wrong"
    sheet.write_text("".join(json.dumps(line) + "\n" for line in (head, *rows)))
    return sheet


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def judge(folder, *judges, probed=20):
    for one in judges:
        judge_suite(folder, SUITE, one, asked=ASKED, probed=probed, progress=SILENT)
    return write_result(folder, read_judged(folder, SUITE), {})


def people(folder, n=100, contested=100):
    """People who read the box, and label what the seed draws."""
    watcher = begin_draw(folder, Ask(n=n, contested=contested, judged=SUITE), None)
    file_draw(folder, watcher, None)
    digest = sha256_bytes((folder / f"audits/{SUITE}/draw.json").read_bytes())
    shown = shown_samples(folder, watcher.draw)
    sheet, _ = write_sheets(shown, digest, folder.parent / "sheet", ASKED)
    head, *rows = [json.loads(line) for line in sheet.read_text().splitlines()]
    assert head["asked"] == ASKED
    for row in rows:
        row["label"] = "correct" if f"boxed{{{row['expected']}}}" in row["response"] else "wrong"
    sheet.write_text("".join(json.dumps(line) + "\n" for line in (head, *rows)))
    return import_labels(folder, sheet, "Ada", own_key(STRANGER))


def checked_files(maker, folder):
    """Files of audits/ and judges/ for the dossier that `maker` makes; `folder` is used up."""
    write(maker.files(), folder)
    judge(folder, GENEROUS, SWAYED)
    people(folder)
    watcher, (sheet, _) = draw(folder, second=second_of(maker))
    import_labels(folder, fill(sheet, watcher), "Ada", own_key(STRANGER))
    return {p: d for p, d in files_of(folder).items() if p.startswith(("audits/", "judges/"))}
