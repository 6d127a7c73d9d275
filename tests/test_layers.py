"""Imports point one way, and torch loads only where it computes."""

import ast
from pathlib import Path

import pytest

import pellucid

ROOT = Path(pellucid.__file__).parent

LAYERS = (
    ("errors",),
    ("records",),
    ("stats",),
    ("artifacts",),
    ("jsonl", "manifest"),
    ("energy", "ledger", "runlog"),
    ("protocols", "config", "config_errors"),
    ("config_curate",),
    ("config_distill", "config_rewards"),
    ("config_stages", "endpoint"),
    ("config_off",),
    ("config_io", "kernels"),
    ("tasks", "sandbox", "model", "algo"),
    ("rewards", "rollout"),
    ("data",),
    ("curate", "evaluate", "train"),
    ("evidence",),
    ("audit",),
    ("report",),
    ("pipeline",),
    ("doctor",),
    ("cli",),
    ("__main__",),
)
"""Lowest first. A module may import what stands in rows above its own, and its own package."""
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}

TORCH_LAYERS = {"kernels", "model", "algo", "rollout", "train"}
LATE_TORCH_LAYERS = {"evidence", "pipeline", "doctor", "cli"}
"""These may import torch, and what imports torch, inside functions; pipeline is itself late."""


def _modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            yield path, parts[0]


def _imports(tree, *, is_late=False):
    """(imported module, whether inside a function); what only type checkers see is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, is_late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            # `from pellucid import x` imports the module x.
            base = node.module
            names = [a.name for a in node.names] if base == "pellucid" else [""]
            yield from ((f"{base}.{name}".rstrip("."), is_late) for name in names)
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(node, is_late=is_late or is_function)


@pytest.mark.parametrize(("path", "layer"), list(_modules()), ids=lambda v: getattr(v, "stem", v))
def test_a_module_imports_only_its_own_package_and_lower_layers(path, layer):
    assert layer in LEVEL, f"{layer} has no place in LAYERS: give it one"
    for name, is_late in _imports(ast.parse(path.read_text())):
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package == "pellucid" and target in LEVEL and target != layer:
            assert LEVEL[target] < LEVEL[layer], f"{path.name}: {layer} imports {name}"
        if package == "torch":
            is_allowed = layer in TORCH_LAYERS | {"pipeline"} or (
                layer in LATE_TORCH_LAYERS and is_late
            )
            assert is_allowed, f"{path.name}: {layer} imports torch"
        if package == "pellucid" and target in TORCH_LAYERS | {"pipeline"}:
            is_allowed = layer in TORCH_LAYERS | {"pipeline"} or is_late
            assert is_allowed, f"{path.name}: {layer} imports {name} at its top, and so torch"


def test_the_check_sees_late_and_type_only_imports():
    source = (
        "import torch.nn\n"
        "from pellucid import stats, errors\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def f():\n    from pellucid.train.grpo import GrpoRun\n"
    )
    assert list(_imports(ast.parse(source))) == [
        ("torch.nn", False),
        ("pellucid.stats", False),
        ("pellucid.errors", False),
        ("pellucid.train.grpo", True),
    ]


def test_every_file_stays_under_400_lines():
    too_long = {
        path.relative_to(ROOT).as_posix(): lines
        for path, _ in _modules()
        if (lines := len(path.read_text().splitlines())) >= 400
    }
    assert too_long == {}
