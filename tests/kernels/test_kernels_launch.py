import pytest
import torch

pytest.importorskip("triton")

from pellucid.kernels import launch
from pellucid.kernels.launch import pdl

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_nothing_is_launched_early_in_the_interpreter():
    assert pdl(CPU) == pdl(CPU, is_early=False) == {"PDL": False}


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (12, 0)])
def test_a_gpu_from_hopper_on_launches_early_unless_told_otherwise(capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("PELLUCID_PDL", raising=False)
    launch._has_pdl.cache_clear()
    try:
        if capability < (9, 0):
            assert pdl(CUDA) == {"PDL": False}
            return
        assert pdl(CUDA) == {"PDL": True, "launch_pdl": True}
        assert pdl(CUDA, is_early=False) == {"PDL": True}
        monkeypatch.setenv("PELLUCID_PDL", "0")
        assert pdl(CUDA) == {"PDL": False}
    finally:
        launch._has_pdl.cache_clear()
