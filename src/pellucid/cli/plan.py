"""`plan`: what a recipe will take of a GPU's memory and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli.output import print_json, print_table
from pellucid.config_io import load_recipe
from pellucid.config_stages import PipelineConfig

if TYPE_CHECKING:
    from pellucid.pipeline.plan import PlanOptions, PlanReport
    from pellucid.train.memory_plan import MemoryPlan
    from pellucid.train.step_time import StepTime

GIB = 2**30


def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, folder or TOML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. train.steps=20."),
    ] = None,
    memory_gib: Annotated[
        float | None, typer.Option(min=0.1, help="Memory that the run may use.")
    ] = None,
    device_name: Annotated[
        str | None, typer.Option(help="Plan for this GPU, e.g. H200, instead of the one here.")
    ] = None,
    mean_length: Annotated[
        float | None,
        typer.Option(min=1.0, help="Tokens of a completion on average; default: the longest."),
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a prompt, instead of counting the task's.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a recipe will take of a GPU: memory by class, choices, time of a step; of several
    stages, of each.
    """
    config, _ = load_recipe(recipe, overrides or [])
    from pellucid.pipeline.plan import PlanOptions, plan_recipe

    options = PlanOptions(
        memory_gib=memory_gib,
        device_name=device_name,
        mean_length=mean_length,
        prompt_tokens=prompt_tokens,
    )
    if isinstance(config, PipelineConfig):
        _plan_stages(config, options, json=json)
        return
    report = plan_recipe(config, options)
    if json:
        print_json(report.as_json())
        return
    _print_memory(report)
    typer.echo()
    _print_choices(report)
    if report.time is not None:
        typer.echo()
        _print_time(report, report.time)
    for note in report.notes:
        typer.echo(f"\nNote: {note}")


def _plan_stages(recipe: PipelineConfig, options: PlanOptions, *, json: bool) -> None:
    from pellucid.pipeline.plan_stages import plan_pipeline

    plan = plan_pipeline(recipe, options)
    if json:
        print_json(plan.as_json())
        return
    columns = ("weights", "states", "gradients", "reference", "kv", "activations", "logits")
    columns += ("beside", "scoring", "peak")
    sizes = [
        (p.stage, p.name, *(_gib(getattr(p.memory, name)) for name in columns), _rows(p.memory))
        for p in plan.phases
    ]
    print_table((f"GiB of {plan.free / GIB:.1f}, {plan.device}", "", *columns, "at a time"), sizes)
    typer.echo()
    times = [
        (p.stage, p.name, str(p.steps or "budget"), _seconds(p.step_s), _seconds(p.total_s))
        for p in plan.phases
    ]
    print_table(("predicted", "", "steps, at most", "s a step", "s in all"), times)
    for note in plan.notes:
        typer.echo(f"\nNote: {note}")


def _rows(memory: MemoryPlan) -> str:
    """Sequences decoded together, and where they lie; nothing where none are."""
    if not memory.slots:
        return "-"
    return memory.places + (", kv lent to training" if memory.is_time_shared else "")


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f}" if num_bytes else "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _print_memory(report: PlanReport) -> None:
    m = report.memory
    rollout, training = "rollout", "training"
    shared = rollout if m.is_time_shared else "always"
    rows = [
        ("weights", m.weights, "always"),
        ("optimizer states", m.states, "always"),
        ("gradients, float32", m.gradients, training if m.is_time_shared else "always"),
        ("reference", m.reference, "always"),
        ("keys and values", m.kv, shared),
        ("decoding state and work", m.decoding, "always"),
        ("prefill", m.prefill, rollout),
        ("activations", m.activations, training),
        ("logits kept", m.logits, training),
        ("work of the backward pass", max(m.head_work, m.block_work - m.logits), training),
        ("context and libraries", m.overhead, "always"),
        ("peak of the rollout", m.rollout_peak, ""),
        ("peak of the training", m.training_peak, ""),
        ("peak", m.peak, f"of {report.free / GIB:.1f} GiB, {report.device}"),
    ]
    print_table(("memory", "GiB", "when"), [(n, f"{b / GIB:8.2f}", w) for n, b, w in rows])


def _print_choices(report: PlanReport) -> None:
    m, spec = report.memory, report.job.spec
    place = "given back while training" if m.is_time_shared else "stay while training"
    print_table(
        ("choice", "value"),
        [
            ("rollout.slots", m.places if m.kv_pages else m.slots),
            ("train.tokens_per_pack", m.tokens_per_pack),
            ("blocks that compute activations again", f"{m.checkpointed_blocks}/{spec.num_layers}"),
            ("keys and values", place),
        ],
    )


def _print_time(report: PlanReport, time: StepTime) -> None:
    rows = [
        ("prefill", time.prefill_s),
        ("decoding", time.decode_s),
        ("training", time.training_s),
        ("optimizer", time.optimizer_s),
        ("whole step", time.step_s),
    ]
    print_table(
        (f"predicted, {report.mean_length:.0f} tokens a completion", "seconds"),
        [(name, f"{seconds:8.2f}") for name, seconds in rows],
    )
