"""The line that ends a run: which step, and how many bytes."""

from types import SimpleNamespace

import pytest
import torch

from pellucid.artifacts import StageFolder
from pellucid.errors import ConfigError, NumericsError, RunError, UserError
from pellucid.model.shortage import shortage
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.step_errors import named

CUDA_OOM = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.80 GiB of "
    "which 1.24 GiB is free. Including non-PyTorch memory, this process has 138.55 GiB memory in "
    "use. Of the allocated memory 120.10 GiB is allocated by PyTorch.\nSee documentation."
)


def test_torchs_paragraph_becomes_what_was_asked_for_and_what_is_free():
    line = shortage(torch.OutOfMemoryError(CUDA_OOM))
    assert line == ("the GPU has no memory for 20.00 GiB more, 1.24 GiB of 139.80 GiB are free")
    unknown = shortage(torch.OutOfMemoryError("out of memory\nsomewhere"))
    assert unknown == "the GPU has no memory for what it was asked for more"


def test_memory_that_this_machine_lacks_is_named_with_its_bytes():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert shortage(caught.value) == f"this machine has no memory for {2**25:.2f} GiB more"


def test_other_errors_of_torch_are_none_of_it():
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert shortage(caught.value) is None


@pytest.mark.parametrize(
    ("raised", "kind", "line"),
    [
        (NumericsError("logits hold NaN"), NumericsError, "step 7: logits hold NaN"),
        (NumericsError("step 7: the loss is nan"), NumericsError, "step 7: the loss is nan"),
        (UserError("prompt 3 has 99 tokens"), UserError, "step 7: prompt 3 has 99 tokens"),
        (ConfigError("no"), ConfigError, "step 7: no"),
    ],
)
def test_an_error_names_its_step_once_and_stays_of_its_kind(raised, kind, line):
    with pytest.raises(kind) as caught, named(7):
        raise raised
    assert type(caught.value) is kind
    assert str(caught.value) == line


def test_a_lack_of_memory_is_the_users_to_mend_and_a_fault_of_the_code_is_not():
    with pytest.raises(UserError) as caught, named(3):
        raise torch.OutOfMemoryError(CUDA_OOM)
    assert str(caught.value).startswith("step 3: the GPU has no memory for 20.00 GiB more")
    assert "last checkpoint" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="shapes") as fault, named(3):
        raise RuntimeError("shapes cannot be multiplied")
    assert type(fault.value) is RuntimeError


@pytest.mark.parametrize(
    ("error", "kind"),
    [(torch.OutOfMemoryError(CUDA_OOM), torch.OutOfMemoryError), (KeyError("adam"), RunError)],
)
def test_a_checkpoint_is_not_blamed_for_a_lack_of_memory(tmp_path, error, kind):
    def refuse(state):
        raise error

    checkpoints = Checkpoints(
        StageFolder(tmp_path), keep=1, on_save=lambda step: None, on_damage=pytest.fail
    )
    updater = SimpleNamespace(
        optimizer_steps=4, state=lambda: {"a": torch.zeros(1)}, load_state=refuse
    )
    checkpoints.save(4, updater, {})
    with pytest.raises(kind):
        checkpoints.load_last(updater)
