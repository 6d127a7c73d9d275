"""Triton kernels: what CUDA runs faster than torch does. Each has a slow twin in torch."""
