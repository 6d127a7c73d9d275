"""A dossier small enough to build in every test: a suite, two arms, two claims, a seal."""

import base64
import gzip
import json

from pellucid.evidence.core.canonical import (
    canonical_json,
    item_sha256,
    leaf_hash,
    sha256_bytes,
    sha256_json,
    sha256_text,
)
from pellucid.evidence.core.claims import compute_claim, compute_claims, does_hold, printed
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.samples import sample_line
from pellucid.evidence.core.tally import tally_samples
from pellucid.evidence.review.numbers import view_items
from pellucid.ledger import EventKind, Ledger

SUITE, K, ITEMS = "toy", 2, 24
HOSTILE = "<script>alert(1)</script> *bold* [x](javascript:1) \u202e"
SAMPLER = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "max_new_tokens": 8,
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


def build_dossier(folder, *, fresh_gain=True, title="A toy"):
    """Write everything and seal it as version 1; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder / "ledger.jsonl")
    roots, evaluations = {}, {}
    for serial, arm in enumerate(("before", "after"), 1):
        ledger.append(EventKind.EVALUATION_STARTED, serial=serial, suite=SUITE, arm=arm)
        samples = [_sample(arm, i, k, serial, fresh_gain) for i in range(ITEMS) for k in (0, 1)]
        roots[arm] = _write_samples(folder, arm, samples, serial)
        evaluations[f"evals/{SUITE}/{arm}"] = tally_samples(
            samples, suite=SUITE, arm=arm, merkle_root=roots[arm]
        )
        ledger.append(
            EventKind.EVALUATION_ENDED,
            serial=serial,
            suite=SUITE,
            arm=arm,
            samples=len(samples),
            merkle_root=roots[arm],
        )
    ledger.close()
    _write_sets(folder)
    write_json(folder / "weights/manifest.json", _weights())
    write_json(folder / "claims.json", _claims(folder, title, roots, evaluations))
    seal(folder)
    return folder


def seal(folder, *, version=1, previous=None):
    """MANIFEST.jsonl of what is there, and an unsigned seal of it."""
    skipped = ("MANIFEST.jsonl", "SEAL.dsse.json")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in skipped)
    rows = [
        {
            "path": path.relative_to(folder).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": sha256_bytes(path.read_bytes()),
            "role": "file",
            "redacted": False,
        }
        for path in files
    ]
    text = b"".join(canonical_json(row) + b"\n" for row in rows)
    (folder / "MANIFEST.jsonl").write_bytes(text)
    last = json.loads((folder / "ledger.jsonl").read_text().splitlines()[-1])
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "MANIFEST.jsonl", "digest": {"sha256": sha256_bytes(text)}}],
        "predicateType": "urn:pellucid:dossier-seal:v1",
        "predicate": {
            "v": 1,
            "version": version,
            "previous": previous,
            "ledger": {"count": last["serial"] + 1, "digest": last["digest"]},
            "public_key": None,
            "time": "2026-11-22T09:00:00Z",
        },
    }
    envelope = {
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.b64encode(canonical_json(statement)).decode(),
        "signatures": [],
    }
    (folder / "SEAL.dsse.json").write_bytes(canonical_json(envelope) + b"\n")
    return sha256_bytes((folder / "SEAL.dsse.json").read_bytes())


def edit_claims(folder, change):
    """Apply `change` to the claims' document in place."""
    path = folder / "claims.json"
    document = json.loads(path.read_text())
    change(document)
    write_json(path, document)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))


def item_name(number):
    return f"{SUITE}/test/{number}"


def _is_right(arm, item, k, fresh_gain):
    """`after` solves more than `before`; without `fresh_gain` not on the fresh items."""
    if item >= 16 and not fresh_gain:
        return k == 0
    return (item + k) % 4 == 0 if arm == "before" else (item + k) % 4 != 1


def _sample(arm, item, k, serial, fresh_gain):
    right = _is_right(arm, item, k, fresh_gain)
    question, gold = f"What is {item} + 1? {HOSTILE if item == 0 else ''}", str(item + 1)
    answer = gold if right else "7777"
    return {
        "v": 1,
        "eval_serial": serial,
        "suite": SUITE,
        "arm": arm,
        "item": item_name(item),
        "item_sha256": item_sha256(
            item=item_name(item), question=question, gold=gold, grader="math"
        ),
        "cluster": item_name(item),
        "model": _weights()["root"] if arm == "after" else sha256_json(arm),
        "template_sha256": sha256_text("template"),
        "prompt_sha256": sha256_json([item]),
        "k": k,
        "seed": 1,
        "sample_id": item * K + k,
        "sampler": SAMPLER,
        "engine": ENGINE,
        "question": question,
        "gold": gold,
        "grader": "math",
        "grader_sha256": sha256_text("grader"),
        "response": f"<think>{HOSTILE if item == 0 else item}</think>\\boxed{{{answer}}}",
        "token_ids": [item, k, 5],
        "finish": "eos",
        "n_prompt": 4,
        "n_out": 3,
        "logprob_sum": -1.5,
        "verdict": "correct" if right else "wrong",
        "extracted": answer,
        "method": "strict",
        "detail": "",
        "retried": False,
        "wall_ms": None,
        "energy_window": None,
        "error": None,
        "supersedes": None,
        "redacted": None,
    }


def _write_samples(folder, arm, samples, serial):
    lines = [sample_line(sample) for sample in samples]
    tree = MerkleTree()
    for line in lines:
        tree.add(leaf_hash(line))
    place = folder / "evals" / SUITE / arm
    place.mkdir(parents=True)
    data = b"".join(line + b"\n" for line in lines)
    (place / "samples.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
    first = samples[0]
    root = {
        "v": 1,
        "suite": SUITE,
        "arm": arm,
        "eval_serial": serial,
        "merkle_root": tree.root(),
        "recorded_root": tree.root(),
        "count": len(lines),
        "expected": ITEMS * K,
        "redacted": 0,
        "k": K,
        "seed": 1,
        **{name: first[name] for name in ("model", "template_sha256", "grader_sha256")},
    }
    write_json(place / "root.json", root)
    return tree.root()


def _write_sets(folder):
    names = [item_name(i) for i in range(ITEMS)]
    items = {
        name: {
            "sha256": sha256_text(name),
            "first_public": "2026-07-01" if i >= 12 else "2021-01-01",
            "is_fresh": i >= 16,
        }
        for i, name in enumerate(names)
    }
    dataset = {
        "v": 1,
        "suite": SUITE,
        "source": "makers/toy at 0123456789abcdef",
        "licence": "CC0-1.0",
        "items": items,
    }
    write_json(folder / f"data/{SUITE}.json", dataset)
    scan = {
        "v": 1,
        "threshold": 0.2,
        "suites": {
            SUITE: {
                "items": {
                    n: {"containment": 0.9 if i == 3 else 0.0, "matches": []}
                    for i, n in enumerate(names)
                }
            }
        },
        "self_test": {
            "recall": {"verbatim": 1.0, "half copy": 0.97},
            "false_positives": 0,
            "documents": 4000,
        },
    }
    write_json(folder / "contamination/scan.json", scan)


def _weights():
    files = {"model.safetensors": {"bytes": 10, "sha256": sha256_text("w")}}
    return {"v": 1, "root": sha256_json(files), "files": files, "tensors": {}, "parent": None}


def _claims(folder, title, roots, evaluations):
    after, before = f"evals/{SUITE}/after", f"evals/{SUITE}/before"
    plain = _claim("C1", "pass_at_1", {"a": after}, {"a": roots["after"]}, rule="low > 0")
    gain = _claim(
        "C2",
        "paired_difference",
        {"a": after, "b": before},
        {"a": roots["after"], "b": roots["before"]},
        rule="low > 0 and p_adj < 0.05",
    )
    gain |= {"test": "sign_flip", "family": "main", "text": "Training raises pass@1 on toy"}
    document = {
        "v": 1,
        "title": title,
        "cutoff": "2026-06-01",
        "families": {"main": {"correction": "holm", "claims": ["C2"]}},
        "claims": [plain, gain],
    }
    results, adjusted, problems = compute_claims(document, evaluations)
    assert problems == {}
    for claim in document["claims"]:
        name = claim["id"]
        claim["reported"] = printed(results[name], 4, p_adj=adjusted.get(name))
        claim["holds"] = does_hold(claim, results[name], adjusted.get(name))
        for view, keep in view_items(folder, document, claim).items():
            claim["views"][view] = printed(compute_claim(claim, evaluations, keep=keep), 4)
    return document


def _claim(name, kind, arms, roots, *, rule):
    return {
        "id": name,
        "text": f"{name} on toy",
        "kind": kind,
        "metric": {"fn": "pass_at_1"},
        "arms": arms,
        "roots": roots,
        "unit": "problem",
        "cluster": "problem",
        "test": None,
        "family": None,
        "precision": 4,
        "seed": 0,
        "reported": {},
        "views": {},
        "is_capability": True,
        "requires": [],
        "prereg": f"0001#{name}",
        "rule": rule,
        "holds": True,
        "level": "recomputed",
        "limits": "A toy of 24 items.",
    }
