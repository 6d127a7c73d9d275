"""The dossier of a pipeline: every row of its stage table is there, and every forgery is named."""

import gzip
import json
import shutil
from itertools import pairwise

import pytest
from finished_pipeline import finish_pipeline, write_recipe

from pellucid.cli import run_command
from pellucid.config_io import load_recipe
from pellucid.errors import ConfigError, RunError
from pellucid.evidence.core.canonical import canonical_json, leaf_hash, sha256_json
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.verify import verify
from pellucid.evidence.redact import redact
from pellucid.evidence.review.rounds import start_round
from pellucid.evidence.seal import make_key, read_key
from pellucid.jsonl import ZstdJsonlWriter, read_jsonl, read_zstd_jsonl
from pellucid.ledger import Ledger
from pellucid.pipeline.dossier import build_dossier, file_run_plan, seal
from pellucid.pipeline.dossier_models import asked_models, released_stage
from pellucid.report.dossier.page import write_dossier_page
from pellucid.runlog import Progress

pytestmark = pytest.mark.slow

SILENT = Progress(is_silent=True)
ROWS = [
    *("base", "zero", "cold-start", "general-rl"),
    *("distill", "distill.student", "distill.iterative-sft"),
]
ZERO = "evals/chain/zero"


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A pipeline that was run once, beside the key that signed its dossier."""
    folder = tmp_path_factory.mktemp("pipeline")
    make_key(folder / "key")
    return finish_pipeline(folder, folder / "key")


@pytest.fixture
def own(finished, tmp_path):
    """A copy of the run that a test may change."""
    shutil.copy(finished.parent / "key", tmp_path / "key")
    return shutil.copytree(finished, tmp_path / "run")


def read(path):
    return json.loads(path.read_bytes())


def faults(dossier):
    """(code, place) of all that is no note."""
    return {(f.code, f.where) for f in verify(dossier).findings if not f.kind.is_note}


def seal_again(run, dossier=None):
    seal(dossier or run / "dossier", read_key(run.parent / "key"))
    return faults(dossier or run / "dossier")


def recipe_of(run):
    return load_recipe(run / "recipe.toml")[0]


def test_an_honest_dossier_holds_and_every_row_is_an_arm(finished):
    dossier = finished / "dossier"
    assert faults(dossier) == set()
    places = {p.parent.relative_to(dossier).as_posix() for p in dossier.glob("evals/*/*/root.json")}
    assert {f"evals/chain/{name}" for name in ROWS} <= places
    assert "evals/chain-plain/base-plain" in places
    assert "evals/chain-during/zero-step-1" in places
    # A suite that names the base's template asks later models with another one than their own.
    assert {"evals/arithmetic/zero", "evals/arithmetic/general-rl-tiny"} <= places


def test_the_plan_names_all_rows_before_the_first_is_measured(finished):
    kinds = [event["kind"] for event in read_jsonl(finished / "ledger.jsonl")]
    assert kinds.index("preregistered") < kinds.index("evaluation_started")
    plan = read(finished / "prereg/0001.json")
    assert set(ROWS) <= set(plan["arms"])
    assert plan["arms"]["general-rl"]["role"] == "subject"
    assert plan["arms"]["base"]["model"] == plan["arms"]["distill.student"]["model"] is not None
    assert plan["arms"]["zero"]["stop"] == ["</answer>"]
    assert plan["arms"]["general-rl"]["stop"] == []
    tested = [c for c in plan["claims"] if c["test"] is not None]
    assert plan["mde"].keys() == {c["id"] for c in tested}
    tested = [c for c in tested if "/arithmetic/" not in c["arms"]["a"]]
    assert [c["metric"]["fn"] for c in tested] == ["pass_at_1"] * 4 + ["rate"] * 4
    gains, controls = tested[:4], tested[4:]
    assert [c["arms"] for c in controls] == [c["arms"] for c in gains]
    assert [tuple(a.split("/")[2] for a in c["arms"].values()) for c in gains] == [
        ("general-rl", "base"),
        ("general-rl", "base-plain"),
        ("distill", "distill.student"),
        ("distill.iterative-sft", "distill.student"),
    ]


def test_the_differences_of_the_stage_table_are_printed_untested(finished):
    claims = read(finished / "dossier/claims.json")["claims"]
    pairs = {tuple(f.split("/")[2] for f in c["arms"].values()): c for c in claims
             if c["kind"] == "paired_difference" and c["metric"]["fn"] == "pass_at_1"
             and c["arms"]["a"].startswith("evals/chain/")
             and c["arms"]["b"].startswith("evals/chain/")}  # fmt: skip
    rows = {
        row["name"]: row["suites"].get("chain") for row in read(finished / "result.json")["stages"]
    }
    for above, name in pairwise(ROWS):
        for over, key in (("base", "from_base"), (above, "from_above")):
            claim = pairs[name, over]
            assert float(claim["reported"]["value"]) == pytest.approx(
                rows[name][key]["value"], abs=1e-4
            )
    untested = pairs["zero", "base"]
    assert (untested["test"], untested["holds"]) == (None, True)
    assert untested["text"] == "single run: difference in pass@1 on chain: zero less base"
    assert "not tested" in untested["limits"]


def test_weights_records_rewards_and_energy_of_every_stage_are_there(finished):
    dossier = finished / "dossier"
    assert (
        read(dossier / "weights/manifest.json")["root"]
        == read(dossier / "weights/general-rl.json")["root"]
    )
    for name in ROWS:
        root = read(dossier / f"evals/chain/{name}/root.json")["model"]
        assert read(dossier / f"weights/{name}.json")["root"] == root
    stages = dossier / "train/stages"
    assert read(stages / "02-cold-start/filters.json")["candidates"] == 36
    assert "helpful" in read(stages / "03-reward-models/accuracy.json")
    assert read(stages / "04-general-rl/manifest.json")["builds_on"]["start"] == "cold-start"
    assert read(stages / "05-distill/arms.json")["arms"]
    assert read(stages / "01-zero/rollouts.json")["rollouts"]
    last = read(dossier / "train/rollouts.json")["rollouts"]
    assert any("helpful" in rollout["weights"] for rollout in last)
    assert read(dossier / "train/checkpoints.json")["stage"] == "general-rl"
    bill = read(dossier / "energy/report.json")
    assert bill["by_stage"].keys() == {
        *("zero", "cold-start", "reward-models", "general-rl", "distill")
    }


def edit_samples(dossier, folder, change):
    """Rewrites an evaluation as a forger would: root.json and claims.json follow."""
    path = dossier / folder / "samples.jsonl.gz"
    samples = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    lines = [canonical_json(sample) for sample in change(samples)]
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    tree = MerkleTree()
    for line in lines:
        tree.add(leaf_hash(line))
    root = read(dossier / folder / "root.json")
    (dossier / folder / "root.json").write_bytes(
        canonical_json(root | {"merkle_root": tree.root(), "recorded_root": tree.root()})
    )


def better(samples):
    return [s | {"response": f"\\boxed{{{s['gold']}}}", "verdict": "correct",
                 "extracted": s["gold"]} for s in samples]  # fmt: skip


def test_edited_samples_of_a_stage_are_named(own):
    edit_samples(own / "dossier", ZERO, better)
    assert ("sample-edited", ZERO) in seal_again(own)


def test_other_stop_strings_than_the_arms_own_are_named(own):
    edit_samples(
        own / "dossier",
        ZERO,
        lambda samples: [s | {"sampler": s["sampler"] | {"stop": []}} for s in samples],
    )
    assert ("seed-changed", f"{ZERO}/samples.jsonl.gz") in seal_again(own)


def test_an_evaluation_of_a_stage_that_is_left_out_is_named(own):
    shutil.rmtree(own / "dossier" / ZERO)
    codes = {code for code, _ in seal_again(own)}
    assert {"unreported-attempt", "claim-unsupported"} <= codes


def test_swapped_weights_of_a_stage_are_named(own):
    path = own / "dossier/weights/zero.json"
    weights = read(own / "dossier/weights/cold-start.json")
    path.write_bytes(canonical_json(weights))
    assert {("weights-swapped", ZERO), ("weights-swapped", "evals/arithmetic/zero")} <= seal_again(
        own
    )
    files = weights["files"] | {"config.json": {"bytes": 2, "sha256": "0" * 64}}
    path.write_bytes(canonical_json(weights | {"files": files}))
    assert ("weights-swapped", "weights/zero.json") in seal_again(own)
    path.write_bytes(canonical_json(weights | {"files": files, "root": sha256_json(files)}))
    assert ("weights-swapped", ZERO) in seal_again(own)


def test_rewards_of_an_earlier_stage_are_added_up_again(own):
    path = own / "dossier/train/stages/01-zero/rollouts.json"
    record = read(path)
    record["rollouts"][0]["reward"] += 1.0
    path.write_bytes(canonical_json(record))
    place = "train/stages/01-zero/rollouts.json rollout 1"
    assert ("reward-mismatch", place) in seal_again(own)


def test_a_run_whose_stage_was_tampered_with_is_not_built(own):
    config = own / "stages/01-zero/model/config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(RunError, match="01-zero/model is not the model that was measured as zero"):
        build_dossier(own, None, SILENT)


def test_edited_samples_of_a_stage_are_not_built(own):
    path = own / "stages/02-cold-start/evals/cold-start-chain.samples.jsonl.zst"
    records = list(read_zstd_jsonl(path))
    records[0]["response"] = "\\boxed{1}"
    path.unlink()
    with ZstdJsonlWriter(path) as writer:
        writer.append_all(records)
    with pytest.raises(RunError, match="not hold the samples whose root the ledger recorded"):
        build_dossier(own, None, SILENT)


def test_a_dossier_can_be_built_where_the_weights_are_not(own):
    before = {p.name: p.read_bytes() for p in (own / "dossier/weights").iterdir()}
    for model in own.glob("stages/*/**/model"):
        shutil.rmtree(model)
    built = build_dossier(own, None, SILENT, is_packed=True)
    assert {p.name: p.read_bytes() for p in (own / "dossier/weights").iterdir()} == before
    assert not [line for line in built.missing if "weights" in line]
    assert seal_again(own) == set()


def test_an_unfinished_pipeline_has_no_dossier(own):
    shutil.rmtree(own / "stages/04-general-rl")
    with pytest.raises(RunError, match="holds no trained model yet"):
        build_dossier(own, None, SILENT)


def test_a_review_behind_the_seal_asks_for_the_next_version(own):
    start_round(own / "dossier")
    found = [f for f in verify(own / "dossier").findings if not f.kind.is_note]
    assert {f.code for f in found} == {"file-unlisted"}
    assert all("must seal the next version" in f.text for f in found)
    assert seal_again(own) == set()


def test_texts_of_an_item_are_withheld_in_every_arm(own):
    dossier, out = own / "dossier", own / "public"
    plan = read(dossier / "prereg/0001.json")
    item = min(plan["suites"]["chain"]["items"])
    # Two samples of each row, and one each of the base's other prompt and of a look in training.
    assert redact(dossier, out, items=[item]) == len(ROWS) * 2 + 2
    assert seal_again(own, out) == set()


def test_packed_samples_are_the_same_samples(own):
    plain, packed = own / "dossier", own / "packed"
    build_dossier(own, packed, SILENT, is_packed=True)
    assert seal_again(own, packed) == set()
    for root in plain.glob("evals/*/*/root.json"):
        assert (packed / root.relative_to(plain)).read_bytes() == root.read_bytes()
    lines = gzip.decompress((packed / ZERO / "samples.jsonl.gz").read_bytes()).splitlines()
    assert lines[0].startswith(b'{"packed":1')
    assert sum(b'"response":' in line for line in lines) == 0
    item = min(read(plain / "prereg/0001.json")["suites"]["chain"]["items"])
    redact(packed, own / "public", items=[item])
    assert seal_again(own, own / "public") == set()
    lines = gzip.decompress((own / "public" / ZERO / "samples.jsonl.gz").read_bytes()).splitlines()
    assert lines[0].startswith(b'{"packed":1')
    assert sum(b'"response":null' in line for line in lines) == 2


def test_the_page_shows_every_row(own):
    page = write_dossier_page(own / "dossier", own / "page.html").read_text()
    assert all(f"evals/chain/{name}" in page or f"of {name} on chain" in page for name in ROWS)
    assert "difference in pass@1 on chain: zero less base" in page


def test_a_continued_pipeline_keeps_its_plan_and_chains_its_dossier(own, capsys):
    assert run_command(["run", str(own / "recipe.toml"), "--out", str(own)]) == 0
    assert "version 2" in capsys.readouterr().err
    assert faults(own / "dossier") == set()
    assert run_command(["run", str(own / "recipe.toml"), "--set", "seed=2", "--out", str(own)]) == 2
    assert "the plan that was filed has other" in capsys.readouterr().err


def test_a_pipeline_can_be_planned_by_the_command(own, capsys, tmp_path):
    recipe = write_recipe(tmp_path, tmp_path / "key")
    assert run_command(["dossier", "plan", str(recipe), "--out", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert "pass@1 of general-rl on chain is above that of base" in said
    assert read(tmp_path / "new/prereg/0001.json")["arms"] == read(own / "prereg/0001.json")["arms"]


def test_a_region_without_a_factor_is_missed_before_anything_is_planned(own):
    recipe = recipe_of(own)
    evidence = recipe.evidence.model_copy(update={"region": "nowhere"})
    ledger = Ledger(own / "ledger.jsonl")
    try:
        with pytest.raises(ConfigError, match="no factor for region 'nowhere'"):
            file_run_plan(
                recipe.model_copy(update={"evidence": evidence}), own, ledger, None, SILENT
            )
    finally:
        ledger.close()


def test_the_rows_are_those_of_the_stage_table(finished):
    recipe = recipe_of(finished)
    assert [row.name for row in asked_models(recipe)] == ROWS
    assert [row["name"] for row in read(finished / "result.json")["stages"]] == ROWS
    assert released_stage(recipe) == "general-rl"
    students = recipe.model_copy(update={"stages": recipe.stages[2:3]})
    with pytest.raises(RunError, match="there is no claim"):
        released_stage(students)
