"""`eval`, `generate`, `chat`: commands that load one model and sample from it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.output import interval, percent, points, print_json, print_table
from pellucid.cli.run import Unsafe
from pellucid.config import RunConfig
from pellucid.config_io import parse_config
from pellucid.errors import ConfigError
from pellucid.runlog import Progress

if TYPE_CHECKING:
    from pellucid.pipeline.grading import Grading

Model = Annotated[
    str,
    typer.Argument(help="tiny-base, a folder, a .gguf file, a hub id owner/name, or a run folder."),
]
Revision = Annotated[str | None, typer.Option(help="Commit of the hub id.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Same seed, same samples.")]
TopP = Annotated[float, typer.Option(help="Share of the distribution that is sampled from.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and no progress.")]
BARE, CHAT = "none", "chat"
"""No template; the template that is the model's own chat template and nothing else."""


def evaluate(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="tiny-base, a folder, a .gguf file, a hub id owner/name, or a run folder. Several "
            "are asked the same, and each is compared with those named before it.",
        ),
    ],
    suite: Annotated[list[str], typer.Option(help="Data set or task; may be given again.")],
    k: Annotated[int, typer.Option(help="Samples per problem.")] = 1,
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt template; default: the run's own, tiny for tiny-base, else r1-zero."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the suite.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Only the first so many problems.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy. Default: the run's own, else 0.6.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Share sampled from. Default: the run's own, else 0.95.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest completion. Default: the run's own, else 256.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of plan, ledger, samples and energy; the same command continues there. "
            "Default: evals/MODEL-DIGEST, another for other options or weights."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What the model is called in files and claims; once for each model."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key that signs; as for `dossier seal`.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    revision: Revision = None,
    device: Device = "auto",
    seed: Seed = 0,
    unsafe: Unsafe = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set the graders: code_timeout_s, math_verify_timeout_s or reward.math_verify. "
            "Default: as the run's recipe does, else a recipe's defaults.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure a model: pass@1 with its interval, extraction failures and truncation.

    A run folder is measured as its own recipe does; options change that. Several models are all
    sampled and graded as the first is. Everything is recorded: `pellucid dossier build` makes its
    dossier.
    """
    if revision is not None and len(model) > 1:
        raise ConfigError("--revision is the commit of one model: name one, or folders of them")
    manners = [measured_as(one) for one in model]
    task, sampling, grading = manners[0]
    given = _given(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
    folder = str(data_dir) if data_dir else task.get("data_dir")
    shared = {
        "device": device,
        "seed": seed,
        "unsafe_code": unsafe,
        "task": _given(data_dir=folder),
        "eval": {
            **(sampling | given),
            "suites": [_given(name=one, split=split, k=k, limit=limit) for one in suite],
        },
    }
    models = [
        _given(id=one, revision=revision, template=template or own["template"])
        for one, (own, *_) in zip(model, manners, strict=True)
    ]
    from pellucid.pipeline.evaluation import evaluate_models
    from pellucid.pipeline.evaluation_options import grader_values, make_options

    shared |= grader_values(grading, overrides or ())
    options = make_options(shared, models, name or ())
    place = out if out is not None else options.default_folder
    results = evaluate_models(options, place, key, Progress(is_silent=json))
    if json:
        print_json([{"folder": str(place)} | result for result in results])
        return
    _print_evaluation(results)
    typer.echo(f"\nAll of it is in {place}; its dossier: pellucid dossier build {place}")


def generate(
    model: Model,
    prompt: Annotated[str | None, typer.Argument(help="Omitted or -: read from stdin.")] = None,
    num: Annotated[int, typer.Option("-n", "--num", help="Completions to draw.")] = 1,
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt template; none for the bare text. Default: the run's own, else none."
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.6,
    top_p: TopP = 0.95,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Longest completion. Default: 256, or what the context has room for."),
    ] = None,
    revision: Revision = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Complete a prompt."""
    text = sys.stdin.read().removesuffix("\n") if prompt in (None, "-") else prompt
    if not text:
        raise ConfigError("the prompt is empty: give it as an argument or on stdin")
    if num < 1:
        raise ConfigError(f"-n {num}: must be at least 1")
    longest = 256 if max_new_tokens is None else max_new_tokens
    config = _sampling_config(model, revision, device, seed, temperature, top_p, longest)
    progress = Progress(is_silent=json)
    chosen = _template_of(model, template, "--template none: the bare text", progress)
    from pellucid.pipeline.talk import generate_text

    texts = generate_text(
        config,
        text,
        num=num,
        template=chosen,
        progress=progress,
        is_clipped=max_new_tokens is None,
    )
    if json:
        print_json({"prompt": text, "template": chosen, "completions": texts})
        return
    for index, completion in enumerate(texts):
        if num > 1:
            typer.echo(f"{'' if index == 0 else chr(10)}--- {index + 1} of {num}")
        typer.echo(completion)


def chat(
    model: Model,
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt template. Default: the run's own, else chat, the model's chat template."
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.6,
    top_p: TopP = 0.95,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Longest reply. Default: 1024, or what the context has room for."),
    ] = None,
    revision: Revision = None,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Talk to a model; it remembers the conversation. /new forgets it, /quit ends.

    Under a template that takes one question, such as r1-zero, every message is asked on its own.
    """
    longest = 1024 if max_new_tokens is None else max_new_tokens
    config = _sampling_config(model, revision, device, seed, temperature, top_p, longest)
    progress = Progress()
    chosen = _template_of(model, template, "--template names another", progress) or CHAT
    from pellucid.pipeline.talk import chat_reply, open_chat

    session = open_chat(config, chosen, progress, is_clipped=max_new_tokens is None)
    if not session.remembers:
        progress.say(f"{chosen} takes one question: every message is asked on its own")
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        typer.echo(f"{model}: type a message; /new forgets the conversation, /quit ends it.")
    messages: list[dict[str, str]] = []
    for line in iter(lambda: _next_line(is_terminal), None):
        if line == "/quit":
            break
        if line == "/new":
            messages = []
        elif line:
            messages.append({"role": "user", "content": line})
            reply = chat_reply(session, messages)
            messages.append({"role": "assistant", "content": reply})
            typer.echo(reply)


def measured_as(model: str) -> tuple[dict[str, Any], dict[str, Any], Grading | None]:
    """Template, sampler and graders of a model: those of its run, or of the recipes around the
    embedded; graders None: not said.
    """
    from pellucid.pipeline.manners import run_manners

    manners = run_manners(model)
    if manners is not None:
        task = _given(template=manners.template, data_dir=manners.data_dir)
        return task, dict(manners.sampling), manners.grading
    if model in ("tiny-base", "tiny-r1-base"):
        sampling = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 72}
        return {"template": "tiny"}, sampling, None
    return {"template": "r1-zero"}, {}, None


def _template_of(model: str, given: str | None, other: str, progress: Progress) -> str | None:
    """The template that was asked for, else the run's own, which is said; None: bare text."""
    if given is not None:
        return None if given == BARE else given
    from pellucid.pipeline.manners import run_manners

    manners = run_manners(model)
    if manners is None:
        return None
    progress.say(f"prompt template {manners.template}, as the run's recipe has it ({other})")
    return manners.template


def _next_line(is_terminal: bool) -> str | None:
    """One message; None at the end of the input."""
    try:
        return input("> " if is_terminal else "").strip()
    except EOFError:
        return None


def _config(model: str, *, revision: str | None, device: str, seed: int) -> dict[str, Any]:
    return {"model": _given(id=model, revision=revision), "device": device, "seed": seed}


def _sampling_config(
    model: str,
    revision: str | None,
    device: str,
    seed: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
) -> RunConfig:
    sampling = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    return _parse(_config(model, revision=revision, device=device, seed=seed) | {"eval": sampling})


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _parse(tree: dict[str, Any]) -> RunConfig:
    return parse_config(tree)


def _print_evaluation(results: list[dict[str, Any]]) -> None:
    """A table of all numbers, and one of the differences where there are several models."""
    columns = ("arm", "suite")
    print_table(
        ("model", "suite", "pass@1", "95 % interval", "problems", "samples each"),
        [
            (*(r[c] for c in columns), percent(r["pass_at_1"]), interval(r["ci95"]), r["n"], r["k"])
            for r in results
        ],
    )
    rows = [
        (result["arm"], d["over"], result["suite"], points(d["value"]), interval(d["ci95"]))
        for result in results
        for d in result["differences"]
    ]
    if rows:
        typer.echo()
        print_table(("model", "over", "suite", "pass@1", "95 % interval"), rows)
