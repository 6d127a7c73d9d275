"""`scan.json`: what a scan found, for the dossier and for people.

    {"v": 1, "tool": …, "rule": {"v": 2, …}, "threshold": 0.2, "lengths": [5, 8, 13], "deciding": 5,
     "sources": [{"name", "documents", "characters"}], "counts": {…}, "self_test": {…},
     "suites": {SUITE: {"items": {ITEM: {
         "containment": 0.97,     largest share of its words in a document that holds it, 0 where
                                  none does; at least `threshold` where one does
         "coverage": 0.97,        largest unweighted share of its words; below 0.2 not counted: 0
         "matches": [{"source", "row", "kind", "weighted", "evidence",
                      "grams": {"5": [found, total], "8": …, "13": …}, "words": [covered, all]}]
     }}}}}

`grams` and `words` of a match are exact: `pellucid.evidence.core.containment.check_match` counts
them again from the two texts. `kind` "twin" is of texts with masked numbers, and adds nothing to
`containment`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pellucid
from pellucid.audit.contamination.leaks import SelfTest
from pellucid.audit.contamination.records import Pair, Scan
from pellucid.evidence.core.containment import DECIDING, LENGTHS

FORMAT = 1
RULE = 2
"""Version of the rule by which a pair counts. The first had no `v`, and weighted containments."""
MOST_MATCHES = 20
"""Matches listed for an item; `num_matches` counts all."""


def scan_json(scan: Scan, self_test: SelfTest | None = None) -> dict[str, Any]:
    """The document described above; without a self-test its key is empty."""
    suites: dict[str, dict[str, Any]] = {}
    matches: dict[tuple[str, str], list[Pair]] = {}
    for pair in scan.pairs:
        matches.setdefault((pair.item.suite, pair.item.id), []).append(pair)
    for item, coverage in zip(scan.items, scan.coverages, strict=True):
        own = sorted(
            matches.get((item.suite, item.id), ()), key=lambda p: (p.kind == "twin", -p.weighted)
        )
        suites.setdefault(item.suite, {"items": {}})["items"][item.id] = {
            "containment": max((_containment(p) for p in own), default=0.0),
            "coverage": coverage,
            "num_matches": len(own),
            "matches": [_match(pair) for pair in own[:MOST_MATCHES]],
        }
    return {
        "v": FORMAT,
        "tool": f"pellucid {pellucid.__version__}",
        "rule": {"v": RULE, **asdict(scan.rule)},
        "threshold": scan.rule.threshold,
        "lengths": list(LENGTHS),
        "deciding": DECIDING,
        "sources": [asdict(source) for source in scan.sources],
        "counts": counts(scan),
        "self_test": self_test.as_json() if self_test is not None else {},
        "suites": suites,
    }


def counts(scan: Scan) -> dict[str, int]:
    """The numbers that a ledger and a manifest keep."""
    return {
        "documents": scan.num_documents,
        "items": len(scan.items),
        "items_too_short": scan.too_short,
        "leaked_documents": len(scan.leaked_documents()),
        "leaked_items": len(scan.leaked_items()),
        "twin_items": len(scan.twin_items()),
    }


def by_suite(scan: Scan) -> dict[str, dict[str, int]]:
    """Suite -> items, items in full, in part, as twins."""
    table: dict[str, dict[str, int]] = {}
    ranks = {"full": 0, "partial": 1, "twin": 2}
    best: dict[tuple[str, int], str] = {}
    for pair in sorted(scan.pairs, key=lambda p: -ranks[p.kind]):
        best[pair.item.suite, pair.item.row] = pair.kind
    for item in scan.items:
        row = table.setdefault(item.suite, {"items": 0, "full": 0, "partial": 0, "twin": 0})
        row["items"] += 1
        if kind := best.get((item.suite, item.row)):
            row[kind] += 1
    return table


def _containment(pair: Pair) -> float:
    return 0.0 if pair.kind == "twin" else pair.exact[0].coverage


def _match(pair: Pair) -> dict[str, Any]:
    return {
        "source": pair.source,
        "row": pair.row,
        "kind": pair.kind,
        "weighted": pair.weighted,
        "evidence": pair.evidence,
        "grams": {str(n): [c.found, c.total] for n, c in zip(LENGTHS, pair.exact, strict=False)},
        "words": [pair.exact[0].covered, pair.exact[0].length],
    }
