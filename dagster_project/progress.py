"""A Dagster run as a person watches it: one line per layer, read from the run's own event log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterEventType as Event
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

FLOW = [
    "activation",
    "raw",
    "staging",
    "identity",
    "profiles",
    "scores",
    "consent",
    "eligibility",
    "segments",
    "audiences",
    "syncs",
    "monitoring",
]

ANCHORS = {Event.STEP_START, Event.ASSET_MATERIALIZATION, Event.ASSET_CHECK_EVALUATION}
"""Events between which time passes; what ends with an asset or check is the time of its layer."""


@dataclass(slots=True)
class Layer:
    """One group of assets: how many there are and are built, and how long its assets and checks took."""

    name: str
    total: int = 0
    built: int = 0
    rows: int = 0
    latest: str = ""
    seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        return self.built >= self.total


@dataclass(slots=True)
class RunView:
    """The state of a run, folded from its events. Nothing here asks Dagster anything."""

    layers: dict[str, Layer] = field(default_factory=dict)
    checks_passed: int = 0
    checks_failed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    last_at: float = 0.0

    def apply(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        handlers: dict[Event, Callable[[dg.DagsterEvent, float], None]] = {
            Event.ASSET_MATERIALIZATION_PLANNED: self._planned,
            Event.ASSET_MATERIALIZATION: self._built,
            Event.ASSET_CHECK_EVALUATION: self._checked,
            Event.STEP_FAILURE: self._failed,
            Event.RUN_FAILURE: self._run_failed,
        }
        if handler := handlers.get(event.event_type):
            handler(event, entry.timestamp)
        if event.event_type in ANCHORS:
            self.last_at = entry.timestamp

    @property
    def in_order(self) -> list[Layer]:
        """Layers as data flow through them; Dagster plans them in no order that a person would choose."""
        known = {name: place for place, name in enumerate(FLOW)}
        return sorted(self.layers.values(), key=lambda layer: known.get(layer.name, len(FLOW)))

    def _layer(self, event: dg.DagsterEvent) -> Layer:
        return self._layer_of(event.asset_key or dg.AssetKey([""]))

    def _layer_of(self, key: dg.AssetKey) -> Layer:
        return self.layers.setdefault(key.path[0], Layer(key.path[0]))

    def _planned(self, event: dg.DagsterEvent, at: float) -> None:
        self._layer(event).total += 1

    def _built(self, event: dg.DagsterEvent, at: float) -> None:
        layer = self._layer(event)
        layer.built += 1
        layer.seconds += at - self.last_at
        layer.latest = event.asset_key.path[-1] if event.asset_key else ""
        layer.rows += _row_count(event)

    def _checked(self, event: dg.DagsterEvent, at: float) -> None:
        found = event.asset_check_evaluation_data
        self._layer_of(found.asset_key).seconds += at - self.last_at
        if found.passed:
            self.checks_passed += 1
        else:
            self.checks_failed.append(f"{found.asset_key.to_user_string()}: {found.check_name}")

    def _failed(self, event: dg.DagsterEvent, at: float) -> None:
        if problem := _problem(event):
            self.problems.append(f"{event.step_key}: {problem}")

    def _run_failed(self, event: dg.DagsterEvent, at: float) -> None:
        """Only of interest when no step failed before it."""
        if not self.problems:
            self.problems.append(event.message or "the run failed")


def _problem(event: dg.DagsterEvent) -> str:
    """The words of whoever raised it, without the exception's class and without Dagster's frame around it."""
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return _essence(failure.user_failure_data.description)
    error = failure.error.cause or failure.error if failure.error else None
    return _essence(error.message.partition(": ")[2]) if error else ""


def _essence(message: str) -> str:
    """Of dbt's long story only what dbt itself called errors, without colours and empty lines."""
    told = re.sub(r"\x1b\[[0-9;]*m", "", message).split("Errors parsed from dbt logs:")[-1]
    return "\n".join(line for line in told.splitlines() if line.strip()).strip()


def _row_count(event: dg.DagsterEvent) -> int:
    metadata = event.step_materialization_data.materialization.metadata
    value = metadata.get("dagster/row_count")
    return int(value.value) if value and isinstance(value.value, int) else 0


def follow(
    instance: dg.DagsterInstance, run_id: str, is_running: Callable[[], bool], wait: Callable[[], None]
) -> Iterator[list[dg.EventLogEntry]]:
    """The run's events in the order they happen, a list per look, until the run's process is gone."""
    cursor: str | None = None
    while True:
        was_running = is_running()
        page = instance.get_records_for_run(run_id, cursor=cursor, limit=500)
        cursor = page.cursor
        yield [record.event_log_entry for record in page.records]
        if not was_running and not page.has_more:
            return
        if not page.has_more:
            wait()


def show(console: Console, looks: Iterable[list[dg.EventLogEntry]]) -> RunView:
    """Draw the run until it ends: a living table on a terminal, a line per finished layer elsewhere."""
    view = RunView()
    if not console.is_terminal:
        return _print_lines(console, looks, view)
    with Live(render(view), console=console, refresh_per_second=8) as live:
        for entries in looks:
            _fold(view, entries)
            live.update(render(view))
        live.update(render(view, running=False))
    return view


def _print_lines(console: Console, looks: Iterable[list[dg.EventLogEntry]], view: RunView) -> RunView:
    printed: set[str] = set()
    for entries in looks:
        _fold(view, entries)
        for layer in view.in_order:
            if layer.is_done and layer.name not in printed:
                printed.add(layer.name)
                console.print(
                    f"  {layer.name:<13}{_progress(layer):>9}  {layer.seconds:6.1f} s", highlight=False
                )
    return view


def _fold(view: RunView, entries: Iterable[dg.EventLogEntry]) -> None:
    for entry in entries:
        view.apply(entry)


def render(view: RunView, *, running: bool = True) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for layer in view.in_order:
        table.add_row(
            _mark(layer, running),
            layer.name,
            _progress(layer),
            _time(layer),
            Text(_detail(layer), style="dim"),
        )
    checks = Text(f"  {view.checks_passed} checks passed", style="dim")
    if view.checks_failed:
        checks.append(f", {len(view.checks_failed)} did not", style="yellow")
    return Group(table, checks)


def _mark(layer: Layer, running: bool) -> RenderableType:
    if layer.is_done:
        return Text("✓", style="green")
    if layer.seconds and running:
        return Spinner("dots")
    return Text("·" if running else "✗", style="dim" if running else "red")


def _progress(layer: Layer) -> str:
    return f"{layer.built}/{layer.total}"


def _time(layer: Layer) -> Text:
    return Text(f"{layer.seconds:.1f} s" if layer.seconds else "", justify="right")


def _detail(layer: Layer) -> str:
    if not layer.is_done:
        return layer.latest
    return f"{layer.rows:,} rows" if layer.rows else ""
