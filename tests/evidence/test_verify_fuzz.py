"""Random changes to an honest dossier, as `benchmarks/fuzz_verifier.py` makes them by thousands."""

import importlib.util
from pathlib import Path

import honest_dossier
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_verifier.py"


@pytest.fixture
def fuzz(monkeypatch):
    spec = importlib.util.spec_from_file_location("fuzz_verifier", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(honest_dossier, "ITEMS", 8)
    honest_dossier._samples.cache_clear()
    honest_dossier.honest_root.cache_clear()
    yield module.fuzz
    honest_dossier._samples.cache_clear()
    honest_dossier.honest_root.cache_clear()


def test_every_random_change_is_found_and_none_stops_the_verifier(fuzz, tmp_path):
    missed, stopped, codes = fuzz(150, 1, tmp_path)
    assert (missed, stopped) == ([], [])
    assert len(codes) > 5


def test_changes_under_a_new_seal_do_not_stop_the_verifier(fuzz, tmp_path):
    missed, stopped, codes = fuzz(100, 2, tmp_path, is_resealed=True)
    assert stopped == []
    assert len(missed) < 40
    assert len(codes) > 5
