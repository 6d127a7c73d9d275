"""Compiled blocks beside hand-fused ones, rehearsed without a code generator."""

from dataclasses import replace

import compile_jobs
import pytest
import torch
from jobs import parse
from measure import Setting
from shapes import SPECS

from pellucid.train.packing import plan_packs

SPEC = replace(SPECS["tiny"], num_layers=3)
CPU = Setting(device=torch.device("cpu"), spec=SPEC, repeats=2, warmups=1, tokens_per_pack=20)
JOB = parse("compiled-0.5b").shrunk()
# The compiler itself looks at the gradients of what a graph is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


def test_compiled_blocks_are_traced_once_and_train_as_the_others_do(monkeypatch) -> None:
    fed = []
    build = compile_jobs.build_model

    def watched(setting):
        model = build(setting)
        model.register_forward_pre_hook(lambda _, args: fed.append(len(args[0])))
        return model

    monkeypatch.setattr(compile_jobs, "build_model", watched)
    got = compile_jobs.compiled(JOB, CPU, backend="aot_eager")
    ways = got["details"]["ways"]
    compiled, plain = ways["compiled"], ways["plain"]
    # The first block has nothing to add to its input; all others share both halves with it.
    assert (compiled["graphs"], compiled["graphs_later"], compiled["graph_breaks"]) == (3, 0, 0)
    assert (plain["graphs"], plain["graphs_later"]) == (0, 0)
    assert all(abs(value) < 1e-5 for value in compiled["difference"].values())
    assert compiled["first_update"]["grad_norm"] > 0
    assert got["median_s"] == compiled["seconds"]
    assert got["details"]["gain"] == ways["fused"]["seconds"] / compiled["seconds"]
    assert set(fed) == {got["settings"]["tokens_per_pack"]}
    assert len(fed) == 3 * 3 * got["settings"]["packs"]  # ways, updates


def test_a_way_that_device_or_memory_does_not_allow_is_recorded_with_the_reason(
    monkeypatch,
) -> None:
    def full(model):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(compile_jobs, "_be_plain", full)
    ways = compile_jobs.compiled(JOB, CPU, backend="eager")["details"]["ways"]
    assert "NVIDIA" in ways["exact"]["error"]
    assert ways["plain"] == {"error": "the GPU has no memory for 2.00 GiB more"}
    assert ways["compiled"]["mfu"] > 0


def test_a_wrong_block_shows_in_the_first_blocks_gradient(monkeypatch) -> None:
    after = compile_jobs._after

    def wrong(block, x, attended):
        x, delta = after(block, x, attended)
        return x, delta * 1.01

    monkeypatch.setattr(compile_jobs, "_after", wrong)
    got = compile_jobs.compiled(JOB, CPU, backend="eager")
    assert got["details"]["ways"]["compiled"]["difference"]["first_block_gradient"] > 1e-3


@pytest.mark.parametrize(
    ("name", "about", "groups"),
    [("compiled-0.5b", 32768, 4), ("compiled-1.5b", 16384, 2), ("compiled-1.5b", 100, 1),
     ("compiled-0.5b", 60_000, 4)],
)  # fmt: skip
def test_packs_of_one_size_are_filled_by_whole_groups(name: str, about: int, groups: int) -> None:
    job = parse(name)
    capacity = compile_jobs.fixed_pack(job, about)
    assert capacity == groups * (127 + 16 * 512)
    sequences = compile_jobs.synthetic(job, CPU)
    packs = plan_packs(sequences, capacity)
    assert {len(pack) for pack in packs} == {groups}
    assert all(len(group) == job.group for pack in packs for group in pack)


def test_trying_every_tiling_is_a_lever_of_compiled_jobs_alone() -> None:
    job = parse("compiled-1.5b-max")
    assert job.has_autotune
    assert job.is_variant
    assert replace(job, name="compiled-1.5b", has_autotune=False) == parse("compiled-1.5b")
    for name in ("train-1.5b-max", "compiled-1.5b-near"):
        with pytest.raises(ValueError, match=name):
            parse(name)
