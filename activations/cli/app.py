"""The commands, in the order in which people meet them, and how a failure ends."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from activations.cli import decisions, project, runs
from activations.cli.output import Exit, out, report
from activations.errors import ActivationsError, MachineError
from activations.runner import load_project

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Plan and deliver audiences from the warehouse to email, SMS and ad platforms.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 held by a guard, 4 delivered in part.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"activations {version('activations')}", highlight=False)
        raise typer.Exit


@app.callback()
def _project(
    context: typer.Context,
    project_dir: Annotated[
        Path | None, typer.Option("--project-dir", help="The project's folder. Default: here or above.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
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
    decisions.adopt,
    project.sandbox,
    project.exposures,
    project.schema,
    decisions.audit,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run a command; a failure that was foreseen is one line, not a traceback."""
    _speak_any_encoding()
    try:
        try:
            app()
        finally:
            _flush()
    except ActivationsError as error:
        _fail(error)
    except BrokenPipeError:  # as typer ends, when it meets it first
        _give_up_output()
        sys.exit(Exit.FAILED)
    except OSError as error:
        if error.errno is None:
            raise
        _fail(MachineError.of(error, Path.cwd()))


def _fail(error: ActivationsError) -> NoReturn:
    try:
        report(error, as_json="--json" in sys.argv)
        _flush()
    except OSError:  # the output itself is what failed
        _give_up_output()
        report(error, as_json=False)
    sys.exit(Exit.FAILED)


def _flush() -> None:
    """Now: what fails at the interpreter's end, nobody can catch."""
    if sys.stdout:  # None when the caller closed it
        sys.stdout.flush()


def _give_up_output() -> None:
    """What is still buffered goes nowhere, or the interpreter would fail over it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _speak_any_encoding() -> None:
    """A terminal that knows no arrow shows a question mark; what comes in is UTF-8, and what is not is marked."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
