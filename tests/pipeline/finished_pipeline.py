"""A real pipeline of some seconds: every kind of row of a stage table, and its own dossier."""

from pellucid.config_io import load_recipe
from pellucid.pipeline.pipeline import run_pipeline
from pellucid.runlog import Progress

RECIPE = """\
name = "small"
seed = 1
device = "cpu"
threads = 1
template = "tiny"
math_verify = false
evidence = {{ dossier = true, key = "{key}" }}

[eval]
temperature = 1.0
top_p = 1.0
max_new_tokens = 12
suites = [
  {{ name = "chain", limit = 4, k = 2 }},
  {{ name = "chain", limit = 4, k = 1, template = "plain", baseline_only = true }},
  {{ name = "arithmetic", limit = 2, k = 1, template = "tiny" }},
]

[[stages]]
kind = "zero"
tasks = [{{ name = "chain", limit = 16 }}]
rollout = {{ prompts = 1, group_size = 4, max_new_tokens = 12, slots = 8 }}
reward = {{ math_verify = false, terms = {{ accuracy = 1.0, format = 1.0 }} }}
train = {{ steps = 1, checkpoint_every = 1, eval_every = 1 }}

[[stages]]
kind = "cold-start"
sampler = "base"
template = "tiny-r1"
problems = 12
samples = 3
temperature = 0.5
max_new_tokens = 40
math_verify = false
sft = {{ epochs = 1, batch_sequences = 8 }}

[[stages]]
kind = "reward-models"
start = "base"
helpful = {{ limit = 12, held_out = 0.2, max_length_gap = 1.0 }}
safety = {{ limit = 12, held_out = 0.2 }}
train = {{ batch_sequences = 16, learning_rate = 1e-3 }}

[[stages]]
kind = "general-rl"
start = "cold-start"
tasks = [{{ name = "chain", limit = 16 }}, {{ name = "smalltalk", limit = 8 }}]
rollout = {{ prompts = 2, group_size = 4, max_new_tokens = 12, slots = 8 }}
reward = {{ math_verify = false, starts = {{ helpful = 0.0 }} }}
train = {{ steps = 2, checkpoint_every = 1 }}

[[stages]]
kind = "distill"
student = {{ id = "tiny-base" }}
data_from = "cold-start"
arms = ["sft", "iterative-sft"]
sft = {{ epochs = 1, batch_sequences = 8 }}
rollout = {{ prompts = 1, group_size = 4, max_new_tokens = 40, temperature = 0.5 }}
iterative = {{ rounds = 1 }}
math_verify = false
"""


def write_recipe(folder, key):
    """The recipe's file; `key` signs."""
    path = folder / "small.toml"
    path.write_text(RECIPE.format(key=key))
    return path


def finish_pipeline(folder, key):
    """Runs it below `folder`; returns the run folder."""
    config, by_hand = load_recipe(write_recipe(folder, key))
    out = folder / "run"
    run_pipeline(config, out, set_by_hand=by_hand, progress=Progress(is_silent=True))
    return out
