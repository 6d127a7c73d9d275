"""A real run of a few seconds, with a plan, a control and its own dossier."""

from pellucid.config_io import load_recipe
from pellucid.pipeline.zero import run
from pellucid.runlog import Progress

RECIPE = """\
name = "tiny"
seed = 1
device = "cpu"
threads = 1
task = {{ name = "chain", limit = 16, template = "tiny" }}
rollout = {{ prompts = 1, group_size = 8, max_new_tokens = 12, slots = 8 }}
reward = {{ math_verify = false, terms = {{ accuracy = 1.0, format = 1.0 }} }}
train = {{ steps = 1, checkpoint_every = 1 }}
controls = {{ random_reward = true }}
evidence = {{ dossier = true, key = "{key}", cutoff = "2024-09-19" }}

[eval]
temperature = 1.0
top_p = 1.0
max_new_tokens = 12
suites = [
  {{ name = "chain", limit = 6, k = 2, pass_at = [2] }},
  {{ name = "chain", limit = 6, k = 2, template = "plain", baseline_only = true }},
]
"""


def write_recipe(folder, key):
    """The recipe's file; `key` signs."""
    path = folder / "tiny.toml"
    path.write_text(RECIPE.format(key=key))
    return path


def finish_run(folder, key):
    """Runs it below `folder`; returns the run folder."""
    config, by_hand = load_recipe(write_recipe(folder, key))
    out = folder / "run"
    run(config, out, set_by_hand=by_hand, progress=Progress(is_silent=True))
    return out
