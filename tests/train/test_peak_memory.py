"""What a step took of a GPU, told beside what was planned."""

import pytest
import torch

from pellucid.train.peak_memory import GIB, PeakMemory

CUDA = torch.device("cuda", 0)


@pytest.fixture
def device(monkeypatch):
    """A stand-in for a GPU of 100 GiB: what is free, and the most that torch had in use."""
    state = {"free": 90 * GIB, "in_use": 0}
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda device: (state["free"], 100 * GIB), raising=True
    )
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state["in_use"])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: state.update(in_use=0)
    )
    return state


def test_the_larger_phase_counts_and_each_step_begins_anew(device):
    peak = PeakMemory(CUDA, planned=42 * GIB)
    for free in (70, 58):
        device["free"] = free * GIB
        peak.look()
    device["in_use"] = 39 * GIB
    assert peak.take() == {"used_gib": 42.0, "allocated_gib": 39.0, "planned_gib": 42.0}
    device["free"] = 80 * GIB
    peak.look()
    assert peak.take() == {"used_gib": 20.0, "allocated_gib": 0.0, "planned_gib": 42.0}
    assert peak.summary() == "memory: 42.0 GiB of the device taken at most, planned 42.0"


def test_what_an_evaluation_used_is_not_the_next_steps(device):
    peak = PeakMemory(CUDA, planned=None)
    device.update(free=10 * GIB, in_use=85 * GIB)
    peak.look()
    peak.forget()
    device["free"] = 50 * GIB
    peak.look()
    assert peak.take() == {"used_gib": 50.0, "allocated_gib": 0.0}


def test_a_cpu_is_not_asked():
    peak = PeakMemory(torch.device("cpu"), planned=None)
    peak.look()
    peak.forget()
    assert (peak.take(), peak.summary()) == ({}, "")
