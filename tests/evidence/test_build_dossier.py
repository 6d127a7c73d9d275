"""A run writes its own dossier: planned before it is measured, checked when all is done."""

import gzip
import json
import shutil
import tomllib

import pytest
from finished_run import finish_run, write_recipe

from pellucid.artifacts import RunFolder
from pellucid.cli import run_command
from pellucid.errors import DataError, RunError
from pellucid.evidence.core.canonical import canonical_json, sha256_json
from pellucid.evidence.core.schema import OldPlannedSuite, OldPreregistration
from pellucid.evidence.core.verify import verify
from pellucid.evidence.fresh_items.make import generator_digest
from pellucid.evidence.plan import check_same_plan
from pellucid.evidence.redact import redact
from pellucid.evidence.referee import Request, examine
from pellucid.evidence.review.rounds import start_round
from pellucid.evidence.seal import make_key, read_key
from pellucid.jsonl import ZstdJsonlWriter, read_jsonl, read_zstd_jsonl
from pellucid.pipeline.dossier import build_dossier, seal
from pellucid.runlog import Progress

SILENT = Progress(is_silent=True)
EVALUATIONS = {
    "evals/chain/before",
    "evals/chain-plain/before-plain",
    "evals/chain/after",
    "evals/chain/random-reward",
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    make_key(folder / "key")
    return finish_run(folder, folder / "key")


@pytest.fixture
def own(finished, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


def key_of(run):
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    return read_key(type(run)(recipe["evidence"]["key"]))


def faults(dossier):
    return sorted({f.code for f in verify(dossier).findings if not f.kind.is_note})


def test_the_dossier_of_a_run_holds_and_is_signed(finished):
    verdict = verify(finished / "dossier", seed="7", trusted_key=key_of(finished).id)
    assert [f for f in verdict.findings if not f.kind.is_note] == []
    assert verdict.num_samples == 4 * 6 * 2
    roots = (finished / "dossier").glob("evals/*/*/root.json")
    assert {p.parent.relative_to(finished / "dossier").as_posix() for p in roots} == EVALUATIONS


def test_the_plan_is_filed_before_anything_is_measured(finished):
    kinds = [event["kind"] for event in read_jsonl(finished / "ledger.jsonl")]
    assert kinds.index("preregistered") < kinds.index("evaluation_started")
    plan = json.loads((finished / "prereg/0001.json").read_text())
    assert plan["arms"]["before"]["role"] == "baseline"
    assert plan["arms"]["after"]["model"] is None
    assert plan["v"] == 2
    assert (plan["cutoff"], plan["clean_below"], plan["last_step"]) == ("2024-09-19", 1.0, 1)
    claims = json.loads((finished / "dossier/claims.json").read_text())
    assert claims["cutoff"] == plan["cutoff"]
    gains = [c for c in plan["claims"] if c["test"] == "sign_flip"]
    assert [list(c["arms"].values()) for c in gains] == [
        ["evals/chain/after", "evals/chain/before"],
        ["evals/chain/after", "evals/chain-plain/before-plain"],
    ]
    assert all(c["requires"] == ["random-reward"] for c in gains)
    assert "80 % power" in plan["mde"][gains[0]["id"]]


def test_a_plan_that_an_older_version_filed_is_held_to_what_it_says(finished):
    plan = json.loads((finished / "prereg/0001.json").read_text())
    suites = {
        key: {name: suite[name] for name in OldPlannedSuite.__annotations__}
        for key, suite in plan["suites"].items()
    }
    old = {name: plan[name] for name in OldPreregistration.__annotations__}
    old |= {"v": 1, "suites": suites, "claims": plan["claims"][:2]}
    check_same_plan(old, plan)
    with pytest.raises(RunError, match="other grader sha256 than this recipe"):
        check_same_plan(old, plan | {"grader_sha256": "0" * 64})
    with pytest.raises(RunError, match="other cutoff than this recipe"):
        check_same_plan(plan, plan | {"cutoff": None})


def test_samples_name_the_weights_that_answered(finished):
    def model(arm):
        return json.loads((finished / f"dossier/evals/chain/{arm}/root.json").read_text())["model"]

    weights = json.loads((finished / "dossier/weights/manifest.json").read_text())
    assert model("before") == weights["parent"]
    assert model("after") == weights["root"]
    assert model("random-reward") not in (weights["root"], weights["parent"])
    assert set(weights["files"]) >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert all(len(t["sha256"]) == 64 for t in weights["tensors"].values())


def test_the_claims_say_what_was_not_done(finished):
    claims = json.loads((finished / "dossier/claims.json").read_text())["claims"]
    gain = claims[0]
    assert gain["text"] == "single run: pass@1 of after on chain is above that of before"
    assert "The control format-only was not run" in gain["limits"]
    assert "One training run" in gain["limits"]
    assert gain["views"].keys() == {"clean", "post_cutoff", "fresh"}
    assert gain["views"]["fresh"] is None
    text = (finished / "dossier/VERIFY.md").read_text()
    assert "## What is not here" in text
    assert "- C1: single run: pass@1 of after on chain is above" in text


def test_checkpoints_of_controls_are_no_candidates(finished):
    index = json.loads((finished / "dossier/train/checkpoints.json").read_text())
    saved = [e for e in read_jsonl(finished / "ledger.jsonl") if e["kind"] == "checkpoint_saved"]
    assert [e["payload"]["stage"] for e in saved] == ["zero", "random-reward"]
    assert [(c["step"], index["chosen"]) for c in index["checkpoints"]] == [(1, 1)]


def test_a_control_of_fewer_steps_stands_in_the_limits_and_is_noted(own):
    def budgets(dossier):
        return [f.text for f in verify(dossier).findings if f.code.startswith("control-")]

    assert budgets(own / "dossier") == []
    events, previous = list(read_jsonl(own / "ledger.jsonl")), "0" * 64
    for event in events:
        if event["payload"].get("stage") == "random-reward":
            event["payload"]["step"] = 0
        del event["digest"]
        event["prev"] = previous
        event["digest"] = previous = sha256_json(event)
    (own / "ledger.jsonl").write_bytes(b"".join(canonical_json(e) + b"\n" for e in events))
    built = build_dossier(own, None, SILENT)
    said = "ontrol random-reward trained 0 steps, the claim's run 1"
    gain = json.loads((built.folder / "claims.json").read_text())["claims"][0]
    assert f"C{said}: it had less time to gain." in gain["limits"]
    seal(built.folder, key_of(own))
    assert budgets(built.folder) == [f"c{said}"]


def test_an_edited_sample_of_the_run_is_refused_when_building(own):
    path = own / "stages/01-zero/evals/after-chain.samples.jsonl.zst"
    records = list(read_zstd_jsonl(path))
    records[3]["response"] += " \\boxed{1}"
    path.unlink()
    with ZstdJsonlWriter(path) as writer:
        writer.append_all(records)
    with pytest.raises(RunError, match="not hold the samples whose root the ledger recorded"):
        build_dossier(own, None, SILENT)
    assert not list(own.glob(".partial*"))


def test_a_changed_plan_is_refused(own):
    path = own / "prereg/0001.json"
    path.write_text(path.read_text().replace("low > 0", "low > -1"))
    with pytest.raises(RunError, match="is not the plan that was filed"):
        build_dossier(own, None, SILENT)


def test_building_twice_gives_the_same_files(own):
    first = {
        p: (own / "dossier" / p).read_bytes() for p in ("claims.json", "weights/manifest.json")
    }
    samples = (own / "dossier/evals/chain/after/samples.jsonl.gz").read_bytes()
    build_dossier(own, None, SILENT)
    assert {p: (own / "dossier" / p).read_bytes() for p in first} == first
    assert (own / "dossier/evals/chain/after/samples.jsonl.gz").read_bytes() == samples


def test_versions_chain(own):
    dossier = own / "dossier"
    start_round(dossier)
    kept = {p: p.read_bytes() for p in dossier.glob("reviews/**/*") if p.is_file()}
    build_dossier(own, None, SILENT)
    assert kept
    assert {p: p.read_bytes() for p in kept} == kept
    assert seal(dossier, key_of(own)).version == 2
    assert faults(dossier) == []
    (dossier / "seals/0001.dsse.json").unlink()
    assert "seal-chain-broken" in faults(dossier)


def test_a_foreign_key_shows(own):
    stranger = make_key(own.parent / "stranger")
    seal(own / "dossier", stranger)
    assert "foreign-signature" in faults(own / "dossier")


def test_withheld_texts_leave_their_digests_and_the_recorded_root(own):
    dossier, out = own / "dossier", own / "public"
    before = json.loads((dossier / "evals/chain/after/root.json").read_text())
    item = json.loads((dossier / "prereg/0001.json").read_text())["suites"]["chain"]["items"]
    assert redact(dossier, out, items=[min(item)]) == 4 * 2
    seal(out, key_of(own))
    after = json.loads((out / "evals/chain/after/root.json").read_text())
    assert after["recorded_root"] == before["recorded_root"]
    assert after["merkle_root"] != before["merkle_root"]
    assert after["redacted"] == 2
    lines = gzip.decompress((out / "evals/chain/after/samples.jsonl.gz").read_bytes()).splitlines()
    assert sum(json.loads(line)["response"] is None for line in lines) == 2
    assert faults(out) == []
    listed = {row["path"]: row["redacted"] for row in read_jsonl(out / "MANIFEST.jsonl")}
    assert listed["evals/chain/after/samples.jsonl.gz"] is True
    with pytest.raises(RunError, match="no sample is of these"):
        redact(dossier, own / "nothing", items=["gsm8k/test/0"])
    assert not (own / "nothing").exists()


def test_an_attempt_that_is_not_reported_shows(own):
    for path in (own / "controls/01-random-reward/evals").glob("*.*"):
        path.unlink()
    built = build_dossier(own, None, SILENT)
    assert "claim C1" not in " ".join(built.missing)
    seal(built.folder, key_of(own))
    assert {"unreported-attempt", "control-missing"} <= set(faults(built.folder))


def test_a_plan_that_the_ledger_knows_must_be_there(own):
    shutil.rmtree(own / "prereg")
    with pytest.raises(RunError, match="is not the plan that was filed"):
        build_dossier(own, None, SILENT)


def test_a_folder_that_is_no_dossier_is_not_replaced(finished, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match="holds something that is no dossier"):
        build_dossier(finished, tmp_path, SILENT)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_the_commands(own, capsys):
    dossier, key = own / "dossier", str(own.parent / "key")
    make_key(own.parent / "key")
    assert run_command(["dossier", "build", str(own), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claims_tested"] == 3
    assert run_command(["verify", str(dossier)]) == 1
    assert "seal-mismatch" in capsys.readouterr().out
    assert run_command(["dossier", "seal", str(dossier), "--key", key]) == 0
    assert "Version 2" in capsys.readouterr().out
    assert run_command(["verify", str(dossier), "--json"]) == 1  # version 1 has another key
    assert not json.loads(capsys.readouterr().out)["ok"]
    assert run_command(["dossier", "redact", str(dossier), "--out", str(own / "x")]) == 2
    assert "--suite NAME or --item ID" in capsys.readouterr().err
    assert run_command(["verify", str(own / "nowhere")]) == 2
    assert run_command(["dossier", "keygen", "--key", key]) == 2
    assert "never replaced" in capsys.readouterr().err
    assert run_command(["dossier", "verifier", str(own / "v.pyz")]) == 0
    assert (own / "v.pyz").read_bytes() == (dossier / "verify.pyz").read_bytes()


def test_a_plan_is_sealed_before_the_run_and_holds_it_to_its_recipe(tmp_path, capsys):
    make_key(tmp_path / "key")
    recipe, out = write_recipe(tmp_path, tmp_path / "key"), tmp_path / "run"
    plan = ["dossier", "plan", str(recipe), "--out", str(out), "--key", str(tmp_path / "key")]
    assert run_command([*plan, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["claims"]) == 4  # two, and their controls
    assert [e["kind"] for e in read_jsonl(RunFolder(out).ledger)] == ["preregistered"]
    changed = ["run", str(recipe), "--out", str(out), "--set", "eval.suites.0.k=1", "--json"]
    assert run_command([*changed, "--set", "eval.suites.0.pass_at=[1]"]) == 2
    assert "other suites than this recipe" in capsys.readouterr().err
    kinds = {e["kind"] for e in read_jsonl(RunFolder(out).ledger)}
    assert "evaluation_started" not in kinds


def test_a_referee_with_the_weights_replays_and_asks_fresh_items(finished, capsys):
    dossier = str(finished / "dossier")
    asked = ["--seed", "7", "--replay", "4", "--fresh", "4", "--base", "tiny-base", "--json"]
    assert run_command(["verify", dossier, *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["id"]: row for row in found["claims"]}
    assert [r["verdict"] for r in found["replayed"]] == ["holds", "holds"]
    assert (rows["C1"]["replayed"], rows["C1"]["fresh"]) == ("ok", "ok")
    control = next(i for i, row in rows.items() if "of random-reward" in row["text"])
    assert rows[control]["replayed"] == "not done"
    assert run_command(["verify", dossier, "--fresh", "4"]) == 2
    assert "give --seed" in capsys.readouterr().err


def test_a_verifier_that_a_dossier_brings_is_compared_with_ones_own(own):
    place = own / "dossier/verify.pyz"
    assert "verifier-foreign" not in {
        f.code for f in examine(own / "dossier", Request()).verdict.findings
    }
    place.write_bytes(place.read_bytes() + b"# all that can be checked holds")
    assert "verifier-foreign" in {
        f.code for f in examine(own / "dossier", Request()).verdict.findings
    }


def test_a_generator_that_the_plan_did_not_seal_is_told(finished, monkeypatch):
    filed = next(e for e in read_jsonl(finished / "ledger.jsonl") if e["kind"] == "preregistered")
    assert filed["payload"]["fresh_generator"] == generator_digest()
    monkeypatch.setattr("pellucid.evidence.fresh.generator_digest", lambda: "e" * 64)
    verdict = examine(finished / "dossier", Request(seed="7", fresh=2)).verdict
    (found,) = [f for f in verdict.findings if f.code == "fresh-unsealed"]
    assert "here they are made by eeeeeeeeeeee" in found.text
    asked = [c for c, row in verdict.table().items() if row["fresh"] != "not done"]
    assert {verdict.status(c, "fresh") for c in asked} == {"in part"}
    assert verdict.is_ok


def test_a_referee_names_forged_tokens_and_a_claim_that_fresh_items_refute(own):
    """Under every right digest: the samples were never drawn, the number never measured."""
    dossier = own / "dossier"
    place = dossier / "evals/chain/after"
    shipped = gzip.decompress((place / "samples.jsonl.gz").read_bytes())
    samples = [json.loads(line) for line in shipped.splitlines()]
    for sample in samples:
        sample["token_ids"] = [(token + 1) % 50 for token in sample["token_ids"]]
    lines = b"".join(canonical_json(sample) + b"\n" for sample in samples)
    (place / "samples.jsonl.gz").write_bytes(gzip.compress(lines))
    claims = json.loads((dossier / "claims.json").read_text())
    for claim in claims["claims"]:
        if claim["kind"] == "pass_at_1":
            claim["reported"] |= {"value": "0.9990", "low": "0.9980", "high": "1.0000"}
    (dossier / "claims.json").write_text(json.dumps(claims))
    verdict = examine(dossier, Request(seed="7", replay=4, fresh=4)).verdict
    assert {"replay-mismatch", "fresh-mismatch"} <= {f.code for f in verdict.findings}
    table = verdict.table()
    subject = next(c["id"] for c in claims["claims"] if c["arms"] == {"a": "evals/chain/after"})
    assert (table[subject]["replayed"], table[subject]["fresh"]) == ("FAILS", "FAILS")
    (dossier / "claims.json").write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        examine(dossier, Request(seed="7", replay=2))


def test_an_evaluation_of_a_run_is_scanned_against_what_it_was_trained_on(
    finished, tmp_path, capsys
):
    make_key(tmp_path / "key")
    out, key = tmp_path / "eval", str(tmp_path / "key")
    suite = ["--suite", "chain", "--limit", "3", "--name", "mine", "--device", "cpu"]
    asked = ["eval", str(finished), *suite, "--out", str(out), "--key", key, "--json"]
    assert run_command(asked) == 0
    [summary] = json.loads(capsys.readouterr().out)
    assert (summary["template"], summary["arm"]) == ("tiny", "mine")
    assert run_command(["report", str(out)]) == 2
    assert "is an evaluation: report its dossier" in capsys.readouterr().err
    assert run_command(["dossier", "build", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == []
    assert run_command(["dossier", "seal", str(out / "dossier"), "--key", key]) == 0
    assert faults(out / "dossier") == []
    scan = json.loads((out / "dossier/contamination/scan.json").read_text())
    assert len(scan["suites"]["chain"]["items"]) >= 3


def test_weights_that_are_not_at_hand_are_asked_for(own, capsys):
    lone = shutil.copytree(own / "dossier", own.parent / "lone")
    assert run_command(["verify", str(lone), "--seed", "7", "--replay", "2"]) == 2
    assert "name them with --model" in capsys.readouterr().err
