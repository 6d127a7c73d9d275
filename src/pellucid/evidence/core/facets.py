"""What a dossier consists of, as small facts that two dossiers can be compared by (`diff.py`).

A fact is a text, or a map of names to texts: the digest of each item, the version of each package.
What samples say is read from the samples, not from what claims or root.json say of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.evidence.core.archive import (
    MAX_FILE_BYTES,
    READ_ERRORS,
    ArchiveError,
    digest_of,
    read_whole,
)
from pellucid.evidence.core.canonical import (
    JsonError,
    canonical_json,
    parse_json,
    sha256_bytes,
)
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.lean import lean_samples
from pellucid.evidence.core.sample_fields import ENGINE, SAMPLER
from pellucid.evidence.core.samples import Sample, SampleError
from pellucid.evidence.core.schema import Claim, Printed, Root

Fact = str | dict[str, str]
Facts = dict[str, Fact]
"""What it is -> how it is. Example: {"seed": "5", "prompts": {"gsm8k/0": "9c1f…"}}"""

MAX_ITEMS = 200_000
"""Of all evaluations together: an item takes about a kilobyte, and two dossiers are compared."""
MAX_VALUES = 8
"""Different values of one field in one evaluation that are kept; honest ones have one."""
MAX_TEXT = 400
BESIDE = " | "
_NUMBERS = ("n_items", "n_clusters", "n_samples")
_CLAIM_FIELDS = ("kind", "metric", "unit", "cluster", "test", "family", "rule", "holds",
                 "requires", "is_capability", "level", "text", "limits")  # fmt: skip


class FacetError(ValueError):
    """Samples that cannot be read: says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facets:
    """All of one dossier."""

    evaluations: dict[str, Facts] = field(default_factory=dict)
    """By `evals/<suite>/<arm>`."""
    claims: dict[str, Facts] = field(default_factory=dict)
    """By id."""
    arms: dict[str, dict[str, str]] = field(default_factory=dict)
    """Claim -> its arms, folders of evaluations."""
    rest: dict[str, Facts] = field(default_factory=dict)
    """By place: `weights`, `data/<suite>`, `env`, …"""


def read_facets(case: Case) -> Facets:
    """Of a case whose JSON files have been read. Reads all samples. Raises FacetError."""
    claims = {text_of(claim["id"]): claim for claim in case.claim_list()}
    evaluations: dict[str, Facts] = {}
    left = MAX_ITEMS
    for folder, root in case.roots.items():
        evaluations[folder] = _evaluation(case, folder, root, left)
        left -= len(evaluations[folder]["items"])
    return Facets(
        evaluations=evaluations,
        claims={name: _claim(claim) for name, claim in claims.items()},
        arms={name: _map(claim["arms"]) for name, claim in claims.items()},
        rest={place: facts for place, facts in _rest(case).items() if facts},
    )


def text_of(value: Any) -> str:
    """A JSON value in one line that can be printed as UTF-8."""
    if value is None:
        return "none"
    try:
        text = value if type(value) is str else canonical_json(value).decode()
    except ValueError:
        text = ascii(value)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"


def _map(values: Mapping[str, Any]) -> dict[str, str]:
    return {text_of(name): text_of(value) for name, value in values.items()}


# Evaluations


MAPS = {
    "items": "item_sha256",
    "prompts": "prompt_sha256",
    "families": "cluster",
    "graders": "grader",
}
"""Facts by item: the field of the sample that says them."""


def _put(values: dict[str, str], item: str, value: str) -> None:
    """Several values of one item stand side by side: nobody hides the second behind the first."""
    known = values.setdefault(item, value)
    if known != value and len(known) < MAX_TEXT and value not in known.split(BESIDE):
        values[item] = f"{known}{BESIDE}{value}"


class _Heads:
    """What the samples of one evaluation say, item by item."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self.maps: dict[str, dict[str, str]] = {name: {} for name in MAPS}
        self.right: dict[str, list[int]] = {}
        """Item -> samples that are right, samples."""
        self.values: dict[str, list[str]] = {}
        self.num_samples = 0
        self._sampler: object = None

    def add(self, sample: Sample) -> None:
        if sample["sampler"] is not self._sampler:  # else it shares its whole head (`lean`)
            self._sampler = sample["sampler"]
            self._add_head(sample)
        counts = self.right.setdefault(sample["item"], [0, 0])
        counts[0] += sample["verdict"] == "correct"
        counts[1] += 1
        self.num_samples += 1

    def _add_head(self, sample: Sample) -> None:
        item = sample["item"]
        if len(self.right) >= self._max_items and item not in self.right:
            raise FacetError(f"more than {MAX_ITEMS} items in all are not compared")
        for name, key in MAPS.items():
            _put(self.maps[name], item, sample[key])  # type: ignore[literal-required]
        own: dict[str, Any] = {
            "weights": sample["model"],
            "prompt template": sample["template_sha256"],
            "graders' sources": sample["grader_sha256"],
            "seed": sample["seed"],
        }
        own |= {f"sampler {name}": sample["sampler"][name] for name in SAMPLER}  # type: ignore[literal-required]
        own |= {f"engine {name}": sample["engine"][name] for name in ENGINE}  # type: ignore[literal-required]
        for name, value in own.items():
            text, known = text_of(value), self.values.setdefault(name, [])
            if text not in known and len(known) < MAX_VALUES:
                known.append(text)

    def facts(self) -> Facts:
        """Several values of one field in one evaluation stand side by side."""
        facts: Facts = {name: BESIDE.join(values) for name, values in self.values.items()}
        facts |= self.maps
        facts["answers that are right"] = {
            item: f"{right} of {number}" for item, (right, number) in self.right.items()
        }
        return facts


def _evaluation(case: Case, folder: str, root: Root, max_items: int) -> Facts:
    heads, path = _Heads(max_items), f"{folder}/samples.jsonl.gz"
    size = case.archive.sizes.get(path)
    if size is None:
        raise FacetError(f"{path} is not there")
    try:
        with case.archive.open(path) as file:
            for _, sample in lean_samples(file, size):
                heads.add(sample)
    except (SampleError, FacetError, *READ_ERRORS) as error:
        raise FacetError(f"{path}: {error}") from None
    return (
        heads.facts()
        | _grading(case, root)
        | {
            "samples an item": text_of(root["k"]),
            "samples": text_of(heads.num_samples),
            "samples withheld": text_of(root["redacted"]),
            "root of the records": root["recorded_root"],
        }
    )


def _grading(case: Case, root: Root) -> Facts:
    """Settings of the graders, as the ledger has them since it keeps them."""
    for event in case.events:
        about = event["payload"]
        if event["kind"] == "evaluation_started" and about["serial"] == root["eval_serial"]:
            told = about.get("grading")
            settings = told.items() if type(told) is dict else ()
            return {f"graders' {text_of(name)}": text_of(value) for name, value in settings}
    return {}


# Claims


def _claim(claim: Claim) -> Facts:
    facts: Facts = {name: text_of(claim[name]) for name in _CLAIM_FIELDS}  # type: ignore[literal-required]
    facts |= _printed("", claim["reported"])
    for view, printed in claim["views"].items():
        prefix = f"{text_of(view)[:40]} items: "
        facts |= {f"{prefix}value": "none"} if printed is None else _printed(prefix, printed)
    return facts


def _printed(prefix: str, numbers: Printed) -> Facts:
    p, p_adj = numbers["p"], numbers["p_adj"]
    corrected = "" if p_adj is None else f", corrected {p_adj}"
    return {
        f"{prefix}value": text_of(f"{numbers['value']} [{numbers['low']}, {numbers['high']}]"),
        f"{prefix}p": "none" if p is None else text_of(f"{p}{corrected}"),
        f"{prefix}n": ", ".join(f"{numbers[n]} {n[2:]}" for n in _NUMBERS),  # type: ignore[literal-required]
    }


# Everything else


def _rest(case: Case) -> dict[str, Facts]:
    places: dict[str, Facts] = {}
    if case.claims is not None:
        families = _map({n: f["correction"] for n, f in case.claims["families"].items()})
        places["claims.json"] = {
            "title": text_of(case.claims["title"]),
            "cutoff": text_of(case.claims["cutoff"]),
            "corrections": families,
        }
    if case.weights is not None:
        files = _map({name: about["sha256"] for name, about in case.weights["files"].items()})
        places["weights"] = {
            "released": case.weights["root"],
            "trained from": text_of(case.weights["parent"]),
            "files": files,
        }
    places["weights"] = places.get("weights", {}) | {"other models": _map(case.models)}
    for suite, data in case.sets.items():
        places[f"data/{text_of(suite)}"] = {
            "source": text_of(data["source"]),
            "licence": text_of(data["licence"]),
            "first public": _map({i: a["first_public"] for i, a in data["items"].items()}),
            "fresh": _map({i: a["is_fresh"] for i, a in data["items"].items()}),
        }
    places |= _scan(case)
    for name, plan in case.plans.items():
        places[f"prereg/{text_of(name)}"] = {
            "rule for the checkpoint": text_of(plan["checkpoint_rule"]),
            "attempts allowed": text_of(plan["max_attempts"]),
            "training runs": text_of(plan["training_seeds"]),
        }
    places["env"] = _software(case)
    places["train"] = _training(case)
    places["graders"] = _vectors(case)
    places["audits"] = _digests(case, "audits")
    places["judges"] = _digests(case, "judges")
    return places


def _scan(case: Case) -> dict[str, Facts]:
    if case.scan is None:
        return {}
    limit = case.scan["threshold"]
    places: dict[str, Facts] = {"contamination": {"threshold": text_of(limit)}}
    for suite, scan in case.scan["suites"].items():
        places[f"contamination/{text_of(suite)}"] = {
            "clean": _map({i: f["containment"] < limit for i, f in scan["items"].items()})
        }
    return places


def _software(case: Case) -> Facts:
    """Of all stages together: two dossiers need not name their stages alike."""
    facts: dict[str, set[str]] = {}
    packages: dict[str, set[str]] = {}
    for about in _stages(_json(case, "env/environment.json")):
        for name, value in about.items():
            if name == "packages" and type(value) is dict:
                for package, version in value.items():
                    packages.setdefault(text_of(package), set()).add(text_of(version))
            else:
                facts.setdefault(text_of(name), set()).add(text_of(value))
    for about in _stages(_json(case, "train/code.json")):
        for name, value in about.items():
            facts.setdefault(f"code {text_of(name)}", set()).add(text_of(value))
    made: Facts = {name: BESIDE.join(sorted(values)) for name, values in facts.items()}
    if packages:
        made["packages"] = {n: BESIDE.join(sorted(v)) for n, v in packages.items()}
    return made


def _stages(document: Any) -> list[dict[str, Any]]:
    values = document.values() if type(document) is dict else ()
    return [about for about in values if type(about) is dict]


def _training(case: Case) -> Facts:
    facts: Facts = {}
    index = _json(case, "train/checkpoints.json")
    if type(index) is dict:
        facts["chosen checkpoint"] = text_of(index.get("chosen"))
    if (recipe := _bytes(case, "train/recipe.toml")) is not None:
        facts["recipe"] = sha256_bytes(recipe)
    return facts


def _vectors(case: Case) -> Facts:
    """Cases that the graders must get right: what is asked -> the verdict."""
    cases: dict[str, str] = {}
    for path in case.archive.sizes:
        if path.startswith("graders/") and path.endswith("/vectors.json"):
            rows = _json(case, path)
            for row in rows if type(rows) is list else ():
                if type(row) is dict:
                    asked = [row.get(name) for name in ("grader", "gold", "response")]
                    cases[sha256_bytes(ascii(asked).encode())[:16]] = text_of(row.get("verdict"))
    return {"vectors": cases} if cases else {}


def _digests(case: Case, folder: str) -> Facts:
    """What people and judges said, by its bytes."""
    files: dict[str, str] = {}
    for path in case.archive.sizes:
        if path.startswith(f"{folder}/"):
            try:
                _, files[path] = digest_of(case.archive, path, MAX_FILE_BYTES)
            except ArchiveError as error:
                raise FacetError(f"{path}: {error}") from None
    return {folder: files} if files else {}


def _json(case: Case, path: str) -> Any:
    """None where it is missing or damaged, which other checks name."""
    data = _bytes(case, path)
    try:
        return None if data is None else parse_json(data)
    except JsonError:
        return None


def _bytes(case: Case, path: str) -> bytes | None:
    try:
        return read_whole(case.archive, path)
    except ArchiveError:
        return None
