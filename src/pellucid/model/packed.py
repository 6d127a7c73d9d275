"""Weights in the layouts that inference likes: bfloat16 linears of a CPU, prepacked by oneDNN.

torch reorders a bfloat16 weight at every call; reordered once, decoding is 1.1 to 2 times faster.
The operator is private to torch, so it is checked against F.linear before it is trusted, and timed.
Nothing is packed on CUDA, in float32, or where the processor has no bfloat16 arithmetic.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.model.transformer import Decoder, Linear

log = logging.getLogger(__name__)


class Packing:
    """Copies of a decoder's weights as of now. They are used only while `attached`.

    The trainer changes weights in place and would not be noticed here: make a new Packing then.
    """

    def __init__(self, model: Decoder) -> None:
        weight = model.head.weight.detach()
        is_half_on_cpu = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
        self.head = weight.float() if is_half_on_cpu else weight
        """The output head [V, D] in the type that logits are computed in: on a CPU float32, since
        its bfloat16 products come back rounded."""
        self._linears: list[tuple[Linear, Callable[[Tensor], Tensor]]] = []
        if is_half_on_cpu and packing_pays():
            self._linears = [
                (module, packed_linear(module.weight.detach(), module.bias))
                for module in model.modules()
                if isinstance(module, Linear) and module is not model.head
            ]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Lets the decoder's linears use the packed weights, where gradients are off."""
        for module, packed in self._linears:
            module.packed = packed
        try:
            yield
        finally:
            for module, _ in self._linears:
                module.packed = None


def packed_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """x [T, D] -> F.linear(x, weight, bias), with the weight reordered by oneDNN once."""
    ops = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(weight)
    return lambda x: ops._linear_pointwise(x, packed, bias, "none", [], "")


@functools.cache
def packing_pays() -> bool:
    """Whether this processor multiplies packed bfloat16 weights rightly and faster (takes 0.1
    s)."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 576, generator=generator).bfloat16()
    weight = torch.randn(1536, 576, generator=generator).bfloat16()
    try:
        packed = packed_linear(weight, None)
        is_right = torch.allclose(packed(x), F.linear(x, weight), rtol=0.02, atol=0.2)
    except (AttributeError, RuntimeError) as error:
        log.info("no packed weights: this torch lacks the operator (%s)", str(error).split("\n")[0])
        return False
    if not is_right:
        log.warning("no packed weights: oneDNN's product differs from torch's")
        return False
    return _seconds(lambda: packed(x)) < _seconds(lambda: F.linear(x, weight))


def _seconds(work: Callable[[], object]) -> float:
    """The fastest of 20 calls."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
