"""Digests of verdicts are made as samples come, without holding them."""

import pytest
from honest_dossier import SUITE, Maker, sealed_verdicts

from pellucid.evidence.core.tally import tally_samples
from pellucid.evidence.recording import VerdictRecorder


def recorded(samples):
    recorder = VerdictRecorder()
    for sample in samples:
        recorder.add(sample)
        assert len(recorder._item.items) == 1, "one item is held at a time"
    return recorder


def test_the_digests_are_those_of_all_samples_at_once():
    for arm, samples in Maker().samples.items():
        recorder = recorded(samples)
        assert recorder.sha256() == sealed_verdicts(samples)
        assert recorder.sha256() == sealed_verdicts(samples), "asked again, the same"
        whole = tally_samples(samples, suite=SUITE, arm=arm, merkle_root="")
        assert recorder.sha256()["votes_sha256"] == whole.votes_sha256()


@pytest.mark.parametrize(
    ("field", "value"), [("verdict", "unparsable"), ("n_out", 1), ("finish", "length")]
)
def test_a_change_of_the_last_sample_is_another_digest(field, value):
    samples = Maker().samples["after"]
    before = recorded(samples).sha256()["verdicts_sha256"]
    changed = recorded([*samples[:-1], samples[-1] | {field: value}])
    assert changed.sha256()["verdicts_sha256"] != before
