"""Another party's dossier counts where it is theirs, whole, and of these weights."""

import importlib.util
import json
import random
from pathlib import Path

import pytest
from honest_dossier import (
    AUTHOR,
    AUTHOR_ID,
    ITEMS,
    MODELS,
    STRANGER,
    SUITE,
    K,
    Maker,
    merkle_root,
    public_key,
    seal,
    sealed_verdicts,
    write,
)
from party_dossier import PLACE, diff_of, inside, party_maker

from pellucid.evidence.core import check_parties, party
from pellucid.evidence.core.__main__ import render
from pellucid.evidence.core.canonical import canonical_json, sha256_bytes
from pellucid.evidence.core.samples import sample_line
from pellucid.evidence.core.signature import key_id
from pellucid.evidence.core.verify import verify

SAMPLES = f"evals/{SUITE}/after/samples.jsonl.gz"
STRANGER_ID = key_id(public_key(STRANGER))


@pytest.fixture(scope="module")
def ours():
    return Maker().files()


@pytest.fixture(scope="module")
def theirs():
    return party_maker().files()


@pytest.fixture(scope="module")
def diff(ours, theirs, tmp_path_factory):
    return diff_of(ours, theirs, tmp_path_factory.mktemp("diff"))


def found(files, folder, *, notes=False):
    verdict = verify(write(files, folder), trusted_key=AUTHOR_ID)
    return {f.code for f in verdict.findings if f.kind.is_note is notes}


def changed(theirs, change):
    """Their files after the seal."""
    files = dict(theirs)
    change(files)
    return files


def test_an_honest_partys_dossier_stands_on_its_own_line(ours, theirs, diff, tmp_path):
    verdict = verify(write(inside(ours, theirs, diff), tmp_path), trusted_key=AUTHOR_ID)
    assert [f for f in verdict.findings if not f.kind.is_note] == []
    assert verdict.num_samples == 3 * ITEMS * K
    (one,) = verdict.parties
    assert (one.keyid, one.num_evaluations, one.num_released) == (STRANGER_ID, 1, 1)
    assert (one.status["integrity"], one.status["recomputed"]) == ("ok", "ok")
    assert one.num_samples == ITEMS * K
    (line,) = [line for line in render(verdict).splitlines() if line.startswith(PLACE)]
    assert line.split()[1:3] == ["ok", "ok"]
    assert line.endswith(f"1 of 1 evaluations are of these weights; signed by key {STRANGER_ID}")
    told = verdict.to_dict()["parties"][0]
    assert (told["name"], told["integrity"], told["verdict"]["ok"]) == ("lab", "ok", True)
    assert f"signed by {STRANGER_ID}" in " ".join(f.text for f in verdict.findings)


# Frauds


def test_a_party_that_is_the_author_is_named(ours, diff, tmp_path):
    own = party_maker()
    own.secret = AUTHOR
    files = own.files()
    assert found(inside(ours, files, diff_of(ours, files, tmp_path)), tmp_path / "d") == {
        "party-own-key"
    }


def test_the_authors_dossier_signed_again_as_a_party_is_named(ours, tmp_path):
    again = Maker()
    again.secret = STRANGER
    files = again.files()
    diff = diff_of(ours, files, tmp_path)
    assert found(inside(ours, files, diff), tmp_path / "d") == {"party-copied"}


def test_a_party_that_nobody_signed_is_named(ours, tmp_path):
    maker = party_maker()
    maker.secret = None
    files = maker.files()
    diff = diff_of(ours, files, tmp_path)
    assert found(inside(ours, files, diff), tmp_path / "d") == {"party-unsigned"}


ALTERATIONS = {
    "claims": lambda f: f.update({"claims.json": f["claims.json"].replace(b"0.6", b"0.7")}),
    "a file more": lambda f: f.update({"more.txt": b"x"}),
    "a file less": lambda f: f.pop("VERIFY.md"),
    "no seal": lambda f: f.pop("SEAL.dsse.json"),
    "no manifest": lambda f: f.pop("MANIFEST.jsonl"),
    "samples": lambda f: f.update({SAMPLES: f[SAMPLES][:-9] + b"123456789"}),
    "manifest again": lambda f: f.update(
        {"MANIFEST.jsonl": seal({**f, "VERIFY.md": b"All is well"})["MANIFEST.jsonl"],
         "VERIFY.md": b"All is well"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", ALTERATIONS.values(), ids=ALTERATIONS)
def test_a_partys_dossier_that_was_altered_is_named(change, ours, theirs, diff, tmp_path):
    altered = changed(theirs, change)
    assert altered != theirs
    verdict = verify(write(inside(ours, altered, diff), tmp_path), trusted_key=AUTHOR_ID)
    assert {f.code for f in verdict.findings if not f.kind.is_note} == {"party-altered"}
    assert verdict.parties[0].status["integrity"] == "FAILS"
    assert verdict.exit_code == 1
    assert verdict.status("C1", "integrity") == "ok"


def test_samples_of_a_party_that_are_not_there_are_named(ours, theirs, diff, tmp_path):
    lost = changed(theirs, lambda files: files.pop(SAMPLES))
    assert found(inside(ours, lost, diff), tmp_path / "after") == {"party-samples-missing"}
    never = seal({p: d for p, d in theirs.items() if p != SAMPLES}, secret=STRANGER)
    assert found(inside(ours, never, diff), tmp_path / "before") == {"party-samples-missing"}


def test_a_partys_result_about_other_weights_is_named(ours, tmp_path):
    maker = party_maker()
    other = {"model.safetensors": {"bytes": 10, "sha256": sha256_bytes(b"better")}}
    root = sha256_bytes(canonical_json(other))
    for sample in maker.samples["after"]:
        sample["model"] = root
    maker.roots = {"after": {"model": root}}
    maker.checkpoints["checkpoints"][1]["weights"] = root
    maker.extra = {
        "weights/manifest.json": canonical_json(
            {"v": 1, "root": root, "files": other, "tensors": {}, "parent": None}
        )
    }
    kinds, recorded = maker.default_kinds(), merkle_root(map(sample_line, maker.samples["after"]))
    said = {"evaluation_started": {"weights": root}, "evaluation_ended": {"merkle_root": recorded}}
    maker.events = [(kind, payload | said.get(kind, {})) for kind, payload in kinds]
    files = maker.files()
    alone = verify(write(files, tmp_path / "alone"))
    assert [f for f in alone.findings if not f.kind.is_note] == []
    diff = diff_of(ours, files, tmp_path)
    verdict = verify(write(inside(ours, files, diff), tmp_path / "d"), trusted_key=AUTHOR_ID)
    faults = [f for f in verdict.findings if not f.kind.is_note]
    assert [f.code for f in faults] == ["party-other-weights"]
    assert root[:16] in faults[0].text
    assert MODELS["after"][:16] in faults[0].text
    assert verdict.parties[0].num_released == 0


def test_a_party_whose_numbers_do_not_follow_from_its_samples_is_named(ours, theirs, tmp_path):
    document = json.loads(theirs["claims.json"])
    document["claims"][0]["reported"]["value"] = "0.9999"
    lying = seal({**theirs, "claims.json": canonical_json(document)}, secret=STRANGER)
    diff = diff_of(ours, lying, tmp_path)
    verdict = verify(write(inside(ours, lying, diff), tmp_path / "d"), trusted_key=AUTHOR_ID)
    assert {f.code for f in verdict.findings if not f.kind.is_note} == {"party-fails"}
    assert "claim-mismatch, C2" in " ".join(f.text for f in verdict.findings)
    assert verdict.parties[0].status["recomputed"] == "FAILS"


def test_a_diff_that_hides_something_is_named(ours, theirs, diff, tmp_path, monkeypatch):
    assert diff["rows"]
    fair = {**diff, "rows": [], "moves_score": False}
    assert found(inside(ours, theirs, fair), tmp_path / "a") == {"party-diff"}
    alike = {**diff, "moves_score": 1}
    assert alike == diff
    assert found(inside(ours, theirs, alike), tmp_path / "alike") == {"party-diff"}
    files = inside(ours, theirs, diff)
    del files[f"{PLACE}/diff.json"]
    assert found(seal(files), tmp_path / "b") == {"party-diff"}
    newer = inside(ours, theirs, {**diff, "v": 2})
    assert found(newer, tmp_path / "c") == {"party-diff"}
    monkeypatch.setattr(check_parties, "DIFF_VERSION", 2)
    assert found(inside(ours, theirs, diff), tmp_path / "d") == set()
    assert "check-impossible" in found(inside(ours, theirs, diff), tmp_path / "d", notes=True)


def test_a_party_that_is_put_in_after_the_seal_is_not_part_of_it(ours, theirs, diff, tmp_path):
    files = inside(ours, theirs, diff)
    for name in ("MANIFEST.jsonl", "SEAL.dsse.json"):
        files[name] = ours[name]
    verdict = verify(write(files, tmp_path), trusted_key=AUTHOR_ID)
    assert {f.code for f in verdict.findings if not f.kind.is_note} == {"file-unlisted"}
    assert "attached after the seal" in " ".join(f.text for f in verdict.findings)


def test_a_party_whose_number_lies_apart_from_ours_is_told(ours, tmp_path):
    maker = party_maker()
    for sample in maker.samples["after"]:
        if sample["verdict"] == "correct":
            sample |= {"response": "\\boxed{-1}", "extracted": "-1", "verdict": "wrong"}
    maker.claims[0]["rule"] = "value >= 0"
    maker.plan = {**maker.default_plan(), "claims": maker.claims}
    maker.recorded = {"after": merkle_root(map(sample_line, maker.samples["after"]))}
    maker.sealed = {"after": sealed_verdicts(maker.samples["after"])}
    files = maker.files()
    diff = diff_of(ours, files, tmp_path)
    verdict = verify(write(inside(ours, files, diff), tmp_path / "d"), trusted_key=AUTHOR_ID)
    assert {f.code for f in verdict.findings if not f.kind.is_note} == set()
    (apart,) = [f for f in verdict.findings if f.code == "party-differs"]
    assert apart.claims == ("C2",)
    assert apart.text.startswith("C2 is 0.0000 [")


def test_equal_samples_and_equal_keys_are_told(ours, theirs, diff, tmp_path):
    again = Maker()
    again.secret = STRANGER
    again.plan = {**again.default_plan(), "max_attempts": 2}
    files = again.files()
    held = inside(ours, files, diff_of(ours, files, tmp_path))
    held = inside(held, theirs, diff, name="other-lab")
    verdict = verify(write(held, tmp_path / "d"), trusted_key=AUTHOR_ID)
    assert {f.code for f in verdict.findings if not f.kind.is_note} == set()
    assert "party-same-samples" in {f.code for f in verdict.findings}
    assert "the same key as lab" in " ".join(f.text for f in verdict.findings)
    assert [one.name for one in verdict.parties] == ["lab", "other-lab"]


# Hostile forms


def test_dossiers_in_dossiers_are_examined_one_level_deep(ours, theirs, diff, tmp_path):
    nested, inner = theirs, theirs
    for _ in range(3):
        nested = inside(inner, nested, diff, secret=STRANGER)
    held = inside(ours, nested, diff)
    verdict = verify(write(held, tmp_path), trusted_key=AUTHOR_ID)
    assert {f.code for f in verdict.findings if not f.kind.is_note} == set()
    assert "what it holds of others in turn is not examined" in render(verdict)
    assert verdict.parties[0].status["integrity"] == "in part"
    assert verdict.to_dict()["parties"][0]["verdict"]["parties"] == []


def test_files_of_no_party_and_too_many_parties_are_named(
    ours, theirs, diff, tmp_path, monkeypatch
):
    stray = seal({**ours, "external/readme.txt": b"x", "external/lab/notes/x": b"x"})
    verdict = verify(write(stray, tmp_path / "a"), trusted_key=AUTHOR_ID)
    assert [(f.code, f.where) for f in verdict.findings if f.code == "file-malformed"] == [
        ("file-malformed", "external/lab/notes/x"),
        ("file-malformed", "external/readme.txt"),
    ]
    monkeypatch.setattr(check_parties, "MAX_PARTIES", 1)
    two = inside(inside(ours, theirs, diff), theirs, diff, name="zoo")
    assert found(two, tmp_path / "b") == {"archive-refused"}


def test_a_diff_alone_is_no_party(ours, diff, tmp_path):
    files = seal({**ours, f"{PLACE}/diff.json": canonical_json(diff)})
    verdict = verify(write(files, tmp_path), trusted_key=AUTHOR_ID)
    assert "party-altered" in {f.code for f in verdict.findings}


@pytest.mark.parametrize(
    ("name", "is_right"),
    [("lab", True), ("Lab-2.x_y", True), ("", False), ("..", False), ("a/b", False),
     ("a.", False), (".a", False), ("ä", False), ("a" * 65, False), ("a\n", False)],
)  # fmt: skip
def test_names_of_parties_are_plain(name, is_right):
    assert party.is_party_name(name) is is_right


def test_random_changes_of_a_party_are_found_under_its_holders_new_seal(
    ours, theirs, diff, tmp_path
):
    """Changes as `benchmarks/fuzz_verifier.py` makes them; its holder seals what was changed."""
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz_verifier.py"
    spec = importlib.util.spec_from_file_location("fuzz_verifier", path)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    files = inside(ours, theirs, diff)
    write(files, tmp_path)
    draw = random.Random(3)
    targets = {path: data for path, data in files.items() if path.startswith("external/")}
    for _ in range(12):
        path, data = fuzz.mutation(draw, targets)
        changed = {**files, path: data} if data is not None else dict(files)
        if data is None:
            del changed[path]
        changed = seal(changed)
        touched = {p for p in files.keys() | changed.keys() if files.get(p) != changed.get(p)}
        fuzz.put(tmp_path, changed, touched)
        verdict = verify(tmp_path, trusted_key=AUTHOR_ID)
        fuzz.put(tmp_path, files, touched)
        codes = {f.code for f in verdict.findings if not f.kind.is_note}
        assert codes, path
        assert codes <= {"party-altered", "party-diff", "party-samples-missing"}, path
