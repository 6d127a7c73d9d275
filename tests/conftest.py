"""Without a CUDA device Triton's interpreter runs the kernels, on tensors of the CPU."""

import os

import torch

if not torch.cuda.is_available():
    # Read when a kernel is decorated, so before any test imports one.
    os.environ.setdefault("TRITON_INTERPRET", "1")
