"""The commands. Each prints for a person, or with `--json` for a program, and says how it ended by its exit code."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from activations import exposures as dbt_exposures
from activations.cli import tables
from activations.cli.progress import progress_bar
from activations.cli.stand_in import sandbox_for, sandbox_places
from activations.config import Project, sync_json_schema
from activations.errors import ActivationsError
from activations.model import RunStatus, SyncRun
from activations.runner import Engine, load_project

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Plan and deliver audiences from the warehouse to email, SMS and ad platforms.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 held by a guard, 4 delivered in part.",
)
out, err = Console(), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Names = Annotated[list[str] | None, typer.Argument(help="Syncs by name; all of them when left out.")]
Name = Annotated[str, typer.Argument(help="A sync by name.")]


class Exit(IntEnum):
    DONE, FAILED, USAGE, HELD, PARTIAL = range(5)


_EXIT = {RunStatus.SUCCEEDED: Exit.DONE, RunStatus.PARTIAL: Exit.PARTIAL, RunStatus.HELD: Exit.HELD}


def main() -> None:
    """Run a command; a failure that was foreseen is one line, not a traceback."""
    try:
        app()
    except ActivationsError as error:
        report(error, as_json="--json" in sys.argv)
        sys.exit(Exit.FAILED)
    except BrokenPipeError:
        sys.exit(Exit.DONE)


def report(error: ActivationsError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": str(error)}))
    else:
        err.print(f"[bold red]Error[/] {tables.plain(str(error))}", soft_wrap=True)


@app.callback()
def _project(
    context: typer.Context,
    project_dir: Annotated[
        Path | None, typer.Option("--project-dir", help="The project's folder. Default: here or above.")
    ] = None,
) -> None:
    context.obj = lambda: load_project(project_dir)


@app.command()
def init(context: typer.Context, as_json: Json = False) -> None:
    """Create the ledger's tables in the warehouse and the journal beside it. Safe to repeat."""
    project = _load(context)
    Engine(project).prepare()
    _print(
        {"prepared": True},
        as_json,
        lambda: out.print(
            "The ledger and the journal are ready. Next: `dbt build`, then `activations plan`."
        ),
    )


@app.command()
def check(context: typer.Context, as_json: Json = False) -> None:
    """Check every sync against dbt's manifest and its destination. Needs no credential and no network."""
    names = Engine(_load(context)).check()
    _print(
        {"checked": names}, as_json, lambda: out.print(f"{len(names)} syncs are sound: {', '.join(names)}")
    )


@app.command()
def plan(context: typer.Context, syncs: Names = None, as_json: Json = False) -> None:
    """Show what a run would do now. Sends nothing and changes nothing."""
    project = _load(context)
    engine = Engine(project)
    plans = [engine.plan(name) for name in _names(project, syncs)]
    _print([tables.plan_summary(p) for p in plans], as_json, lambda: out.print(tables.plan_table(plans)))


@app.command()
def sync(context: typer.Context, syncs: Names = None, as_json: Json = False) -> None:
    """Plan and deliver. Ctrl-C ends after the batch in flight; the next run goes on."""
    project = _load(context)
    names = _names(project, syncs)
    engine = Engine(project)
    _stop_gently(engine)
    with sandbox_for(project, names, notice=lambda text: None if as_json else err.print(text)) as reachable:
        engine.project = reachable
        results = [_sync_one(engine, name, quiet=as_json) for name in names]
    finished = [found for found in results if isinstance(found, SyncRun)]
    as_data = [found.summary() if isinstance(found, SyncRun) else found for found in results]
    _print(as_data, as_json, lambda: out.print(tables.run_table(finished)) if finished else None)
    raise typer.Exit(_worst(results))


def _sync_one(engine: Engine, name: str, *, quiet: bool) -> SyncRun | dict[str, Any]:
    """The run, or why there was none: one broken sync does not keep the others from running."""
    try:
        with progress_bar(name, quiet=quiet) as on_progress:
            run = engine.sync(name, on_progress)
    except ActivationsError as error:
        report(error, as_json=False)
        return {"sync": name, "run_status": RunStatus.FAILED.value, "error": str(error)}
    if not quiet and (run.error or run.held_reason):
        err.print(
            f"[bold yellow]{run.run_status.value}[/] {name}: {tables.plain(run.error or tables.held_text(run))}",
            soft_wrap=True,
        )
    return run


def _worst(results: Iterable[SyncRun | dict[str, Any]]) -> Exit:
    codes = {
        _EXIT.get(found.run_status, Exit.FAILED) if isinstance(found, SyncRun) else Exit.FAILED
        for found in results
    }
    return next((code for code in (Exit.FAILED, Exit.HELD, Exit.PARTIAL) if code in codes), Exit.DONE)


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Show the last run of every sync."""
    runs = Engine(_load(context)).status()
    _print([run.summary() for run in runs], as_json, lambda: out.print(tables.run_table(runs)))


@app.command()
def explain(
    context: typer.Context,
    person: Annotated[str | None, typer.Argument(help="A person id.")] = None,
    identifier: Annotated[
        bool,
        typer.Option(
            "--identifier",
            help="Read an e-mail or phone from standard input instead, so that it stays out of the shell's history.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say, sync by sync, why a person is in or out and what each destination holds."""
    engine = Engine(_load(context))
    people = engine.people_with(_read_identifier()) if identifier else [person] if person else []
    if not people:
        raise ActivationsError(
            "nobody to explain. Give a person id, or `--identifier` with an e-mail or phone that dbt knows on standard input"
        )
    found = {who: engine.explain(who) for who in people}
    as_data = [{"person": who, **item.summary()} for who, items in found.items() for item in items]
    _print(
        as_data,
        as_json,
        lambda: out.print(*[tables.explanation_table(who, items) for who, items in found.items()], sep="\n"),
    )


@app.command()
def release(
    context: typer.Context,
    sync: Name,
    by: Annotated[str, typer.Option("--by", help="Who lets it pass; kept in the audit trail.")],
    note: Annotated[str, typer.Option("--note", help="Why it may pass.")] = "",
    as_json: Json = False,
) -> None:
    """Let the plan that a guard holds pass, once and exactly as it is. Then run the sync again."""
    _require_name(by)
    run_id = Engine(_load(context)).release(sync, by=by, note=note)
    _print(
        {"released": run_id, "by": by},
        as_json,
        lambda: out.print(f"The plan of run {run_id} may pass. Next: `activations sync {sync}`"),
    )


@app.command()
def suppress(
    context: typer.Context,
    reason: Annotated[str, typer.Option("--reason", help="objection, withdrawn, complaint, …")],
    channel: Annotated[str, typer.Option("--channel", help="email, sms, ads or all.")] = "all",
    lift: Annotated[bool, typer.Option("--lift", help="Take suppressions of this channel back.")] = False,
    as_json: Json = False,
) -> None:
    """Stop sending to people at once, before dbt is built again. Reads e-mails, phones (+49…) or person ids, one a
    line, from standard input."""
    if channel not in ("email", "sms", "ads", "all"):
        raise ActivationsError(f"there is no channel `{channel}`. Use email, sms, ads or all")
    values = [line.strip() for line in sys.stdin if line.strip()]
    if not values:
        raise ActivationsError(
            "nobody was named. Write e-mails, phones or person ids to standard input, one a line"
        )
    engine = Engine(_load(context))
    if lift:
        lines = engine.lift(values, channel=channel, reason=reason, source="cli")
        _print(
            {"lifted": lines}, as_json, lambda: out.print(f"{lines} suppressions are lifted on {channel}.")
        )
        return
    known = engine.suppress(values, channel=channel, reason=reason, source="cli")
    said = f"{len(values)} identifiers are suppressed on {channel}; {known} of them belong to people the warehouse knows. The next runs remove these people."
    _print({"suppressed": len(values), "known": known}, as_json, lambda: out.print(said))


@app.command()
def forget(
    context: typer.Context,
    sync: Name,
    by: Annotated[str, typer.Option("--by", help="Who decides it; kept in the audit trail.")],
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    as_json: Json = False,
) -> None:
    """Forget what the destination of a sync holds: the next run sends everybody again. Messages are not repeated."""
    _require_name(by)
    Engine(_load(context)).forget(sync, by=by, note=note)
    _print(
        {"forgotten": sync, "by": by},
        as_json,
        lambda: out.print(f"Forgotten. `activations plan {sync}` shows what is sent next."),
    )


@app.command()
def sandbox(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 8765,
    as_json: Json = False,
) -> None:
    """Run the local stand-ins for the destinations until Ctrl-C."""
    from activations.sandbox.server import serve

    project = _load(context)
    url = f"http://127.0.0.1:{port}"
    _print({"url": url}, as_json, lambda: out.print(f"Sandbox on {url} (Ctrl-C stops it)"))
    serve(project.var / "sandbox", port=port, places=sandbox_places(project))


@app.command()
def exposures(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail when the file is stale.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the syncs into dbt as exposures, so that lineage and docs end at the destination."""
    path = dbt_exposures.check(_load(context)) if check else dbt_exposures.write(_load(context))
    shown = "up to date" if check else "written"
    _print({"file": str(path), "state": shown}, as_json, lambda: out.print(f"{path}: {shown}"))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a sync's YAML, for editors."""
    print(json.dumps(sync_json_schema(), indent=2))


@app.command()
def audit(context: typer.Context, as_json: Json = False) -> None:
    """Verify that no line of the audit trail was altered."""
    lines = Engine(_load(context)).verify_audit()
    _print(
        {"lines": lines, "intact": True},
        as_json,
        lambda: out.print(f"The audit trail is intact: {lines} lines."),
    )


# -- shared ------------------------------------------------------------------------------------------------------


def _load(context: typer.Context) -> Project:
    project: Project = context.obj()
    return project


def _names(project: Project, asked: list[str] | None) -> list[str]:
    return [project.sync(name).name for name in asked] if asked else list(project.syncs)


def _print(data: Any, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps(data, indent=2))
    else:
        show()


def _require_name(by: str) -> None:
    if not by.strip():
        raise ActivationsError("this needs the name of a person: --by")


def _read_identifier() -> str:
    return sys.stdin.readline().strip()


def _stop_gently(engine: Engine) -> None:
    """The first signal ends the run after the batch in flight; the second one is not caught."""

    def stop(number: int, _frame: object) -> None:
        err.print("Stopping after the batch in flight …")
        engine.stop.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
