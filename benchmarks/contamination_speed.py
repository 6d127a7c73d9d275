"""Megabytes per CPU second of the contamination scan, and what it finds, on one core.

Prints JSON. Without arguments the corpus is made up: Zipf-distributed words as JSON lines, in which
few n-grams are those of an item. Real files are the harder case where corpus and suite are of one
field, because stock phrases are looked up again and again.

    python benchmarks/contamination_speed.py [CORPUS.jsonl SUITE.jsonl] [--megabytes 60]
"""

import argparse
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

from pellucid.audit.contamination.corpus import FileSource, items_of
from pellucid.audit.contamination.leaks import scan_and_test
from pellucid.audit.contamination.records import Item
from pellucid.audit.contamination.scan import Scanner

VOCABULARY, WORDS, ITEMS, ITEM_WORDS = 50_000, 600, 1_300, 45


def made_up(folder: Path, megabytes: float) -> tuple[Path, list[Item]]:
    """A corpus of Zipf-distributed words, and items of the same words."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgk"
    names = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / (rank + 2) for rank in range(VOCABULARY)))

    def text(count: int) -> str:
        return " ".join(rng.choices(names, cum_weights=weights, k=count)) + "."

    path = folder / "corpus.jsonl"
    with path.open("w") as file:
        while file.tell() < megabytes * 1e6:
            file.write(json.dumps({"text": text(WORDS)}) + "\n")
    return path, [Item(suite="items", row=row, text=text(ITEM_WORDS)) for row in range(ITEMS)]


def measure(path: Path, items: list[Item]) -> dict[str, object]:
    begin = time.process_time()
    scanner = Scanner(items)
    index_s = time.process_time() - begin
    begin = time.process_time()
    scan = scanner.scan([FileSource(path)])
    scan_s = time.process_time() - begin
    megabytes = path.stat().st_size / 1e6
    _, test = scan_and_test(scanner, [FileSource(path)])
    return {
        "megabytes": round(megabytes, 1),
        "documents": scan.num_documents,
        "items": len(items),
        "index_cpu_s": round(index_s, 2),
        "scan_cpu_s": round(scan_s, 2),
        "megabytes_per_cpu_s": round(megabytes / scan_s, 1),
        "flagged": len(scan.leaked_documents()),
        "self_test": test.as_json(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", type=Path, help="corpus, then suite")
    parser.add_argument("--megabytes", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.files:
            path, items = given.files[0], items_of(str(given.files[1]))
        else:
            path, items = made_up(Path(folder), given.megabytes)
        print(json.dumps(measure(path, items), indent=1))


if __name__ == "__main__":
    main()
