"""A stage that teaches a student, without the pipeline around it: recipe, folders, students."""

import json
import shutil

from pellucid.artifacts import RunFolder
from pellucid.config_stages import PipelineConfig
from pellucid.curate.example import CuratedExample, write_examples
from pellucid.ledger import Ledger
from pellucid.model.export import export_model
from pellucid.model.load import ASSETS
from pellucid.model.spec import ModelSpec
from pellucid.model.tokenizer import TextTokenizer
from pellucid.model.transformer import Decoder, init_weights
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.stages import find_stage
from pellucid.runlog import Progress
from pellucid.tasks import chain

PROBLEMS = chain.problems("train", 24, 0)
SFT = {"epochs": 2, "batch_sequences": 8, "learning_rate": 3e-3, "checkpoint_every": 1}
ROLLOUT = {"prompts": 2, "group_size": 4, "max_new_tokens": 48, "temperature": 0.5}


def export_random(folder, tokenizer: TextTokenizer, vocab_size: int) -> None:
    """A student of 13,000 parameters that knows nothing."""
    spec = ModelSpec(
        family="llama",
        vocab_size=vocab_size,
        width=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        ffn_width=48,
        max_context=256,
    )
    model = Decoder(spec)
    init_weights(model, seed=0)
    export_model(model, tokenizer, folder)


def examples() -> list[CuratedExample]:
    made = []
    for problem in PROBLEMS:
        response = f" <think> it is {problem.gold} </think> <answer> {problem.gold} </answer>"
        made.append(
            CuratedExample(
                id=f"{problem.id}#0",
                kind="reasoning",
                prompt=problem.question,
                thinking=f"it is {problem.gold}",
                summary=problem.gold,
                response=response,
                template="tiny",
                gold=problem.gold,
                grader=problem.grader,
                problem_id=problem.id,
            )
        )
    return made


def recipe_of(student, *, contamination="report", **values) -> PipelineConfig:
    stage = {
        "kind": "distill",
        "student": {"id": "student", "path": str(student)},
        "data_from": "curated",
        "teacher": "taught",
        "sft": SFT,
        "rollout": ROLLOUT,
        "iterative": {"rounds": 2},
        "math_verify": False,
    }
    return PipelineConfig.model_validate(
        {
            "device": "cpu",
            "threads": 1,
            "template": "tiny",
            "math_verify": False,
            "data": {"contamination": contamination},
            "eval": {"max_new_tokens": 16, "suites": [{"name": "chain", "limit": 4}]},
            "stages": [
                {"kind": "zero", "name": "taught"},
                {"kind": "cold-start", "name": "curated", "sampler": "base", "template": "tiny"},
                stage | values,
            ],
        }
    )


def make_context(
    root, student, *, should_stop=lambda: False, curated=None, contamination="report", **values
) -> StageContext:
    """A stage whose teacher is the embedded model, continued where it is there; `curated`: examples
    in place of `examples()`.
    """
    recipe, run = recipe_of(student, contamination=contamination, **values), RunFolder(root)
    taught, curating = run.stage(1, "taught"), run.stage(2, "curated")
    if not taught.model.exists():
        shutil.copytree(ASSETS / "tiny-base", taught.model)
        write_examples(curating.root / "examples.jsonl", curated or examples())
    return StageContext(
        recipe=recipe,
        config=recipe.stage("distill"),
        stage=run.stage(3, "distill"),
        inputs={"taught": taught, "curated": curating},
        address="0" * 64,
        ledger=Ledger(run.ledger),
        progress=Progress(is_silent=True),
        should_stop=should_stop,
    )


def run(context: StageContext) -> dict:
    """The table of arms by name."""
    try:
        find_stage("distill")(context, context.config)
    finally:
        context.ledger.close()
    table = json.loads((context.stage.root / "arms.json").read_text())
    return {row["name"]: row for row in table["arms"]} | {"budget": table["budget"]}


def weights(folder) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def run_alone(context) -> None:
    try:
        find_stage("distill")(context, context.config)
    finally:
        context.ledger.close()
