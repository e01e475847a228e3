"""The commands. Each prints for a person, or with `--json` for a program, and says how it ended by its exit code."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from activations import exposures as dbt_exposures
from activations.cli import tables
from activations.cli.progress import progress_bar
from activations.cli.stand_in import sandbox_for, sandbox_places
from activations.config import Project, sync_json_schema
from activations.errors import ActivationsError
from activations.feedback import read_callbacks
from activations.model import RunStatus, SyncRun
from activations.planning import Preview
from activations.runner import Engine, OnProgress, load_project

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


_Runs = Callable[[str, OnProgress], SyncRun]
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
def plan(
    context: typer.Context,
    syncs: Names = None,
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="Show so many rows of each operation, masked.")
    ] = 0,
    file: Annotated[
        Path | None, typer.Option("--out", help="Write the plan of one sync down, for `apply`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a run would do now. Sends nothing and changes nothing."""
    project = _load(context)
    engine = Engine(project)
    names = _names(project, syncs)
    if file and len(names) != 1:
        raise typer.BadParameter("name the one sync whose plan is written down", param_hint="--out")
    found = [engine.preview(name, rows=rows) for name in names]
    if file:
        engine.save_plan(found[0], file)
    _print([preview.summary() for preview in found], as_json, lambda: _show_plans(found, file))


def _show_plans(found: Sequence[Preview], file: Path | None) -> None:
    out.print(tables.plan_table([preview.plan for preview in found]))
    for preview in found:
        if preview.rows:
            out.print(tables.rows_table(preview))
    if file:
        out.print(f"Written to {file}. To do exactly this: `activations apply {file}`", soft_wrap=True)


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="A file that `plan --out` wrote.")],
    as_json: Json = False,
) -> None:
    """Deliver exactly the plan that was written down, or refuse because something moved or it expired."""
    engine = Engine(_load(context))
    name = engine.read_plan(file).sync
    _deliver(engine, [name], lambda _, on_progress: engine.apply(file, on_progress), quiet=as_json)


@app.command()
def sync(context: typer.Context, syncs: Names = None, as_json: Json = False) -> None:
    """Plan and deliver. Ctrl-C ends after the batch in flight; the next run goes on."""
    project = _load(context)
    engine = Engine(project)
    _deliver(engine, _names(project, syncs), engine.sync, quiet=as_json)


def _deliver(engine: Engine, names: list[str], run: _Runs, *, quiet: bool) -> NoReturn:
    """Run the syncs one after the other, show how each ended and end with the worst of it."""
    _stop_gently(engine)
    notice = lambda text: None if quiet else err.print(text)  # noqa: E731
    with sandbox_for(engine.project, names, notice=notice) as reachable:
        engine.project = reachable
        results = [_run_one(run, name, quiet=quiet) for name in names]
    finished = [found for found in results if isinstance(found, SyncRun)]
    as_data = [found.summary() if isinstance(found, SyncRun) else found for found in results]
    _print(as_data, quiet, lambda: out.print(tables.run_table(finished)) if finished else None)
    raise typer.Exit(_worst(results))


def _run_one(run_sync: _Runs, name: str, *, quiet: bool) -> SyncRun | dict[str, Any]:
    """The run, or why there was none: one broken sync does not keep the others from running."""
    try:
        with progress_bar(name, quiet=quiet) as on_progress:
            run = run_sync(name, on_progress)
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
    by: Annotated[str, typer.Option("--by", help="Who lets it pass; kept in the audit trail.")],
    sync: Annotated[str | None, typer.Argument(help="A sync by name: the plan its last run held.")] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="A file that `plan --out` wrote, instead.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Why it may pass.")] = "",
    as_json: Json = False,
) -> None:
    """Let a plan that a guard holds pass, once and exactly as it is. Then run the sync again, or apply the plan."""
    _require_name(by)
    engine = Engine(_load(context))
    if (sync is None) == (plan is None):
        raise typer.BadParameter("name a sync, or a written plan with --plan")
    if plan:
        released, following = engine.release_plan(plan, by=by, note=note), f"activations apply {plan}"
    else:
        released, following = engine.release(str(sync), by=by, note=note), f"activations sync {sync}"
    _print(
        {"released": released, "by": by},
        as_json,
        lambda: out.print(f"The plan {released} may pass. Next: `{following}`", soft_wrap=True),
    )


By = Annotated[str, typer.Option("--by", help="Who decides it; kept in the audit trail.")]
Note = Annotated[str, typer.Option("--note", help="Why.")]


@app.command()
def retry(context: typer.Context, sync: Name, by: By, note: Note = "", as_json: Json = False) -> None:
    """Let the next run try the rows again that the destination refused, though their values are the same."""
    _require_name(by)
    rows = Engine(_load(context)).retry(sync, by=by, note=note)
    _print(
        {"retried": rows, "by": by},
        as_json,
        lambda: out.print(f"{rows} refused rows are tried again. Next: `activations sync {sync}`"),
    )


@app.command()
def resolve(
    context: typer.Context,
    sync: Name,
    delivered: Annotated[
        str | None,
        typer.Option("--delivered", metavar="HANDLE", help="It did arrive; say in --note how you know."),
    ] = None,
    resend: Annotated[
        str | None, typer.Option("--resend", metavar="HANDLE", help="Send it again, as a new message.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Who decides it; kept in the audit trail.")] = "",
    second: Annotated[str, typer.Option("--second", help="Who agrees that it is sent again.")] = "",
    note: Annotated[str, typer.Option("--note", help="The evidence, or why.")] = "",
    as_json: Json = False,
) -> None:
    """List the messages in doubt of a sync, or settle one that a person found out about."""
    engine = Engine(_load(context))
    if delivered and resend:
        raise typer.BadParameter("a message was delivered or is sent again, not both", param_hint="--resend")
    if delivered:
        _require_name(by)
        _require_evidence(note)
        engine.mark_delivered(sync, delivered, by=by, note=note)
    elif resend:
        _require_name(by)
        engine.resend(sync, resend, by=by, second=second, note=note)
    messages = engine.in_doubt(sync)
    _print(
        [tables.message_summary(message) for message in messages],
        as_json,
        lambda: out.print(tables.messages_table(sync, messages)),
    )


@app.command()
def feedback(
    context: typer.Context,
    destination: Annotated[str, typer.Argument(help="An account of destinations.yml.")],
    as_json: Json = False,
) -> None:
    """Settle messages in doubt that the provider says it took. Reads its signed callbacks from standard input, one JSON
    object a line: url, headers, body."""
    done = Engine(_load(context)).feedback(destination, read_callbacks(sys.stdin))
    _print(asdict(done), as_json, lambda: out.print(tables.feedback_text(done), soft_wrap=True))


@app.command()
def resync(context: typer.Context, sync: Name, by: By, note: Note = "", as_json: Json = False) -> None:
    """Send everybody's values again with the next run, without forgetting who has to leave. Guards still speak."""
    _require_name(by)
    rows = Engine(_load(context)).resync(sync, by=by, note=note)
    _print(
        {"resynced": rows, "by": by},
        as_json,
        lambda: out.print(
            f"{rows} rows are sent again. `activations plan {sync}` shows whether a guard holds it."
        ),
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
    done = engine.suppress(values, channel=channel, reason=reason, source="cli")
    _print(
        {"suppressed": len(values), "known": done.known, "effective_at": done.effective_at.isoformat()},
        as_json,
        lambda: out.print(tables.suppressed_text(len(values), channel, done), soft_wrap=True),
    )


@app.command()
def forget(
    context: typer.Context,
    sync: Name,
    by: By,
    note: Note = "",
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


def _require_evidence(note: str) -> None:
    if not note.strip():
        raise ActivationsError("say how you know that it arrived: --note")


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
