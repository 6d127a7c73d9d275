"""Counters on fake sysfs trees and a fake driver: wraps, resets, refusals."""

import pytest

from pellucid.energy.counters import CounterError, Progress, Source
from pellucid.energy.nvml import Gpu, NvmlError, NvmlLibrary, load_nvml, nvml_counters
from pellucid.energy.rapl import rapl_counters


def zone(root, name, label, energy_uj, span_uj=262_143_328_850):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{span_uj}\n")
    return folder


class FakeNvml:
    """Two boards; the second has no energy counter."""

    def __init__(self):
        self.energy = {0: 5_000_000}

    def count(self):
        return 2

    def uuid(self, index):
        return f"GPU-AAAA-{index}"

    def energy_mj(self, index):
        if index not in self.energy:
            raise NvmlError("nvmlDeviceGetTotalEnergyConsumption gave error 3")
        return self.energy[index]

    def power_limit_mw(self, index):
        return 700_000


def test_packages_and_memory_are_counted_and_their_parts_are_not(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 7_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 1)
    zone(tmp_path, "intel-rapl:0:1", "dram", 2_500_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 1_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9)
    (tmp_path / "intel-rapl").mkdir()
    counters = rapl_counters(tmp_path)
    assert [(c.component, c.read()) for c in counters] == [
        ("cpu0", 7.0), ("dram0", 2.5), ("cpu1", 1.0),
    ]  # fmt: skip
    assert {c.source for c in counters} == {Source.RAPL}


def test_zones_that_may_not_be_read_or_are_not_there_give_no_counter(tmp_path):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (folder / "energy_uj").unlink()
    (folder / "energy_uj").mkdir()  # as unreadable as a file of root's, for root too
    assert rapl_counters(tmp_path) == []
    assert rapl_counters(tmp_path / "nowhere") == []


def test_a_counter_that_wraps_round_is_put_right(tmp_path):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 99_000_000, span_uj=100_000_000)
    progress = Progress(rapl_counters(tmp_path)[0])
    progress.start(0.0)
    (folder / "energy_uj").write_text("4000000")
    assert progress.advance(0.05) == pytest.approx(5.0)
    assert progress.take_notes() == []


def test_a_counter_that_may_have_wrapped_unseen_says_so(tmp_path):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 0, span_uj=100_000_000)
    progress = Progress(rapl_counters(tmp_path)[0])
    progress.start(0.0)
    (folder / "energy_uj").write_text("4000000")
    assert progress.advance(10.0) == pytest.approx(4.0)
    assert "may have wrapped unseen" in progress.take_notes()[0]
    assert progress.take_notes() == []


def test_a_reset_is_noted_and_never_negative():
    nvml = FakeNvml()
    progress = Progress(nvml_counters([Gpu(uuid="aaaa-0", name="H200")], nvml)["gpu0"])
    progress.start(0.0)
    nvml.energy[0] = 2_000_000
    assert progress.advance(1.0) == 2000.0
    assert "reset" in progress.take_notes()[0]


def test_a_counter_that_is_lost_says_so_and_stays_lost(tmp_path):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    progress = Progress(rapl_counters(tmp_path)[0])
    progress.start(0.0)
    (folder / "energy_uj").write_text("garbage")
    assert progress.advance(1.0) == 0.0
    assert progress.is_lost
    (folder / "energy_uj").write_text("9000000")
    assert progress.advance(2.0) == 0.0
    assert len(progress.take_notes()) == 1


def test_devices_are_found_by_their_uuid_whatever_their_order():
    nvml = FakeNvml()
    gpus = [Gpu(uuid="AAAA-1", name="T4"), Gpu(uuid="GPU-aaaa-0", name="H200")]
    found = nvml_counters(gpus, nvml)
    assert {name: c.read() for name, c in found.items()} == {"gpu1": 5000.0}
    assert found["gpu1"].limit_w() == 700.0
    assert nvml_counters([Gpu(uuid="other", name="x")], nvml) == {}
    assert nvml_counters(gpus, None) == {}


def test_no_driver_is_no_error(monkeypatch):
    with pytest.raises(OSError):
        NvmlLibrary("libno-such-library.so.1")
    monkeypatch.setattr("pellucid.energy.nvml.LIBRARY", "libno-such-library.so.1")
    monkeypatch.setattr(NvmlLibrary.__init__, "__defaults__", ("libno-such-library.so.1",))
    assert load_nvml() is None


def test_the_drivers_error_codes_are_raised():
    class Library:
        def nvmlDeviceGetCount_v2(self, number):
            return 9

    nvml = object.__new__(NvmlLibrary)
    nvml._library = Library()
    with pytest.raises(CounterError, match="nvmlDeviceGetCount_v2 gave error 9"):
        nvml.count()
