"""Planning and delivering, and what came of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from activations.cli import tables
from activations.cli.context import Json, engine_of
from activations.cli.output import Exit, err, out, print_result, report
from activations.cli.progress import progress_bar
from activations.cli.stand_in import sandbox_for
from activations.config import Project
from activations.errors import ActivationsError
from activations.model import RunStatus, SyncRun
from activations.planning import Preview
from activations.planning.document import check_place
from activations.runner import Engine, OnProgress

Names = Annotated[list[str] | None, typer.Argument(help="Syncs by name; all of them when left out.")]
_Runs = Callable[[str, OnProgress], SyncRun]
_EXIT = {RunStatus.SUCCEEDED: Exit.DONE, RunStatus.PARTIAL: Exit.PARTIAL, RunStatus.HELD: Exit.HELD}


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
    engine = engine_of(context)
    names = _names(engine.project, syncs)
    if file and len(names) != 1:
        raise typer.BadParameter("name the one sync whose plan is written down", param_hint="--out")
    if file:
        check_place(file)
    found = [engine.preview(name, rows=rows) for name in names]
    if file:
        engine.save_plan(found[0], file)
    print_result([preview.summary() for preview in found], as_json, lambda: _show_plans(found, file))


def _show_plans(found: Sequence[Preview], file: Path | None) -> None:
    out.print(tables.plan_table([preview.plan for preview in found]))
    for preview in found:
        if preview.rows:
            out.print(tables.rows_table(preview))
    if file:
        out.print(f"Written to {file}. To do exactly this: `activations apply {file}`", soft_wrap=True)


def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="A file that `plan --out` wrote.")],
    as_json: Json = False,
) -> None:
    """Deliver exactly the plan that was written down, or refuse because something moved or it expired."""
    engine = engine_of(context)
    name = engine.read_plan(file).sync
    _deliver(engine, [name], lambda _, on_progress: engine.apply(file, on_progress), quiet=as_json)


def sync(context: typer.Context, syncs: Names = None, as_json: Json = False) -> None:
    """Plan and deliver. Ctrl-C ends after the batch in flight; the next run goes on."""
    engine = engine_of(context)
    if not syncs:
        _warn_of_left_behind(engine)
    _deliver(engine, _names(engine.project, syncs), engine.sync, quiet=as_json)


def _warn_of_left_behind(engine: Engine) -> None:
    """On standard error, where it spoils no JSON."""
    with suppress(ActivationsError):  # a journal that cannot be opened is told by each run
        for run in engine.left_behind():
            err.print(
                f"[bold yellow]left behind[/] {tables.plain(tables.left_behind_text(run))}", soft_wrap=True
            )


def _names(project: Project, asked: list[str] | None) -> list[str]:
    return [project.sync(name).name for name in asked] if asked else list(project.syncs)


def _deliver(engine: Engine, names: list[str], run: _Runs, *, quiet: bool) -> NoReturn:
    """Run the syncs one after the other, show how each ended and end with the worst of it."""
    _stop_gently(engine)
    notice = lambda text: None if quiet else err.print(text)  # noqa: E731
    with sandbox_for(engine.project, names, notice=notice) as reachable:
        engine.project = reachable
        results = [
            _run_one(run, name, quiet=quiet) if number == 0 or not engine.stop.is_set() else _not_begun(name)
            for number, name in enumerate(names)
        ]
    finished = [found for found in results if isinstance(found, SyncRun)]
    as_data = [found.summary() if isinstance(found, SyncRun) else found for found in results]
    print_result(
        as_data, quiet, lambda: out.print(tables.run_table(finished, "What was done")) if finished else None
    )
    raise typer.Exit(_worst(results))


def _stop_gently(engine: Engine) -> None:
    """The first signal ends the run after the batch in flight; the second one is not caught."""

    def stop(number: int, _frame: object) -> None:
        err.print("Stopping after the batch in flight …")
        engine.stop.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


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


def _not_begun(name: str) -> dict[str, Any]:
    return {"sync": name, "run_status": RunStatus.INTERRUPTED.value, "error": "stopped before it began"}


def _worst(results: Iterable[SyncRun | dict[str, Any]]) -> Exit:
    codes = {
        _EXIT.get(found.run_status, Exit.FAILED) if isinstance(found, SyncRun) else Exit.FAILED
        for found in results
    }
    return next((code for code in (Exit.FAILED, Exit.HELD, Exit.PARTIAL) if code in codes), Exit.DONE)


def status(context: typer.Context, as_json: Json = False) -> None:
    """Show the last run of every sync."""
    engine = engine_of(context)
    runs = engine.status()
    print_result([run.summary() for run in runs], as_json, lambda: out.print(tables.run_table(runs)))
    _warn_of_left_behind(engine)


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
    engine = engine_of(context)
    people = engine.people_with(sys.stdin.readline().strip()) if identifier else [person] if person else []
    if not people:
        raise ActivationsError(
            "nobody to explain. Give a person id, or `--identifier` with an e-mail or phone that dbt knows on standard input"
        )
    found = {who: engine.explain(who) for who in people}
    if not any(item.is_of_somebody for items in found.values() for item in items):
        raise ActivationsError(
            "dbt knows nobody of this id, and no destination holds one. Look the id up in an audience, or use `--identifier`"
        )
    as_data = [{"person": who, **item.summary()} for who, items in found.items() for item in items]
    print_result(
        as_data,
        as_json,
        lambda: out.print(*[tables.explanation_table(who, items) for who, items in found.items()], sep="\n"),
    )
