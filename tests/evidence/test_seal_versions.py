"""A seal makes a version where something changed, and a key names itself."""

import base64

import pytest
from small_dossier import build_dossier, edit_claims

from pellucid.cli import run_command
from pellucid.errors import RunError
from pellucid.evidence.core.canonical import sha256_bytes
from pellucid.evidence.core.signature import key_id
from pellucid.evidence.seal import Sealed, make_key, read_key, seal_dossier
from pellucid.evidence.words import claims_hold, counted


@pytest.fixture
def dossier(tmp_path):
    return build_dossier(tmp_path / "dossier")


def content(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_sealing_what_has_not_changed_keeps_version_and_bytes(dossier, tmp_path, capsys):
    make_key(tmp_path / "key")
    again = ["dossier", "seal", str(dossier), "--key", str(tmp_path / "key")]
    assert run_command(again) == 0
    assert "Version 2" in capsys.readouterr().out
    before = content(dossier)
    assert run_command(again) == 0
    assert f"Nothing has changed: {dossier} stays version 2, signed" in capsys.readouterr().out
    assert run_command([*again, "--json"]) == 0
    assert '"is_new": false' in capsys.readouterr().out
    assert content(dossier) == before


def test_a_change_another_key_and_a_broken_manifest_make_a_version(dossier, tmp_path):
    keys = [make_key(tmp_path / name) for name in ("one", "other")]
    assert seal_dossier(dossier, None, []) == Sealed(2, is_new=True)
    assert seal_dossier(dossier, None, []) == Sealed(2, is_new=False)
    assert seal_dossier(dossier, keys[0], []) == Sealed(3, is_new=True)
    assert seal_dossier(dossier, keys[1], []) == Sealed(4, is_new=True)
    edit_claims(dossier, lambda d: d.update(title="Another"))
    assert seal_dossier(dossier, keys[1], []) == Sealed(5, is_new=True)
    (dossier / "MANIFEST.jsonl").write_text("")
    assert seal_dossier(dossier, keys[1], []) == Sealed(6, is_new=True)


def test_a_damaged_seal_is_said_and_not_passed_over(dossier):
    (dossier / "SEAL.dsse.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        seal_dossier(dossier, None, [])


def test_the_public_half_of_a_key_says_its_id(tmp_path):
    made = make_key(tmp_path / "key")
    kind, key, name = (tmp_path / "key.pub").read_text().split()
    assert (kind, name) == ("ed25519", f"id={made.id}")
    assert key_id(base64.b64decode(key)) == made.id == sha256_bytes(made.public)
    assert read_key(tmp_path / "key").id == made.id


def test_numbers_and_words_agree():
    assert [counted(n, "claim") for n in (0, 1, 2)] == ["0 claims", "1 claim", "2 claims"]
    assert claims_hold(1, 1) == "1 of 1 claim holds"
    assert claims_hold(0, 1) == "0 of 1 claim holds"
    assert claims_hold(1, 3) == "1 of 3 claims holds"
    assert claims_hold(0, 3) == "0 of 3 claims hold"
