"""The commands, in the order in which people meet them, and how a failure ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from activations.cli import decisions, project, runs
from activations.cli.output import Exit, report
from activations.errors import ActivationsError
from activations.runner import load_project

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Plan and deliver audiences from the warehouse to email, SMS and ad platforms.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 held by a guard, 4 delivered in part.",
)


@app.callback()
def _project(
    context: typer.Context,
    project_dir: Annotated[
        Path | None, typer.Option("--project-dir", help="The project's folder. Default: here or above.")
    ] = None,
) -> None:
    context.obj = lambda: load_project(project_dir)


COMMANDS = (
    project.init,
    project.check,
    runs.plan,
    runs.apply,
    runs.sync,
    runs.status,
    runs.explain,
    decisions.release,
    decisions.retry,
    decisions.resolve,
    decisions.feedback,
    decisions.resync,
    decisions.suppress,
    decisions.forget,
    project.sandbox,
    project.exposures,
    project.schema,
    decisions.audit,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run a command; a failure that was foreseen is one line, not a traceback."""
    try:
        app()
    except ActivationsError as error:
        report(error, as_json="--json" in sys.argv)
        sys.exit(Exit.FAILED)
    except BrokenPipeError:
        sys.exit(Exit.DONE)
