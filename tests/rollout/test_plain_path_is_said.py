"""Where the device's loop cannot serve, the plain one does, and says so once."""

import logging

import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.kernels import available
from pellucid.model.ops import select_ops
from pellucid.records import Request, SamplingParams
from pellucid.rollout import engine
from pellucid.rollout.engine import InProcessEngine

pytest.importorskip("triton")
CUDA = torch.device("cuda", 0)
REQUESTS = [Request(prompt_ids=(3, 1, 4), sample_ids=(1, 2))]


@pytest.fixture(autouse=True)
def forget():
    caches = (available._cuda_ready, available._is_hopper, engine._say_that_the_host_leads)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def said(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("dtype", "changes", "reason"),
    [
        (torch.float32, {"head_dim": 16}, "weights are float32"),
        (torch.bfloat16, {"width": 36}, "not made for this model's shape"),
    ],
)
def test_a_model_that_the_kernels_do_not_serve_is_served_by_the_host(
    monkeypatch, caplog, dtype, changes, reason
):
    model = loud_model(tiny_spec(**changes)).to(dtype)
    params = SamplingParams(max_new_tokens=9)
    plain = InProcessEngine(model, LetterTokenizer()).generate(REQUESTS, params, seed=1)
    assert said(caplog) == [], "on a CPU nothing is missing"
    monkeypatch.setattr(engine, "hopper_ready", lambda device: True)
    with caplog.at_level(logging.WARNING):
        engines = [InProcessEngine(model, LetterTokenizer()) for _ in range(3)]
    assert [e._resident for e in engines] == [None] * 3
    (line,) = said(caplog)
    assert line.startswith("the host leads decoding, slower and not exact: ")
    assert reason in line
    assert engines[-1].generate(REQUESTS, params, seed=1) == plain


def test_a_gpu_before_hopper_trains_with_kernels_and_says_once_that_the_host_leads(
    monkeypatch, caplog
):
    monkeypatch.delenv("PELLUCID_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(available, "_trial", lambda device: "")
    with caplog.at_level(logging.WARNING):
        assert available.triton_ready(CUDA)
        assert not available.hopper_ready(CUDA)
        assert not available.hopper_ready(CUDA)
        assert select_ops(CUDA) != select_ops(torch.device("cpu"))
    (line,) = said(caplog)
    assert line == (
        "cuda:0: the host leads decoding, slower and not exact: capability 8.6 is below 9.0"
    )


def test_a_device_without_a_number_is_the_current_one(monkeypatch, caplog):
    """Of two GPUs the second is too old for the loop on the device."""
    now = [0]
    monkeypatch.delenv("PELLUCID_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: now[0])
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: (8, 6) if device.index else (9, 0)
    )
    tried = []
    monkeypatch.setattr(available, "_trial", lambda device: tried.append(device) or "")
    bare = torch.device("cuda")
    assert available.hopper_ready(bare)
    assert available.hopper_ready(CUDA)
    now[0] = 1
    assert not available.hopper_ready(bare)
    assert available.hopper_ready(CUDA)
    assert available.triton_ready(bare)
    assert tried == [CUDA, torch.device("cuda", 1)]
    (line,) = said(caplog)
    assert line.startswith("cuda:1: the host leads decoding")


@pytest.mark.parametrize("error", [AssertionError, RuntimeError])
def test_a_machine_without_a_device_is_said_to_have_none(monkeypatch, caplog, error):
    def none(*_):
        raise error("no CUDA here")

    monkeypatch.delenv("PELLUCID_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "current_device", none)
    monkeypatch.setattr(torch.cuda, "get_device_capability", none)
    assert not available.hopper_ready(torch.device("cuda"))
    (line,) = said(caplog)
    assert line.endswith(f"{error.__name__}: no CUDA here")
