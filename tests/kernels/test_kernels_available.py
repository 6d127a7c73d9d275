import logging

import pytest
import torch

from pellucid.kernels import available

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _forget():
    available._cuda_ready.cache_clear()
    yield
    available._cuda_ready.cache_clear()


def test_the_cpu_takes_the_plain_path_unless_its_interpreter_is_asked_for(monkeypatch):
    pytest.importorskip("triton")
    cpu = torch.device("cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not available.triton_ready(cpu)
    assert available.triton_ready(cpu, can_interpret=True)
    monkeypatch.setenv("PELLUCID_KERNELS", "interpret")
    assert available.triton_ready(cpu)
    monkeypatch.setenv("PELLUCID_KERNELS", "0")
    assert not available.triton_ready(cpu, can_interpret=True)
    monkeypatch.delenv("PELLUCID_KERNELS")
    monkeypatch.delenv("TRITON_INTERPRET")
    assert not available.triton_ready(cpu, can_interpret=True)


def test_a_cuda_device_without_kernels_says_why_in_one_line_once(monkeypatch, caplog):
    def broken(device):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.delenv("PELLUCID_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(available, "_has_triton", lambda: True)
    monkeypatch.setattr(available, "_trial", broken)
    with caplog.at_level(logging.WARNING, logger=available.__name__):
        assert not available.triton_ready(CUDA)
        assert not available.triton_ready(CUDA)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        "cuda:0 runs without Triton kernels, slower: RuntimeError: Failed to find C compiler."
    )


@pytest.mark.parametrize(
    ("switch", "capability", "has_triton", "wrong_answer", "reason"),
    [
        ("0", (9, 0), True, "", "PELLUCID_KERNELS=0"),
        ("", (7, 5), True, "", "capability 7.5 is below 8.0"),
        ("", (9, 0), False, "", "pip install triton"),
        ("", (9, 0), True, "a trial kernel gave 3", "a trial kernel gave 3"),
    ],
)
def test_each_obstacle_is_named(
    monkeypatch, caplog, switch, capability, has_triton, wrong_answer, reason
):
    monkeypatch.setenv("PELLUCID_KERNELS", switch)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(available, "_has_triton", lambda: has_triton)
    monkeypatch.setattr(available, "_trial", lambda device: wrong_answer)
    with caplog.at_level(logging.WARNING, logger=available.__name__):
        assert not available.triton_ready(CUDA)
    assert reason in caplog.text


def test_a_device_whose_trial_succeeds_is_ready(monkeypatch):
    monkeypatch.delenv("PELLUCID_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(available, "_has_triton", lambda: True)
    monkeypatch.setattr(available, "_trial", lambda device: "")
    assert available.triton_ready(CUDA)


def test_the_trial_kernel_gives_the_right_answer():
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert available._trial(torch.device(device)) == ""
