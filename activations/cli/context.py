"""What commands start from: the project, its engine, and the option that all of them take."""

from __future__ import annotations

from typing import Annotated

import typer

from activations.config import Project
from activations.runner import Engine

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def project_of(context: typer.Context) -> Project:
    """Read when a command asks for it: `--help` needs no project."""
    project: Project = context.obj()
    return project


def engine_of(context: typer.Context) -> Engine:
    return Engine(project_of(context))
