"""The project itself: its ledger, its syncs as dbt and editors see them, and its sandbox."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from activations import exposures as dbt_exposures
from activations.cli.context import Json, engine_of, project_of
from activations.cli.output import out, print_json, print_result
from activations.cli.stand_in import sandbox_places
from activations.config import sync_json_schema


def init(context: typer.Context, as_json: Json = False) -> None:
    """Create the ledger's tables in the warehouse and the journal beside it. Safe to repeat."""
    engine_of(context).prepare()
    print_result(
        {"prepared": True},
        as_json,
        lambda: out.print(
            "The ledger and the journal are ready. Next: `dbt build`, then `activations plan`."
        ),
    )


def check(context: typer.Context, as_json: Json = False) -> None:
    """Check every sync against dbt's manifest and its destination. Needs no credential and no network."""
    names = engine_of(context).check()
    print_result(
        {"checked": names}, as_json, lambda: out.print(f"{len(names)} syncs are sound: {', '.join(names)}")
    )


def sandbox(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the loopback interface.")] = 8765,
    as_json: Json = False,
) -> None:
    """Run the local stand-ins for the destinations until Ctrl-C."""
    from activations.sandbox.server import serve

    project = project_of(context)

    def announce(url: str) -> None:
        print_result({"url": url}, as_json, lambda: out.print(f"Sandbox on {url} (Ctrl-C stops it)"))
        sys.stdout.flush()  # a program may wait for the line

    serve(project.var / "sandbox", port=port, places=sandbox_places(project), announce=announce)


def exposures(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail when the file is stale.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the syncs into dbt as exposures, so that lineage and docs end at the destination."""
    path = dbt_exposures.check(project_of(context)) if check else dbt_exposures.write(project_of(context))
    shown = "up to date" if check else "written"
    print_result({"file": str(path), "state": shown}, as_json, lambda: out.print(f"{path}: {shown}"))


def schema(_as_json: Json = False) -> None:
    """Print the JSON Schema of a sync's YAML, for editors."""
    print_json(sync_json_schema())
