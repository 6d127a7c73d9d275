"""Captured decoding steps: those used last, as many as are worth their memory."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from torch import Tensor

log = logging.getLogger(__name__)

MOST_GRAPHS = 96
"""A graph of a model of 24 layers has 260 nodes and takes about a megabyte."""


class StepShape(NamedTuple):
    """What is fixed in a captured step."""

    rows: int
    own: int
    """Bound on the own positions of every live row, the new one included."""
    body: int
    """Bound on the prompt bodies."""
    drafts: int = 0
    """Tokens drafted a row (`rollout.drafts`): `own` bounds them too."""
    siblings: int = 16
    """About how many rows share a prompt at most: it decides how the prompts are read."""


class CapturedSteps:
    """Graphs by shape, each with the rotation table that it reads.

    Example: captured = CapturedSteps(); captured.put(shape, graph, table); captured.find(shape,
    table) is that graph.
    """

    def __init__(self, most: int = MOST_GRAPHS) -> None:
        self.most = most
        self.graphs: dict[StepShape, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        """In the order of their last use."""

    def find(self, shape: StepShape, table: Tensor) -> torch.cuda.CUDAGraph | None:
        """The graph of a shape, where it can still serve; `table` [2, context, K/2]: the rotations
        of now.

        A longer table has the same rotations at other addresses: the old one still serves where it
        covers all that this shape can reach.
        """
        if shape not in self.graphs:
            return None
        graph, read = self.graphs[shape]
        if read.shape[1] < min(shape.body + shape.own, table.shape[1]):
            return None
        self.graphs[shape] = self.graphs.pop(shape)
        return graph

    def put(self, shape: StepShape, graph: torch.cuda.CUDAGraph, table: Tensor) -> None:
        """Keeps a graph; the one not used for the longest time goes where there are too many."""
        is_full = shape not in self.graphs and len(self.graphs) >= self.most
        if (is_full or shape in self.graphs) and table.is_cuda:
            torch.cuda.synchronize(table.device)  # what goes may still be running
        self.graphs.pop(shape, None)
        if is_full:
            self.graphs.pop(next(iter(self.graphs)))
        self.graphs[shape] = graph, table

    def pool(self) -> tuple[int, int] | None:
        """The memory that all of them work in, one at a time; None before the first."""
        for graph, _ in self.graphs.values():
            return graph.pool()
        return None


def give_up_capture(error: RuntimeError) -> None:
    """Says that steps run without graphs, and why. Memory that could not be had is no reason: it is
    raised, so that the run ends with its bytes. Where a step fails before its streams have joined,
    leaving the capture fails too, and the error of memory is behind that one.
    """
    for known in (error, error.__context__):
        if isinstance(known, torch.OutOfMemoryError):
            raise known
    log.warning("decoding without CUDA graphs: %s", str(error).splitlines()[0])
