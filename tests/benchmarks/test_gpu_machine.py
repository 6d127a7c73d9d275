"""Device memory is read of the device that the job runs on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

import machine


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
