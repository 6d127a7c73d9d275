"""Names of jobs, and the work every system gets."""

import re
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import get_args

import pytest
import run
import workload
from jobs import JOBS, Kind, parse

README = (Path(run.__file__).parent / "README.md").read_text()


def test_a_rollouts_name_says_its_sizes() -> None:
    job = parse("rollout-7b-4x16-128+256")
    assert (job.kind, job.shape, job.prompts, job.group) == ("rollout", "7b", 4, 16)
    assert (job.prompt, job.new, job.rows) == (128, 256, 64)


def test_every_listed_job_parses_to_itself_once() -> None:
    assert [parse(name).name for name in JOBS] == list(JOBS)
    assert len(set(JOBS)) == len(JOBS)


@pytest.mark.parametrize(
    "name",
    [
        "mixed-0.5b-drafts9",
        "mixed-0.5b-fast",
        "rollout-0.5b",
        "rollout-3b-4x16-128+256",
        "step-9b",
        "sing-7b",
        "rollout-7b-0x1-1+1",
    ],
)
def test_an_unknown_job_is_refused_with_its_name(name) -> None:
    with pytest.raises(ValueError, match=name.replace("+", r"\+")):
        parse(name)


def test_a_lever_is_part_of_the_name_and_leaves_the_work_alone() -> None:
    plain, early, drafted = (parse(f"mixed-0.5b{end}") for end in ("", "-nopdl", "-drafts3"))
    assert replace(early, name=plain.name, has_pdl=True) == plain
    assert replace(drafted, name=plain.name, drafts=0) == plain
    assert [job.is_variant for job in (plain, early, drafted)] == [False, True, True]
    assert [job.environment for job in (plain, early, drafted)] == [{}, {"PELLUCID_PDL": "0"}, {}]
    assert parse("train-7b-nopdl").prompts == parse("train-7b").prompts
    near = parse("rollout-7b-64x1-128+256-near")
    assert near.is_variant
    assert replace(near, name="", is_exact=True) == replace(
        parse("rollout-7b-64x1-128+256"), name=""
    )


def test_a_rehearsal_is_small_and_keeps_the_name() -> None:
    for name in JOBS:
        small = parse(name).shrunk()
        assert small.name == name
        assert small.rows * (small.prompt + small.new) <= 4 * 30


def test_mixed_lengths_have_the_stated_mean_and_stay_in_bounds() -> None:
    limits = workload.mixed_limits(100_000)
    assert min(limits) >= 1
    assert max(limits) == 2048
    assert mean(limits) == pytest.approx(300, rel=0.02)  # clipping takes a little
    assert limits[:1024] == workload.mixed_limits(1024)


def test_prompts_are_the_same_for_everyone_and_leave_out_special_tokens() -> None:
    prompts = workload.prompts(2, 50, 151_936)
    assert prompts == workload.prompts(2, 50, 151_936)
    assert prompts[0] != prompts[1]
    assert max(max(p) for p in prompts) < 149_936


def test_every_option_is_explained_and_the_readme_names_only_those_there_are() -> None:
    options = {o: a for a in run.new_parser()._actions for o in a.option_strings}
    assert [name for name, action in options.items() if not action.help] == []
    others = {"--check", "--no-index", "--no-deps", "--no-compile", "--target", "--platform"}
    others |= {"--only-binary", "--python-version", "--dest"}  # of pip
    assert set(re.findall(r"--[a-z][a-z-]+", README)) - others <= options.keys()
    assert run.new_parser().parse_args([]).repeats == 5
    assert run.new_parser().parse_args([]).peer_repeats == 5


def test_the_readme_says_what_every_kind_of_job_counts() -> None:
    assert [kind for kind in get_args(Kind) if f"- **{kind}**" not in README] == []
    assert {parse(name).kind for name in JOBS} == set(get_args(Kind))
    for name in re.findall(r"`((?:mixed|planned|rollout|step)-[\w.+-]+)`", README):
        if "SHAPE" not in name:
            assert parse(name).name == name
