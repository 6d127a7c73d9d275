"""Checks go over many samples at a time: what they find does not depend on how many."""

import gzip

import pytest
from honest_dossier import SUITE, Maker, write

from pellucid.evidence.core import check_evals
from pellucid.evidence.core.canonical import leaf_hash
from pellucid.evidence.core.samples import redact_sample
from pellucid.evidence.core.verify import verify

AFTER = f"evals/{SUITE}/after/samples.jsonl.gz"


def spoiled():
    """Files with frauds of several kinds in one evaluation, and a line that is none in another."""
    maker = Maker()
    samples = maker.samples["after"]
    samples[3]["k"] = 0
    samples[5]["verdict"] = "wrong" if samples[5]["verdict"] == "correct" else "correct"
    samples[6] = redact_sample(samples[6])
    for sample in samples[9:12]:
        sample["seed"] = 77
    samples[13]["question"] += "?"
    samples[-1]["extracted"] = "17000"
    samples.append(samples[2])
    files = maker.files()
    path = f"evals/{SUITE}/before/samples.jsonl.gz"
    lines = gzip.decompress(files[path]).split(b"\n")
    files[path] = gzip.compress(b"\n".join([*lines[:7], b"{}", *lines[7:]]), mtime=0)
    return files


@pytest.mark.parametrize("limits", [(1, 1 << 20), (7, 1 << 20), (64, 3000), (10_000, 1 << 30)])
def test_what_is_found_does_not_depend_on_how_many_samples_wait(limits, monkeypatch, tmp_path):
    folder = write(spoiled(), tmp_path)
    first = verify(folder, seed="5").to_dict()
    monkeypatch.setattr(check_evals, "MAX_WAITING", limits[0])
    monkeypatch.setattr(check_evals, "MAX_WAITING_BYTES", limits[1])
    again = verify(folder, seed="5").to_dict()
    found = {(f["code"], f["where"], f["text"]) for f in first["findings"]}
    assert found == {(f["code"], f["where"], f["text"]) for f in again["findings"]}
    assert [first[x] for x in ("samples", "regraded", "replay")] == [
        again[x] for x in ("samples", "regraded", "replay")
    ]


def test_the_samples_before_a_bad_line_are_checked(tmp_path):
    verdict = verify(write(spoiled(), tmp_path))
    found = {(f.code, f.where) for f in verdict.findings}
    assert ("seed-changed", f"{AFTER} line 10") in found
    assert ("items-changed", f"{AFTER} line 14") in found
    assert ("sample-malformed", f"evals/{SUITE}/before/samples.jsonl.gz") in found
    assert {"sample-missing", "sample-surplus", "sample-edited"} <= {code for code, _ in found}
    in_full = len(Maker().samples["after"])
    assert verdict.num_samples == in_full + 1 + in_full + 7


def test_what_is_to_be_replayed_is_named_by_its_own_line(tmp_path):
    files = Maker().files()
    replay = verify(write(files, tmp_path), seed="9").replay
    for entry in replay:
        lines = gzip.decompress(files[f"{entry['evaluation']}/samples.jsonl.gz"]).split(b"\n")
        assert leaf_hash(lines[entry["line"] - 1]).hex() == entry["leaf"]
    assert len(replay) == 59
