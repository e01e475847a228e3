"""Outcomes from the journal into the warehouse, each exactly once.

The mark and the rows move in one transaction of the warehouse; only then does the journal drop what it held. A crash
between the two is harmless: the next merge sees the mark and prunes. The snapshot moves on nothing but a DELIVERED.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import polars as pl
from sqlglot import parse

from activations.config import Sync
from activations.errors import PlanRejected
from activations.journal import Batch, Journal, Lease
from activations.manifest import Relation
from activations.model import Outcome, SyncRun
from activations.planning.planfile import PlanFile
from activations.warehouses import Session, Warehouse

SNAPSHOT = Relation(schema="activation", name="sync_snapshot")

_ROWS = "merged_rows"
_DELIVERED = "outcome = 'delivered'"


def prepare(warehouse: Warehouse) -> None:
    """Create the schema and its tables where they are missing."""
    statements = parse(
        resources.files("activations").joinpath("ledger.sql").read_text(encoding="utf-8"), dialect="duckdb"
    )
    with warehouse.write() as session, session.transaction():
        for statement in statements:
            if statement is not None:
                session.run(statement.sql(dialect=warehouse.dialect))


def merge(session: Session, journal: Journal, lease: Lease, sync: Sync, plans: Path) -> int:
    """Move every recorded outcome of the sync into the ledger. Returns how many rows moved."""
    mark = _mark(session, journal, sync)
    batches = [batch for batch in journal.unmerged(sync.name) if (batch.outcome_seq or 0) > mark]
    rows = _rows(batches, plans)
    last = max((batch.outcome_seq or 0 for batch in batches), default=mark)
    if batches:
        session.load(_ROWS, rows.to_arrow())
        with session.transaction():
            _move_mark(session, journal, sync, mark, last)
            _append_changelog(session, journal, sync)
            _move_snapshot(session, sync)
            _move_rejections(session, sync)
    journal.merged(lease, last)
    return rows.height


def save_run(session: Session, run: SyncRun) -> None:
    """One row per run, replaced when the run goes on."""
    summary = run.summary() | {"started_at": run.started_at, "finished_at": run.finished_at}
    names = [
        "run_id", "sync", "audience", "destination", "channel", "purpose", "mode", "run_status", "plan_id", "audience_size", "ineligible",
        "held_out", "invalid", "added", "changed", "removed", "unchanged", "waiting", "delivered", "rejected", "retryable", "in_doubt",
        "suppressed", "requests", "held_reason", "error", "started_at", "finished_at",
    ]  # fmt: skip
    with session.transaction():
        session.run("delete from activation.sync_runs where run_id = ?", [run.run_id])
        marks = ", ".join("?" for _ in names)
        session.run(
            f"insert into activation.sync_runs ({', '.join(names)}) values ({marks})",
            [summary[name] for name in names],
        )


def _mark(session: Session, journal: Journal, sync: Sync) -> int:
    found = session.rows(
        "select seq from activation.merge_mark where sync = ? and journal_id = ?",
        [sync.name, journal.journal_id],
    )
    return int(found[0][0]) if found else 0


def _move_mark(session: Session, journal: Journal, sync: Sync, expected: int, last: int) -> None:
    """Compare and set: if somebody else moved the mark, this merge would count rows twice."""
    if _mark(session, journal, sync) != expected:
        raise PlanRejected(f"the ledger of `{sync.name}` moved while it was merged. Run the sync again")
    session.run(
        "delete from activation.merge_mark where sync = ? and journal_id = ?", [sync.name, journal.journal_id]
    )
    session.run("insert into activation.merge_mark values (?, ?, ?)", [sync.name, journal.journal_id, last])


def _rows(batches: Sequence[Batch], plans: Path) -> pl.DataFrame:
    """One line per outcome: what the plan file says about the row, and what became of it."""
    by_plan: dict[str, list[Batch]] = {}
    for batch in batches:
        by_plan.setdefault(batch.plan_path, []).append(batch)
    frames = [_plan_rows(PlanFile(plans / name), found) for name, found in by_plan.items()]
    return pl.concat(frames) if frames else pl.DataFrame()


def _plan_rows(plan: PlanFile, batches: Sequence[Batch]) -> pl.DataFrame:
    outcomes = pl.concat([_batch_rows(batch) for batch in batches])
    return (
        outcomes.join(plan.ledger_rows(), on="position", how="inner")
        .with_columns(pl.coalesce("new_destination_key", "destination_key").alias("destination_key"))
        .drop("new_destination_key")
    )


def _batch_rows(batch: Batch) -> pl.DataFrame:
    positions = range(batch.span.first, batch.span.first + batch.span.count)
    exceptions = {position: (outcome, reason) for position, outcome, reason in batch.exceptions}
    delivered = (Outcome.DELIVERED, None)
    return pl.DataFrame(
        {
            "position": pl.Series(positions, dtype=pl.UInt32),
            "outcome": [exceptions.get(p, delivered)[0].value for p in positions],
            "reason": pl.Series([exceptions.get(p, delivered)[1] for p in positions], dtype=pl.String),
            "new_destination_key": pl.Series(
                batch.destination_keys or [None] * batch.span.count, dtype=pl.String
            ),
            "seq": pl.Series([batch.outcome_seq] * batch.span.count, dtype=pl.Int64),
            "run_id": [batch.run_id] * batch.span.count,
            "recorded_at": pl.Series([batch.recorded_at] * batch.span.count, dtype=pl.Datetime("us")),
        }
    )


def _append_changelog(session: Session, journal: Journal, sync: Sync) -> None:
    session.run(
        f"insert into activation.sync_changelog select ?, seq, position, run_id, ?, ?, ?, row_key, operation, outcome, reason, payload_hash, recorded_at from {_ROWS}",
        [journal.journal_id, sync.name, sync.channel.value, sync.purpose],
    )


def _latest(where: str) -> str:
    """A row sent twice in one merge counts by its last outcome."""
    ranked = f"select *, row_number() over (partition by row_key, identity order by seq desc) as newest from {_ROWS} where {where}"
    return f"(select * from ({ranked}) as ranked where newest = 1) as m"


def _move_snapshot(session: Session, sync: Sync) -> None:
    delivered = _latest(_DELIVERED)
    session.run(
        f"delete from activation.sync_snapshot as s using {delivered} where s.sync = ? and s.primary_key = m.row_key and s.identity = m.identity",
        [sync.name],
    )
    session.run(
        f"insert into activation.sync_snapshot select ?, row_key, identity, payload_hash, destination_key, run_id, recorded_at from {delivered} where operation <> 'removed'",
        [sync.name],
    )


def _move_rejections(session: Session, sync: Sync) -> None:
    """Refused rows appear or are counted up; rows that a destination took since then disappear."""
    mine = "r.sync = ? and r.primary_key = m.row_key and r.identity = m.identity"
    refused = _latest("outcome = 'rejected'")
    session.run(
        f"update activation.rejected_records as r set reason = m.reason, last_seen_at = m.recorded_at, attempts = r.attempts + 1 from {refused} where {mine}",
        [sync.name],
    )
    session.run(
        f"insert into activation.rejected_records select ?, m.row_key, m.identity, m.reason, m.recorded_at, m.recorded_at, 1 from {refused} "
        "where not exists (select 1 from activation.rejected_records as r where r.sync = ? and r.primary_key = m.row_key and r.identity = m.identity)",
        [sync.name, sync.name],
    )
    session.run(
        f"delete from activation.rejected_records as r using {_latest(_DELIVERED)} where {mine}", [sync.name]
    )
