"""Without a CUDA device Triton's interpreter runs the kernels, on tensors of the CPU. What needs
the device lies in files named `…_cuda.py`, and `pytest -m gpu` runs all of them."""

import importlib.util
import os

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks by name, so that no file can be forgotten."""
    for item in items:
        if item.path.stem.endswith("_cuda"):
            item.add_marker(pytest.mark.gpu)


if not torch.cuda.is_available():
    # Read when a kernel is decorated, so before any test imports one.
    os.environ.setdefault("TRITON_INTERPRET", "1")

if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton"):
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def _patch_lang_tensor(tensor, scope):
        """Triton 3.6 holds scalars in arrays of one element, which numpy 2.4 no longer turns into
        integers by itself; loops with bounds known at run time would fail."""
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = _patch_lang_tensor
