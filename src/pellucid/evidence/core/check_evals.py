"""One pass over the samples of every evaluation: hashes, facts, grades, and counts for claims."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from pellucid.evidence.core.archive import READ_ERRORS
from pellucid.evidence.core.canonical import item_sha256, leaf_hash
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_audit import watched
from pellucid.evidence.core.grade import Regraded, Regrader
from pellucid.evidence.core.lean import lean_samples
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.samples import Sample, SampleError
from pellucid.evidence.core.schema import Preregistration, Root
from pellucid.evidence.core.tally import Evaluation

REPLAYED = 59
"""Samples chosen for replay: one forged in twenty is among them with 95 % probability."""
MAX_K = 1 << 16
MAX_WRONG = 100_000
"""Wrong grades that are kept to be told apart; far more than any honest error gives."""
MAX_WAITING, MAX_WAITING_BYTES = 64, 1 << 20
"""Samples that are read before the checks go over them."""
Row = tuple[bytes, Sample]
"""(line, record)"""
Chosen = tuple[int, str, int, str, int, bytes]
"""(minus the rank, evaluation, line, item, k, leaf) of what is replayed, highest rank first."""
FACTS = {
    "suite": "sample-inconsistent",
    "arm": "sample-inconsistent",
    "eval_serial": "sample-inconsistent",
    "model": "weights-swapped",
    "template_sha256": "prompt-changed",
    "grader_sha256": "grader-changed",
    "seed": "seed-changed",
}
"""Fields that every sample shares with its root.json, and what a difference is called."""
_facts_of = itemgetter(*FACTS)
_texts_of = itemgetter("item", "question", "gold", "grader", "item_sha256")


def read_roots(case: Case) -> None:
    """Reads evals/<suite>/<arm>/root.json of every evaluation."""
    for path in sorted(case.archive.sizes):
        parts = path.split("/")
        if parts[0] != "evals":
            continue
        if len(parts) != 4 or parts[3] not in ("root.json", "samples.jsonl.gz"):
            case.find("file-malformed", path, "not evals/<suite>/<arm>/ with a file that is known")
        elif parts[3] == "root.json":
            root = case.load(path, Root)
            if root is not None and (root["suite"], root["arm"]) != (parts[1], parts[2]):
                case.find("file-malformed", path, "of another suite or arm than its folder")
            elif root is not None and not 1 <= root["k"] <= MAX_K:
                case.find("file-malformed", path, "its k is out of range")
            elif root is not None:
                case.roots["/".join(parts[:3])] = root
        elif path.removesuffix("samples.jsonl.gz") + "root.json" not in case.archive.sizes:
            case.find("file-missing", path, "samples without their root.json")


def check_evaluations(case: Case) -> None:
    """Reads all samples into tallies, and checks them on the way."""
    regrader = Regrader()
    chosen: list[Chosen] = []
    for folder, root in case.roots.items():
        one = _Reading(case, folder, root, regrader, chosen)
        one.read()
        one.conclude()
    case.replay = [
        {"evaluation": folder, "line": number, "item": item, "k": k, "leaf": leaf.hex()}
        for _, folder, number, item, k, leaf in sorted(chosen, reverse=True)
    ]


def planned_sampler(plan: Preregistration, root: Root) -> dict[str, Any]:
    """How an arm was to be sampled: as the suite says, and stopped by its own template too."""
    sampler = plan["suites"][root["suite"]]["sampler"]
    arm, stop = plan["arms"].get(root["arm"]), sampler.get("stop")
    if arm is None or type(stop) is not list:
        return sampler
    return {**sampler, "stop": [*stop, *(s for s in arm["stop"] if s not in stop)]}


class _Reading:
    """One evaluation being read."""

    def __init__(
        self, case: Case, folder: str, root: Root, regrader: Regrader, chosen: list[Chosen]
    ) -> None:
        self._case, self._folder, self._root = case, folder, root
        self._regrader, self._chosen = regrader, chosen
        self._where = f"{folder}/samples.jsonl.gz"
        self._using = case.using(folder)
        self._tree = MerkleTree()
        self._original: MerkleTree | None = None
        """Of the samples before texts were withheld; None: none were."""
        self._wanted = _facts_of(root)
        plans = [plan for _, plan in case.planned(folder)]
        self._plans = [plan["suites"][root["suite"]] for plan in plans]
        self._samplers = [planned_sampler(plan, root) for plan in plans]
        self._sampler: object = None
        """Of the last sample: where the next one has the very object, it shares the whole head."""
        self._facts_differ = False
        self._sampler_differs = 0
        """How many of the planned ones it is not."""
        self._seed = case.seed.encode(errors="surrogatepass") + b"\x00"
        self._last_order = _order_to_beat(chosen)
        self._seen: dict[str, int] = {}
        self._digests: dict[str, str] = {}
        self._texts: tuple[Any, ...] = ()
        """Of the item that the last sample was of."""
        self._wrong: list[tuple[int, str, str, str]] = []
        self._problems: Counter[str] = Counter()
        self._withheld = self._regraded = self._ungraded = self._sampler_changes = 0
        self._evaluation = Evaluation(root["suite"], root["arm"], merkle_root=root["merkle_root"])
        self._evaluation.keeps_answers = any(
            claim["metric"].get("fn") == "cons_at_k" for claim in case.claim_list()
        )

    def read(self) -> None:
        """Every line, to the end or to the first one that is no sample."""
        case = self._case
        size = case.archive.sizes.get(self._where)
        if size is None:
            case.find("file-missing", self._where, "the samples are not here", self._using)
            return
        try:
            with case.archive.open(self._where) as file:
                self._take_all(watched(case, lean_samples(file, size), self._folder))
        except SampleError as error:
            case.find("sample-malformed", self._where, str(error), self._using)
        except READ_ERRORS as error:
            case.find("archive-refused", self._where, str(error), self._using)

    def _take_all(self, rows: Iterable[Row]) -> None:
        """Each step over many samples before the next: a processor keeps the code of one step at
        hand, which takes a fifth of the time off.
        """
        waiting: list[Row] = []
        num_bytes = 0
        try:
            for row in rows:
                waiting.append(row)
                num_bytes += len(row[0])
                if len(waiting) == MAX_WAITING or num_bytes > MAX_WAITING_BYTES:
                    self._take(waiting)
                    waiting, num_bytes = [], 0
        finally:
            self._take(waiting)  # also those before a bad line

    def _take(self, rows: list[Row]) -> None:
        before = self._tree.count
        leaves = [leaf_hash(line) for line, _ in rows]
        samples = [sample for _, sample in rows]
        self._add_leaves(leaves, samples)
        for number, sample in enumerate(samples, before + 1):
            if sample["sampler"] is not self._sampler:
                self._look_at_head(sample, number)
            if self._facts_differ:
                self._check_facts(sample, number)
            self._check_place(sample, number)
            if sample["finish"] == "error" and sample["verdict"] != "error":
                text = f"no answer was made, but it is {sample['verdict']}"
                self._found("error-scored", number, text)
            self._sampler_changes += self._sampler_differs
        for number, sample in enumerate(samples, before + 1):
            self._grade(sample, number)
        for sample in samples:
            self._evaluation.add(sample)
        # The referee's seed orders all leaves; nobody knows which come first without it.
        orders = [hashlib.sha256(self._seed + leaf).digest() for leaf in leaves]
        if min(orders, default=self._last_order) < self._last_order:
            for place, order in enumerate(orders):
                if order < self._last_order:
                    self._choose(order, leaves[place], samples[place], before + 1 + place)

    def _add_leaves(self, leaves: list[bytes], samples: list[Sample]) -> None:
        """Grows the tree, and beside it that of the samples before texts were withheld."""
        for leaf, sample in zip(leaves, samples, strict=True):
            redacted = sample["redacted"]
            if redacted is not None:
                self._withheld += 1
                if self._original is None:  # up to here the two trees are one
                    self._original = self._tree.copy()
            if self._original is not None:
                self._original.add(leaf if redacted is None else bytes.fromhex(redacted["leaf"]))
            self._tree.add(leaf)

    def _look_at_head(self, sample: Sample, number: int) -> None:
        """What is the same for all samples whose head is (`lean`): compared once."""
        self._sampler = sample["sampler"]
        self._facts_differ = _facts_of(sample) != self._wanted
        self._sampler_differs = sum(self._sampler != planned for planned in self._samplers)
        if _texts_of(sample) != self._texts:
            self._check_item(sample, number)

    def _check_facts(self, sample: Sample, number: int) -> None:
        for name, code in FACTS.items():
            if sample[name] != self._root[name]:  # type: ignore[literal-required]
                self._found(code, number, f"{name} is not that of root.json")

    def _check_place(self, sample: Sample, number: int) -> None:
        item, k = sample["item"], sample["k"]
        if k >= self._root["k"]:
            self._found("sample-surplus", number, f"k is {k} of {self._root['k']}")
            return
        seen = self._seen.get(item, 0)
        if seen >> k & 1:
            self._found("sample-surplus", number, f"sample {k} of {item[:60]} stands twice")
        self._seen[item] = seen | 1 << k

    def _check_item(self, sample: Sample, number: int) -> None:
        """The item's digest is of its texts, and the same for all its samples."""
        item, question, gold, grader, digest = self._texts = _texts_of(sample)
        if self._digests.setdefault(item, digest) != digest:
            self._found("sample-inconsistent", number, "its item has two digests")
        if question is None or gold is None:
            return
        if item_sha256(item=item, question=question, gold=gold, grader=grader) != digest:
            self._found("items-changed", number, "question or gold are not those of its digest")

    def _grade(self, sample: Sample, number: int) -> None:
        try:
            again = self._regrader.check(sample)
        except Exception as error:  # noqa: BLE001 - a stranger's text met a grader's weak spot
            is_known = sample["verdict"] == "error"
            text = "" if is_known else f"the grader stopped ({type(error).__name__})"
            again = Regraded(None if is_known else "error", text)
        verdict, problem = again
        if problem:
            if len(self._wrong) < MAX_WRONG:
                self._wrong.append((number, problem, str(verdict), sample["verdict"]))
        elif verdict is None:
            self._ungraded += 1
        else:
            self._regraded += 1

    def _choose(self, order: bytes, leaf: bytes, sample: Sample, number: int) -> None:
        """For replay, and the last one of those chosen falls out."""
        rank = -int.from_bytes(order, "big")
        push = heapq.heappush if len(self._chosen) < REPLAYED else heapq.heappushpop
        push(self._chosen, (rank, self._folder, number, sample["item"], sample["k"], leaf))
        self._last_order = _order_to_beat(self._chosen)

    def _found(self, code: str, number: int, text: str) -> None:
        """The first of each kind with its line; the others are counted."""
        self._problems[code] += 1
        if self._problems[code] == 1:
            self._case.find(code, f"{self._where} line {number}", text, self._using)

    def conclude(self) -> None:
        """What only the whole tells."""
        case, root, where = self._case, self._root, self._where
        count = self._tree.count
        case.num_samples += count
        case.num_regraded += self._regraded
        for code, times in self._problems.items():
            if times > 1:
                case.find(code, where, f"{times} samples in all", self._using)
        if self._tree.root() != root["merkle_root"]:
            case.find(
                "sample-edited", where, "the Merkle root is not that of root.json", self._using
            )
        if (self._original or self._tree).root() != root["recorded_root"]:
            code = "redaction-broken" if self._withheld else "sample-edited"
            case.find(code, where, "the samples do not give the recorded root", self._using)
        if self._withheld != root["redacted"]:
            text = f"{self._withheld} withheld samples, root.json says {root['redacted']}"
            case.find("redaction-broken", where, text, self._using)
        self._check_count(count)
        self._conclude_grades()
        if self._sampler_changes:
            text = f"{self._sampler_changes} samples were drawn in another way than planned"
            case.find("seed-changed", where, text, self._using)
        if self._withheld:
            case.find("samples-withheld", where, f"{self._withheld} of {count}", self._using)
        elif self._ungraded:
            text = f"{self._ungraded} of {count}: another grader, or undecided by exact comparison"
            case.find("grade-not-redone", where, text, self._using)
        case.evaluations[self._folder] = self._evaluation
        self._check_items()

    def _check_count(self, count: int) -> None:
        root = self._root
        wanted = max(root["expected"], root["count"])
        if count < wanted:
            self._case.find("sample-missing", self._where, f"{count} of {wanted}", self._using)
        elif count > min(root["expected"], root["count"]):
            text = f"{count}, root.json says {root['count']} of {root['expected']}"
            self._case.find("sample-surplus", self._where, text, self._using)
        elif any(seen != (1 << root["k"]) - 1 for seen in self._seen.values()):
            text = "an item with fewer samples than the others"
            self._case.find("sample-missing", self._where, text, self._using)

    def _conclude_grades(self) -> None:
        if not self._wrong:
            return
        given = Counter(recorded for _, _, _, recorded in self._wrong)
        again = Counter(verdict for _, _, verdict, _ in self._wrong)
        is_reordered = len(self._wrong) > 1 and len(given) > 1 and given == again
        number, text, _, _ = self._wrong[0]
        text = f"{text} ({len(self._wrong)} samples in all)"
        code = "grades-reordered" if is_reordered else "grade-mismatch"
        self._case.find(code, f"{self._where} line {number}", text, self._using)

    def _check_items(self) -> None:
        """The items of the plan, all of them, and no others."""
        for plan in self._plans:
            planned, given = plan["items"], self._digests
            extra = [item for item in given if item not in planned]
            other = [item for item in given if item in planned and planned[item] != given[item]]
            missing = [item for item in planned if item not in given]
            if extra:
                self._item_finding("items-changed", extra, "was not planned")
            if other:
                self._item_finding("items-changed", other, "asks or expects something else")
            if missing:
                self._item_finding("sample-missing", missing, "was planned but not asked")
            if plan["k"] != self._root["k"]:
                code = "sample-missing" if plan["k"] > self._root["k"] else "sample-surplus"
                text = f"{self._root['k']} samples an item, planned were {plan['k']}"
                self._case.find(code, self._folder, text, self._using)
            if plan["seed"] != self._root["seed"]:
                text = f"seed {self._root['seed']}, planned was {plan['seed']}"
                self._case.find("seed-changed", self._folder, text, self._using)

    def _item_finding(self, code: str, items: list[str], why: str) -> None:
        more = f" ({len(items)} items in all)" if len(items) > 1 else ""
        self._case.find(code, self._folder, f"{items[0][:80]} {why}{more}", self._using)


def _order_to_beat(chosen: list[Chosen]) -> bytes:
    """What comes before it is replayed."""
    if len(chosen) < REPLAYED:
        return b"\xff" * 33
    return (-chosen[0][0]).to_bytes(32, "big")
