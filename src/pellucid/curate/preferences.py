"""Preference pairs from judgments (paper, Methods): who is asked what, and which pairs are kept.

    pairs ── 4 questions each, 2 with the answers swapped, in a seeded order ── Judge
             mean, signs corrected ── beyond the margin? ── lengths balanced over the set ──► pairs

Every judgment is in the file before the next lot is asked: a killed job asks nothing twice. What
the judge cannot make sense of is asked once more; then its pair is dropped and counted.
Left out: who judges (`judging`), where the answers come from.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pellucid.artifacts import atomic_write_text, sha256_json
from pellucid.curate.judging import Judge, Question
from pellucid.data.preferences import PreferencePair
from pellucid.errors import DataError, RunError
from pellucid.jsonl import JsonlWriter, read_jsonl

ATTEMPTS = 2
"""Times that one question is asked at most."""
LOT = 64
"""Pairs judged between two writes, so that a client can ask many at once."""
_RETRY_TURNS = 1000
"""Added to the turn of a question asked again, so that a model draws anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Two answers to one prompt, not judged yet.

    Example: Contest(id="smalltalk/train/3#0", prompt="Hi", first="Hello!", second="What?")
    """

    id: str
    prompt: str
    first: str
    """As a judge is shown it: the summary."""
    second: str
    first_response: str = ""
    """As it was written, thinking included; empty: `first`."""
    second_response: str = ""


class Judged(NamedTuple):
    """A contest with what was said of it."""

    contest: Contest
    judgments: tuple[float, ...]
    """For the first answer, whatever its position was."""

    @property
    def mean(self) -> float:
        return fmean(self.judgments)


@dataclass(slots=True)
class JudgeCounts:
    """What became of the contests."""

    judged: int = 0
    nonsense: int = 0
    """Dropped: twice no clear judgment."""
    retried: int = 0
    """Questions that were asked a second time."""
    equal: int = 0
    """Not asked: both answers are the same."""
    undecided: int = 0
    """Dropped: the mean judgment is within the margin."""
    unbalanced: int = 0
    """Dropped so that chosen and rejected answers are of comparable length."""
    kept: int = 0
    position_bias: float | None = None
    """Mean judgment for whoever was shown first; 0 for a fair judge."""

    def to_dict(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in self.__slots__}


class Balanced(NamedTuple):
    """Pairs of comparable lengths."""

    pairs: list[PreferencePair]
    num_dropped: int
    gap: float
    """Mean length of the chosen less that of the rejected ones, as a share of the longer."""


def judge_contests(
    contests: Sequence[Contest],
    judge: Judge,
    record: Path,
    *,
    judgments: int = 4,
    seed: int,
    counts: JudgeCounts,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judged]:
    """Every contest that got all its judgments, in the order given; `record` is the file they are
    kept in.

    Raises RunError where the file is damaged, and what the judge raises.
    """
    assert judgments % 2 == 0, "half of the judgments swap the positions"
    known = _read_record(record)
    differing = [c for c in contests if c.first.strip() != c.second.strip()]
    counts.equal += len(contests) - len(differing)
    found: list[Judged] = []
    raw: list[float] = []
    with JsonlWriter(record) as writer:
        for start in range(0, len(differing), LOT):
            lot = differing[start : start + LOT]
            asked = [list(_questions(c, judgments, seed)) for c in lot]
            values = _answers([q for row in asked for q in row], judge, writer, known, counts)
            for contest, row in zip(lot, asked, strict=True):
                answers = [values[_key(judge, q)] for q in row]
                clear = [v for v in answers if v is not None]
                if len(clear) < len(answers):
                    counts.nonsense += 1
                    continue
                raw += clear
                signs = [1.0 if q.a == contest.first else -1.0 for q in row]
                signed = tuple(s * v for s, v in zip(signs, clear, strict=True))
                found.append(Judged(contest, signed))
            progress(min(start + LOT, len(differing)), len(differing))
    counts.judged += len(found)
    counts.position_bias = fmean(raw) if raw else None
    return found


def decided_pairs(
    judged: Sequence[Judged], *, min_margin: float, counts: JudgeCounts
) -> list[PreferencePair]:
    """Pairs whose mean judgment is beyond `min_margin` either way."""
    pairs = []
    for contest, mean in ((j.contest, j.mean) for j in judged):
        if abs(mean) <= min_margin:
            counts.undecided += 1
            continue
        responses = (
            contest.first_response or contest.first,
            contest.second_response or contest.second,
        )
        chosen, rejected = responses if mean > 0 else responses[::-1]
        pairs.append(
            PreferencePair(id=contest.id, prompt=contest.prompt, chosen=chosen, rejected=rejected)
        )
    return pairs


def balance_lengths(
    pairs: Sequence[PreferencePair],
    length_of: Callable[[str], int],
    *,
    max_gap: float,
) -> Balanced:
    """Drops pairs until the mean lengths of chosen and rejected responses differ by at most the
    share `max_gap` of the longer mean: always the pair that contributes most to the difference,
    the first of several. So few are lost, and a model cannot tell the two by length on average.

    Raises DataError where no pair would be left.
    """
    lengths = [(length_of(p.chosen), length_of(p.rejected)) for p in pairs]
    left, right = sum(chosen for chosen, _ in lengths), sum(rejected for _, rejected in lengths)
    direction = 1 if left > right else -1
    by_excess = sorted(range(len(pairs)), key=lambda i: direction * (lengths[i][1] - lengths[i][0]))
    dropped: set[int] = set()
    for i in by_excess:
        if abs(left - right) <= max_gap * max(left, right):
            break
        dropped.add(i)
        left, right = left - lengths[i][0], right - lengths[i][1]
    kept = [pair for i, pair in enumerate(pairs) if i not in dropped]
    if not kept:
        longer = "chosen" if direction > 0 else "rejected"
        raise DataError(
            f"in all {len(pairs)} pairs the {longer} answers are longer: no selection has "
            "comparable lengths; raise helpful.max_length_gap, or set it to 1"
        )
    return Balanced(kept, len(dropped), (left - right) / max(left, right, 1))


def forget_nonsense(record: Path) -> None:
    """Takes out of the file what made no sense, so that it is asked anew; clear judgments stay."""
    clear = [line for line in read_jsonl(record) if line["judgment"] is not None]
    atomic_write_text(record, "".join(json.dumps(line) + "\n" for line in clear))


def _questions(contest: Contest, judgments: int, seed: int) -> Iterator[Question]:
    """Half of them with the answers swapped, in an order of the contest's own."""
    swaps = [turn % 2 == 1 for turn in range(judgments)]
    random.Random(f"judge/{seed}/{contest.id}").shuffle(swaps)
    for turn, swapped in enumerate(swaps):
        a, b = (contest.second, contest.first) if swapped else (contest.first, contest.second)
        yield Question(f"{contest.id}/{turn}", contest.prompt, a, b, turn)


def _answers(
    questions: Sequence[Question],
    judge: Judge,
    writer: JsonlWriter,
    known: dict[str, list[float | None]],
    counts: JudgeCounts,
) -> dict[str, float | None]:
    """The judgment of each question by its key; None where it made no sense twice."""
    by_key = {_key(judge, q): q for q in questions}
    for attempt in range(ATTEMPTS):
        missing = [key for key in by_key if _is_open(known.get(key, []), attempt)]
        if not missing:
            break
        counts.retried += len(missing) if attempt else 0
        turned = [by_key[key] for key in missing]
        turned = [q._replace(turn=q.turn + attempt * _RETRY_TURNS) for q in turned]
        for key, value in zip(missing, judge.judge(turned), strict=True):
            writer.append({"question": key, "name": by_key[key].name, "judgment": value})
            known.setdefault(key, []).append(value)
    return {(key := _key(judge, q)): known[key][-1] for q in questions}


def _is_open(values: Sequence[float | None], attempt: int) -> bool:
    return len(values) <= attempt and all(v is None for v in values)


def _key(judge: Judge, question: Question) -> str:
    """Names a question by all that its answer depends on."""
    return sha256_json([judge.name, question.prompt, question.a, question.b, question.turn])


def _read_record(path: Path) -> dict[str, list[float | None]]:
    known: dict[str, list[float | None]] = {}
    if not path.exists():
        return known
    for number, line in enumerate(read_jsonl(path), start=1):
        try:
            known.setdefault(line["question"], []).append(line["judgment"])
        except (KeyError, TypeError):
            raise RunError(
                f"{path} line {number} is no judgment: restore it or delete it"
            ) from None
    return known
