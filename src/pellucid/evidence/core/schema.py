"""The shapes of a dossier's JSON files. `shapes.py` holds a stranger's files to them.

Printed numbers are decimal strings with exactly `precision` digits behind the point, so that "at
printed precision" has one meaning. Times are UTC, ISO 8601 in seconds: `2026-11-21T09:00:00Z`.
Digests are hexadecimal SHA-256. Where a value of a TypedDict may be absent it is `null`, never left
out. All files but the .jsonl ones may be indented; MANIFEST.jsonl and the .dsse.json are canonical.
Training, contamination and ledger: `schema_training.py`.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

FORMAT_VERSION = 1
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SEAL_PREDICATE = "urn:pellucid:dossier-seal:v1"
PREREG_PREDICATE = "urn:pellucid:preregistration:v1"

MANIFEST_NAME = "MANIFEST.jsonl"
SEAL_NAME = "SEAL.dsse.json"
UNLISTED = (MANIFEST_NAME, SEAL_NAME)
"""The only files that the manifest does not list: the seal covers the manifest."""


class ManifestLine(TypedDict):
    """One canonical line of MANIFEST.jsonl, sorted by path."""

    path: str
    """Relative, `/` between its parts."""
    bytes: int
    sha256: str
    role: str
    """`samples`, `claims`, `plan`, …: for people."""
    redacted: bool
    """Whether the file holds withheld texts."""


# Signatures


class Signature(TypedDict):
    """One signature of an envelope."""

    keyid: str
    """SHA-256 of the raw public key [32 bytes]."""
    sig: str
    """Base64 of the Ed25519 signature of DSSE's pre-authentication encoding."""


class Envelope(TypedDict):
    """DSSE. SEAL.dsse.json and prereg/NNNN.dsse.json are the canonical JSON of one, and a newline.

    The payload is base64 of the canonical JSON of a `Statement`."""

    payloadType: str
    payload: str
    signatures: list[Signature]
    """Empty: not signed."""


class Subject(TypedDict):
    name: str
    """`MANIFEST.jsonl`, or the plan's path."""
    digest: dict[str, str]
    """{"sha256": …}"""


class Statement(TypedDict):
    """in-toto, version 1."""

    _type: str
    subject: list[Subject]
    """Exactly one."""
    predicateType: str
    predicate: dict[str, Any]
    """`SealPredicate` or `PreregPredicate`."""


class LedgerHead(TypedDict):
    """How long a ledger was at some moment."""

    count: int
    """Events."""
    digest: str
    """`digest` of the last; 64 zeros for none."""


class SealPredicate(TypedDict):
    v: int
    version: int
    """1, 2, …: versions of the dossier."""
    previous: str | None
    """SHA-256 of the previous version's SEAL.dsse.json, which lies in seals/NNNN.dsse.json."""
    ledger: LedgerHead
    """Of ledger.jsonl, whole."""
    public_key: str | None
    """Base64 of the raw Ed25519 key that signs; None: unsigned."""
    time: str


class PreregPredicate(TypedDict):
    v: int
    public_key: str | None
    time: str


# The plan, prereg/NNNN.json


class OldPlannedSuite(TypedDict):
    """What will be asked, how often: all that plans of version 1 say of it."""

    items: dict[str, str]
    """Item id -> `canonical.item_sha256`."""
    k: int
    """Samples per item: `len(items) * k` records per arm."""
    seed: int
    sampler: dict[str, Any]
    """As in the sample record, but for the stop strings of the arm's own template."""
    is_dev: bool
    """Used to choose checkpoints or prompts; no claim may rest on it."""


class PlannedSuite(OldPlannedSuite):
    """Beside it what intervals and views depend on, each as `sha256_json` of {item: value}."""

    families_sha256: str
    """Of `Sample.cluster`: problems of one family vary together."""
    dates_sha256: str
    """Of `Item.first_public`: which items are newer than the model."""
    fresh_sha256: str
    """Of `Item.is_fresh`."""


class PlannedArm(TypedDict):
    """Who will be asked."""

    model: str | None
    """Root digest of the weights; None: not yet trained, so the released ones
    (weights/manifest.json)."""
    template_sha256: str
    stop: list[str]
    """Of the template: they follow the stop strings of the suite."""
    role: Literal["subject", "baseline", "control", "rival"]
    prompt_candidates: list[str]
    """Evaluations (`evals/<suite>/<arm>`) on a dev suite among which this arm's prompt was, or will
    be, chosen: the best pass@1 must be its own template's. Empty: one prompt only."""


class PlannedClaim(TypedDict):
    """The parts of a `Claim` that are fixed before looking: equal keys there."""

    id: str
    kind: str
    metric: dict[str, Any]
    arms: dict[str, str]
    unit: str
    cluster: str
    test: str | None
    family: str | None
    rule: str
    requires: list[str]


class CheckpointRule(TypedDict):
    """Which checkpoint is released."""

    metric: str
    """Key of `Checkpoint.scores`; ignored for `last`."""
    pick: Literal["max", "min", "last"]
    tie: Literal["first", "last"]


class _Planned(TypedDict):
    """What plans of all versions hold."""

    v: int
    id: str
    """`0001`"""
    time: str
    ledger: LedgerHead
    """Of the ledger when the plan was made; its next events include `preregistered`."""
    arms: dict[str, PlannedArm]
    grader_sha256: str
    checkpoint_rule: CheckpointRule
    claims: list[PlannedClaim]
    mde: dict[str, str]
    """Claim id -> minimum detectable effect, in words with its assumptions."""
    max_attempts: int
    """Evaluations of one suite and arm that may be started; aborted ones count."""
    training_seeds: int
    """Independent trainings that the claims rest on."""


class OldPreregistration(_Planned):
    """Version 1, of dossiers that were sealed before the views were part of the plan."""

    suites: dict[str, OldPlannedSuite]


class Preregistration(_Planned):
    """Version 2."""

    suites: dict[str, PlannedSuite]
    cutoff: str | None
    """`Claims.cutoff`."""
    clean_below: float
    """The largest `Scan.threshold`: items are clean below it."""
    last_step: int | None
    """Step at which the training of the released model ends, whatever it scores; None: nothing is
    trained, or its length follows from its data."""


PLAN_SHAPES = {1: OldPreregistration, 2: Preregistration}
"""By version."""
PLAN_VERSION = 2


# Claims


class Printed(TypedDict):
    """Numbers as printed. `p`, `p_adj`: None where the claim has no test."""

    value: str
    low: str
    high: str
    p: str | None
    p_adj: str | None
    n_items: int
    """Problems that took part."""
    n_clusters: int
    n_samples: int
    """Samples that took part, of all arms."""


class Claim(TypedDict):
    """One claim: a program over samples, and what it printed. See `claims.py` for the kinds."""

    id: str
    text: str
    kind: str
    """A key of `claims.KINDS`."""
    metric: dict[str, Any]
    """`{"fn": "pass_at_1", "k": 1}`, …"""
    arms: dict[str, str]
    """`{"a": "evals/X/after", "b": "evals/X/before"}`: folders of the dossier."""
    roots: dict[str, str]
    """Same keys: the Merkle root that each was computed from."""
    unit: Literal["problem", "sample"]
    """What is averaged: problems (each counts once), or samples."""
    cluster: Literal["family", "problem"]
    test: Literal["clustered_t", "sign_flip"] | None
    family: str | None
    """Key of `Claims.families`: tested together."""
    precision: int
    """Digits behind the point of every printed number of this claim, 0 … 12."""
    seed: int
    """Of a Monte Carlo sign flip."""
    reported: Printed
    views: dict[str, Printed | None]
    """`clean`, `post_cutoff`, `fresh` (and `all`, equal to `reported`, by itself): as printed; None
    where the view is empty. Required keys for a capability claim (`is_capability`)."""
    is_capability: bool
    """Says how able a model is: needs views."""
    requires: list[str]
    """Arms (as in the plan) that must have been measured on the same suite, such as controls."""
    prereg: str
    """`0001#C3`"""
    rule: str
    """Decision rule, such as `low > 0 and p_adj < 0.05`; see `rules.py`."""
    holds: bool
    """What the rule gives; false where the claim is withheld."""
    level: Literal["recomputed", "replayed", "re-run", "withheld"]
    """`withheld`: a comparison that is not called true, see `comparisons.py`."""
    limits: str


class Family(TypedDict):
    """Tests that are corrected together."""

    correction: Literal["holm"]
    claims: list[str]


class Claims(TypedDict):
    """claims.json"""

    v: int
    title: str
    cutoff: str | None
    """`2026-06-01`: items first public on or after this day are `post_cutoff`."""
    families: dict[str, Family]
    claims: list[Claim]


# Evaluations


class Root(TypedDict):
    """evals/<suite>/<arm>/root.json"""

    v: int
    suite: str
    arm: str
    eval_serial: int
    """Number of the attempt: `serial` in the payload of its `evaluation_started`."""
    merkle_root: str
    """Of samples.jsonl.gz as shipped."""
    recorded_root: str
    """Of the samples before anything was withheld: what `evaluation_ended` says in the ledger,
    where it says one."""
    count: int
    expected: int
    """Items times k, by the plan."""
    redacted: int
    """Records with withheld texts."""
    k: int
    model: str
    template_sha256: str
    grader_sha256: str
    seed: int


class Vector(TypedDict):
    """One line of a grader's self-test, graders/<digest>/vectors.json: a list of these."""

    grader: str
    gold: str
    response: str
    verdict: str


class Item(TypedDict):
    """One item of a set."""

    sha256: str
    """`canonical.item_sha256`."""
    first_public: str | None
    """`2026-07-01`; None: unknown, so not `post_cutoff`."""
    is_fresh: bool
    """Made after the weights were sealed."""


class DataSet(TypedDict):
    """data/<suite>.json"""

    v: int
    suite: str
    source: str
    licence: str
    items: dict[str, Item]
