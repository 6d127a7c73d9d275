"""Random changes to an honest dossier: each must be found, none may stop the verifier.

    python benchmarks/fuzz_verifier.py --mutations 10000 --seed 0

Half of the changes are of bytes (flipped, removed, inserted, cut, swapped), half of JSON values
inside a file (other number, text, type, key gone, key added, list reordered). With --resealed the
forger also makes MANIFEST and seal anew with the author's key, so that only the contents can tell:
what is found then depends on what was changed (the name of a claim's text is nobody's business), so
that share is printed and not demanded.
"""

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "evidence"))

import checked_dossier
import honest_dossier as base

from pellucid.energy.account import account, read_windows
from pellucid.energy.factors import find_factor
from pellucid.evidence.core.canonical import canonical_json, sha256_bytes
from pellucid.evidence.core.verify import verify


def change_bytes(draw, data):
    """Other bytes than `data`."""
    while True:
        kind, at = draw.randrange(6), draw.randrange(len(data) + 1)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            changed = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            changed = data[:at] + data[at + draw.randrange(1, 20) :]
        elif kind == 2:
            changed = data[:at] + draw.randbytes(draw.randrange(1, 20)) + data[at:]
        elif kind == 3:
            changed = data[:at]
        elif kind == 4:
            other = draw.randrange(len(data) + 1)
            changed = data[: min(at, other)] + data[max(at, other) :] + data[min(at, other) : at]
        else:
            changed = data.replace(data[at : at + 1], draw.randbytes(1), 1) if data else b"x"
        if changed != data:
            return changed


def change_json(draw, data):
    """Another value than that of `data`; None where it is no JSON."""
    lines = data.split(b"\n") if data.count(b"\n{") else [data]
    index = draw.randrange(len(lines))
    try:
        value = json.loads(lines[index])
    except ValueError:
        return None
    before = copy.deepcopy(value)
    for _ in range(20):
        value = mutate(draw, value)
        if value != before:
            break
    lines[index] = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    changed = b"\n".join(lines) + (b"" if len(lines) > 1 else b"\n" * data.endswith(b"\n"))
    return changed if changed != data else None


STRANGE = [None, True, False, 0, -1, 10**30, 1.5, "", "x", "\x00", "é", [], {}, [[]], {"a": 1},
           "0" * 64, float("nan"), float("inf"), "../x", 2**63]  # fmt: skip


def mutate(draw, value):
    """The value with one place changed, somewhere inside."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        kind = draw.random()
        if kind < 0.06:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.1:
            return {**value, draw.choice(["more", "", "v2"]): draw.choice(STRANGE)}
        return {**value, key: mutate(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        kind = draw.random()
        if kind < 0.08:
            return value[:at] + value[at + 1 :]
        if kind < 0.16:
            return [*value, value[at]]
        if kind < 0.24:
            return draw.sample(value, len(value))
        return [*value[:at], mutate(draw, value[at]), *value[at + 1 :]]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float) and draw.random() < 0.6:
        return value + draw.choice([1, -1, 2, 0.5])
    if isinstance(value, str) and value and draw.random() < 0.6:
        at = draw.randrange(len(value))
        return value[:at] + draw.choice("0123456789abcdefxyz") + value[at + 1 :]
    return draw.choice(STRANGE)


def mutation(draw, files):
    """(path, other bytes): one change of one file; None: the file is taken away."""
    while True:
        path = draw.choice(sorted(files))
        kind = draw.random()
        if kind < 0.01:
            return path, None
        data = change_bytes(draw, files[path])
        if kind > 0.5:
            data = change_json(draw, files[path])
        if data is not None:
            return path, data


def reviewed_and_metered(folder):
    """(files, how to seal them) of the honest dossier's second version, with a bill of energy, a
    round of review, judges, and people's labels."""
    maker = base.Maker()
    first = maker.files()
    maker.extra = {"seals/0001.dsse.json": first["SEAL.dsse.json"]}
    with tempfile.TemporaryDirectory() as checked:
        maker.extra |= checked_dossier.checked_files(base.Maker(), Path(checked) / "d")
    maker.extra |= bill(folder, json.loads(first["claims.json"])) | review(first)
    version = {"version": 2, "previous": sha256_bytes(first["SEAL.dsse.json"])}
    return base.seal(maker.files(), **version), version


def bill(folder, claims):
    """Two windows and their report."""
    part = {"component": "gpu0", "source": "nvml_counter", "joules": 9e4, "low": 8e4, "high": 1e5}
    lines = [
        {"v": 1, "id": f"{n:04d}", "kind": kind, "name": name, "state": "ended", "started": "",
         "elapsed_s": 300.0, "core_s": 60.0, "tokens": 500, "answers": 5, "joules": 9e4,
         "parts": [part], "notes": []}
        for n, (kind, name) in enumerate((("stage", "zero"), ("evaluation", "after/sums")))
    ]  # fmt: skip
    path = folder.with_name(f"{folder.name}-windows.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    gain = 100 * float(claims["claims"][0]["reported"]["value"])
    report = account(read_windows(path), find_factor("FR"), points={base.SUITE: gain})
    data = {"windows.jsonl": path.read_bytes(), "report.json": canonical_json(report)}
    path.unlink()
    factors = {"factor": report["factor"], "pue": report["pue"]}
    data["factors.json"] = canonical_json(factors)
    return {f"energy/{name}": content for name, content in data.items()}


def review(first):
    """A round on the first version: a point that its test closed, another by its author's word."""
    test = "C1.low > -2"
    points = [
        {"id": "R2.1", "text": "Really?", "claim_refs": ["C1"], "severity": "major",
         "kind": "question", "test": test, "closes_with": None},
        {"id": "R2.2", "text": "How?", "claim_refs": [], "severity": "minor", "kind": "question",
         "test": None, "closes_with": sha256_bytes(b"word")},
    ]  # fmt: skip
    report = canonical_json({"referee": "R2", "points": points, "words_from": "referee",
                             "key": None})  # fmt: skip
    seal, claims = first["SEAL.dsse.json"], first["claims.json"]
    facts = {"round": 1, "seal_sha256": sha256_bytes(seal), "claims_sha256": sha256_bytes(claims)}
    taken = {"round": 1, "referee": "R2", "report_sha256": sha256_bytes(report)}
    steps = [
        ("review_started", facts),
        ("points_imported", taken),
        ("point_answered", {"round": 1, "point": "R2.1", "text": "Yes.", "changes": {}}),
        ("point_closed", {"round": 1, "point": "R2.1", "by": "test", "test": test}),
        ("point_closed", {"round": 1, "point": "R2.2", "by": "word", "word": "word"}),
    ]
    return {
        "reviews/ledger.jsonl": b"".join(canonical_json(e) + b"\n" for e in base.chain(steps)),
        "reviews/round-1/claims.json": claims,
        "reviews/round-1/R2.report.json": report,
    }


def fuzz(mutations, seed, folder, *, is_resealed=False):
    """(missed, stopped, codes): changes that were not found, that stopped a check, and names."""
    files, version = reviewed_and_metered(folder)
    base.write(files, folder)
    assert verify(folder).is_ok, "the dossier is honest before it is changed"
    draw, missed, stopped, codes = random.Random(seed), [], [], Counter()
    made_anew = ("MANIFEST.jsonl", "SEAL.dsse.json") if is_resealed else ()
    targets = {p: d for p, d in files.items() if p not in made_anew}
    for number in range(mutations):
        path, data = mutation(draw, targets)
        changed = {p: d for p, d in files.items() if p != path}
        if data is not None:
            changed[path] = data
        if is_resealed:
            try:
                changed = base.seal(changed, **version)
            except (ValueError, KeyError, TypeError, IndexError):
                continue
        touched = {p for p in files.keys() | changed.keys() if files.get(p) != changed.get(p)}
        put(folder, changed, touched)
        verdict = verify(folder, seed=str(number))
        put(folder, files, touched)
        failures = {f.code for f in verdict.findings if not f.kind.is_note}
        codes.update(failures)
        if verdict.exit_code == 0:
            missed.append((number, path))
        if "verifier-stopped" in failures:
            why = next(f.text for f in verdict.findings if f.code == "verifier-stopped")
            stopped.append((number, path, why))
    return missed, stopped, codes


def put(folder, files, paths):
    for path in paths:
        if path in files:
            (folder / path).write_bytes(files[path])
        else:
            (folder / path).unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resealed", action="store_true")
    options = parser.parse_args()
    base.ITEMS = 8
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        missed, stopped, codes = fuzz(
            options.mutations, options.seed, Path(folder), is_resealed=options.resealed
        )
    for line in (*missed[:20], *stopped[:20]):
        print(line)
    for code, times in codes.most_common():
        print(f"{times:7d}  {code}")
    print(
        f"{options.mutations} changes: {len(missed)} not found, {len(stopped)} stopped a check, "
        f"{time.perf_counter() - started:.0f} s"
    )
    return bool(stopped) or bool(missed and not options.resealed)


if __name__ == "__main__":
    sys.exit(main())
