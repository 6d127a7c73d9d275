"""How a dossier is found and opened: tars like folders, tricks refused, no dossier in one line."""

import io
import subprocess
import sys
import tarfile

import pytest
from honest_dossier import ITEMS, Maker, write

from pellucid.cli import run_command
from pellucid.evidence.core import tar
from pellucid.evidence.core.archive import MAX_FILES, ArchiveError, open_archive, read_whole
from pellucid.evidence.core.verify import verify
from pellucid.evidence.zipapp import build_verifier


@pytest.fixture(scope="module")
def honest():
    return Maker().files()


def pack_tar(path, files, *, mode, form=tarfile.PAX_FORMAT, top="dossier/"):
    with tarfile.open(path, mode, format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def faults(verdict):
    return {f.code for f in verdict.findings if not f.kind.is_note}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_of_any_form_reads_as_the_folder_does(honest, mode, form, tmp_path):
    if form != tarfile.USTAR_FORMAT:  # which has no room for it
        honest = {**honest, "long/" + "n" * 200: b"x" * 700}
    path = pack_tar(tmp_path / "d.tar", honest, mode=mode, form=form)
    with open_archive(path) as archive:
        assert {name: read_whole(archive, name) for name in archive.sizes} == honest
        assert archive.problems == []


def test_a_packed_tar_is_verified_without_being_unpacked(honest, tmp_path):
    verdict = verify(pack_tar(tmp_path / "d.tar.xz", honest, mode="w:xz", top="./"))
    assert faults(verdict) == set()
    assert verdict.num_samples == 3 * ITEMS * 4


def test_a_folder_packed_by_its_own_dot_reads_as_the_folder_does(honest, tmp_path):
    folder = write(honest, tmp_path / "whole")
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        archive.add(folder, ".")
    with open_archive(tmp_path / "d.tar") as archive:
        assert sorted(archive.sizes) == sorted(honest)


def test_links_devices_and_names_that_leave_the_tar_are_refused(honest, tmp_path):
    path = tmp_path / "d.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("link", tarfile.SYMTYPE),
            ("hard", tarfile.LNKTYPE),
            ("device", tarfile.CHRTYPE),
            ("../evil", tarfile.REGTYPE),
            ("/root", tarfile.REGTYPE),
            ("twice", tarfile.REGTYPE),
            ("twice", tarfile.REGTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    with open_archive(path) as archive:
        assert sorted(archive.sizes) == ["twice"]
        assert sorted(name for name, _ in archive.problems) == [
            "../evil", "/root", "device", "hard", "link", "twice",
        ]  # fmt: skip


def test_bombs_and_damage_are_refused_in_one_line(honest, tmp_path, monkeypatch):
    whole = pack_tar(tmp_path / "d.tar.xz", honest, mode="w:xz").read_bytes()
    bomb = pack_tar(tmp_path / "bomb", {"zeros": bytes(80 << 20)}, mode="w:gz").read_bytes()
    header = bytearray(pack_tar(tmp_path / "plain", honest, mode="w").read_bytes())
    monkeypatch.setattr(tar, "FREE_BYTES", 1 << 20)
    cut = bytes(header[: len(header) // 2])
    header[130] ^= 1
    for number, data in enumerate((whole[:-40], whole + b"more", bomb, bytes(header), cut)):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(data)
        assert faults(verify(path)) == {"archive-refused"}, number


def test_a_header_that_asks_for_too_much_is_refused(tmp_path):
    long = pack_tar(tmp_path / "long", {"n" * (1 << 17): b""}, mode="w", form=tarfile.GNU_FORMAT)
    with pytest.raises(ArchiveError, match="a header of"), open_archive(long):
        pass
    with (tmp_path / "long").open("rb") as file, pytest.raises(tar.TarError, match="more than 0"):
        list(tar.members_of(file, 0))
    assert MAX_FILES == 100_000


# No dossier


def test_what_is_no_dossier_is_said_in_one_line(honest, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.toml").write_text("")
    (tmp_path / "text.txt").write_text("a dossier?")
    pack_tar(tmp_path / "other.tar", {"a": b"b"}, mode="w")
    for name in ("run", "text.txt", "other.tar"):
        assert run_command(["verify", str(tmp_path / name)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert f"{tmp_path / name} is no dossier: " in err
    write(honest, tmp_path / "run/dossier")
    assert run_command(["verify", str(tmp_path / "run")]) == 2
    assert f"there is one in {tmp_path / 'run/dossier'}" in capsys.readouterr().err


def test_the_verifier_says_so_too(tmp_path):
    build_verifier(tmp_path / "verify.pyz")
    done = subprocess.run(
        [sys.executable, "-I", "verify.pyz", "."], cwd=tmp_path, capture_output=True, text=True
    )
    line = "verify: . is no dossier: no MANIFEST.jsonl, SEAL.dsse.json or claims.json here\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize("left", ["MANIFEST.jsonl", "SEAL.dsse.json", "claims.json"])
def test_a_dossier_of_which_little_is_left_is_still_one_and_fails(left, honest, tmp_path, capsys):
    write({left: honest[left]}, tmp_path)
    assert run_command(["verify", str(tmp_path)]) == 1
    assert "FAIL" in capsys.readouterr().out
