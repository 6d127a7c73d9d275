"""Windows of a run: every moment in one of them, appended as they go, labelled by source."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from pellucid.energy.account import read_windows
from pellucid.energy.counters import CounterError, Source
from pellucid.energy.estimate import Usage, board_watts
from pellucid.energy.meter import Meter, State, open_meter
from pellucid.jsonl import read_jsonl


class FakeCounter:
    range_joules = None
    error_frac = 0.05

    def __init__(self, component, source, watts, world):
        self.component, self.source, self.watts, self.world = component, source, watts, world
        self.is_broken = False

    def read(self):
        if self.is_broken:
            raise CounterError("driver gone")
        return 1000.0 + self.watts * self.world.now


class World:
    """A clock and a processor that the test moves."""

    def __init__(self):
        self.now = self.core_s = 0.0

    def pass_by(self, seconds, cores=1.0):
        self.now += seconds
        self.core_s += seconds * cores

    def meter(self, path, *counters, **more):
        usage = lambda: Usage(core_seconds=self.core_s, peak_gib=2.0)  # noqa: E731
        return Meter(path, counters, clock=lambda: self.now, usage=usage, **more)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "energy" / "windows.jsonl"


def test_every_moment_belongs_to_the_innermost_window(world, path):
    gpu = FakeCounter("gpu0", Source.NVML, 500, world)
    cpu = FakeCounter("cpu0", Source.RAPL, 100, world)
    meter = world.meter(path, gpu, cpu)
    world.pass_by(2)
    with meter.window("stage", "zero"):
        world.pass_by(10)
        with meter.window("evaluation", "step-5/chain") as window:
            world.pass_by(3)
            window.count(tokens=1200, answers=10)
        world.pass_by(5)
    world.pass_by(1)
    meter.close()
    windows = {w.name: w for w in read_windows(path)}
    assert {n: w.elapsed_s for n, w in windows.items()} == {
        "other": 3, "zero": 15, "step-5/chain": 3,
    }  # fmt: skip
    zero = windows["zero"].by_source
    assert zero["nvml_counter"].value == 7500
    assert zero["nvml_counter"].low == pytest.approx(7125)
    assert zero["rapl"].value == 1500
    assert zero["estimate"].value == pytest.approx(0.3 * 2 * 15)  # memory alone: no counter for it
    assert windows["step-5/chain"].tokens == 1200
    assert {w.state for w in windows.values()} == {State.ENDED}
    total = sum(w.by_source["nvml_counter"].value for w in windows.values())
    assert total == 500 * world.now


def test_without_counters_everything_is_estimated_and_says_so(world, path):
    meter = world.meter(path, gpu_watts={"gpu0": 700.0})
    with meter.window("stage", "zero"):
        world.pass_by(100, cores=2)
    meter.close()
    line = next(r for r in read_jsonl(path) if r["name"] == "zero" and r["state"] == "ended")
    parts = {p["component"]: p for p in line["parts"]}
    assert {p["source"] for p in parts.values()} == {"estimate"}
    assert parts["gpu0"]["joules"] == pytest.approx(0.6 * 700 * 100)
    assert parts["gpu0"]["high"] == 70000
    assert parts["cpu"]["joules"] == 8.0 * 200
    assert parts["dram"]["joules"] == pytest.approx(60)


def test_a_counter_that_stands_still_is_not_believed(world, path):
    gpu = FakeCounter("gpu0", Source.NVML, 0, world)
    meter = world.meter(path, gpu, gpu_watts={"gpu0": 700.0})
    with meter.window("stage", "zero"):
        world.pass_by(60)
    with meter.window("stage", "instant"):
        world.pass_by(0.01)
    meter.close()
    windows = {w.name: w for w in read_windows(path)}
    assert windows["zero"].by_source["estimate"].value > 0.6 * 700 * 60 - 1
    assert "nvml_counter" not in windows["zero"].by_source
    assert "not believed" in windows["zero"].notes[0]
    assert windows["instant"].by_source["nvml_counter"].value == 0


def test_a_counter_lost_in_the_middle_is_replaced_by_the_estimate(world, path):
    gpu = FakeCounter("gpu0", Source.NVML, 500, world)
    meter = world.meter(path, gpu, gpu_watts={"gpu0": 700.0})
    with meter.window("stage", "zero"):
        world.pass_by(50)
        meter.tick()
        gpu.is_broken = True
        world.pass_by(50)
    meter.close()
    zero = next(w for w in read_windows(path) if w.name == "zero")
    assert "nvml_counter" not in zero.by_source
    assert zero.by_source["estimate"].value >= 0.6 * 700 * 100
    assert any("driver gone" in note for note in zero.notes)


def test_failed_windows_stay_on_the_bill(world, path):
    meter = world.meter(path, FakeCounter("gpu0", Source.NVML, 500, world))

    def fail():
        with meter.window("stage", "zero"):
            world.pass_by(10)
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        fail()
    meter.close()
    zero = next(w for w in read_windows(path) if w.name == "zero")
    assert zero.state is State.FAILED
    assert zero.by_source["nvml_counter"].value == 5000


def test_another_process_appends_windows_of_its_own(world, path):
    for _ in range(2):
        meter = world.meter(path)
        with meter.window("stage", "zero"):
            world.pass_by(10)
        meter.close()
    names = {w.id: w.name for w in read_windows(path)}
    assert names == {"0001": "other", "0002": "zero", "0003": "other", "0004": "zero"}


KILLED = """
import os, sys, time
from pathlib import Path
from pellucid.energy.meter import open_meter
with open_meter(Path(sys.argv[1]), period_s=0.02) as meter:
    with meter.window("stage", "zero") as window:
        window.count(tokens=7, answers=1)
        print("ready", flush=True)
        while True:
            sum(range(1000))
"""


def test_a_killed_process_leaves_what_it_had_used(path):
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
        process.stdout.readline()
        enough = threading.Event()
        for _ in range(500):
            if len(path.read_bytes().splitlines()) > 12:
                break
            enough.wait(0.02)
        process.send_signal(signal.SIGKILL)
    zero = next(w for w in read_windows(path) if w.name == "zero")
    assert zero.state is State.RUNNING
    assert zero.joules.value > 0
    assert zero.tokens == 7


def test_the_thread_ends_with_the_meter(path):
    before = threading.active_count()
    with open_meter(path, period_s=0.01) as meter, meter.window("stage", "zero"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert json.loads(path.read_text().splitlines()[-1])["state"] == "ended"


def test_boards_are_known_by_name():
    assert board_watts("NVIDIA H200") == 700
    assert board_watts("NVIDIA H100 PCIe") == 350
    assert board_watts("NVIDIA H100 80GB HBM3") == 700
    assert board_watts("Unheard-of 9000") == 400
