"""Another party's dossier is taken in where it may be, compared at every seal, and kept."""

import json
import shutil
import tarfile

import pytest
from honest_dossier import AUTHOR, STRANGER, SUITE, Maker, public_key, seal, write
from party_dossier import PLACE, party_maker

from pellucid.cli import run_command
from pellucid.errors import DataError, RunError
from pellucid.evidence.build import KEPT
from pellucid.evidence.compare import compare
from pellucid.evidence.core.canonical import sha256_bytes
from pellucid.evidence.core.signature import key_id
from pellucid.evidence.parties import attach, party_folders, prepare_parties
from pellucid.evidence.redact import redact
from pellucid.evidence.seal import make_key, seal_dossier

STRANGER_ID = key_id(public_key(STRANGER))
SAMPLES = f"evals/{SUITE}/after/samples.jsonl.gz"


@pytest.fixture
def draft(tmp_path):
    """Not sealed, and without a signed plan: any key may seal it."""
    files = Maker().files()
    for name in ("MANIFEST.jsonl", "SEAL.dsse.json", "prereg/0001.dsse.json"):
        del files[name]
    return write(files, tmp_path / "draft")


@pytest.fixture(scope="module")
def their_files():
    return party_maker().files()


@pytest.fixture
def theirs(their_files, tmp_path):
    return write(their_files, tmp_path / "theirs")


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")
            if p.is_file()}  # fmt: skip


def test_attached_sealed_and_verified_by_commands(draft, theirs, tmp_path, capsys):
    key = str(tmp_path / "key")
    make_key(tmp_path / "key")
    assert run_command(["dossier", "attach", str(draft), str(theirs), "--party", "lab"]) == 0
    out = capsys.readouterr().out
    assert "96 samples of 1 evaluation, 1 of them of these weights, signed by key" in out
    assert STRANGER_ID in out
    assert run_command(["dossier", "seal", str(draft), "--key", key]) == 0
    assert run_command(["dossier", "seal", str(draft), "--key", key]) == 0
    assert "Nothing has changed" in capsys.readouterr().out
    assert run_command(["verify", str(draft)]) == 0
    out = capsys.readouterr().out
    assert f"{PLACE} " in out
    assert f"1 of 1 evaluations are of these weights; signed by key {STRANGER_ID}" in out
    assert files_of(draft / PLACE / "dossier") == files_of(theirs)


def test_a_packed_dossier_is_taken_in_byte_for_byte(draft, theirs, tmp_path, capsys):
    with tarfile.open(tmp_path / "theirs.tar.xz", "w:xz") as archive:
        archive.add(theirs, "theirs")
    asked = ["dossier", "attach", str(draft), str(tmp_path / "theirs.tar.xz")]
    assert run_command([*asked, "--party", "lab", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["key"], told["evaluations_of_released"]) == (STRANGER_ID, 1)
    assert files_of(draft / PLACE / "dossier") == files_of(theirs)
    assert json.loads((draft / PLACE / "diff.json").read_text()) == told["diff"]
    assert told["diff"]["rows"] == compare(draft, theirs).diff.to_dict()["rows"]


def test_the_diff_follows_when_the_dossier_around_it_changes(draft, theirs):
    attach(draft, theirs, "lab")
    before = (draft / PLACE / "diff.json").read_bytes()
    document = json.loads((draft / "claims.json").read_text())
    document["claims"][1]["rule"] = "value > 0.1"
    (draft / "claims.json").write_text(json.dumps(document))
    seal_dossier(draft, None, [])
    after = json.loads((draft / PLACE / "diff.json").read_text())
    assert {"value > 0.1"} == {row["a"] for row in after["rows"] if row["what"] == "rule"}
    assert json.loads(before) != after


# What is refused, in one line


def altered(files, change):
    made = dict(files)
    change(made)
    return made


def refusals(their_files):
    own = party_maker()
    own.secret = None
    yield "unsigned", own.files(), "is not signed"
    yield "altered", altered(their_files, lambda f: f.update({"more": b"x"})), "does not hold"
    yield "no samples", altered(their_files, lambda f: f.pop(SAMPLES)), "does not hold"
    yield "empty", {"readme": b"x"}, "is no dossier"
    yield "elsewhere", {}, "there is no"


def test_what_is_no_partys_word_is_refused_and_leaves_nothing(draft, their_files, tmp_path):
    before = files_of(draft)
    for name, files, why in refusals(their_files):
        place = write(files, tmp_path / name)
        with pytest.raises(DataError, match=why):
            attach(draft, place, "lab")
    assert files_of(draft) == before
    assert not (draft / "external").exists()


def test_other_weights_are_refused(draft, theirs):
    path = draft / "weights/manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "root": sha256_bytes(b"other")}))
    with pytest.raises(DataError, match="asked other weights"):
        attach(draft, theirs, "lab")


def test_ones_own_key_is_refused_when_attaching_and_when_sealing(draft, their_files, tmp_path):
    sealed = write(Maker().files(), tmp_path / "sealed")
    own = party_maker()
    own.secret = AUTHOR
    mine = write(own.files(), tmp_path / "mine")
    with pytest.raises(RunError, match="signed with your own key"):
        attach(sealed, mine, "lab")
    attach(draft, mine, "lab")  # nobody sealed the draft: that shows when it is sealed
    with pytest.raises(RunError, match="external/lab is signed with your own key"):
        prepare_parties(draft, key_id(public_key(AUTHOR)))
    prepare_parties(draft, STRANGER_ID)


def test_names_and_places_are_held_to(draft, theirs, tmp_path, capsys):
    for name in ("..", "a/b", ""):
        with pytest.raises(RunError, match="a name of letters"):
            attach(draft, theirs, name)
    attach(draft, theirs, "lab")
    with pytest.raises(RunError, match="exists: remove that folder first"):
        attach(draft, theirs, "lab")
    asked = ["dossier", "attach", str(tmp_path), str(theirs), "--party", "x"]
    assert run_command(asked) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_texts_that_a_party_shows_cannot_be_withheld_behind_its_back(draft, theirs, tmp_path):
    attach(draft, theirs, "lab")
    for asked in ({"suites": [SUITE]}, {"items": [f"{SUITE}/3"]}):
        with pytest.raises(RunError, match="external/lab holds texts of"):
            redact(draft, tmp_path / "out", **asked)
        assert not (tmp_path / "out").exists()
    shutil.rmtree(draft / "external")
    assert redact(draft, tmp_path / "out", items=[f"{SUITE}/3"]) > 0


def test_a_dossier_that_is_built_again_keeps_its_parties(draft, theirs):
    attach(draft, theirs, "lab")
    assert [p.name for p in party_folders(draft)] == ["lab"]
    assert "external" in KEPT


def test_a_party_whose_files_were_lost_stops_the_seal(draft, their_files, theirs):
    attach(draft, theirs, "lab")
    (draft / PLACE / "dossier" / SAMPLES).unlink()
    with pytest.raises(DataError, match="cannot be compared"):
        seal_dossier(draft, None, [])


def test_their_versions_may_follow_each_other(draft, their_files, tmp_path):
    first = their_files["SEAL.dsse.json"]
    second = seal({**their_files, "seals/0001.dsse.json": first}, secret=STRANGER, version=2,
                  previous=sha256_bytes(first))  # fmt: skip
    assert attach(draft, write(second, tmp_path / "second"), "lab").keyid == STRANGER_ID
