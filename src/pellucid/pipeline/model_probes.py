"""`audit probe`: the probes of `pellucid.audit.probes`, asked of a model with the items of a suite.

    suite ─┬─ first words of the questions, bare, greedy ──► completion
           ├─ options in another order ────────────────────► options
           └─ a program's items beside others of the same
              family, from other seeds, numbers as long ───► twins

A probe that the suite's items do not fit is left out with the reason. Nothing is recorded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pellucid.audit.probes import (
    CompletionProbe,
    NotApplicableError,
    PairedProbe,
    Subject,
    compare_twins,
    complete_prompts,
    permute_options,
    same_magnitudes,
)
from pellucid.config import RunConfig
from pellucid.data.load import load_problems
from pellucid.errors import DataError
from pellucid.pipeline.grading import open_grader
from pellucid.pipeline.measure import SUITE_SEED, load_suites
from pellucid.pipeline.workbench import open_run_workbench
from pellucid.protocols import Grader
from pellucid.records import Problem
from pellucid.rewards.table import OPEN
from pellucid.runlog import Progress
from pellucid.tasks import procedural
from pellucid.tasks.templates import Template, get_template

TWIN_SEEDS = 20
"""Seeds of a task that are searched for twins, at most."""
TWIN_POOL = 500
"""Problems made of each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What the probes of one model found. Example: probes={"completion": …}, left_out={"twins":
    "the answers of … are not known"}
    """

    probes: dict[str, CompletionProbe | PairedProbe]
    completed_twins: CompletionProbe | None
    """The first probe on twins, from other seeds: templates complete without a leak. None:
    the items have none.
    """
    left_out: dict[str, str]
    """Probe -> why the suite's items do not fit it."""


def probe_model(config: RunConfig, progress: Progress) -> ProbeReport:
    """Asks the model of `config` what it tells of having seen the items of the only suite, with
    the sampler of `config.eval`. Raises DataError where no probe fits, and other UserErrors.
    """
    (suite,) = load_suites(config)
    template = get_template(suite.template)
    problems = suite.problems
    bench = open_run_workbench(config, progress)
    tokenizer = bench.loaded.tokenizer
    asked = Subject(engine=bench.engine, tokenizer=tokenizer, params=suite.params, seed=config.seed)
    pairs = _twins(config, problems)
    # No longer than the longest question: the hidden words are a part of one.
    longest = max(len(tokenizer.encode(problem.question)) for problem in problems)
    reader = replace(asked, params=replace(suite.params, temperature=0.0, max_new_tokens=longest))

    def complete(asked_for: Sequence[Problem]) -> CompletionProbe:
        context = bench.loaded.model.spec.max_context
        if 2 * longest > context:
            raise NotApplicableError(
                f"a question of {longest} tokens and its rest may not fit a context of {context}"
            )
        return complete_prompts(reader, asked_for)

    with open_grader(config) as grader:
        probes: dict[str, Callable[[], CompletionProbe | PairedProbe]] = {
            "completion": lambda: complete(problems),
            "options": lambda: permute_options(asked, problems, template, grader),
            "twins": lambda: _compare_twins(asked, pairs, template, grader),
        }
        found, left_out = {}, {}
        with progress.task("probing", len(probes), "probes") as tick:
            for number, (name, probe) in enumerate(probes.items(), 1):
                try:
                    found[name] = probe()
                except NotApplicableError as error:
                    left_out[name] = str(error)
                tick(number, len(probes))
    others = [twin for item, twin in pairs or () if twin is not item]
    completed_twins = complete(others) if others and "completion" in found else None
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise DataError(f"no probe fits {suite.label} ({reasons}): choose another suite")
    return ProbeReport(probes=found, completed_twins=completed_twins, left_out=left_out)


def _compare_twins(
    subject: Subject,
    pairs: Sequence[tuple[Problem, Problem]] | None,
    template: Template,
    grader: Grader,
) -> PairedProbe:
    if pairs is None:
        raise NotApplicableError("only a program's items have twins whose answers are known")
    return compare_twins(subject, pairs, template, grader)


def _twins(config: RunConfig, problems: Sequence[Problem]) -> list[tuple[Problem, Problem]] | None:
    """Items of a procedural task, each with another of its family that no evaluation asks; None:
    the suite is no such task.

    Items are those of every evaluation, `SUITE_SEED`; twins those of other seeds, which follow
    from the run's. An item for which none is found stands beside itself, which no probe compares.
    """
    (suite,) = config.eval.suites
    if procedural(suite.name) is None:
        return None
    waiting = {p.id: p for p in problems if p.family and p.grader != OPEN}
    taken = {problem.question for problem in problems}
    twins: dict[str, Problem] = {}
    first = SUITE_SEED + 1 + config.seed * TWIN_SEEDS
    for seed in range(first, first + TWIN_SEEDS):
        if not waiting:
            break
        families = defaultdict(list)
        for other in load_problems(suite.name, suite.split, limit=TWIN_POOL, seed=seed):
            families[other.family].append(other)
        for item in list(waiting.values()):
            twin = next(
                (
                    other
                    for other in families[item.family]
                    if other.question not in taken and same_magnitudes(item, other)
                ),
                None,
            )
            if twin is not None:
                twins[item.id] = twin
                taken.add(twin.question)
                del waiting[item.id]
    return [(problem, twins.get(problem.id, problem)) for problem in problems]
