"""What people read in a terminal: a column per sync, as many beside each other as the terminal is wide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from activations.explain import Explanation
from activations.feedback import Feedback
from activations.journal import MessageInDoubt
from activations.model import Counts, Plan, RunStatus, SyncRun
from activations.planning import Preview
from activations.runner import Suppressed

_COLOURS = {
    RunStatus.SUCCEEDED: "green",
    RunStatus.FAILED: "red",
    RunStatus.HELD: "yellow",
    RunStatus.PARTIAL: "yellow",
    RunStatus.INTERRUPTED: "yellow",
}
Row = tuple[str, list[str]]
T = TypeVar("T")


def plain(text: str) -> str:
    """Text from a file or a database, without power over the terminal: no markup, no control characters."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))


@dataclass(frozen=True, slots=True, kw_only=True)
class PerSync(Generic[T]):
    """A table with a column per sync. What does not fit beside each other goes on below; no name is cut."""

    title: str
    items: Sequence[T]
    table: Callable[[Sequence[T]], Table]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        rest, title = self.items, self.title
        while title or rest:
            shown = rest[: self._fitting(rest, console, options)]
            table = self.table(shown)
            table.title, table.title_justify, table.caption_justify = title, "left", "left"
            yield table
            rest, title = rest[len(shown) :], ""

    def _fitting(self, items: Sequence[T], console: Console, options: ConsoleOptions) -> int:
        """At least one, which is folded when even that is too wide."""
        unbounded = options.update(max_width=10_000)
        for count in range(len(items), 1, -1):
            width = Measurement.get(console, unbounded, self.table(items[:count])).maximum
            if width <= options.max_width:
                return count
        return 1


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def run_table(runs: Sequence[SyncRun], title: str = "Last run of every sync") -> PerSync[SyncRun]:
    """Counts of one run per column. Rows that are zero everywhere and rarely matter are left out."""
    return PerSync(title=title, items=runs, table=_run_columns)


def _run_columns(runs: Sequence[SyncRun]) -> Table:
    return _table(
        [_heading(run.sync) for run in runs],
        _run_rows(runs),
        sections={"status", "held out", "removed", "in doubt"},
    )


def plan_table(plans: Sequence[Plan]) -> PerSync[Plan]:
    """What would change, per sync."""
    return PerSync(title="What a run would do now", items=plans, table=_plan_columns)


def _plan_columns(plans: Sequence[Plan]) -> Table:
    rows = list(_scope_rows([plan.counts for plan in plans]))
    rows.append(("guard", ["held" if plan.held_reason else "passes" for plan in plans]))
    rows.append(("API calls, about", _numbers(plan.requests for plan in plans)))
    rows.append(("duration, about", [_duration(plan.seconds) for plan in plans]))
    table = _table(
        [_heading(plan.sync) for plan in plans],
        iter(rows),
        sections={"held out", "removed"},
    )
    reasons = [f"{plan.sync}: {plain(plan.held_reason)}" for plan in plans if plan.held_reason]
    table.caption = "\n".join(reasons) or None
    return table


def rows_table(preview: Preview) -> Table:
    """Rows of one plan, each person under a keyed hash."""
    plan, shown = preview.plan, len(preview.rows)
    title = f"{plan.sync}: {shown:,} of {plan.rows:,} rows"
    table = Table(title=title, title_justify="left")
    for heading in ("person", "operation", "what changes", "fingerprint"):
        table.add_column(heading, overflow="fold")
    for row in preview.rows:
        what = ", ".join(row.fields) or (row.reason or "").replace("_", " ")
        table.add_row(
            row.person, row.operation.value, plain(what), f"{row.before or '–'} → {row.after or '–'}"
        )
    return table


def message_summary(message: MessageInDoubt) -> dict[str, Any]:
    return {**asdict(message), "claimed_at": message.claimed_at.isoformat()}


def messages_table(sync: str, messages: Sequence[MessageInDoubt]) -> Table:
    """Messages nobody knows the fate of, with the handle to name one by."""
    table = Table(title=f"{sync}: {counted(len(messages), 'message')} in doubt", title_justify="left")
    for heading in ("handle", "sent at (UTC)", "why in doubt", "provider's id", "run"):
        table.add_column(heading, overflow="fold")
    for message in messages:
        table.add_row(
            message.handle,
            f"{message.claimed_at:%Y-%m-%d %H:%M:%S}",
            plain((message.reason or "–").replace("_", " ")),
            plain(message.provider_id or "–"),
            message.run_id,
        )
    return table


def feedback_text(done: Feedback) -> str:
    ignored = f"; not signed by the provider or about no message of ours: {done.ignored}"
    return f"{counted(done.callbacks, 'callback')} read, {counted(done.confirmed, 'message')} in doubt settled{ignored if done.ignored else ''}."


def suppressed_text(identifiers: int, channel: str, done: Suppressed) -> str:
    return (
        f"{counted(identifiers, 'identifier')} suppressed on {channel}, {done.known} of people the warehouse knows. "
        f"Nothing leaves for them after {done.effective_at:%Y-%m-%d %H:%M:%S} UTC but removals, which the next runs make."
    )


def lifted_text(identifiers: int, channel: str, lifted: int) -> str:
    left = (
        " Lift a suppression by the identifier that was named when it was said."
        if lifted < identifiers
        else ""
    )
    return f"{counted(lifted, 'suppression')} lifted on {channel}.{left}"


def unasked_text(why: str) -> str:
    return (
        "Only these identifiers, and no other of the same people: the warehouse could not be asked who they are. "
        f"Give the same lines again when it can be read. ({why})"
    )


def left_behind_text(run: SyncRun) -> str:
    return (
        f"`{run.sync}` has no file any more, and whoever it sent to `{run.destination}` stays there, also when they say no. "
        "If it was renamed, give it its name back; to end it, empty it first (docs/operating.md, Ending a sync). "
        f"If they may stay, or are gone: `activations forget {run.sync} --by NAME --note WHY`"
    )


def held_text(run: SyncRun) -> str:
    return f"{run.held_reason}. If that is right: `activations release {run.sync} --by NAME --note WHY`, then run it again"


def explanation_table(person: str, items: Sequence[Explanation]) -> PerSync[Explanation]:
    """One person, one column per sync."""
    return PerSync(title=f"Why {plain(person)} is in or out", items=items, table=_explanation_columns)


def _explanation_columns(items: Sequence[Explanation]) -> Table:
    rows: tuple[Row, ...] = (
        ("verdict", [_lines(item.verdict, "deferred" if item.is_deferred else None) for item in items]),
        ("blockers", [_lines(*item.blockers) for item in items]),
        ("destination holds it", [_lines(_held(item), item.open_state) for item in items]),
        ("next run", [_lines(item.next_operation) for item in items]),
        ("consent event", [_lines(item.consent_event_id) for item in items]),
    )
    return _table([_heading(item.sync) for item in items], rows, sections={"blockers"})


def _lines(*texts: str | None) -> str:
    return "\n".join(plain(text) for text in texts if text) or "–"


def _held(item: Explanation) -> str:
    return f"since {item.acknowledged_at:%Y-%m-%d %H:%M}" if item.acknowledged_at else "no"


def _heading(sync: str) -> str:
    return sync.replace("__", "\n→ ")


def _run_rows(runs: Sequence[SyncRun]) -> Iterator[Row]:
    yield "destination", [run.destination for run in runs]
    yield "channel", [run.channel.value for run in runs]
    yield "status", [_coloured(run.run_status) for run in runs]
    yield from _scope_rows([run.counts for run in runs])
    yield "delivered", _numbers(run.delivered for run in runs)
    yield "rejected", _numbers(run.rejected for run in runs)
    for name in ("retryable", "suppressed"):
        if any(getattr(run, name) for run in runs):
            yield name, _numbers(getattr(run, name) for run in runs)
    yield "in doubt", _numbers(run.in_doubt for run in runs)
    yield (
        "finished (UTC)",
        [f"{run.finished_at:%m-%d %H:%M}" if run.finished_at else "never" for run in runs],
    )


def _scope_rows(counts: Sequence[Counts]) -> Iterator[Row]:
    yield "audience", _numbers(c.audience_size for c in counts)
    for total, reasons in (
        ("ineligible", "ineligible_by_reason"),
        ("invalid", "invalid_by_reason"),
        ("waiting", "waiting_by_reason"),
    ):
        if total == "ineligible" or any(getattr(c, total) for c in counts):
            yield total, _numbers(getattr(c, total) for c in counts)
            yield from _reason_rows([getattr(c, reasons) for c in counts])
    yield "held out", _numbers(c.held_out for c in counts)
    for name in ("unchanged", "added", "changed", "removed"):
        yield name, _numbers(getattr(c, name) for c in counts)


def _reason_rows(reasons: Sequence[Mapping[str, int]]) -> Iterator[Row]:
    for reason in sorted({name for found in reasons for name in found}):
        yield f"  {plain(reason)}", _numbers(found.get(reason, 0) for found in reasons)


def _table(headings: Sequence[str], rows: Iterable[Row], sections: set[str]) -> Table:
    table = Table()
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for label, cells in rows:
        table.add_row(label, *cells, end_section=label in sections)
    return table


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def _coloured(status: RunStatus) -> str:
    colour = _COLOURS.get(status)
    word = status.value.replace("_", " ")
    return f"[{colour}]{word}[/]" if colour else word


def _numbers(values: Iterable[int]) -> list[str]:
    return [f"{value:,}" for value in values]
