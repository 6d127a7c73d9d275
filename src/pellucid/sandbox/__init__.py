"""Runs programs that nobody trusts, and judges them by tests they cannot reach. No torch.

`Sandbox` holds jails (bubblewrap) with warm interpreters, `take_apart` cuts tests into calls and
checks, `judge` gives the typed outcome. docs/sandbox.md says what this stops and what it does not.
"""

from pellucid.sandbox.asserts import Plan, take_apart
from pellucid.sandbox.isolation import SandboxError, require_isolation, why_missing
from pellucid.sandbox.judge import judge
from pellucid.sandbox.pool import Sandbox
from pellucid.sandbox.records import Job, Judgement, Limits, Outcome, Run

__all__ = [
    "Job",
    "Judgement",
    "Limits",
    "Outcome",
    "Plan",
    "Run",
    "Sandbox",
    "SandboxError",
    "judge",
    "require_isolation",
    "take_apart",
    "why_missing",
]
