"""Bookkeeping of captured steps; the graphs themselves are of no matter here."""

import torch

from pellucid.rollout.captured import CapturedSteps, StepShape
from pellucid.rollout.resident import round_bound


def table(context: int) -> torch.Tensor:
    return torch.zeros(2, context, 4)


def shape(rows: int, own: int = 256) -> StepShape:
    return StepShape(rows, own, 256)


def test_what_was_not_used_for_the_longest_time_goes() -> None:
    captured, rotations = CapturedSteps(most=2), table(4096)
    graphs = [object(), object(), object()]
    captured.put(shape(1), graphs[0], rotations)
    captured.put(shape(2), graphs[1], rotations)
    assert captured.find(shape(1), rotations) is graphs[0]
    captured.put(shape(3), graphs[2], rotations)
    assert captured.find(shape(2), rotations) is None
    assert captured.find(shape(1), rotations) is graphs[0]
    captured.put(shape(3), graphs[1], rotations)
    assert captured.find(shape(3), rotations) is graphs[1]
    assert len(captured.graphs) == 2


def test_a_step_serves_as_far_as_its_rotations_reach() -> None:
    captured, graph = CapturedSteps(), object()
    captured.put(shape(1), graph, table(512))
    captured.put(shape(1, own=512), graph, table(600))
    assert captured.find(shape(1), table(4096)) is graph
    assert captured.find(shape(1, own=512), table(4096)) is None
    assert captured.find(shape(1, own=512), table(600)) is graph, "no position lies beyond it"


def test_bounds_cover_and_are_few() -> None:
    bounds = [round_bound(length) for length in range(1, 32_769)]
    assert all(bound >= length for length, bound in enumerate(bounds, start=1))
    assert all(bound < 1.25 * length for length, bound in enumerate(bounds, start=1)
               if length > 2048)  # fmt: skip
    assert len(set(bounds)) == 8 + 4 * 4
    assert (round_bound(0), round_bound(257), round_bound(2048), round_bound(2049)) == (
        0, 512, 2048, 2560,
    )  # fmt: skip
