"""`make demo`: the whole pipeline on all of the demo data, as a real Dagster run of the real definitions.

The run happens in a process of its own, as it would under the daemon; this one starts the sandbox, watches the run's
event log and prints what came of it. Run it again: the destinations acknowledged everybody, so nothing is sent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import dagster as dg
from rich.console import Console

from activations.cli.tables import run_table
from activations.config import Project
from activations.errors import ActivationsError
from activations.manifest import load_manifest
from activations.model import SyncRun
from activations.runner import Engine, load_project
from dagster_project import local
from dagster_project.defs.sources import demo_scale
from dagster_project.progress import RunView, follow, show
from dagster_project.raw.load import Scale
from dagster_project.resources import Warehouse

ROOT = Path(__file__).resolve().parents[1]
TAG = "activations/demo"
AS_FROM_THE_UI = {".dagster/repository": "__repository__@activations", "dagster/code_location": "activations"}
"""Dagster sets these on runs that its daemon launches, and lists by them the runs of a job and a code location."""
PATIENCE = 5
SHOWN, SHOWN_LINES = 4, 12


def main() -> int:
    """0 when every sync went through; otherwise 1 and one message."""
    console = Console()
    try:
        return demo(console)
    except ActivationsError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
    except KeyboardInterrupt:
        console.print("Stopped. Run `make demo` again: it goes on where it was.")
    return 1


def demo(console: Console) -> int:
    project = load_project(ROOT)
    began = time.monotonic()
    console.print(f"Running the pipeline ({scale_to_load(project)} data) in Dagster …")
    with local.sandbox(project) as sandbox:
        os.environ.update(local.environment(project, sandbox.url))
        view = run_pipeline(console, project.var / "logs" / "demo.log")
    if view.problems:
        return report_problem(console, view)
    report(console, Engine(load_project(ROOT)).status(), somebody(project), time.monotonic() - began)
    return 0


def scale_to_load(project: Project) -> Scale:
    """Asked here too: a warehouse that is held means one message now instead of a minute's wait in every step."""
    with Warehouse(path=str(project.warehouse_path), wait_seconds=PATIENCE).connect() as connection:
        return demo_scale(connection)


def somebody(project: Project) -> str:
    """The id of one member of an audience, the same one every time; it names nobody."""
    audience = load_manifest(project).relation(next(iter(project.syncs.values())).audience)
    with Warehouse(path=str(project.warehouse_path)).connect(read_only=True) as connection:
        person = connection.table(str(audience)).aggregate(f"min({project.settings.dbt.person_key})")
        return str(person.fetchall()[0][0])


def run_pipeline(console: Console, log: Path) -> RunView:
    """Start the job `pipeline` and watch it to its end."""
    token = uuid.uuid4().hex[:8]
    tags = json.dumps({TAG: token, **AS_FROM_THE_UI})
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "dagster_project.definitions"]
    command += ["-d", str(ROOT), "-j", "pipeline", "--tags", tags]
    # The instance first: two processes that make its stores at once leave them with two versions, which no process
    # opens again.
    with dg.DagsterInstance.get() as instance, local.child(command, os.environ, log) as process:
        with console.status("Dagster is loading the definitions"):
            run_id = await_run(instance, token, process)
        if run_id is None:
            raise local.LaunchError(
                f"Dagster did not start the run. Its words are in {log}:\n{last_words(log)}"
            )
        return show(
            console, follow(instance, run_id, lambda: process.poll() is None, lambda: time.sleep(0.4))
        )


def await_run(instance: dg.DagsterInstance, token: str, process: subprocess.Popen[bytes]) -> str | None:
    """The id of the run that carries our token; None when its process ended without one."""
    while True:
        alive = process.poll() is None
        if runs := instance.get_runs(filters=dg.RunsFilter(tags={TAG: token})):
            return runs[0].run_id
        if not alive:
            return None
        time.sleep(0.2)


def last_words(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def report_problem(console: Console, view: RunView) -> int:
    """What stopped it, in the words of whoever raised it; the whole story is in Dagster."""
    console.print("\n[bold red]The pipeline stopped.[/bold red]")
    for text in [*view.problems[:SHOWN], *(f"check failed: {name}" for name in view.checks_failed[:SHOWN])]:
        lines = text.splitlines()
        shown = [*lines[:SHOWN_LINES], *(["…"] if len(lines) > SHOWN_LINES else [])]
        console.print("\n".join(f"  {line}" for line in shown), highlight=False, markup=False, soft_wrap=True)
    console.print("`make dev` shows the run with its logs.")
    return 1


def report(console: Console, runs: list[SyncRun], person: str, seconds: float) -> None:
    console.print()
    console.print(run_table(runs, "What every sync did"))
    sent = sum(run.delivered for run in runs)
    again = " Run `make demo` again: it sends nothing." if sent else ""
    console.print(f"\n{sent:,} rows delivered, {seconds:.0f} s in all.{again}", highlight=False)
    console.print(NEXT.format(person=person), highlight=False)


NEXT = """
Where to look next
  make dev                        Dagster (lineage, runs, checks), sandbox page
  .venv/bin/activations status    the last run of every sync
  .venv/bin/activations plan      what would be sent now
  .venv/bin/activations explain {person}
                                  why this person is, or is not, sent
"""


if __name__ == "__main__":
    sys.exit(main())
