"""Device memory, clock and power are read of the device that the job runs on."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

import machine
import measure
import power
from shapes import SPECS


@pytest.mark.parametrize(
    ("visible", "asked"), [(None, "0"), ("", "0"), ("1", "1"), ("3,0", "3"), ("GPU-ab", "GPU-ab")]
)
def test_memory_is_asked_of_the_first_visible_device(monkeypatch, visible, asked):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "17 MiB\n", "")

    monkeypatch.setattr(shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(subprocess, "run", run)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.UsedMemory._used() == 17 * 2**20
    assert commands[0][commands[0].index("-i") + 1] == asked


def test_clock_and_power_are_those_of_the_repeat() -> None:
    watch = power.ChipWatch()
    lines = ("1980, 124.1, Not Active", "1440, 690.0, Active", "1500, 710.0, Active", "[N/A]", "")
    for at, line in enumerate(lines):
        watch.take(float(at), line + "\n")
    assert watch.between(1.0, 9.0) == {"sm_mhz": 1470.0, "watts": 700.0, "power_limited": 1.0}
    assert watch.between(5.0, 9.0) == {}


def test_a_repeat_keeps_its_samples(monkeypatch, tmp_path) -> None:
    """Of a real process that prints what nvidia-smi does."""
    script, begun = tmp_path / "nvidia-smi", tmp_path / "begun"
    lines = "while :; do echo '1440, 690.0, Active'; sleep 0.01; done"
    script.write_text(f"#!/bin/sh\ntouch {begun}\n{lines}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    setting = measure.Setting(
        device=torch.device("cpu"), spec=SPECS["tiny"], repeats=2, warmups=0, tokens_per_pack=1
    )

    def work(number: int) -> dict[str, float]:
        while not begun.exists():
            time.sleep(0.01)
        time.sleep(0.2)
        return {"seconds": 0.2}

    sampled = {"sm_mhz": 1440.0, "watts": 690.0, "power_limited": 1.0}
    assert measure.repeat(work, setting)[1] == {"seconds": 0.2} | sampled
