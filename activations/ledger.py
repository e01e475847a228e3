"""Outcomes from the journal into the warehouse, each exactly once.

The mark and the rows move in one transaction of the warehouse; only then does the journal drop what it held. A crash
between the two is harmless: the next merge sees the mark and prunes. The snapshot moves on nothing but a DELIVERED.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot.expressions as exp
from sqlglot import parse

from activations.config import Sync
from activations.errors import PlanRejected, WarehouseError
from activations.journal import Batch, Journal, Lease
from activations.manifest import Relation
from activations.merging import Outcomes, offered
from activations.model import SyncMode, SyncRun
from activations.planning.inputs import Expectation
from activations.planning.refreshing import sieve_file
from activations.warehouses import Session, Warehouse

SNAPSHOT = Relation(schema="activation", name="sync_snapshot")

_NEWEST = Relation(schema="activation", name="sync_inputs")
"""The table that ledgers got last."""
_HASHES = "merged_hashes"
HASHES_AT_ONCE = 250_000
"""Rows whose hashes one statement changes: DuckDB keeps what it changes in memory until the commit."""
_RANDOM = ("primary_key", "identity", "payload_hash")
"""Columns of texts of which hardly one is like another, in whichever table."""


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
                session.run(_declared(statement, warehouse).sql(dialect=warehouse.dialect))


def _declared(statement: exp.Expr, warehouse: Warehouse) -> exp.Expr:
    for column in statement.find_all(exp.ColumnDef):
        if column.name in _RANDOM and warehouse.random_text:
            column.append("constraints", exp.ColumnConstraint(kind=exp.Var(this=warehouse.random_text)))
    return statement


def merge(session: Session, journal: Journal, lease: Lease, sync: Sync, plans: Path) -> int:
    """Move every recorded outcome of the sync into the ledger, and every finished run that it does not have yet, also
    those of engines that died. Returns how many rows moved."""
    _require_layout(session)
    batches, runs = journal.unmerged(sync.name), journal.runs_for_ledger(sync.name)
    with session.transaction():
        _require_newer(session, journal, sync)
        moved = _move_outcomes(session, journal, sync, batches, plans) if batches else 0
        for summary in runs:
            _save_run(session, SyncRun.from_summary(summary))
    last = max((batch.outcome_seq or 0 for batch in batches), default=0)
    journal.merged(lease, last, [summary["run_id"] for summary in runs])
    return moved


def _move_outcomes(
    session: Session, journal: Journal, sync: Sync, batches: Sequence[Batch], plans: Path
) -> int:
    """Those after the mark, and the mark itself."""
    new = _after(_mark(session, journal, sync), batches)
    if new:
        with offered(session, new, plans) as outcomes:
            _move_mark(session, journal, sync.name, max(batch.outcome_seq or 0 for batch in new))
            _append_changelog(session, journal, sync, outcomes)
            _move_snapshot(session, sync, outcomes)
            _move_rejections(session, sync, outcomes)
            _remember_place(session, sync, new)
    return sum(batch.span.count for batch in new)


def refresh(session: Session, sync: Sync, plan: Path) -> None:
    """Add the hashes that the plan found missing for rows that are as the destination holds them."""
    path = sieve_file(plan)
    if not path.exists():
        return
    for part in _parts(path):
        with session.transaction(), session.offer(_HASHES, part.to_reader):
            session.run(
                f"update activation.sync_snapshot as s set sieve = h.sieve, field_marks = h.field_marks from {_HASHES} as h "
                "where s.sync = ? and s.primary_key = h.row_key and s.identity = h.identity and s.payload_hash = h.payload_hash",
                [sync.name],
            )
    path.unlink()


def expect(session: Session, sync: Sync, position: str, expected: Expectation) -> None:
    """Keep what the next plan finds while neither its inputs nor this position of the ledger change."""
    finding = json.dumps(asdict(expected.finding))
    with session.transaction():
        _expect_nothing(session, sync)
        session.run(
            "insert into activation.sync_inputs select ?, ?, count(*), ?, ?, ? from activation.sync_snapshot where sync = ?",
            [sync.name, position, expected.audience, expected.surroundings, finding, sync.name],
        )


def _expect_nothing(session: Session, sync: Sync) -> None:
    session.run("delete from activation.sync_inputs where sync = ?", [sync.name])


def resync(session: Session, sync: Sync) -> int:
    """The next plan asserts everybody as changed, and still removes who left. Returns how many rows that are."""
    _expect_nothing(session, sync)
    session.run(
        "update activation.sync_snapshot set payload_hash = null, sieve = null, field_marks = null where sync = ?",
        [sync.name],
    )
    [(rows,)] = session.rows("select count(*) from activation.sync_snapshot where sync = ?", [sync.name])
    return int(rows)


def check(session: Session, journal: Journal, sync: Sync) -> None:
    """Whether the snapshot may be planned against: it has everything the journal gave it, and it speaks of the place
    the sync points to. Otherwise somebody would be left behind, or sent to somewhere they are not."""
    _require_layout(session)
    require_its_journal(session, journal, sync)
    _require_newer(session, journal, sync)
    if _place(session, sync) not in (None, sync.place):
        raise PlanRejected(
            f"`{sync.name}` points to another account or place than the one that holds its people. Give the new place a sync of its own, or point back. {_start_over(sync)}, and leaves whoever is at the old place there"
        )
    journal.count_on_from(_mark(session, journal, sync))


def require_its_journal(session: Session, journal: Journal, sync: Sync) -> None:
    """A journal that never merged into this ledger, where another one did, does not know what that one left open."""
    marks = session.rows("select journal_id from activation.merge_mark where sync = ?", [sync.name])
    if marks and (journal.journal_id,) not in marks:
        raise PlanRejected(
            f"the journal that worked for `{sync.name}` is not here: a new one stands in its place. Restore it, it knows what is in doubt, which messages left and who said no. If it is lost, give the suppressions since the last build again, and `activations adopt {sync.name} --by NAME --note WHY`"
        )


def adopt(session: Session, journal: Journal, lease: Lease, sync: Sync, *, by: str, note: str) -> None:
    """Go on without the journal that is lost. State is asserted again, in case a row of it was in doubt; a message that was in
    doubt and is still wanted is sent once more."""
    _require_layout(session)
    if sync.mode is not SyncMode.APPEND:
        resync(session, sync)
    _move_mark(session, journal, sync.name, journal.position(sync.name))
    journal.decided(lease, "adopted", by=by, note=note)


def _require_newer(session: Session, journal: Journal, sync: Sync) -> None:
    """Before the mark moves, too: afterwards an older ledger looks as new as any."""
    if _mark(session, journal, sync) < journal.merged_through(sync.name):
        raise PlanRejected(
            f"the ledger of `{sync.name}` is older than the journal, as if the warehouse had been restored or deleted. Restore the newer one. {_start_over(sync)}"
        )


def _start_over(sync: Sync) -> str:
    return f"To start over, `activations forget {sync.name} --by NAME --note WHY`: the next run sends everybody again"


def forget(session: Session, journal: Journal, lease: Lease, *, by: str, note: str) -> None:
    """Forget what the destination holds, in ledger and journal."""
    with session.transaction():
        for table in ("sync_snapshot", "sync_inputs", "rejected_records", "sync_places"):
            session.run(f"delete from activation.{table} where sync = ?", [lease.sync])
        _move_mark(session, journal, lease.sync, journal.position(lease.sync))
    journal.forget(lease, by=by, note=note)


def close_rejections(session: Session, sync: Sync, rows: Sequence[tuple[str, str]]) -> None:
    """Refused rows that are no longer worth remembering."""
    for row_key, identity in rows:
        session.run(
            "delete from activation.rejected_records where sync = ? and primary_key = ? and identity = ?",
            [sync.name, row_key, identity],
        )


def _place(session: Session, sync: Sync) -> str | None:
    """Where the snapshot's people are."""
    found = session.rows("select place from activation.sync_places where sync = ?", [sync.name])
    return found[0][0] if found else None


def _remember_place(session: Session, sync: Sync, batches: Sequence[Batch]) -> None:
    """The one that was sent to: meanwhile the sync may point elsewhere."""
    held = [batch.place for batch in batches if batch.may_be_held]
    if held and _place(session, sync) is None:
        session.run("insert into activation.sync_places values (?, ?)", [sync.name, held[0]])


def _save_run(session: Session, run: SyncRun) -> None:
    """One row per run, replaced when the run goes on."""
    summary = run.summary() | {"started_at": run.started_at, "finished_at": run.finished_at}
    names = [
        "run_id", "sync", "audience", "destination", "channel", "purpose", "mode", "run_status", "plan_id", "audience_size", "ineligible",
        "held_out", "invalid", "added", "changed", "removed", "unchanged", "waiting", "delivered", "rejected", "retryable", "in_doubt",
        "suppressed", "requests", "held_reason", "error", "started_at", "finished_at",
    ]  # fmt: skip
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


def _after(mark: int, batches: Sequence[Batch]) -> list[Batch]:
    """Those that the tables do not contain yet."""
    return [batch for batch in batches if (batch.outcome_seq or 0) > mark]


def _move_mark(session: Session, journal: Journal, sync: str, last: int) -> None:
    """In the transaction that read it; writers of the ledger come one after the other, so nothing is counted twice."""
    moved = session.rows(
        "update activation.merge_mark set seq = ? where sync = ? and journal_id = ? returning seq",
        [last, sync, journal.journal_id],
    )
    if not moved:
        session.run("insert into activation.merge_mark values (?, ?, ?)", [sync, journal.journal_id, last])


def _require_layout(session: Session) -> None:
    if not session.columns(_NEWEST):
        raise WarehouseError(
            "the ledger's tables are missing, or those of an older version. Run `activations init`"
        )


def _parts(path: Path) -> Iterator[pa.Table]:
    """Of so many rows as one statement can change in little memory. Each may be committed alone: a hash more or less costs
    time, never truth."""
    for batch in pq.ParquetFile(path).iter_batches(HASHES_AT_ONCE):
        yield pa.Table.from_batches([batch])


def _append_changelog(session: Session, journal: Journal, sync: Sync, outcomes: Outcomes) -> None:
    session.run(
        "insert into activation.sync_changelog select ?, seq, position, run_id, ?, ?, ?, row_key, verdict, outcome, reason, payload_hash, recorded_at "
        f"from {outcomes.every} as m",
        [journal.journal_id, sync.name, sync.channel.value, sync.purpose],
    )


def _move_snapshot(session: Session, sync: Sync, outcomes: Outcomes) -> None:
    """What an upsert asserts belongs to whom it was asserted for last, whoever it was before and is no member any more."""
    delivered = outcomes.latest("outcome = 'delivered'")
    if _has_rows(session, "sync_snapshot", sync):
        same = "" if sync.mode is SyncMode.UPSERT else "and s.primary_key = m.row_key "
        session.run(
            f"delete from activation.sync_snapshot as s using {delivered} as m where s.sync = ? {same}and s.identity = m.identity",
            [sync.name],
        )
    session.run(
        "insert into activation.sync_snapshot (sync, primary_key, identity, payload_hash, destination_key, acked_run_id, acked_at, sieve, field_marks) "
        f"select ?, row_key, identity, payload_hash, destination_key, run_id, recorded_at, sieve, field_marks from {delivered} as m where verdict <> 'removed'",
        [sync.name],
    )


def _move_rejections(session: Session, sync: Sync, outcomes: Outcomes) -> None:
    """Refused rows appear or are counted up; rows that a destination took since then disappear."""
    mine = "r.sync = ? and r.primary_key = m.row_key and r.identity = m.identity"
    if outcomes.has_rejections:
        refused = outcomes.latest("outcome = 'rejected'")
        session.run(
            f"update activation.rejected_records as r set reason = m.reason, last_seen_at = m.recorded_at, attempts = r.attempts + 1 from {refused} as m where {mine}",
            [sync.name],
        )
        session.run(
            f"insert into activation.rejected_records select ?, m.row_key, m.identity, m.reason, m.recorded_at, m.recorded_at, 1 from {refused} as m "
            "where not exists (select 1 from activation.rejected_records as r where r.sync = ? and r.primary_key = m.row_key and r.identity = m.identity)",
            [sync.name, sync.name],
        )
    if _has_rows(session, "rejected_records", sync):
        delivered = outcomes.latest("outcome = 'delivered'")
        session.run(
            f"delete from activation.rejected_records as r using {delivered} as m where {mine}", [sync.name]
        )


def _has_rows(session: Session, table: str, sync: Sync) -> bool:
    return bool(session.rows(f"select 1 from activation.{table} where sync = ? limit 1", [sync.name]))
