"""An honest little dossier, made from the shapes alone, for tests that then change it."""

import base64
import functools
import gzip
import hashlib
import json

from pellucid.evidence.core import ed25519
from pellucid.evidence.core.canonical import (
    canonical_json,
    item_sha256,
    leaf_hash,
    sha256_bytes,
    sha256_json,
)
from pellucid.evidence.core.claims import compute_claim, compute_claims, does_hold, printed
from pellucid.evidence.core.grade import Regrader, grader_sha256
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.samples import sample_line
from pellucid.evidence.core.schema import PREREG_PREDICATE, SEAL_PREDICATE
from pellucid.evidence.core.signature import key_id, make_envelope, make_statement
from pellucid.evidence.core.tally import tally_samples

AUTHOR = b"a" * 32
STRANGER = b"s" * 32
SUITE = "sums"
ITEMS = 24
K = 4
TEMPLATE = sha256_bytes(b"template")
FILES = {"model.safetensors": {"bytes": 10, "sha256": sha256_bytes(b"after")}}
MODELS = {
    "after": sha256_json(FILES),
    "before": sha256_bytes(b"before"),
    "random-reward": sha256_bytes(b"random"),
}
SAMPLER = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "max_new_tokens": 64,
    "stop": [],
    "rng": "philox(key=seed, counter=(sample_id, position))",
}
ENGINE = {
    "name": "pellucid",
    "version": "1",
    "dtype": "float32",
    "batch_invariant": True,
    "tensor_parallel": 1,
}
RIGHT = {"after": 3, "before": 1, "random-reward": 1}
"""Samples of four that are right, more or less."""


@functools.cache
def public_key(secret):
    """The raw public key of a secret [32 bytes] (RFC 8032, 5.1.5)."""
    return ed25519._encode(ed25519._sum_of(_scalar(secret), ed25519.BASE, 0, ed25519.NEUTRAL))


def _scalar(secret):
    number = int.from_bytes(hashlib.sha512(secret).digest()[:32], "little")
    return number & ((1 << 254) - 8) | 1 << 254


def signer(secret):
    """Message -> signature (RFC 8032, 5.1.6), slow and good enough for tests."""

    def sign(message):
        prefix, own = hashlib.sha512(secret).digest()[32:], public_key(secret)
        nonce = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % ed25519.ORDER
        point = ed25519._encode(ed25519._sum_of(nonce, ed25519.BASE, 0, ed25519.NEUTRAL))
        digest = hashlib.sha512(point + own + message).digest()
        s = (nonce + int.from_bytes(digest, "little") * _scalar(secret)) % ed25519.ORDER
        return point + s.to_bytes(32, "little")

    return sign


def envelope(secret, name, data, predicate_type, predicate):
    """A signed statement about one file; no secret: not signed."""
    key = None if secret is None else public_key(secret)
    predicate["public_key"] = None if key is None else base64.b64encode(key).decode()
    statement = make_statement(name, sha256_bytes(data), predicate_type, predicate)
    sign = None if secret is None else signer(secret)
    return make_envelope(statement, sign=sign, public_key=key)


def question(number):
    return {"question": f"What is {number} plus {number + 7}?", "gold": str(2 * number + 7)}


def item_digests():
    return {
        f"{SUITE}/{n}": item_sha256(item=f"{SUITE}/{n}", grader="integer", **question(n))
        for n in range(ITEMS)
    }


def make_samples(arm, serial):
    """Samples of one arm, graded; the caller may change them."""
    return [dict(sample) for sample in _samples(arm, serial)]


@functools.cache
def _samples(arm, serial):
    regrader, digests = Regrader(), item_digests()
    samples = []
    for number in range(ITEMS):
        for k in range(K):
            is_right = (number * 7 + k * 3) % 4 < RIGHT[arm] and not (
                arm == "after" and number % 8 == 5
            )
            answer = 2 * number + 7 + (0 if is_right else 1 + k)
            response = (
                f"I think so. </think> \\boxed{{{answer}}}" if (number + k) % 9 else "No idea."
            )
            verdict, extracted = regrader.outcome("integer", question(number)["gold"], response)
            item = f"{SUITE}/{number}"
            samples.append(
                {
                    "v": 1,
                    "eval_serial": serial,
                    "suite": SUITE,
                    "arm": arm,
                    "item": item,
                    "item_sha256": digests[item],
                    "cluster": f"family-{number // 2}",
                    "model": MODELS[arm],
                    "template_sha256": TEMPLATE,
                    "prompt_sha256": sha256_bytes(item.encode()),
                    "k": k,
                    "seed": 5,
                    "sample_id": number * 100 + k,
                    "sampler": SAMPLER,
                    "engine": ENGINE,
                    **question(number),
                    "grader": "integer",
                    "grader_sha256": grader_sha256(),
                    "response": response,
                    "token_ids": [number, k, 1],
                    "finish": "eos",
                    "n_prompt": 9,
                    "n_out": 3,
                    "logprob_sum": -1.25,
                    "verdict": verdict,
                    "extracted": extracted,
                    "method": "integer",
                    "detail": "",
                    "retried": False,
                    "wall_ms": None,
                    "energy_window": None,
                    "error": None,
                    "supersedes": None,
                    "redacted": None,
                }
            )
    return samples


@functools.cache
def honest_root(arm, serial):
    return merkle_root(map(sample_line, _samples(arm, serial)))


def merkle_root(lines):
    tree = MerkleTree()
    for line in lines:
        tree.add(leaf_hash(line))
    return tree.root()


def sealed_verdicts(samples):
    """What the ledger keeps of an evaluation's verdicts when it ends."""
    tallies = tally_samples(samples, suite=SUITE, arm="", merkle_root="")
    return {"verdicts_sha256": tallies.verdicts_sha256(), "votes_sha256": tallies.votes_sha256()}


def pack(lines):
    return gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0)


class Maker:
    """Holds everything a dossier is made of; change a part, then `files()`."""

    def __init__(self):
        self.secret = AUTHOR
        self.attempts = [("before", 1), ("after", 2), ("random-reward", 3)]
        self.samples = {arm: make_samples(arm, serial) for arm, serial in self.attempts}
        self.recorded = {}
        """arm -> root that the ledger recorded; empty: that of the honest samples."""
        self.sealed = {}
        """arm -> `sealed_verdicts` that the ledger recorded; empty: those of the honest samples."""
        self.events = None
        self.control_steps = 20
        """Of the control; None: the ledger tells nothing of its training."""
        self.claims = planned_claims()
        self.plan = None
        self.roots = {}
        self.scan = {
            "v": 1,
            "threshold": 0.5,
            "suites": {
                SUITE: {
                    "items": {
                        item: {"containment": 0.9 if n == 3 else 0.0, "matches": []}
                        for n, item in enumerate(item_digests())
                    }
                }
            },
            "self_test": {"recall": {"verbatim": 1.0}, "false_positives": 0, "documents": 4000},
        }
        self.checkpoints = {
            "v": 1,
            "stage": None,
            "rule": {"metric": "dev", "pick": "max", "tie": "first"},
            "chosen": 20,
            "checkpoints": [
                {
                    "step": 10,
                    "weights": sha256_bytes(b"ten"),
                    "scores": {"dev": 0.5},
                    "evals": [],
                },
                {"step": 20, "weights": MODELS["after"], "scores": {"dev": 0.6}, "evals": []},
            ],
        }
        self.rollouts = {
            "v": 1,
            "total": 100,
            "rollouts": [
                {
                    "step": n,
                    "item": f"train/{n}",
                    "grader": "integer",
                    "gold": str(n),
                    "response": f"\\boxed{{{n if n % 2 else -1}}}",
                    "verdict": "correct" if n % 2 else "wrong",
                    "terms": {"accuracy": float(n % 2), "format": 1.0},
                    "weights": {"accuracy": 1.0, "format": 0.1},
                    "reward": n % 2 + 0.1,
                    "masked": False,
                }
                for n in range(6)
            ],
        }
        self.vectors = [
            {"grader": "integer", "gold": "5", "response": "\\boxed{5}", "verdict": "correct"},
            {"grader": "integer", "gold": "5", "response": "5", "verdict": "unparsable"},
        ]
        self.extra = {}

    def default_plan(self):
        return {
            "v": 2,
            "id": "0001",
            "time": "2026-01-01T00:00:05Z",
            "ledger": {"count": 1, "digest": chain(self.default_kinds()[:1])[-1]["digest"]},
            "suites": {
                SUITE: {
                    "items": item_digests(),
                    "k": K,
                    "seed": 5,
                    "sampler": SAMPLER,
                    "is_dev": False,
                    "families_sha256": sha256_json(
                        {f"{SUITE}/{n}": f"family-{n // 2}" for n in range(ITEMS)}
                    ),
                    **{
                        sealed: sha256_json({i: a[key] for i, a in data_set()["items"].items()})
                        for sealed, key in (
                            ("dates_sha256", "first_public"),
                            ("fresh_sha256", "is_fresh"),
                        )
                    },
                }
            },
            "arms": {
                arm: {
                    "model": None if arm == "after" else MODELS[arm],
                    "template_sha256": TEMPLATE,
                    "stop": [],
                    "role": {"after": "subject", "before": "baseline"}.get(arm, "control"),
                    "prompt_candidates": [],
                }
                for arm in MODELS
            },
            "grader_sha256": grader_sha256(),
            "checkpoint_rule": {"metric": "dev", "pick": "max", "tie": "first"},
            "claims": planned_claims(),
            "mde": {"C1": "0.2"},
            "max_attempts": 1,
            "training_seeds": 1,
            "cutoff": "2026-04-01",
            "clean_below": 0.5,
            "last_step": 20,
        }

    def default_kinds(self):
        """(kind, payload) of all events; the plan's digest is filled in by `files`."""
        kinds = [("run_started", {}), ("preregistered", {"id": "0001", "sha256": ""})]
        kinds += [("checkpoint_saved", {"step": 10}), ("checkpoint_saved", {"step": 20})]
        for arm, serial in self.attempts:
            if arm == "random-reward" and self.control_steps is not None:
                kinds.append(("checkpoint_saved", {"stage": arm, "step": self.control_steps}))
            names = {"serial": serial, "arm": arm, "suite": SUITE}
            kinds.append(
                ("evaluation_started", {**names, "k": K, "seed": 5, "weights": MODELS[arm]})
            )
            root = self.recorded.get(arm) or honest_root(arm, serial)
            sealed = self.sealed.get(arm) or sealed_verdicts(_samples(arm, serial))
            ended = {"samples": ITEMS * K, "merkle_root": root, **sealed}
            kinds.append(("evaluation_ended", {**names, **ended}))
        return [*kinds, ("run_ended", {})]

    def files(self):
        """Path -> bytes of the whole dossier, sealed."""
        plan = self.plan or self.default_plan()
        plan_bytes = json.dumps(plan, indent=1).encode()
        kinds = self.events or self.default_kinds()
        kinds = [
            (kind, {**p, "sha256": p["sha256"] or sha256_bytes(plan_bytes)})
            if kind == "preregistered"
            else (kind, p)
            for kind, p in kinds
        ]
        events = chain(kinds)
        files = {
            "prereg/0001.json": plan_bytes,
            "prereg/0001.dsse.json": envelope(
                self.secret,
                "prereg/0001.json",
                plan_bytes,
                PREREG_PREDICATE,
                {"v": 1, "time": "2026-01-01T00:00:05Z"},
            ),
            "ledger.jsonl": b"".join(canonical_json(e) + b"\n" for e in events),
            "weights/manifest.json": canonical_json(
                {"v": 1, "root": MODELS["after"], "files": FILES, "tensors": {}, "parent": None}
            ),
            "train/checkpoints.json": canonical_json(self.checkpoints),
            "train/rollouts.json": canonical_json(self.rollouts),
            f"graders/{grader_sha256()}/vectors.json": canonical_json(self.vectors),
            "contamination/scan.json": canonical_json(self.scan),
            f"data/{SUITE}.json": canonical_json(data_set()),
            "VERIFY.md": b"Run verify.pyz.\n",
        }
        evaluations = {}
        for arm, samples in self.samples.items():
            serial = dict(self.attempts).get(arm, 9)
            lines = [sample_line(s) for s in samples]
            root = {
                "v": 1,
                "suite": SUITE,
                "arm": arm,
                "eval_serial": serial,
                "merkle_root": merkle_root(lines),
                "recorded_root": self.recorded.get(arm) or merkle_root(lines),
                "count": len(lines),
                "expected": ITEMS * K,
                "redacted": sum(s["redacted"] is not None for s in samples),
                "k": K,
                "model": MODELS[arm],
                "template_sha256": TEMPLATE,
                "grader_sha256": grader_sha256(),
                "seed": 5,
            } | self.roots.get(arm, {})
            folder = f"evals/{SUITE}/{arm}"
            files[f"{folder}/samples.jsonl.gz"] = pack(lines)
            files[f"{folder}/root.json"] = canonical_json(root)
            evaluations[folder] = tally_samples(
                samples, suite=SUITE, arm=arm, merkle_root=root["merkle_root"]
            )
        files["claims.json"] = canonical_json(reported(self.claims, evaluations, self.scan))
        files |= self.extra
        return seal(files, secret=self.secret)


def chain(kinds):
    events, previous = [], "0" * 64
    for serial, (kind, payload) in enumerate(kinds):
        time = f"2026-01-01T00:{serial // 6:02d}:{serial % 6 * 10:02d}Z"
        body = {"serial": serial, "time": time, "kind": kind, "payload": payload, "prev": previous}
        previous = sha256_json(body)
        events.append({**body, "digest": previous})
    return events


def planned_claims():
    arms = {"a": f"evals/{SUITE}/after", "b": f"evals/{SUITE}/before"}
    base = {"unit": "problem", "cluster": "family", "requires": []}
    return [
        {
            **base,
            "id": "C1",
            "kind": "paired_difference",
            "metric": {"fn": "pass_at_1"},
            "arms": arms,
            "test": "sign_flip",
            "family": "main",
            "rule": "low > 0 and p_adj < 0.05",
            "requires": ["random-reward"],
        },
        {
            **base,
            "id": "C2",
            "kind": "pass_at_1",
            "metric": {"fn": "pass_at_1"},
            "arms": {"a": arms["a"]},
            "test": None,
            "family": None,
            "rule": "value > 0.5",
        },
        {
            **base,
            "id": "C3",
            "kind": "non_inferiority",
            "metric": {"fn": "pass_at_k", "k": 4, "margin": 0.3},
            "arms": arms,
            "test": "clustered_t",
            "family": "main",
            "rule": "p_adj < 0.05",
        },
    ]


def data_set():
    items = {
        item: {
            "sha256": digest,
            "first_public": "2026-05-01" if n % 2 else None,
            "is_fresh": False,
        }
        for n, (item, digest) in enumerate(item_digests().items())
    }
    return {"v": 1, "suite": SUITE, "source": "made", "licence": "none", "items": items}


def reported(planned, evaluations, scan):
    """claims.json with the numbers as they are."""
    claims = [
        {
            **claim,
            "text": f"{'single run: ' if len(claim['arms']) > 1 else ''}claim {claim['id']}",
            "roots": {n: evaluations[f].merkle_root for n, f in claim["arms"].items()},
            "precision": 4,
            "seed": 0,
            "views": {},
            "is_capability": True,
            "prereg": f"0001#{claim['id']}",
            "level": "recomputed",
            "limits": "",
        }
        for claim in planned
    ]
    main = [claim["id"] for claim in planned if claim["family"] == "main"]
    families = {"main": {"correction": "holm", "claims": main}} if main else {}
    whole = {
        "v": 1,
        "title": "Sums",
        "cutoff": "2026-04-01",
        "families": families,
        "claims": claims,
    }
    results, adjusted, problems = compute_claims(whole, evaluations)
    assert not problems, problems
    clean = {i for i, s in scan["suites"][SUITE]["items"].items() if s["containment"] < 0.5}
    newer = {i for i, a in data_set()["items"].items() if a["first_public"]}
    for claim in claims:
        result, p_adj = results[claim["id"]], adjusted.get(claim["id"])
        claim["reported"] = printed(result, 4, p_adj=p_adj)
        claim["holds"] = does_hold(claim, result, p_adj)
        if claim["is_capability"]:
            views = {"clean": clean, "post_cutoff": newer}
            claim["views"] = {
                view: printed(compute_claim(claim, evaluations, keep=keep), 4)
                for view, keep in views.items()
            } | {"fresh": None}
    return whole


def seal(files, *, secret=AUTHOR, version=1, previous=None):
    """The files with MANIFEST and SEAL, made anew."""
    files = {p: d for p, d in files.items() if p not in ("MANIFEST.jsonl", "SEAL.dsse.json")}
    manifest = b"".join(
        canonical_json(
            {
                "path": path,
                "bytes": len(data),
                "sha256": sha256_bytes(data),
                "role": path.split("/")[0],
                "redacted": False,
            }
        )
        + b"\n"
        for path, data in sorted(files.items())
    )
    events = [json.loads(line) for line in files.get("ledger.jsonl", b"").splitlines()]
    head = {"count": len(events), "digest": events[-1]["digest"] if events else "0" * 64}
    predicate = {
        "v": 1,
        "version": version,
        "previous": previous,
        "ledger": head,
        "time": "2026-01-02T00:00:00Z",
    }
    sealed = envelope(secret, "MANIFEST.jsonl", manifest, SEAL_PREDICATE, predicate)
    return {**files, "MANIFEST.jsonl": manifest, "SEAL.dsse.json": sealed}


def write(files, folder):
    """Put the files on the disk, and return the folder."""
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


AUTHOR_ID = key_id(public_key(AUTHOR))
