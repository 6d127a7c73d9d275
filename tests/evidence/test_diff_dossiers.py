"""What differs between two dossiers is named, and whether it can move a score."""

import gzip
import json

import pytest
from honest_dossier import (
    ENGINE,
    ITEMS,
    MODELS,
    SAMPLER,
    SUITE,
    Maker,
    data_set,
    question,
    seal,
    write,
)

from pellucid.cli import run_command
from pellucid.evidence.compare import compare, read_side
from pellucid.evidence.core import diff as diff_module
from pellucid.evidence.core import facets as facets_module
from pellucid.evidence.core.canonical import canonical_json, item_sha256, sha256_bytes
from pellucid.evidence.core.diff import DIFF_VERSION, diff_facets
from pellucid.evidence.core.facets import Facets
from pellucid.tasks.templates import TEMPLATES

AFTER = f"evals/{SUITE}/after"


@pytest.fixture(scope="module")
def honest():
    return Maker().files()


@pytest.fixture(scope="module")
def ours(honest, tmp_path_factory):
    return write(honest, tmp_path_factory.mktemp("ours"))


def made(change, folder):
    maker = Maker()
    change(maker)
    return write(maker.files(), folder)


def rows(a, b):
    """(place, what) -> (a, b, names), of those that move a score, and of the others."""
    found = compare(a, b).diff.rows
    moving, told = (
        {(r.place, r.what): (r.a, r.b, r.names) for r in found if r.moves_score is kind}
        for kind in (True, False)
    )
    return moving, told


def set_in(arm, **values):
    def change(maker):
        for sample in maker.samples[arm]:
            sample.update(values)

    return change


def test_a_dossier_does_not_differ_from_itself(ours, capsys):
    assert compare(ours, ours).diff.rows == ()
    assert run_command(["dossier", "diff", str(ours), str(ours)]) == 0
    assert "nothing that can move a score differs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "what", "sides"),
    [
        ({"template_sha256": "1" * 64}, "prompt template", (None, "1" * 64)),
        ({"sampler": {**SAMPLER, "temperature": 0.7}}, "sampler temperature", ("1.0", "0.7")),
        ({"sampler": {**SAMPLER, "stop": ["x"]}}, "sampler stop", ("[]", '["x"]')),
        ({"engine": {**ENGINE, "dtype": "bfloat16"}}, "engine dtype", ("float32", "bfloat16")),
        ({"engine": {**ENGINE, "version": "2"}}, "engine version", ("1", "2")),
        ({"seed": 6}, "seed", ("5", "6")),
        ({"grader_sha256": "2" * 64}, "graders' sources", (None, "2" * 64)),
        ({"model": "3" * 64}, "weights", (None, "3" * 64)),
    ],
    ids=["template", "temperature", "stop", "dtype", "version", "seed", "grader", "weights"],
)
def test_how_an_arm_was_asked_is_compared_by_what_its_samples_say(
    values, what, sides, ours, tmp_path
):
    moving, told = rows(ours, made(set_in("after", **values), tmp_path))
    assert list(moving) == [(AFTER, what)]
    a, b, _ = moving[AFTER, what]
    assert b == sides[1]
    assert a == (sides[0] or Maker().samples["after"][0][next(iter(values))])
    assert (AFTER, "root of the records") in told


def test_items_prompts_families_and_answers_are_named(ours, tmp_path):
    def change(maker):
        for sample in (s for arm in maker.samples.values() for s in arm):
            if sample["item"] == f"{SUITE}/5":
                sample["cluster"] = "own"
        for sample in maker.samples["after"]:
            if sample["item"] in (f"{SUITE}/3", f"{SUITE}/4"):
                sample["prompt_sha256"] = "4" * 64
            if sample["item"] == f"{SUITE}/6":
                sample |= {"gold": "0", "grader": "exact"}
                facts = {**question(6), "gold": "0", "grader": "exact"}
                sample["item_sha256"] = item_sha256(item=f"{SUITE}/6", **facts)

    moving, _ = rows(ours, made(change, tmp_path))
    assert moving[AFTER, "prompts"] == (
        f"{ITEMS}",
        f"{ITEMS}, 2 of them changed",
        (f"{SUITE}/3", f"{SUITE}/4"),
    )
    assert moving[AFTER, "families"] == ("family-2", "own", (f"{SUITE}/5",))
    assert moving[AFTER, "graders"] == ("integer", "exact", (f"{SUITE}/6",))
    assert moving[AFTER, "items"][2] == (f"{SUITE}/6",)


def test_settings_of_the_graders_are_compared_by_what_the_ledger_says(ours, tmp_path):
    def change(maker):
        maker.events = [
            (kind, payload | {"grading": {"code_timeout_s": 3.0}})
            if kind == "evaluation_started"
            else (kind, payload)
            for kind, payload in maker.default_kinds()
        ]

    moving, _ = rows(ours, made(change, tmp_path))
    assert moving[AFTER, "graders' code_timeout_s"] == (None, "3.0", ())
    assert {what for _, what in moving} == {"graders' code_timeout_s"}


def test_an_item_that_is_gone_and_one_that_is_asked_otherwise_once(ours, tmp_path):
    def change(maker):
        maker.samples["before"] = maker.samples["before"][4:]
        maker.samples["before"][1]["prompt_sha256"] = "5" * 64

    moving, _ = rows(ours, made(change, tmp_path))
    before = f"evals/{SUITE}/before"
    assert moving[before, "items"][1:] == (None, (f"{SUITE}/0",))
    assert moving[before, "samples"][:2] == ("96", "92")
    assert (before, "families") not in moving
    # the first of its item's samples has the honest prompt: the other stands beside it
    assert moving[before, "prompts"][2] == (f"{SUITE}/1",)


def test_claims_are_compared_number_by_number_and_words_move_nothing(honest, ours, tmp_path):
    document = json.loads(honest["claims.json"])
    document["claims"][0]["reported"]["low"] = "0.9999"
    document["claims"][1] |= {"text": "Better.", "limits": "Some."}
    document["claims"][2]["rule"] = "p_adj < 0.5"
    document["cutoff"] = None
    other = write(seal({**honest, "claims.json": canonical_json(document)}), tmp_path)
    moving, told = rows(ours, other)
    assert {key[1] for key in moving if key[0] == "claims/C1"} == {"value"}
    assert "0.9999" in moving["claims/C1", "value"][1]
    assert moving["claims/C3", "rule"][:2] == ("p_adj < 0.05", "p_adj < 0.5")
    assert moving["claims.json", "cutoff"][:2] == ("2026-04-01", "none")
    assert set(told) == {("claims/C2", "text"), ("claims/C2", "limits")}


def test_software_weights_scan_and_sources_are_compared(honest, tmp_path):
    def with_files(number):
        env = {f"{number:02d}-zero": {"device": "cpu", "packages": {"torch": f"2.{number}"}}}
        data = data_set() | {"licence": f"licence {number}"}
        data["items"][f"{SUITE}/1"]["first_public"] = f"2026-05-{number:02d}"
        files = {"model.safetensors": {"bytes": number, "sha256": sha256_bytes(b"w%d" % number)}}
        more = {
            "env/environment.json": env,
            f"data/{SUITE}.json": data,
            "judges/sums/report.json": {"judge": number},
            "audits/graders/draw.json": {"drawn": number},
            "weights/manifest.json": {
                "v": 1, "root": "6" * 64, "files": files, "tensors": {}, "parent": None,
            },
        }  # fmt: skip
        made = {**honest, **{name: canonical_json(value) for name, value in more.items()}}
        return write(seal(made), tmp_path / str(number))

    moving, told = rows(with_files(1), with_files(2))
    assert moving["env", "packages"] == ("2.1", "2.2", ("torch",))
    assert moving[f"data/{SUITE}", "first public"][:2] == ("2026-05-01", "2026-05-02")
    assert moving["weights", "files"][2] == ("model.safetensors",)
    assert ("env", "device") not in moving
    assert moving["judges", "judges"][2] == ("judges/sums/report.json",)
    assert set(told) == {(f"data/{SUITE}", "licence"), ("audits", "audits")}


def test_evaluations_and_claims_are_found_under_other_names(ours):
    """Another party calls the same model otherwise, and numbers its claims from one."""
    facets = read_side(ours).facets
    theirs = Facets(
        evaluations={f"evals/{SUITE}/their-name": facets.evaluations[AFTER]},
        claims={"C1": {**facets.claims["C2"], "value": "0.5 [0.4, 0.6]"}},
        arms={"C1": {"a": f"evals/{SUITE}/their-name"}},
    )
    found = diff_facets(facets, theirs).rows
    assert [(r.place, r.other, r.what) for r in found if r.other] == [
        ("claims/C2", "claims/C1", "value")
    ]
    alone = {r.place for r in found if r.b is None and r.what in ("claim", "evaluation")}
    assert alone == {
        "claims/C1", "claims/C3", f"evals/{SUITE}/before", f"evals/{SUITE}/random-reward",
    }  # fmt: skip
    assert [r for r in found if r.a is None] == []


def test_a_model_that_was_trained_anew_is_compared_with_the_one_of_its_name(ours, tmp_path):
    moving, _ = rows(ours, made(set_in("after", model="7" * 64), tmp_path))
    assert moving == {(AFTER, "weights"): (MODELS["after"], "7" * 64, ())}


def test_what_is_compared_and_how_it_is_written_changes_with_the_version_alone(ours):
    """Dossiers hold diffs that later verifiers come to again: whoever changes one of these lists
    raises DIFF_VERSION.
    """
    facets = read_side(ours).facets
    assert (DIFF_VERSION, sorted(facets.evaluations[AFTER])) == (1, [
        "answers that are right", "engine batch_invariant", "engine dtype", "engine name",
        "engine tensor_parallel", "engine version", "families", "graders", "graders' sources",
        "items", "prompt template", "prompts", "root of the records", "sampler max_new_tokens",
        "sampler rng", "sampler stop", "sampler temperature", "sampler top_k", "sampler top_p",
        "samples", "samples an item", "samples withheld", "seed", "weights",
    ])  # fmt: skip
    assert sorted(facets.claims["C1"]) == [
        "clean items: n", "clean items: p", "clean items: value", "cluster", "family",
        "fresh items: value", "holds", "is_capability", "kind", "level", "limits", "metric", "n",
        "p", "post_cutoff items: n", "post_cutoff items: p", "post_cutoff items: value", "requires",
        "rule", "test", "text", "unit", "value",
    ]  # fmt: skip
    assert {place: sorted(facts) for place, facts in facets.rest.items()} == {
        "claims.json": ["corrections", "cutoff", "title"],
        "weights": ["files", "other models", "released", "trained from"],
        f"data/{SUITE}": ["first public", "fresh", "licence", "source"],
        "contamination": ["threshold"],
        f"contamination/{SUITE}": ["clean"],
        "prereg/0001": ["attempts allowed", "rule for the checkpoint", "training runs"],
        "train": ["chosen checkpoint"],
        "graders": ["vectors"],
    }
    a = Facets(
        rest={
            "env": {"packages": {"torch": "2", "numpy": "1", "gguf": "1"}, "python": "3"},
            "x": {},
        }
    )
    b = Facets(rest={"env": {"packages": {"torch": "3", "numpy": "2", "a": "", "b": ""},
                             "device": "cpu"}})  # fmt: skip
    env = {"place": "env", "other": None, "moves_score": True, "names": []}
    assert diff_facets(a, b).to_dict() == {
        "v": 1,
        "moves_score": True,
        "rows": [
            {**env, "what": "packages", "a": "3, 1 of them gone",
             "b": "4, 2 of them new, 2 of them changed",
             "names": ["a", "b", "gguf", "numpy", "torch"]},
            {**env, "what": "python", "a": "3", "b": None},
            {**env, "what": "device", "a": None, "b": "cpu"},
            {**env, "place": "x", "what": "all of it", "a": "there", "b": None},
        ],
        "more_rows": 0,
    }  # fmt: skip


# Hostile or broken input


def test_bad_input_is_one_line_and_exit_code_2(honest, ours, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    no_samples = {p: d for p, d in honest.items() if p != f"{AFTER}/samples.jsonl.gz"}
    write(no_samples, tmp_path / "lost")
    write({**honest, f"{AFTER}/samples.jsonl.gz": b"junk"}, tmp_path / "junk")
    write({**honest, "claims.json": b"{"}, tmp_path / "broken")
    for name in ("empty", "lost", "junk", "broken", "nowhere"):
        assert run_command(["dossier", "diff", str(ours), str(tmp_path / name)]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), name


def test_what_was_changed_after_the_seal_is_compared_and_said(honest, ours, tmp_path, capsys):
    lines = gzip.decompress(honest[f"{AFTER}/samples.jsonl.gz"])
    data = gzip.compress(lines.replace(b'"seed":5', b'"seed":7'), mtime=0)
    write({**honest, f"{AFTER}/samples.jsonl.gz": data}, tmp_path)
    assert run_command(["dossier", "diff", str(ours), str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "NOT AS IT WAS SEALED: file-changed" in out
    assert "seed" in out


def test_a_draft_is_compared_too(honest, ours, tmp_path, capsys):
    left = ("MANIFEST.jsonl", "SEAL.dsse.json")
    write({p: d for p, d in honest.items() if p not in left}, tmp_path)
    assert run_command(["dossier", "diff", str(ours), str(tmp_path)]) == 0
    assert f"B  {tmp_path}: not sealed, not signed\n" in capsys.readouterr().out


def test_texts_of_a_stranger_do_not_act_on_the_terminal(honest, ours, tmp_path, capsys):
    document = json.loads(honest["claims.json"])
    document["title"] = "\x1b[2J\ud800" + "x" * 5000
    data = json.dumps(document).encode()
    other = write(seal({**honest, "claims.json": data}), tmp_path)
    assert run_command(["dossier", "diff", str(ours), str(other)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert run_command(["dossier", "diff", str(ours), str(other), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["v"], told["moves_score"], len(told["rows"])) == (1, False, 1)
    assert len(told["rows"][0]["b"]) < 500


def test_rows_are_bounded_and_what_is_left_out_still_counts(monkeypatch):
    monkeypatch.setattr(diff_module, "MAX_ROWS", 3)
    a = Facets(rest={f"data/{n}": {"fresh": {"i": "a"}} for n in range(5)})
    b = Facets(rest={f"data/{n}": {"fresh": {"i": "b"}} for n in range(5)})
    found = diff_facets(a, b)
    assert (len(found.rows), found.num_more, found.more_move) == (3, 2, True)
    assert found.to_dict()["more_rows"] == 2


def test_items_are_bounded_over_all_evaluations(ours, monkeypatch, capsys):
    monkeypatch.setattr(facets_module, "MAX_ITEMS", 3 * ITEMS)
    assert run_command(["dossier", "diff", str(ours), str(ours)]) == 0
    monkeypatch.setattr(facets_module, "MAX_ITEMS", 3 * ITEMS - 1)
    assert run_command(["dossier", "diff", str(ours), str(ours)]) == 2
    assert "more than 71 items in all are not compared" in capsys.readouterr().err


def test_a_template_of_ours_is_called_by_its_name(ours, tmp_path, capsys):
    name, template = next(iter(TEMPLATES.items()))
    other = made(set_in("after", template_sha256=template.sha256), tmp_path)
    assert run_command(["dossier", "diff", str(ours), str(other)]) == 1
    assert f"{template.sha256[:12]}… ({name})" in capsys.readouterr().out
