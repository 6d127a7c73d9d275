"""An honest dossier passes; every change to it is called by its name."""

import base64
import copy
import gzip
import json
import subprocess
import sys
import zipfile

import pytest
from honest_dossier import (
    AUTHOR,
    AUTHOR_ID,
    ITEMS,
    MODELS,
    STRANGER,
    SUITE,
    Maker,
    envelope,
    item_digests,
    make_samples,
    merkle_root,
    pack,
    seal,
    sealed_verdicts,
    write,
)

from pellucid.evidence.core.__main__ import render
from pellucid.evidence.core.canonical import JsonError, canonical_json, parse_json, sha256_bytes
from pellucid.evidence.core.samples import redact_sample, sample_line
from pellucid.evidence.core.schema import PREREG_PREDICATE
from pellucid.evidence.core.verify import verify
from pellucid.evidence.zipapp import build_verifier

AFTER = f"evals/{SUITE}/after"


def codes(verdict):
    return {f.code for f in verdict.findings if not f.kind.is_note}


def found(files, folder, **options):
    return codes(verify(write(files, folder), **options))


@pytest.fixture(scope="module")
def honest():
    return Maker().files()


def test_nothing_is_said_against_the_honest_dossier(honest, tmp_path):
    verdict = verify(write(honest, tmp_path), seed="7", trusted_key=AUTHOR_ID)
    assert codes(verdict) == set()
    assert verdict.exit_code == 0
    assert verdict.num_samples == verdict.num_regraded == 3 * ITEMS * 4
    row = verdict.table()["C1"]
    assert (row["integrity"], row["recomputed"], row["replayed"]) == ("ok", "ok", "not done")


def test_a_zip_below_one_folder_reads_as_the_folder_does(honest, tmp_path):
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in honest.items():
            archive.writestr(f"dossier/{name}", data)
    verdict = verify(path)
    assert codes(verdict) == set()
    assert verdict.num_samples == 3 * ITEMS * 4


def test_the_seed_chooses_what_is_replayed(honest, tmp_path):
    write(honest, tmp_path)
    first, again, other = (verify(tmp_path, seed=s).replay for s in ("1", "1", "2"))
    assert first == again != other
    assert len(first) == 59
    assert len({e["leaf"] for e in first}) == 59


# Changes after sealing


def test_a_changed_file_a_foreign_one_and_a_missing_one_are_named(honest, tmp_path):
    files = dict(honest)
    files["VERIFY.md"] = b"Trust me, all is"
    files["more.txt"] = b"more"
    del files[f"data/{SUITE}.json"]
    verdict = verify(write(files, tmp_path))
    assert {(f.code, f.where) for f in verdict.findings if not f.kind.is_note} >= {
        ("file-changed", "VERIFY.md"),
        ("file-unlisted", "more.txt"),
        ("file-missing", f"data/{SUITE}.json"),
    }


def test_a_new_manifest_does_not_fit_the_seal(honest, tmp_path):
    files = dict(honest)
    files["VERIFY.md"] = b"changed"
    again = seal(files)
    assert found({**again, "SEAL.dsse.json": honest["SEAL.dsse.json"]}, tmp_path) == {
        "seal-mismatch"
    }


def test_without_a_seal_or_with_a_strangers_it_does_not_hold(honest, tmp_path):
    bare = {p: d for p, d in honest.items() if p != "SEAL.dsse.json"}
    assert "seal-missing" in found(bare, tmp_path / "bare")
    resealed = seal(honest, secret=STRANGER)
    assert found(resealed, tmp_path / "a") == {"foreign-signature"}
    asked = found(resealed, tmp_path / "b", trusted_key=AUTHOR_ID)
    assert asked == {"foreign-signature"}


def test_an_unsigned_dossier_holds_unless_a_key_is_asked_for(tmp_path):
    maker = Maker()
    maker.secret = None
    files = maker.files()
    assert found(files, tmp_path) == set()
    assert verify(tmp_path).status("C1", "integrity") == "in part"
    assert found(files, tmp_path, trusted_key=AUTHOR_ID) == {"foreign-signature"}


def test_a_second_version_names_the_seal_of_the_first(honest, tmp_path):
    first = honest["SEAL.dsse.json"]
    files = {**honest, "seals/0001.dsse.json": first}
    second = seal(files, version=2, previous=sha256_bytes(first))
    assert found(second, tmp_path / "right") == set()
    wrong = seal(files, version=2, previous="0" * 64)
    assert found(wrong, tmp_path / "wrong") == {"seal-chain-broken"}
    lost = seal(honest, version=2, previous=sha256_bytes(first))
    assert found(lost, tmp_path / "lost") == {"seal-chain-broken"}


# Forgeries by one who can seal


def forge(change):
    maker = Maker()
    change(maker)
    return maker.files()


def edit_response(m):
    keep_recorded(m)
    sample = m.samples["after"][1]
    sample["response"] = "\\boxed{" + sample["gold"] + "}"
    sample["extracted"], sample["verdict"] = sample["gold"], "correct"


def edit_verdict(m):
    keep_recorded(m)
    wrong = next(s for s in m.samples["after"] if s["verdict"] == "wrong")
    wrong["verdict"] = "correct"


def keep_recorded(m):
    m.recorded = {a: merkle_root(map(sample_line, s)) for a, s in m.samples.items()}


def edit_verdict_and_root(m):
    wrong = next(s for s in m.samples["after"] if s["verdict"] == "wrong")
    wrong["verdict"] = "correct"
    m.events = None
    record_as_shipped(m)


def record_as_shipped(m):
    """The forger's ledger knows the forged samples."""
    keep = m.default_kinds
    roots = {a: merkle_root(map(sample_line, s)) for a, s in m.samples.items()}
    m.sealed = {arm: sealed_verdicts(samples) for arm, samples in m.samples.items()}

    def kinds():
        return [
            (k, {**p, "merkle_root": roots[p["arm"]], "samples": len(m.samples[p["arm"]])})
            if k == "evaluation_ended"
            else (k, p)
            for k, p in keep()
        ]

    m.default_kinds = kinds


def drop_sample(m):
    m.samples["after"].pop(3)
    record_as_shipped(m)


def drop_item(m):
    m.samples["after"] = [s for s in m.samples["after"] if s["item"] != f"{SUITE}/5"]
    record_as_shipped(m)


def repeat_sample(m):
    m.samples["after"][2] = dict(m.samples["after"][1])
    record_as_shipped(m)


def swap_weights(m):
    for sample in m.samples["after"]:
        sample["model"] = sha256_bytes(b"a larger model")
    m.roots["after"] = {"model": sha256_bytes(b"a larger model")}
    record_as_shipped(m)


def swap_baseline(m):
    weak = sha256_bytes(b"a weaker model")
    for sample in m.samples["before"]:
        sample["model"] = weak
    m.roots["before"] = {"model": weak}
    record_as_shipped(m)
    keep = m.default_kinds
    m.default_kinds = lambda: [
        (k, {**p, "weights": weak}) if p.get("arm") == "before" and "weights" in p else (k, p)
        for k, p in keep()
    ]


def change_prompt(m):
    for sample in m.samples["after"]:
        sample["template_sha256"] = "1" * 64
    m.roots["after"] = {"template_sha256": "1" * 64}
    record_as_shipped(m)


def change_grader(m):
    for sample in m.samples["after"]:
        sample["grader_sha256"] = "2" * 64
    m.roots["after"] = {"grader_sha256": "2" * 64}
    m.extra[f"graders/{'2' * 64}/vectors.json"] = b"[]"
    record_as_shipped(m)


def change_seed(m):
    for sample in m.samples["after"]:
        sample["seed"] = 6
    m.roots["after"] = {"seed": 6}
    record_as_shipped(m)


def change_temperature(m):
    for sample in m.samples["after"]:
        sample["sampler"] = {**sample["sampler"], "temperature": 0.2}
    record_as_shipped(m)


def hide_attempt(m):
    keep = m.default_kinds
    names = {"serial": 4, "arm": "after", "suite": SUITE}
    m.default_kinds = lambda: [
        *keep(),
        ("evaluation_started", names),
        ("evaluation_ended", names),
    ]


def cut_ledger(m):
    keep = m.default_kinds
    m.default_kinds = lambda: [e for e in keep() if e[1].get("serial") != 3]


def choose_best_of_many(m):
    m.checkpoints["rule"] = {"metric": "test", "pick": "max", "tie": "first"}
    m.checkpoints["checkpoints"][1]["scores"]["test"] = 0.9


def choose_another(m):
    m.checkpoints["checkpoints"][0]["scores"]["dev"] = 0.7


def forget_checkpoint(m):
    m.checkpoints["checkpoints"].pop(0)


def widen_test_set(m):
    plan = m.default_plan()
    del plan["suites"][SUITE]["items"][f"{SUITE}/7"]
    m.plan = plan


def change_item(m):
    for sample in m.samples["after"]:
        if sample["item"] == f"{SUITE}/2":
            sample["question"] = "What is 1 plus 1?"
    record_as_shipped(m)


def reorder_verdicts(m):
    verdicts = [s["verdict"] for s in m.samples["after"]]
    for sample, verdict in zip(m.samples["after"], [verdicts[-1], *verdicts], strict=False):
        sample["verdict"] = verdict
    record_as_shipped(m)


def reorder_rewards(m):
    for rollout in m.rollouts["rollouts"]:
        rollout["verdict"] = "wrong" if rollout["verdict"] == "correct" else "correct"


def inflate_reward(m):
    m.rollouts["rollouts"][0]["reward"] = 1.1


def file_plan_late(m):
    keep = m.default_kinds
    m.default_kinds = lambda: (
        [e for e in keep() if e[0] != "preregistered"]
        + [e for e in keep() if e[0] == "preregistered"]
    )


def back_date_plan(m):
    m.plan = {**m.default_plan(), "time": "2025-01-01T00:00:00Z"}


def change_rule(m):
    m.claims[1]["rule"] = "value > 0.3"
    m.plan = m.default_plan()
    m.claims = copy.deepcopy(m.claims)
    m.plan["claims"][1]["rule"] = "value > 0.5"


def drop_claim(m):
    m.claims = m.claims[:1] + m.claims[2:]


def drop_control(m):
    m.attempts = m.attempts[:2]
    del m.samples["random-reward"]


def strong_control(m):
    m.samples["random-reward"] = [
        {**s, "arm": "random-reward", "eval_serial": 3, "model": MODELS["random-reward"]}
        for s in make_samples("after", 3)
    ]
    record_as_shipped(m)


def score_failures(m):
    for sample in m.samples["before"][:5]:
        sample["finish"], sample["error"] = "error", "the endpoint was away"
    record_as_shipped(m)


def unsound_grader(m):
    m.vectors.append(
        {"grader": "integer", "gold": "5", "response": "\\boxed{6}", "verdict": "correct"}
    )


def no_scan(m):
    m.extra["contamination/scan.json"] = canonical_json({**m.scan, "suites": {}})


def weak_scan(m):
    m.scan["self_test"]["recall"]["half copy"] = 0.4


def scan_that_misses_plain_copies(m):
    m.scan["self_test"]["recall"]["verbatim"] = 0.94


FORGERIES = [
    (edit_response, "sample-edited"),
    (edit_verdict, "sample-edited"),
    (edit_verdict, "grade-mismatch"),
    (edit_verdict_and_root, "grade-mismatch"),
    (drop_sample, "sample-missing"),
    (drop_item, "sample-missing"),
    (repeat_sample, "sample-surplus"),
    (swap_weights, "weights-swapped"),
    (swap_baseline, "baseline-wrong"),
    (change_prompt, "prompt-changed"),
    (change_grader, "grader-changed"),
    (change_seed, "seed-changed"),
    (change_temperature, "seed-changed"),
    (hide_attempt, "unreported-attempt"),
    (hide_attempt, "attempts-exceeded"),
    (cut_ledger, "ledger-truncated"),
    (choose_best_of_many, "checkpoint-selection"),
    (choose_another, "checkpoint-selection"),
    (forget_checkpoint, "checkpoint-missing"),
    (widen_test_set, "items-changed"),
    (change_item, "items-changed"),
    (reorder_verdicts, "grades-reordered"),
    (reorder_rewards, "grades-reordered"),
    (inflate_reward, "reward-mismatch"),
    (file_plan_late, "prereg-late"),
    (back_date_plan, "prereg-late"),
    (change_rule, "claim-changed"),
    (drop_claim, "claim-changed"),
    (drop_control, "control-missing"),
    (strong_control, "control-gains"),
    (score_failures, "error-scored"),
    (unsound_grader, "grader-unsound"),
    (no_scan, "scan-missing"),
    (weak_scan, "scan-weak"),
    (scan_that_misses_plain_copies, "scan-weak"),
]


def test_a_coarse_scan_leaves_cleanliness_open_and_fails_nothing(tmp_path):
    def coarse(m):
        m.scan["self_test"]["recall"]["half copy"] = 0.8
        m.scan["self_test"]["false_positives"] = 7

    verdict = verify(write(forge(coarse), tmp_path))
    assert verdict.is_ok
    assert [f.code for f in verdict.findings if f.code.startswith("scan")] == ["scan-coarse"] * 2
    assert "in part" in {row["clean"] for row in verdict.table().values()}


@pytest.mark.parametrize(("change", "code"), FORGERIES, ids=lambda v: getattr(v, "__name__", v))
def test_a_forgery_is_called_by_its_name(change, code, tmp_path):
    verdict = verify(write(forge(change), tmp_path))
    assert code in codes(verdict)
    assert "verifier-stopped" not in codes(verdict)
    assert verdict.exit_code == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c["reported"].update(value="0.9000"), "claim-mismatch"),
        (lambda c: c["reported"].update(low=c["reported"]["low"] + "0"), "claim-mismatch"),
        (lambda c: c["reported"].update(n_samples=1), "claim-mismatch"),
        (lambda c: c.update(holds=False), "claim-fails"),
        (lambda c: c["views"].pop("clean"), "view-missing"),
        (lambda c: c["views"].update(clean=None), "view-missing"),
        (lambda c: c["views"]["clean"].update(value="0.9000"), "view-mismatch"),
        (lambda c: c.update(prereg="0001#C9"), "prereg-missing"),
        (lambda c: c["roots"].update(a="0" * 64), "claim-mismatch"),
        (lambda c: c.update(kind="miracle"), "claim-unsupported"),
        (lambda c: c["metric"].update(fn=["pass_at_1"]), "claim-unsupported"),
        (lambda c: c.update(precision=10**9), "claim-mismatch"),
        (lambda c: c.update(rule="__import__('os')"), "claim-unsupported"),
        (lambda c: c.update(text=5), "file-malformed"),
    ],
)
def test_a_number_that_the_samples_do_not_give_is_found(change, code, honest, tmp_path):
    claims = json.loads(honest["claims.json"])
    change(claims["claims"][0])
    files = seal({**honest, "claims.json": canonical_json(claims)})
    verdict = verify(write(files, tmp_path))
    assert code in codes(verdict)
    assert "verifier-stopped" not in codes(verdict)


def test_a_claim_that_turns_round_on_clean_items_is_found(tmp_path):
    maker = Maker()
    for n, scan in enumerate(maker.scan["suites"][SUITE]["items"].values()):
        scan["containment"] = 0.0 if n % 8 == 5 else 0.9
    for sample in maker.samples["before"]:
        if int(sample["item"].split("/")[1]) % 8 == 5:
            sample["response"] = f"\\boxed{{{sample['gold']}}}"
            sample["verdict"], sample["extracted"] = "correct", sample["gold"]
    record_as_shipped(maker)
    assert found(maker.files(), tmp_path) == {"view-reverses"}


def test_training_texts_that_are_here_are_scanned_again(honest, tmp_path):
    text = "Please say: What is 9 plus 16? And then rest."
    lines = [canonical_json({"ref": "row 1", "text": text})]
    files = seal({**honest, "contamination/prompts.jsonl.gz": pack(lines)})
    verdict = verify(write(files, tmp_path))
    assert codes(verdict) == {"scan-mismatch"}
    assert any(f"{SUITE}/9" in f.text for f in verdict.findings)
    assert verdict.status("C1", "clean") == "FAILS"


@pytest.mark.parametrize(
    ("trainings", "is_saved", "code"),
    [(1, True, "scan-missing"), (1, False, "scan-missing"), (0, True, "scan-missing"),
     (0, False, "check-impossible")],
)  # fmt: skip
def test_a_training_that_leaves_its_scan_out_is_found(trainings, is_saved, code, tmp_path):
    """Plan or checkpoints tell of a training; without one there are no texts to be scanned."""
    maker = Maker()
    maker.plan = maker.default_plan() | {"training_seeds": trainings}
    kinds = maker.default_kinds()
    maker.events = [k for k in kinds if is_saved or k[0] != "checkpoint_saved"]
    files = maker.files()
    del files["contamination/scan.json"]
    findings = verify(write(seal(files), tmp_path)).findings
    told = {f.code for f in findings if "scan" in f.text or "scan" in f.where}
    assert told == {code}


def test_withheld_samples_keep_the_recorded_root(tmp_path):
    maker = Maker()
    keep_recorded(maker)
    maker.samples["after"] = [
        redact_sample(s) if n % 5 == 0 else s for n, s in enumerate(maker.samples["after"])
    ]
    verdict = verify(write(maker.files(), tmp_path))
    assert codes(verdict) == set()
    assert verdict.status("C2", "recomputed") == "in part"
    maker.samples["after"][0]["redacted"]["leaf"] = "3" * 64
    assert found(maker.files(), tmp_path) == {"redaction-broken"}


def test_the_weaker_prompt_of_the_baseline_is_found(tmp_path):
    maker = Maker()
    plan = maker.default_plan()
    plan["arms"]["before"]["prompt_candidates"] = [AFTER, f"evals/{SUITE}/before"]
    maker.plan = plan
    assert found(maker.files(), tmp_path / "same") == set()  # one template: no better one
    plan["arms"]["before"]["prompt_candidates"] = ["evals/dev/before"]
    assert found(maker.files(), tmp_path / "other") == {"baseline-weak"}


def test_a_plan_signed_by_another_is_found(honest, tmp_path):
    data = honest["prereg/0001.json"]
    predicate = {"v": 1, "time": "2026-01-01T00:00:05Z"}
    other = envelope(STRANGER, "prereg/0001.json", data, PREREG_PREDICATE, predicate)
    files = seal({**honest, "prereg/0001.dsse.json": other}, secret=AUTHOR)
    assert found(files, tmp_path) == {"foreign-signature"}


# Hostile input


def test_names_that_leave_the_folder_are_refused(honest, tmp_path):
    for bad in (
        "../x",
        "/etc/passwd",
        "a/../../x",
        "C:\\x",
        "a//b",
        "evals/..",
        "x\x00",
        "e\u0301",
    ):
        manifest = honest["MANIFEST.jsonl"].splitlines()
        line = {**json.loads(manifest[0]), "path": bad}
        files = {**honest, "MANIFEST.jsonl": b"\n".join([canonical_json(line), *manifest]) + b"\n"}
        assert "path-unsafe" in found(files, tmp_path), bad


def test_links_are_not_followed(honest, tmp_path):
    folder = write(honest, tmp_path / "d")
    secret = tmp_path / "secret"
    secret.write_text("x")
    (folder / "VERIFY.md").unlink()
    (folder / "VERIFY.md").symlink_to(secret)
    (folder / "out").symlink_to(tmp_path)
    found_codes = codes(verify(folder))
    assert {"path-unsafe", "file-missing"} <= found_codes


def test_zip_tricks_are_refused(honest, tmp_path):
    path = tmp_path / "d.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in honest.items():
            archive.writestr(name, data)
        archive.writestr("../evil", "x")
        archive.writestr("verify.MD", "x")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bomb", b"\0" * (100 << 20))
    refused = {f.where for f in verify(path).findings if f.code == "path-unsafe"}
    assert refused == {"../evil", "verify.MD", "link", "bomb"}


def test_a_gzip_bomb_is_refused(honest, tmp_path):
    bomb = gzip.compress(b"\0" * (80 << 20), compresslevel=9)
    files = seal({**honest, f"{AFTER}/samples.jsonl.gz": bomb})
    assert "sample-malformed" in found(files, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"a":' * 70 + b"1" + b"}" * 70,
        b'{"v":' + b"9" * 5_000 + b"}",
        b'{"v":1e999}',
        b'{"v":NaN}',
        b'{"v":1,"v":1}',
        b"\xff\xfe{}",
        b"",
        b"[" + b"0," * 5_000_000 + b"0]",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_hostile_json_is_refused_in_one_line(data):
    with pytest.raises(JsonError) as refused:
        parse_json(data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"v":-1e999}', b'"\\ud800"', b"null"])
def test_a_damaged_file_is_a_finding_in_every_place(data, honest, tmp_path):
    write(honest, tmp_path)
    places = [p for p in honest if p.endswith((".json", ".jsonl"))]
    for path in places:
        (tmp_path / path).write_bytes(data)
        verdict = verify(tmp_path)
        (tmp_path / path).write_bytes(honest[path])
        named = {f.code for f in verdict.findings if f.where.split()[0] == path}
        assert named & {"file-malformed", "ledger-broken"}, path
        assert "verifier-stopped" not in codes(verdict), (path, verdict.findings)


@pytest.mark.parametrize("k", [0, -1, 1 << 17, 10**30])
def test_an_evaluation_of_absurd_size_is_refused(k, honest, tmp_path):
    path = f"{AFTER}/root.json"
    root = {**json.loads(honest[path]), "k": k}
    verdict = verify(write(seal({**honest, path: canonical_json(root)}), tmp_path))
    assert ("file-malformed", path) in {(f.code, f.where) for f in verdict.findings}
    assert "verifier-stopped" not in codes(verdict)


@pytest.mark.parametrize("gone", ["_type", "predicateType", "subject", "predicate"])
def test_a_statement_without_its_parts_is_refused(gone, honest, tmp_path):
    sealed = json.loads(honest["SEAL.dsse.json"])
    statement = json.loads(base64.b64decode(sealed["payload"]))
    del statement[gone]
    sealed["payload"] = base64.b64encode(canonical_json(statement)).decode()
    files = {**honest, "SEAL.dsse.json": canonical_json(sealed) + b"\n"}
    assert found(files, tmp_path) == {"file-malformed"}


def test_the_table_shows_the_number_that_each_claim_reports(honest, tmp_path):
    shown = render(verify(write(honest, tmp_path)))
    for claim in json.loads(honest["claims.json"])["claims"]:
        number = claim["reported"]
        (line,) = [x for x in shown.splitlines() if x.split()[0:1] == [claim["id"]]]
        assert f"{number['value']} [{number['low']}, {number['high']}]" in line


def test_a_terminal_is_not_commanded(honest, tmp_path):
    claims = json.loads(honest["claims.json"])
    claims["claims"][0]["text"] = "\x1b[2J\u202eevil"
    claims["claims"][0]["id"] = "\x1b]0;x\x07"
    files = seal({**honest, "claims.json": canonical_json(claims)})
    shown = render(verify(write(files, tmp_path)))
    assert all(c.isprintable() or c == "\n" for c in shown)


# The file for referees


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    path = tmp_path_factory.mktemp("pyz") / "verify.pyz"
    build_verifier(path)
    return path


def run(verifier, *arguments):
    command = [sys.executable, "-I", "-S", str(verifier), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_verifier_needs_no_package(verifier, honest, tmp_path):
    done = run(verifier, write(honest, tmp_path), "--seed", "1234")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all that can be checked holds" in done.stdout
    (tmp_path / "VERIFY.md").write_text("changed")
    done = run(verifier, tmp_path, "--seed", "1234", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    verdict = json.loads(done.stdout)
    assert [f["code"] for f in verdict["findings"] if not f["is_note"]] == ["file-changed"]
    assert len(verdict["replay"]) == 59


def test_the_verifier_is_built_alike_and_refuses_wrong_use(verifier, tmp_path):
    again = tmp_path / "again.pyz"
    assert build_verifier(again) == sha256_bytes(verifier.read_bytes())
    for arguments in ((), (tmp_path / "none",), (tmp_path, "--key", "x")):
        done = run(verifier, *arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_no_code_of_the_dossier_runs(verifier, honest, tmp_path):
    names = ("json.py", "sitecustomize.py", "pellucid.py")
    files = write(seal({**honest, **dict.fromkeys(names, b"open('ran', 'w')")}), tmp_path)
    command = [sys.executable, "-I", str(verifier), str(files)]
    subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_all_items_of_the_plan_are_told_apart_by_their_digest():
    assert len(set(item_digests().values())) == ITEMS
