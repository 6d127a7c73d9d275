"""CPU time a sample of the language share: the fast rule against the plain one it must equal.

    python benchmarks/language_speed.py recipes/r1-zero-gsm8k-0.5b/result/gsm8k-samples.tar.xz \
        DATA/mgsm

The archive holds samples of an evaluation (JSON lines with a `response`), the folder the TSV files
of MGSM. Every text is judged against its own language and against another one; all shares are
compared. Times are the least of several passes over all texts. Prints a line of JSON for each set.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "rewards"))
from plain_language import plain_share

from pellucid.rewards.extract import split_thinking
from pellucid.rewards.language import language_share

PASSES = 6
Text = tuple[str, str]
"""A text and its language."""
Share = Callable[[str, str], float]


def samples(archive: Path) -> list[Text]:
    """The thinking of every stored sample, or all of it where there is none."""
    texts: list[Text] = []
    with tarfile.open(archive) as members:
        for member in members:
            stream = members.extractfile(member)
            for line in stream or ():
                response = json.loads(line)["response"]
                thinking = split_thinking(response).thinking
                texts.append((response if thinking is None else thinking, "en"))
    return texts


def questions(folder: Path) -> list[Text]:
    """MGSM's questions in all languages."""
    return [
        (line.split("\t")[0], path.stem.rpartition("_")[2])
        for path in sorted(folder.glob("mgsm_*.tsv"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line
    ]


def cpu_ms(shares: Sequence[Share], texts: Sequence[Text]) -> list[float]:
    """Milliseconds of CPU a text with each rule, in its best pass; the rules take turns."""
    best = [float("inf")] * len(shares)
    for _ in range(PASSES):
        for place, share in enumerate(shares):
            begin = time.process_time()
            for text, language in texts:
                share(text, language)
            best[place] = min(best[place], time.process_time() - begin)
    return [1000.0 * seconds / len(texts) for seconds in best]


def compare(texts: Sequence[Text]) -> dict[str, float]:
    others = {"en": "zh"}
    asked = [(t, other) for t, own in texts for other in (own, others.get(own, "en"))]
    different = sum(plain_share(*each) != language_share(*each) for each in asked)
    plain, fast = cpu_ms((plain_share, language_share), texts)
    return {
        "texts": len(texts),
        "characters": round(fmean(len(text) for text, _ in texts)),
        "compared": len(asked),
        "different": different,
        "plain_ms": round(plain, 4),
        "fast_ms": round(fast, 4),
        "times_faster": round(plain / fast, 2),
    }


def main(archive: str, mgsm: str) -> int:
    report = {"samples": compare(samples(Path(archive)))}
    rows = questions(Path(mgsm))
    for language in sorted({own for _, own in rows}):
        report[f"mgsm {language}"] = compare([row for row in rows if row[1] == language])
    report["load average"] = {"one minute": round(os.getloadavg()[0], 1)}
    for name, part in report.items():
        print(name, json.dumps(part))
    return int(any(part.get("different") for part in report.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
