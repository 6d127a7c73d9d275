"""Canonical JSON, Merkle trees, sample records, rules, signatures, claims: the verifier's parts."""

import hashlib
import io
import itertools
import random

import pytest
from honest_dossier import AUTHOR, make_samples, pack, public_key, signer

from pellucid import artifacts
from pellucid.evidence.core.canonical import JsonError, canonical_json, leaf_hash, parse_canonical
from pellucid.evidence.core.check_training import choose_checkpoint
from pellucid.evidence.core.claims import (
    ClaimError,
    compute_claim,
    fixed,
    is_printed_as,
)
from pellucid.evidence.core.ed25519 import ORDER, is_signed_by
from pellucid.evidence.core.findings import CODES, COLUMNS
from pellucid.evidence.core.grade import BY_ANSWER, BY_RESPONSE, GRADER_SOURCES, Regrader
from pellucid.evidence.core.lean import lean_samples
from pellucid.evidence.core.merkle import MerkleTree, check_inclusion, inclusion_proof
from pellucid.evidence.core.rules import RuleError, evaluate_rule, rule_names
from pellucid.evidence.core.samples import (
    SampleError,
    redact_sample,
    sample_line,
    sample_problem,
    samples_of,
)
from pellucid.evidence.core.tally import tally_samples
from pellucid.evidence.zipapp import START, packed_modules
from pellucid.records import Problem
from pellucid.rewards.table import GRADERS

# Canonical JSON and Merkle trees


def test_canonical_json_is_that_of_the_run_folder():
    value = {"b": [1, 2.5, None, True], "a": "é\u2028\n", "": {}}
    assert canonical_json(value) == artifacts.canonical_json(value)
    assert parse_canonical(canonical_json(value)) == value


@pytest.mark.parametrize("data", [b'{"b":1,"a":2}', b'{"a": 1}', b'"\\u0041"', b"1.0e0", b" 1"])
def test_what_has_another_form_is_not_canonical(data):
    with pytest.raises(JsonError):
        parse_canonical(data)


def slow_root(leaves):
    """RFC 6962, section 2.1, as it is written."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + slow_root(leaves[:k]) + slow_root(leaves[k:])).digest()


def test_the_streaming_root_is_that_of_rfc_6962():
    for count in range(40):
        leaves = [leaf_hash(b"%d" % n) for n in range(count)]
        tree = MerkleTree()
        for leaf in leaves:
            tree.add(leaf)
        assert (tree.root(), tree.count) == (slow_root(leaves).hex(), count)


def test_known_roots_of_certificate_transparency():
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
              "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
    tree = MerkleTree()
    for text in inputs:
        tree.add(leaf_hash(bytes.fromhex(text)))
    assert tree.root() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_proof_holds_for_its_leaf_alone():
    for count in (1, 2, 5, 8, 13):
        leaves = [leaf_hash(b"%d" % n) for n in range(count)]
        root = slow_root(leaves).hex()
        for index in range(count):
            proof = inclusion_proof(leaves, index)
            assert check_inclusion(leaves[index], proof, root)
            assert not check_inclusion(leaf_hash(b"other"), proof, root)


# Samples


def test_every_field_of_a_sample_is_checked():
    sample = make_samples("after", 2)[0]
    assert sample_problem(sample) is None
    for name, value in itertools.product(sample, ({}, -1, float("nan"), [1.5], "\ud800" * 2, True)):
        changed = {**sample, name: value}
        if value is True and name == "retried":
            continue
        allowed = name in ("response", "extracted", "question", "gold", "method", "detail",
                           "energy_window", "error", "grader", "suite", "arm", "item",
                           "cluster")  # fmt: skip
        if isinstance(value, str) and allowed:
            continue  # lone surrogates have no bytes: `canonical_json` refuses them
        if value == -1 and name in ("logprob_sum", "wall_ms"):
            continue
        assert sample_problem(changed) is not None, (name, value)
    for name in sample:
        assert sample_problem({k: v for k, v in sample.items() if k != name}) is not None
    assert "foreign" in sample_problem({**sample, "more": 1})


def test_a_checked_neighbour_hides_nothing():
    from pellucid.evidence.core.samples import SampleChecker

    check, samples = SampleChecker(), make_samples("after", 2)
    assert check(samples[0]) is None
    assert check({**samples[1], "v": True}) is not None
    assert check({**samples[1], "sampler": {**samples[1]["sampler"], "top_p": "1"}}) is not None
    assert check({**samples[1], "k": -1}) is not None
    assert check({**samples[1], "token_ids": [1, 2, True]}) is not None


def test_a_withheld_text_leaves_its_digest_and_the_whole_leaf():
    sample = make_samples("after", 2)[0]
    kept = redact_sample(sample)
    assert sample_problem(kept) is None
    assert kept["response"] is kept["gold"] is kept["token_ids"] is None
    assert kept["redacted"]["leaf"] == leaf_hash(sample_line(sample)).hex()
    text = canonical_json(sample["response"])
    assert kept["redacted"]["fields"]["response"] == hashlib.sha256(text).hexdigest()
    assert sample_problem({**kept, "redacted": None}) is not None
    assert redact_sample(kept) is kept


def test_damaged_packs_are_refused_in_words():
    lines = [sample_line(s) for s in make_samples("after", 2)]
    data = pack(lines)
    assert [line for line, _ in samples_of(io.BytesIO(data), len(data))] == lines
    for bad in (data[:-9], b"x" + data, pack([b"{}"]), pack([lines[0] + b" x"]), pack([b"\xff"])):
        with pytest.raises(SampleError):
            list(samples_of(io.BytesIO(bad), len(bad)))


# Rules


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("low > 0 and p_adj < 0.05", True),
        ("low > 0 and p_adj < 0.01", False),
        ("value >= 1 or (low > -1 and not high < 0)", True),
        ("not value == 0.3 or low != .1", False),
        ("low<high", True),
        ("C1.views.clean.low > 1e-1", True),
    ],
)
def test_rules_are_read_as_written(rule, holds):
    values = {"value": 0.3, "low": 0.1, "high": 0.5, "p_adj": 0.02, "C1.views.clean.low": 0.2}
    assert evaluate_rule(rule, values) is holds


@pytest.mark.parametrize(
    "rule",
    ["", "low", "low >", "low > 0 and", "(low > 0", "low > 0)", "low = 0", "__import__('os')",
     "low > p", "low > missing", "0 < low < 1", "low > 0; x", "low > 0x10", "not", "and", "()",
     "low > 0 " * 200, "(" * 499],
)  # fmt: skip
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(RuleError):
        evaluate_rule(rule, {"low": 0.1, "p": None})


def test_the_names_of_a_rule():
    assert rule_names("low > 0 and not C1.p < 2") == {"low", "C1.p"}


# Signatures


def test_the_vectors_of_rfc_8032():
    key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert is_signed_by(key, b"\x72", signature)
    assert not is_signed_by(key, b"\x73", signature)
    for byte in (0, 31, 32, 63):
        changed = bytearray(signature)
        changed[byte] ^= 1
        assert not is_signed_by(key, b"\x72", bytes(changed))
    larger = int.from_bytes(signature[32:], "little") + ORDER
    assert not is_signed_by(key, b"\x72", signature[:32] + larger.to_bytes(32, "little"))
    assert not is_signed_by(b"\xff" * 32, b"\x72", signature)
    assert not is_signed_by(key[:-1], b"\x72", signature)


def test_signatures_are_checked_as_cryptography_does():
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    draw = random.Random(8)
    for _ in range(8):
        secret, message = draw.randbytes(32), draw.randbytes(draw.randrange(200))
        private = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
        public = private.public_key().public_bytes_raw()
        assert is_signed_by(public, message, private.sign(message))
        assert not is_signed_by(public, message + b"x", private.sign(message))
    private = ed25519.Ed25519PrivateKey.from_private_bytes(AUTHOR)
    assert private.public_key().public_bytes_raw() == public_key(AUTHOR)
    assert private.sign(b"text") == signer(AUTHOR)(b"text")


# Claims


def evaluation(rows, arm):
    """From {item: (cluster, verdicts)}."""
    template = make_samples("after", 2)[0]
    samples = [
        {**template, "item": i, "cluster": c, "k": k, "verdict": v, "extracted": f"{i}{v}"}
        for i, (c, verdicts) in rows.items()
        for k, v in enumerate(verdicts)
    ]
    return tally_samples(samples, suite="s", arm=arm, merkle_root="")


C, W, E, U = "correct", "wrong", "error", "unparsable"
ARMS = {
    "evals/s/a": evaluation(
        {"1": ("x", [C, C]), "2": ("x", [C, W]), "3": ("y", [E, C]), "4": ("z", [U, W])}, "a"
    ),
    "evals/s/b": evaluation(
        {"1": ("x", [W, C]), "2": ("x", [W, W]), "3": ("y", [W, W]), "4": ("z", [W, W])}, "b"
    ),
}


def claim(kind, metric, *, arms="a", unit="problem", test=None):
    return {
        "kind": kind,
        "metric": metric,
        "arms": {name: f"evals/s/{name}" for name in arms},
        "unit": unit,
        "cluster": "family",
        "test": test,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (claim("pass_at_1", {"fn": "pass_at_1"}), (1 + 0.5 + 1 + 0) / 4),
        (claim("pass_at_1", {"fn": "pass_at_1"}, unit="sample"), 4 / 7),
        (claim("pass_at_k", {"fn": "pass_at_k", "k": 2}), (1 + 1 + 0) / 3),
        (claim("cons_at_k", {"fn": "cons_at_k", "k": 2}), (1 + 0.5 + 1 + 0) / 4),
        (claim("rate", {"fn": "rate", "of": "errors", "among": "samples"}, unit="sample"), 1 / 8),
        (claim("ratio", {"fn": "ratio", "of": "tokens", "among": "correct"}, unit="sample"), 6.0),
        (claim("ratio", {"fn": "pass_at_1"}, arms="ab"), 2.5 / 0.5),
        (claim("paired_difference", {"fn": "pass_at_1"}, arms="ab"), (0.5 + 0.5 + 1 + 0) / 4),
    ],
    ids=lambda made: made["kind"] if isinstance(made, dict) else "",
)
def test_claims_are_computed_by_hand_and_here(made, value):
    if made["kind"] == "ratio":
        made["cluster"] = "problem"
        if len(made["arms"]) == 2:
            with pytest.raises(ClaimError, match="denominator"):
                compute_claim(made, ARMS)  # one problem alone makes the denominator
            return
    result = compute_claim(made, ARMS)
    assert result.value == pytest.approx(value)
    assert result.low <= result.value <= result.high


def test_a_subset_of_items_is_a_view():
    made = claim("pass_at_1", {"fn": "pass_at_1"})
    assert compute_claim(made, ARMS, keep={"1", "4"}).value == 0.5
    with pytest.raises(ClaimError, match="no item"):
        compute_claim(made, ARMS, keep={"9"})


@pytest.mark.parametrize(
    "made",
    [
        claim("pass_at_1", {"fn": "pass_at_k", "k": 2}),
        claim("pass_at_1", {"fn": "pass_at_1"}, arms="ab"),
        claim("paired_difference", {"fn": "pass_at_1"}),
        claim("pass_at_k", {"fn": "pass_at_k"}),
        claim("pass_at_k", {"fn": "pass_at_k", "k": 0}),
        claim("pass_at_k", {"fn": "pass_at_k", "k": True}),
        claim("rate", {"fn": "rate", "of": "samples", "among": "correct"}),
        claim("ratio", {"fn": "ratio", "of": "__class__", "among": "samples"}, unit="sample"),
        claim("non_inferiority", {"fn": "pass_at_1"}, arms="ab"),
        claim("non_inferiority", {"fn": "pass_at_1", "margin": 10**399}, arms="ab"),
        claim("pass_at_1", {"fn": "pass_at_1"}, test="sign_flip"),
        claim("miracle", {}),
        claim("pass_at_1", {"fn": {}}),
    ],
)
def test_claims_outside_their_form_are_refused(made):
    with pytest.raises(ClaimError):
        compute_claim(made, ARMS)


def test_numbers_are_printed_in_one_way():
    assert fixed(-0.00001, 3) == "0.000"
    assert is_printed_as(0.08449, "0.084", 3)
    assert is_printed_as(0.0845, "0.084", 3)
    assert is_printed_as(0.0845, "0.085", 3)
    for text in ("0.0840", ".084", "0.085", "8.4e-2", "nan", " 0.084", None, 0.084, "0" * 50):
        assert not is_printed_as(0.08449, text, 3)


# Checkpoints, graders, findings


@pytest.mark.parametrize(
    ("pick", "tie", "step"), [("max", "first", 2), ("max", "last", 3), ("min", "first", 1),
                              ("last", "first", 4)]
)  # fmt: skip
def test_the_rule_chooses_one_checkpoint(pick, tie, step):
    scores = {3: 0.9, 1: 0.1, 2: 0.9}
    checkpoints = [{"step": s, "scores": {"dev": v}} for s, v in scores.items()]
    checkpoints.append({"step": 4, "scores": {}})
    rule = {"metric": "dev", "pick": pick, "tie": tie}
    assert choose_checkpoint(checkpoints, rule)["step"] == step
    assert choose_checkpoint([], rule) is None


@pytest.mark.parametrize("grader", [*BY_ANSWER, *BY_RESPONSE])
def test_grading_again_is_grading(grader):
    golds = {
        "countdown": '{"numbers":[2,3],"target":5}',
        "choice": "B",
        "constraints": '[{"id":"punctuation:no_comma","kwargs":{}}]',
    }
    gold = golds.get(grader, "5")
    regrader = Regrader()
    for response in ("\\boxed{5}", "\\boxed{2+3}", "(B)", "\\boxed{B}", "<think>5", "", "a, b",
                     "\\boxed{\\frac{10}{2}}", "\\boxed{5", "\\boxed{4}</think>\\boxed{5}",
                     "\\boxed{5}</think>\\boxed{4}", "4</think><think>\\boxed{5}",
                     "</think>" + " " * 400 + "\\boxed{5}", "x</think>\\boxed{5}"):  # fmt: skip
        for _ in range(2):
            score = GRADERS[grader](Problem(id="", question="", gold=gold, grader=grader), response)
            again = regrader.outcome(grader, gold, response)
            assert again == (score.verdict.value, score.extracted)


def test_the_packed_graders_are_the_sources_that_the_digest_covers():
    modules = packed_modules()
    paths = {m.removeprefix("pellucid.").replace(".", "/") + ".py" for m in modules}
    graders = {p for p in paths if p.startswith("rewards/")} | {"records.py"}
    assert graders == set(GRADER_SOURCES)
    assert START in modules


def test_every_code_has_a_column_and_a_line():
    for name, code in CODES.items():
        assert code.column in COLUMNS
        assert name == name.lower()
        assert 0 < len(code.text) < 80


def test_token_ids_that_are_left_out_are_checked_all_the_same():
    lines = [sample_line(s) for s in make_samples("after", 2)]
    data = pack(lines)
    lean = list(lean_samples(io.BytesIO(data), len(data)))
    whole = list(samples_of(io.BytesIO(data), len(data)))
    assert [line for line, _ in lean] == lines
    assert [s for _, s in lean] == [{**s, "token_ids": []} for _, s in whole]
    good = b'"token_ids":[0,0,1]'
    assert good in lines[0]
    for bad in (b"[0,0]", b"[0,,1]", b"[0,0,01]", b"[0,0,-1]", b"[0,0,1.0]", b"[0,0,true]", b"[]",
                b"[0,0,1,]", b"null", b"[[0,0,1]]", b"[00,0,1]", b"[,0,0,1]"):  # fmt: skip
        changed = pack([lines[0].replace(good, b'"token_ids":' + bad)])
        for read in (lean_samples, samples_of):
            with pytest.raises(SampleError):
                list(read(io.BytesIO(changed), len(changed)))
