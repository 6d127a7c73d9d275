"""A step that cannot be captured runs without a graph; one that finds no memory ends the run."""

import contextlib
import logging

import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.errors import UserError
from pellucid.records import Request, SamplingParams
from pellucid.rollout.captured import StepShape
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.resident_engine import ResidentEngine
from pellucid.train.step_errors import named

SPEC = tiny_spec(num_heads=2, num_kv_heads=1, head_dim=16, num_layers=1)
PARAMS = SamplingParams(max_new_tokens=1)
REQUESTS = [Request(prompt_ids=(3, 1, 4), sample_ids=(1, 2))]
NO_MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB of "
    "which 1.24 GiB is free. Of the allocated memory"
)
UNCAPTURABLE = RuntimeError("operation not permitted when stream is capturing\nand more")


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def let_capture(monkeypatch, *, leaving: RuntimeError | None) -> None:
    """Lets a step on a CPU try to capture; `leaving` is raised where the capture ends."""

    @contextlib.contextmanager
    def graph(new, pool=None):
        try:
            yield
        finally:
            if leaving is not None:
                raise leaving

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "graph", graph)


def of_the_device():
    """A step of the device's loop, a shape, and tensors that a step changes."""
    model = loud_model(SPEC)
    model.reserve_context(64)
    _, (step,), (wave,) = ResidentEngine(model, LetterTokenizer(), slots=2)._prepare(
        REQUESTS, PARAMS
    )
    step.state.reset(wave.work(SPEC, PARAMS), eos_ids=(), seed=0)
    step.state.start(2)
    return step, StepShape(2, 256, 256), step._volatile


def of_the_host():
    engine = InProcessEngine(loud_model(SPEC), LetterTokenizer(), slots=2)
    engine.generate(REQUESTS, PARAMS, seed=1)
    step = engine._spare
    return step, step.cache.extent, (step.token, step.position, step.column, step.logprobs)


def tried(loop, error: RuntimeError):
    """(the step, how often it has been begun, the tensors as they were, and now): each run of it
    changes them, and the second, which is to be captured, fails in its midst."""
    step, shape, changed = loop()
    before = [tensor.clone() for tensor in changed]
    runs = []

    def count_up(shape):
        runs.append(shape)
        for tensor in changed:
            tensor.add_(1)
        if len(runs) == 2:
            raise error

    step._step, step._can_capture = count_up, True
    return step, shape, runs, before, changed


LOOPS = pytest.mark.parametrize("loop", [of_the_device, of_the_host])


@LOOPS
@pytest.mark.parametrize("leaving", [None, RuntimeError("capturing stream has unjoined work")])
def test_memory_that_a_capture_does_not_get_ends_the_run_with_its_bytes(
    monkeypatch, caplog, loop, leaving
) -> None:
    step, shape, runs, before, now = tried(loop, NO_MEMORY)
    let_capture(monkeypatch, leaving=leaving)
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as caught, named(3):
        step.run(shape, 1)
    assert str(caught.value).startswith(
        "step 3: the GPU has no memory for 2.00 GiB more, 1.24 GiB of 139.80 GiB are free: "
    )
    assert len(runs) == 2
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True)), "rows are put back"
    assert caplog.records == []
    assert step._can_capture, "it can be captured where there is memory"


@LOOPS
def test_a_step_that_cannot_be_captured_runs_without_a_graph(monkeypatch, caplog, loop) -> None:
    step, shape, runs, before, now = tried(loop, UNCAPTURABLE)
    let_capture(monkeypatch, leaving=None)
    with caplog.at_level(logging.WARNING):
        step.run(shape, 3)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "decoding without CUDA graphs: operation not permitted when stream is capturing"
    )
    assert len(runs) == 2 + 3
    assert all(torch.equal(a + 3, b) for a, b in zip(before, now, strict=True))
    step.run(shape, 1)
    assert len(runs) == 2 + 3 + 1, "no other attempt"
