"""The command line: reads arguments, prints results, turns errors into exit codes.

    exit 0    done                       exit 3     NaN or infinity stopped the training
    exit 1    `doctor`, `data check` or  exit 130   interrupted from the keyboard
              `verify` found a fault     exit 143   stopped by SIGTERM, state saved
    exit 2    the user can mend it

Heavy parts are imported inside the commands, so that help comes at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import MutableMapping, Sequence

import typer

from pellucid.artifacts import os_error_line
from pellucid.cli import (
    audit,
    audit_probe,
    data,
    dossier,
    dossier_audit,
    dossier_export,
    dossier_others,
    model,
    plan,
    review,
    run,
    stages,
    verify,
)
from pellucid.cli.output import show_help
from pellucid.errors import Interrupted, NumericsError, UserError

USER_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What a disk refuses for reasons that a user can mend."""
INTERRUPTED = 130

# The base of all usage errors. Newer typers carry their own copy of click, older ones need click.
_UsageError = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="pellucid",
    help="Train reasoning models by reinforcement learning, and measure what they learned.",
    invoke_without_command=True,
    callback=show_help,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run.run)
stages.add_commands(app)
app.command()(plan.plan)
app.command("eval")(model.evaluate)
app.command()(model.generate)
app.command()(model.chat)
app.add_typer(data.app, name="data")
app.add_typer(audit.app, name="audit")
audit_probe.add_commands(audit.app)
app.add_typer(dossier.app, name="dossier")
dossier_export.add_commands(dossier.app)
dossier_others.add_commands(dossier.app)
dossier_audit.add_commands(dossier.app)
app.command()(verify.verify)
app.add_typer(review.app, name="review")
app.command()(run.report)
app.command()(run.export)
app.command()(run.doctor)


SPIN_COUNT = "3000"
"""How long an idle OpenMP thread spins before it sleeps, in GNU's loops. Its own 300,000 make a
step of the demo ten times slower as soon as anything else wants one of the cores."""
ALLOCATOR = "expandable_segments:True"
"""How torch cuts the memory of a GPU: blocks that grow in place. Packs differ in size from step to
step, and of blocks of fixed sizes torch held half as much again as was in use. Memory of captured
graphs lies in pools of its own and is never moved or given back while a graph lives."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `pellucid`: runs a command and exits with its code."""
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """One command to its exit code. Errors of the code itself keep their traceback."""
    set_environment(os.environ)
    try:
        code = app(args=arguments, prog_name="pellucid", standalone_mode=False)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "pellucid"
        return _fail(2, f"{error.format_message().rstrip('.')}; see {command} --help")
    except UserError as error:
        return _fail(2, str(error))
    except NumericsError as error:
        return _fail(3, str(error))
    except Interrupted as error:
        return _fail(143, f"{error}: continue with the same command", label="stopped")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        return _fail(2, os_error_line(error))
    except RuntimeError as error:
        line = _memory_line(error)
        if line is None:
            raise
        return _fail(2, line)
    if code == INTERRUPTED:  # newer typers return it, older ones raise Abort
        return _fail(code, "continue with the same command", label="interrupted")
    return code if isinstance(code, int) else 0


def set_environment(environment: MutableMapping[str, str]) -> None:
    """What torch and its libraries read once, when they load; what a person set stays."""
    environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if "PYTORCH_CUDA_ALLOC_CONF" not in environment:  # the older name of the same variable
        environment.setdefault("PYTORCH_ALLOC_CONF", ALLOCATOR)


def _memory_line(error: RuntimeError) -> str | None:
    """One line where memory ran out on a device; None where the code is at fault."""
    if "torch" not in sys.modules:
        return None
    from pellucid.model.shortage import shortage

    line = shortage(error)
    return line and f"{line}: ask for fewer tokens, or end what else uses the memory"


def _fail(code: int, message: str, label: str = "error") -> int:
    line = " ".join(message.split())
    print(f"{label}: {line}", file=sys.stderr)  # noqa: T201
    return code
