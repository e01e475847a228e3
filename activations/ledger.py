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
    text = resources.files("activations").joinpath("ledger.sql").read_text(encoding="utf-8")
    statements = [statement for statement in parse(text, dialect="duckdb") if statement is not None]
    with warehouse.write() as session, session.transaction():
        has_schema = session.rows(
            "select 1 from information_schema.schemata where schema_name = ?", [SNAPSHOT.schema]
        )
        for statement in statements:
            # Even `if not exists` asks for the right to create schemas, which the engine need not have.
            if not (has_schema and statement.args.get("kind") == "SCHEMA"):
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
            _remember_place(session, sync)
    journal.merged(lease, last)
    _save_runs(session, journal, lease, sync)
    return rows.height


def check(session: Session, journal: Journal, sync: Sync) -> None:
    """Whether the snapshot may be planned against: it has everything the journal gave it, and it speaks of the place
    the sync points to. Otherwise somebody would be left behind, or sent to somewhere they are not."""
    start_over = f"To start over, `activations forget {sync.name} --by NAME --note WHY`: the next run sends everybody again"
    if _mark(session, journal, sync) < journal.merged_through(sync.name):
        raise PlanRejected(
            f"the ledger of `{sync.name}` is older than the journal, as if the warehouse had been restored or deleted. Restore the newer one. {start_over}"
        )
    known = session.rows("select place from activation.sync_places where sync = ?", [sync.name])
    if known and known[0][0] != sync.place:
        raise PlanRejected(
            f"`{sync.name}` points to another account or place than the one that holds its people. Give the new place a sync of its own, or point back. {start_over}, and leaves whoever is at the old place there"
        )


def forget(session: Session, journal: Journal, lease: Lease, sync: Sync, *, by: str, note: str) -> None:
    """Forget what the destination holds, in ledger and journal."""
    with session.transaction():
        for table in ("sync_snapshot", "rejected_records", "sync_places"):
            session.run(f"delete from activation.{table} where sync = ?", [sync.name])
        _move_mark(session, journal, sync, _mark(session, journal, sync), journal.position(sync.name))
    journal.forget(lease, by=by, note=note)


def close_rejections(session: Session, sync: Sync, rows: Sequence[tuple[str, str]]) -> None:
    """Refused rows that are no longer worth remembering."""
    for row_key, identity in rows:
        session.run(
            "delete from activation.rejected_records where sync = ? and primary_key = ? and identity = ?",
            [sync.name, row_key, identity],
        )


def _remember_place(session: Session, sync: Sync) -> None:
    session.run("delete from activation.sync_places where sync = ?", [sync.name])
    session.run("insert into activation.sync_places values (?, ?)", [sync.name, sync.place])


def _save_runs(session: Session, journal: Journal, lease: Lease, sync: Sync) -> None:
    """Every finished run that the ledger does not have yet, also of engines that died or could not write."""
    runs = [SyncRun.from_summary(summary) for summary in journal.runs_for_ledger(sync.name)]
    for run in runs:
        _save_run(session, run)
    journal.runs_in_ledger(lease, [run.run_id for run in runs])


def _save_run(session: Session, run: SyncRun) -> None:
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
    if not plan.path.exists():
        raise PlanRejected(
            f"the plan {plan.path.name} is gone before its outcomes were in the ledger. Restore it from a backup of the state folder"
        )
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
