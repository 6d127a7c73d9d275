"""How long `verify.pyz` takes for a synthetic dossier, and how much memory.

    python benchmarks/verify_speed.py --samples 1000000 --out /tmp/big [--keep]

Two arms on one suite, 16 samples an item, responses of about 700 characters and 120 token ids: 1.9
kB a line. Answers repeat as they do in practice (a right one and a few wrong ones per item).
"""

import argparse
import gzip
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "evidence"))

import honest_dossier as base

from pellucid.evidence.core.canonical import canonical_json, item_sha256, leaf_hash, sha256_json
from pellucid.evidence.core.grade import grader_sha256
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.tally import Evaluation
from pellucid.evidence.zipapp import build_verifier

K = 16
WORDS = ["so", "we", "add", "the", "first", "number", "to", "the", "second", "and", "carry", "one"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only-make", action="store_true")
    options = parser.parse_args()
    if options.only_make:
        return make(options.out, options.samples)
    if not (options.out / "SEAL.dsse.json").exists():
        # In a process of its own, whose memory is not taken for the verifier's.
        subprocess.run([sys.executable, *sys.argv, "--only-make"], check=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    verifier = options.out.with_suffix(".pyz")
    build_verifier(verifier)
    command = [sys.executable, "-I", "-c", MEASURED, str(verifier), str(options.out)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(done.stdout[-1500:])
    size = sum(f.stat().st_size for f in options.out.rglob("*") if f.is_file()) / 1e6
    print(
        f"{options.samples} samples, {size:.0f} MB packed: {wall:.1f} s wall, "
        f"{used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime:.1f} s CPU, "
        f"{peak_mb(done.stderr):.0f} MB at most; json.loads alone takes "
        f"{floor_us(options.out):.1f} us a line here"
    )
    if not options.keep:
        shutil.rmtree(options.out)


MEASURED = """
import resource, runpy, sys
sys.argv = [sys.argv[1], *sys.argv[2:], "--seed", "1234"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def peak_mb(stderr):
    return int(stderr.split()[-1]) / 1024


def floor_us(out):
    """What reading a line's JSON costs by itself: tells a slow machine from a slow verifier."""
    with gzip.open(out / "evals" / "sums" / "after" / "samples.jsonl.gz") as file:
        lines = file.readlines(20_000_000)
    started = time.process_time()
    for line in lines:
        json.loads(line)
    return (time.process_time() - started) / len(lines) * 1e6


def make(out, num_samples):
    items = num_samples // (2 * K)
    base.ITEMS, base.K = items, K
    digests = {}
    for n in range(items):
        text = {"question": f"What is {n} plus {n + 7}?", "gold": str(2 * n + 7)}
        digests[f"sums/{n}"] = item_sha256(item=f"sums/{n}", grader="math", **text)
    base.item_digests = lambda: digests
    maker = base.Maker()
    maker.attempts = maker.attempts[:2]
    maker.claims = [{**c, "requires": []} for c in maker.claims]
    base.planned_claims = lambda: maker.claims
    evaluations, roots = {}, {}
    for arm, serial in maker.attempts:
        folder = out / "evals" / "sums" / arm
        folder.mkdir(parents=True)
        roots[arm], evaluations[f"evals/sums/{arm}"] = write_arm(folder, arm, serial, digests)
    maker.samples, maker.recorded = {}, roots
    maker.sealed = {
        arm: {
            "verdicts_sha256": evaluations[f"evals/sums/{arm}"].verdicts_sha256(),
            "votes_sha256": evaluations[f"evals/sums/{arm}"].votes_sha256(),
        }
        for arm in roots
    }
    maker.plan = maker.default_plan()
    families = sha256_json({item: item for item in digests})
    maker.plan["suites"]["sums"]["families_sha256"] = families
    reported = base.reported
    base.reported = lambda claims, _, scan: reported(claims, evaluations, scan)
    for arm, serial in maker.attempts:
        folder = f"evals/sums/{arm}"
        maker.extra[f"{folder}/samples.jsonl.gz"] = (out / folder / "samples.jsonl.gz").read_bytes()
        maker.extra[f"{folder}/root.json"] = canonical_json(root_of(arm, serial, roots[arm]))
    base.write(maker.files(), out)


def write_arm(folder, arm, serial, digests):
    """Lines are put together from parts: a million in a minute or two."""
    draw, tree = random.Random(serial), MerkleTree()
    evaluation = Evaluation("sums", arm, merkle_root="")
    thoughts = [" ".join(draw.choices(WORDS, k=130)).encode() for _ in range(4000)]
    tokens = [b",".join(b"%d" % draw.randrange(150_000) for _ in range(120)) for _ in range(4000)]
    with gzip.open(folder / "samples.jsonl.gz", "wb", compresslevel=1) as file:
        for n, (item, digest) in enumerate(digests.items()):
            for k in range(K):
                sample = one_sample(draw, arm, serial, n, k, item, digest)
                evaluation.add(sample)
                line = canonical_json(sample)
                line = line.replace(b"#thought", draw.choice(thoughts), 1)
                line = line.replace(b'"#tokens"', b"[%b]" % draw.choice(tokens), 1)
                tree.add(leaf_hash(line))
                file.write(line + b"\n")
    evaluation.merkle_root = tree.root()
    return tree.root(), evaluation


def one_sample(draw, arm, serial, n, k, item, digest):
    is_right = draw.random() < (0.7 if arm == "after" else 0.4)
    answer = 2 * n + 7 + (0 if is_right else draw.randrange(1, 5))
    return {
        "v": 1,
        "eval_serial": serial,
        "suite": "sums",
        "arm": arm,
        "item": item,
        "item_sha256": digest,
        "cluster": item,
        "model": base.MODELS[arm],
        "template_sha256": base.TEMPLATE,
        "prompt_sha256": digest,
        "k": k,
        "seed": 5,
        "sample_id": n * K + k,
        "sampler": base.SAMPLER,
        "engine": base.ENGINE,
        "question": f"What is {n} plus {n + 7}?",
        "gold": str(2 * n + 7),
        "grader": "math",
        "grader_sha256": grader_sha256(),
        "response": f"<think>#thought</think> The answer is \\boxed{{{answer}}}.",
        "token_ids": "#tokens",
        "finish": "eos",
        "n_prompt": 30,
        "n_out": 120,
        "logprob_sum": -draw.random() * 50,
        "verdict": "correct" if is_right else "wrong",
        "extracted": str(answer),
        "method": "strict",
        "detail": "",
        "retried": False,
        "wall_ms": None,
        "energy_window": None,
        "error": None,
        "supersedes": None,
        "redacted": None,
    }


def root_of(arm, serial, merkle_root):
    return {
        "v": 1,
        "suite": "sums",
        "arm": arm,
        "eval_serial": serial,
        "merkle_root": merkle_root,
        "recorded_root": merkle_root,
        "count": base.ITEMS * K,
        "expected": base.ITEMS * K,
        "redacted": 0,
        "k": K,
        "model": base.MODELS[arm],
        "template_sha256": base.TEMPLATE,
        "grader_sha256": grader_sha256(),
        "seed": 5,
    }


if __name__ == "__main__":
    main()
