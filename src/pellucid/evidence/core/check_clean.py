"""The contamination scan: complete, sound by its own self-test, redone where the texts are here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pellucid.evidence.core.archive import READ_ERRORS
from pellucid.evidence.core.canonical import JsonError, parse_json
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_training import is_of_training
from pellucid.evidence.core.claims import is_capability
from pellucid.evidence.core.containment import DECIDING, EQUAL, containment, signs, words
from pellucid.evidence.core.hashed_prompts import (
    HASHED,
    HashedError,
    HashedPrompt,
    count_again,
    parse_hashed,
)
from pellucid.evidence.core.lean import lean_samples
from pellucid.evidence.core.samples import SampleError, read_lines
from pellucid.evidence.core.schema import DataSet
from pellucid.evidence.core.schema_training import Scan

SCAN = "contamination/scan.json"
PROMPTS = "contamination/prompts.jsonl.gz"
"""Training prompts, where they may be shown: lines {"ref": …, "text": …}."""
MAX_THRESHOLD = 1.0
"""Where texts are generated, as two problems of one kind share most words, only whole copies count;
above it nothing does."""
MIN_RECALL = 0.95
MAX_FALSE_SHARE = 1 / 4000
"""Documents without a full copy that a scan may flag before it is called coarse."""
PARTIAL_LEAKS = frozenset({"half copy", "one word in eight edited"})
"""Of a short item these are hard to tell from stock phrases: a scan may miss more of them, and is
then called coarse."""
MIN_PARTIAL_RECALL = 0.7
"""A scanner that misses more of them than this does not look for them."""
GENERATED = "generated from a seed"
"""Source of a set made by a program: only such a one may be compared for equal questions."""
TOLERANCE = 1e-6
MAX_ITEM_WORDS = 20_000


def read_sets(case: Case) -> None:
    """data/<suite>.json and the scan, into the case."""
    for path in sorted(case.archive.sizes):
        parts = path.split("/")
        if parts[0] == "data" and len(parts) == 2 and path.endswith(".json"):
            if parts[1].startswith("croissant-"):
                continue
            data = case.load(path, DataSet)
            if data is not None and f"{data['suite']}.json" == parts[1]:
                case.sets[data["suite"]] = data
            elif data is not None:
                case.find("file-malformed", path, f"of the suite {data['suite'][:60]}")
    if SCAN in case.archive.sizes:
        case.scan = case.load(SCAN, Scan)


def check_scan(case: Case) -> None:
    """Every item that a capability claim rests on was scanned, by a scanner that finds leaks."""
    folders = {f: case.using(f) for f in case.evaluations if case.using(f)}
    capable = {c["id"] for c in case.claim_list() if is_capability(c)}
    for folder, using in folders.items():
        suite, claims = case.roots[folder]["suite"], [c for c in using if c in capable]
        scanned = case.scan["suites"].get(suite) if case.scan is not None else None
        if not claims:
            continue
        if case.scan is None and not is_of_training(case):
            text = "what the model was trained on is not known here, so nothing was scanned"
            case.find("check-impossible", folder, text, claims)
            continue
        if scanned is None:
            case.find("scan-missing", folder, f"{SCAN} does not speak of {suite}", claims)
            continue
        source = case.sets[suite]["source"] if suite in case.sets else ""
        if scanned.get("compared") == EQUAL and source != GENERATED:
            text = f"of {suite}, which people wrote, only equal questions were looked for"
            case.find("scan-weak", SCAN, text, claims)
        missing = [i for i in case.evaluations[folder].items if i not in scanned["items"]]
        if missing:
            text = f"{len(missing)} items were not scanned, such as {missing[0][:60]}"
            case.find("scan-missing", folder, text, claims)
        limit = case.scan["threshold"] if case.scan is not None else 1.0
        found = [i for i, s in scanned["items"].items() if s["containment"] >= limit]
        if found:
            text = f"{len(found)} items of {suite} overlap with training data, see the clean view"
            case.find("contaminated", folder, text, claims)
    _check_digests(case)
    if case.scan is not None:
        _check_self_test(case, case.scan)
        if PROMPTS in case.archive.sizes:
            _scan_again(case, case.scan)
        if HASHED in case.archive.sizes:
            _count_again(case, case.scan)
        elif PROMPTS not in case.archive.sizes:
            case.find("check-impossible", SCAN, "no training texts are here to be scanned again")


def _check_digests(case: Case) -> None:
    """data/<suite>.json tells of the very items that were planned."""
    for plan in case.plans.values():
        for suite, planned in plan["suites"].items():
            data = case.sets.get(suite)
            if data is None:
                continue
            given = {item: about["sha256"] for item, about in data["items"].items()}
            if given != planned["items"]:
                case.find("items-changed", f"data/{suite}.json", "other items than were planned")


def _check_self_test(case: Case, scan: Scan) -> None:
    test = scan["self_test"]
    recall, false, documents = (test.get(k) for k in ("recall", "false_positives", "documents"))
    is_right = (
        type(recall) is dict
        and all(type(r) in (int, float) for r in recall.values())
        and type(false) is int
        and type(documents) is int
    )
    if not 0.0 < scan["threshold"] <= MAX_THRESHOLD:
        text = f"items count as clean up to a containment of {scan['threshold']:.4g}"
        case.find("scan-weak", SCAN, text)
    if not is_right or not recall:
        case.find("scan-weak", SCAN, "it has no self-test with planted leaks")
        return
    for kind, share in recall.items():
        text = f"it finds {share:.0%} of planted leaks of the kind {kind[:40]!r}"
        if share < (MIN_PARTIAL_RECALL if kind in PARTIAL_LEAKS else MIN_RECALL):
            case.find("scan-weak", SCAN, text)
        elif share < MIN_RECALL:
            case.find("scan-coarse", SCAN, text)
    if false > max(1, documents * MAX_FALSE_SHARE):
        # Each is counted as a leak: that costs clean items, it hides none.
        text = f"{false} of {documents} training documents are flagged without holding a full copy"
        case.find("scan-coarse", SCAN, text)


# Scanning again


def _scan_again(case: Case, scan: Scan) -> None:
    """No item that stands whole in one training text was recorded as clean.

    What covers an item in part is weighed by the scanner's own rule, which may leave it out.
    """
    items = {key: text for key, text in _questions(case) if key[0] in scan["suites"]}
    equal = {s for s, about in scan["suites"].items() if about.get("compared") == EQUAL}
    forms = {key: signs(text) for key, text in items.items() if key[0] in equal}
    index: defaultdict[int, set[tuple[str, str]]] = defaultdict(set)
    texts = ((key, text) for key, text in items.items() if key not in forms)
    normal = {key: words(text)[:MAX_ITEM_WORDS] for key, text in texts}
    for key, own in normal.items():
        for gram in _grams(own):
            index[gram].add(key)
    found = dict.fromkeys(items, 0.0)
    copies: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, form in forms.items():
        copies[form].append(key)
    for number, text in _prompts(case):
        document = words(text)
        near = {key for gram in _grams(document) for key in index.get(gram, ())}
        if number > MAX_PROMPTS:
            case.find("check-impossible", PROMPTS, f"more than {MAX_PROMPTS} texts")
            return
        if copies:
            found.update(dict.fromkeys(copies.get(signs(text), ()), 1.0))
        for key in near:
            share = containment(normal[key], document, DECIDING).coverage
            found[key] = max(found[key], share)
    for (suite, item), share in found.items():
        about = scan["suites"][suite]["items"].get(item)
        is_whole = share >= 1.0 - TOLERANCE
        if about is not None and is_whole and about["containment"] < scan["threshold"]:
            text = f"{item[:60]} is wholly covered, recorded is {about['containment']:.2f}"
            case.find("scan-mismatch", SCAN, text)


MAX_PROMPTS = 2_000_000


def _count_again(case: Case, scan: Scan) -> None:
    """The scan's matches, in the hashes of the training prompts; an item that stands whole in one
    was not recorded as clean.
    """
    questions = {key: text for key, text in _questions(case) if key[0] in scan["suites"]}
    try:
        with case.archive.open(HASHED) as file:
            salt, documents = parse_hashed(read_lines(file, case.archive.sizes[HASHED]))
            again = count_again(scan, questions, salt, _at_most(documents))
    except (HashedError, SampleError, *READ_ERRORS) as error:
        case.find("file-malformed", HASHED, str(error))
        return
    for problem in again.problems:
        case.find("scan-mismatch", SCAN, problem)
    if not questions:
        case.find("check-impossible", HASHED, "no item's text is here to be looked for in it")


def _at_most(documents: Iterator[HashedPrompt]) -> Iterator[HashedPrompt]:
    for number, document in enumerate(documents, 1):
        if number > MAX_PROMPTS:
            raise HashedError(f"has more than {MAX_PROMPTS} documents")
        yield document


def _grams(own: list[str]) -> Iterator[int]:
    size = min(DECIDING, len(own))
    if size:
        for start in range(len(own) - size + 1):
            yield hash(tuple(own[start : start + size]))


def _questions(case: Case) -> Iterator[tuple[tuple[str, str], str]]:
    """((suite, item), question) of each item whose text is in the samples; each suite once."""
    done: set[str] = set()
    for folder, root in case.roots.items():
        path = f"{folder}/samples.jsonl.gz"
        if root["suite"] in done or path not in case.archive.sizes:
            continue
        done.add(root["suite"])
        last = None
        try:
            with case.archive.open(path) as file:
                for _, sample in lean_samples(file, case.archive.sizes[path]):
                    if sample["item"] != last and sample["question"] is not None:
                        last = sample["item"]
                        yield (root["suite"], last), sample["question"]
        except (SampleError, *READ_ERRORS):
            continue  # named already, where the samples are read


def _prompts(case: Case) -> Iterator[tuple[int, str]]:
    try:
        with case.archive.open(PROMPTS) as file:
            for number, line in enumerate(read_lines(file, case.archive.sizes[PROMPTS]), 1):
                record: Any = parse_json(line)
                if type(record) is not dict or type(record.get("text")) is not str:
                    raise JsonError(f"line {number} has no text")
                yield number, record["text"]
    except (SampleError, JsonError, *READ_ERRORS) as error:
        case.find("file-malformed", PROMPTS, str(error))
