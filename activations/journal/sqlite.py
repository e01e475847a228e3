"""The journal on SQLite: one file beside the engine, every commit synced to disk.

Safety needs three things from it: an intent is on disk before the request leaves; every write of a lease's holder
fails once the epoch is old; an outcome is kept until the warehouse has it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import sqlite3
import threading
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

from activations.errors import ActivationsError, Fenced, SecretError, SyncBusy
from activations.journal.records import Batch, Claim, Lease, OpenRow, OpenState, RowOutcome, Span
from activations.model import Outcome, SyncRun

VERSION = 1
"""Of the tables' layout. Raise it with schema.sql."""

_UNSETTLED = {Outcome.UNKNOWN: OpenState.IN_DOUBT, Outcome.REJECTED: OpenState.REJECTED}


class Journal:
    """One journal. Methods that take a `lease` fail with Fenced once a newer engine holds the sync."""

    def __init__(self, path: Path, *, audit_key: bytes, key_check: str, now: Callable[[], datetime]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._locks = path.parent / "locks"
        self._audit_key, self._now = audit_key, now
        self._mutex = threading.RLock()
        self._db = _open(path)
        try:
            self.journal_id = self._identify(key_check)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    # -- lease -------------------------------------------------------------------------------------------------

    @contextmanager
    def lease(self, sync: str, owner: str) -> Iterator[Lease]:
        """The sync's kernel lock (held only by a living process) and a new epoch. SyncBusy when it is taken."""
        self._locks.mkdir(exist_ok=True, mode=0o700)
        with (self._locks / f"{sync}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SyncBusy(
                    f"another process is running the sync `{sync}`. Wait for it to finish, or stop it"
                ) from None
            yield Lease(sync=sync, epoch=self._next_epoch(sync, owner))

    def _next_epoch(self, sync: str, owner: str) -> int:
        with self._transaction():
            self._db.execute(
                "insert into lease (sync, epoch, owner, acquired_at) values (?, 1, ?, ?) "
                "on conflict (sync) do update set epoch = epoch + 1, owner = excluded.owner, acquired_at = excluded.acquired_at",
                (sync, owner, _iso(self._now())),
            )
            return int(self._one("select epoch from lease where sync = ?", sync)[0])

    def not_before(self, sync: str) -> datetime | None:
        """Until when the destination asked to be left alone."""
        row = self._db.execute("select not_before from lease where sync = ?", (sync,)).fetchone()
        return _time(row[0]) if row else None

    def postpone(self, lease: Lease, until: datetime) -> None:
        """Leave the destination alone until then; a longer wait that somebody was told stays."""
        with self._fenced(lease):
            self._db.execute(
                "update lease set not_before = max(coalesce(not_before, ''), ?) where sync = ?",
                (_iso(until), lease.sync),
            )

    # -- runs --------------------------------------------------------------------------------------------------

    def save_run(
        self,
        lease: Lease,
        run: SyncRun,
        *,
        content_hash: str | None = None,
        plan_path: Path | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Insert or replace what is known about a run; plan facts once given are kept."""
        with self._fenced(lease):
            self._db.execute(
                "insert into run values (:id, :sync, :epoch, :status, :hash, :path, :expires, :summary, 0, :created, :finished) "
                "on conflict (run_id) do update set status = excluded.status, summary = excluded.summary, finished_at = excluded.finished_at, in_ledger = 0, "
                "content_hash = coalesce(excluded.content_hash, content_hash), plan_path = coalesce(excluded.plan_path, plan_path), "
                "expires_at = coalesce(excluded.expires_at, expires_at)",
                {
                    "id": run.run_id,
                    "sync": run.sync,
                    "epoch": lease.epoch,
                    "status": run.run_status.value,
                    "hash": content_hash,
                    "path": plan_path.name if plan_path else None,
                    "expires": _iso(expires_at) if expires_at else None,
                    "summary": json.dumps(run.summary(), sort_keys=True),
                    "created": _iso(run.started_at or self._now()),
                    "finished": _iso(run.finished_at) if run.finished_at else None,
                },
            )

    def last_runs(self) -> dict[str, dict[str, Any]]:
        """Sync → summary of its latest run."""
        rows = self._db.execute("select sync, summary, max(created_at) from run group by sync")
        return {sync: json.loads(summary) for sync, summary, _ in rows}

    def unfinished_runs(self, sync: str) -> list[dict[str, Any]]:
        rows = self._db.execute("select summary from run where sync = ? and finished_at is null", (sync,))
        return [json.loads(summary) for (summary,) in rows]

    def runs_for_ledger(self, sync: str) -> list[dict[str, Any]]:
        """Finished runs whose line in the ledger is missing or older."""
        rows = self._db.execute(
            "select summary from run where sync = ? and finished_at is not null and not in_ledger order by created_at",
            (sync,),
        )
        return [json.loads(summary) for (summary,) in rows]

    def runs_in_ledger(self, lease: Lease, run_ids: Iterable[str]) -> None:
        with self._fenced(lease):
            self._db.executemany(
                "update run set in_ledger = 1 where run_id = ?", [(run_id,) for run_id in run_ids]
            )

    def outcomes_of(self, run_id: str) -> Counter[Outcome]:
        """What became of a run's rows, by the batches that are recorded."""
        found: Counter[Outcome] = Counter()
        for (tally,) in self._db.execute(
            "select tally from batch where run_id = ? and tally is not null", (run_id,)
        ):
            found.update({Outcome(name): rows for name, rows in json.loads(tally).items()})
        return found

    def run_ids(self, sync: str) -> frozenset[str]:
        return frozenset(
            run_id for (run_id,) in self._db.execute("select run_id from run where sync = ?", (sync,))
        )

    def held_plan(self, sync: str) -> tuple[str, str] | None:
        """(run_id, content_hash) of the sync's latest run, when that run is held."""
        row = self._db.execute(
            "select run_id, content_hash, summary ->> 'held_reason' from run where sync = ? order by created_at desc limit 1",
            (sync,),
        ).fetchone()
        return (row[0], row[1]) if row and row[2] else None

    # -- approvals ---------------------------------------------------------------------------------------------

    def approve(self, sync: str, content_hash: str, *, by: str, note: str, valid: timedelta) -> None:
        """A person lets exactly this plan pass. Audited; void when the plan changes or the time is over."""
        now = self._now()
        with self._transaction():
            self._db.execute(
                "insert into approval values (?, ?, ?, ?, ?, ?, null)",
                (sync, content_hash, by, note, _iso(now), _iso(now + valid)),
            )
            self._append_audit(
                {"event": "plan_released", "sync": sync, "plan": content_hash, "by": by, "note": note}
            )

    def approved_hash(self, sync: str) -> str | None:
        """The content hash that may pass now."""
        row = self._db.execute(
            "select content_hash from approval where sync = ? and used_by_run is null and expires_at > ? order by approved_at desc limit 1",
            (sync, _iso(self._now())),
        ).fetchone()
        return row[0] if row else None

    def use_approval(self, lease: Lease, content_hash: str, run_id: str) -> None:
        with self._fenced(lease):
            self._db.execute(
                "update approval set used_by_run = ? where sync = ? and content_hash = ? and used_by_run is null",
                (run_id, lease.sync, content_hash),
            )

    # -- intents -----------------------------------------------------------------------------------------------

    def claim(
        self,
        lease: Lease,
        run_id: str,
        span: Span,
        *,
        send_by: datetime,
        channel: str,
        digests: Callable[[], Mapping[int, Sequence[str]]],
        messages: Mapping[int, str],
    ) -> Claim:
        """Commit the intent to send a span. In the same transaction, suppressions are read again and every message
        key is passed through its one-way door. `digests` gives position → digests
        of every identifier of the row; it is asked only when there is a suppression to compare with."""
        now = _iso(self._now())
        with self._fenced(lease):
            cursor = self._db.execute(
                "insert into batch (sync, run_id, first, count, state, epoch, claimed_at, send_by) values (?, ?, ?, ?, 'in_flight', ?, ?, ?)",
                (lease.sync, run_id, span.first, span.count, lease.epoch, now, _iso(send_by)),
            )
            batch_id = int(cursor.lastrowid or 0)
            refused = self._suppressed(digests, channel)
            for position, key in messages.items():
                if position not in refused and (closed := self._open_door(key, lease.sync, batch_id, now)):
                    refused[position] = closed
            self._remark(batch_id, ((position, *verdict) for position, verdict in refused.items()))
        return Claim(batch_id=batch_id, span=span, send_by=send_by, refused=refused)

    def _suppressed(
        self, digests: Callable[[], Mapping[int, Sequence[str]]], channel: str
    ) -> dict[int, tuple[Outcome, str]]:
        fresh = self.suppressed_digests(channel)
        if not fresh:
            return {}
        return {
            position: (Outcome.SUPPRESSED, "suppressed")
            for position, own in digests().items()
            if not fresh.isdisjoint(own)
        }

    def _open_door(self, key: str, sync: str, batch_id: int, now: str) -> tuple[Outcome, str] | None:
        """pending → in_flight by compare-and-set; otherwise what this message already became."""
        self._db.execute(
            "insert into message values (?, ?, ?, 'pending', null, null, ?) on conflict do nothing",
            (key, sync, batch_id, now),
        )
        moved = self._db.execute(
            "update message set state = 'in_flight', batch_id = ?, claimed_at = ? where message_key = ? and state = 'pending'",
            (batch_id, now, key),
        )
        if moved.rowcount:
            return None
        state = self._one("select state from message where message_key = ?", key)[0]
        already = {
            "sent": (Outcome.DELIVERED, "sent_before"),
            "rejected": (Outcome.REJECTED, "rejected_before"),
        }
        return already.get(state, (Outcome.UNKNOWN, "in_doubt_before"))

    def release(self, lease: Lease, claim: Claim, messages: Mapping[int, str]) -> None:
        """Nothing of the claim was sent, provably: rows and messages may be claimed again."""
        with self._fenced(lease):
            self._db.execute(
                "update batch set state = 'released' where batch_id = ? and state = 'in_flight'",
                (claim.batch_id,),
            )
            self._db.executemany(
                "update message set state = 'pending' where message_key = ? and state = 'in_flight' and batch_id = ?",
                [(key, claim.batch_id) for key in messages.values()],
            )

    # -- outcomes ----------------------------------------------------------------------------------------------

    def record(
        self,
        lease: Lease,
        claim: Claim,
        outcomes: Sequence[RowOutcome],
        *,
        messages: Mapping[int, str],
        settle_seconds: float,
        sent_at: datetime,
    ) -> None:
        """One outcome for every row of the claim, in one transaction."""
        with self._fenced(lease):
            self._record(lease.sync, claim.batch_id, outcomes, messages, settle_seconds, sent_at)

    def _record(
        self,
        sync: str,
        batch_id: int,
        outcomes: Sequence[RowOutcome],
        messages: Mapping[int, str],
        settle_seconds: float,
        sent_at: datetime,
    ) -> None:
        now = self._now()
        self._close_batch(batch_id, outcomes, now)
        open_keys = {
            (key, identity)
            for key, identity in self._db.execute(
                "select row_key, identity from open_row where sync = ?", (sync,)
            )
        }
        for row in outcomes:
            if row.outcome in _UNSETTLED:
                self._open(sync, row, now, now + timedelta(seconds=settle_seconds))
            elif open_keys and row.outcome is Outcome.DELIVERED and (row.row_key, row.identity) in open_keys:
                self._settle(sync, row, sent_at)
        self._close_messages(batch_id, outcomes, messages)

    def _close_batch(self, batch_id: int, outcomes: Sequence[RowOutcome], now: datetime) -> None:
        keys = [row.destination_key for row in outcomes]
        packed = zlib.compress(json.dumps(keys).encode()) if any(keys) else None
        tally = json.dumps(Counter(row.outcome.value for row in outcomes))
        self._db.execute(
            "update batch set state = 'recorded', recorded_at = ?, destination_keys = ?, tally = ?, "
            "outcome_seq = (select coalesce(max(outcome_seq), 0) + 1 from batch) where batch_id = ? and state = 'in_flight'",
            (_iso(now), packed, tally, batch_id),
        )
        notable = (row for row in outcomes if row.outcome is not Outcome.DELIVERED or row.reason)
        self._remark(batch_id, ((row.position, row.outcome, row.reason) for row in notable))

    def _remark(self, batch_id: int, remarks: Iterable[tuple[int, Outcome, str | None]]) -> None:
        self._db.executemany(
            "insert or replace into row_outcome values (?, ?, ?, ?)",
            [(batch_id, position, outcome.value, reason) for position, outcome, reason in remarks],
        )

    def _open(self, sync: str, row: RowOutcome, now: datetime, settle_until: datetime) -> None:
        """A rejection of a row that was in doubt does not forget that the destination may hold its older value."""
        in_doubt = row.outcome is Outcome.UNKNOWN
        self._db.execute(
            "insert into open_row values (:sync, :key, :identity, :state, :operation, :hash, :destination_key, :sealed, :maybe, :reason, 1, :now, :now, :settle) "
            "on conflict (sync, row_key, identity) do update set state = excluded.state, operation = excluded.operation, payload_hash = excluded.payload_hash, "
            "destination_key = coalesce(excluded.destination_key, destination_key), "
            "sealed = coalesce(excluded.sealed, sealed), maybe = max(maybe, excluded.maybe), reason = excluded.reason, attempts = attempts + 1, "
            "last_seen_at = excluded.last_seen_at, settle_until = coalesce(excluded.settle_until, settle_until)",
            {
                "sync": sync,
                "key": row.row_key,
                "identity": row.identity,
                "state": _UNSETTLED[row.outcome].value,
                "operation": row.operation.value,
                "hash": row.payload_hash,
                "destination_key": row.destination_key,
                "sealed": row.sealed,
                "maybe": int(in_doubt),
                "reason": row.reason,
                "now": _iso(now),
                "settle": _iso(settle_until) if in_doubt else None,
            },
        )

    def _settle(self, sync: str, row: RowOutcome, sent_at: datetime) -> None:
        """Acknowledged. Only a request that left after the settle window proves that nothing older can follow it."""
        key = (sync, row.row_key, row.identity)
        self._db.execute(
            "delete from open_row where sync = ? and row_key = ? and identity = ? and (settle_until is null or settle_until <= ?)",
            (*key, _iso(sent_at)),
        )
        self._db.execute(
            "update open_row set state = 'settling', payload_hash = ? where sync = ? and row_key = ? and identity = ?",
            (row.payload_hash, *key),
        )

    def _close_messages(
        self, batch_id: int, outcomes: Sequence[RowOutcome], messages: Mapping[int, str]
    ) -> None:
        states = {
            Outcome.DELIVERED: "sent",
            Outcome.REJECTED: "rejected",
            Outcome.UNKNOWN: "unknown",
            Outcome.RETRYABLE: "pending",
        }
        self._db.executemany(
            "update message set state = ?, provider_id = ?, reason = ? where message_key = ? and batch_id = ? and state = 'in_flight'",
            [
                (states[r.outcome], r.destination_key, r.reason, messages[r.position], batch_id)
                for r in outcomes
                if r.position in messages and r.outcome in states
            ],
        )

    # -- recovery ----------------------------------------------------------------------------------------------

    def in_flight(self, sync: str) -> list[Batch]:
        """Batches whose engine died between intent and outcome: nobody knows what was sent."""
        return self._batches("b.sync = ? and b.state = 'in_flight'", sync)

    def record_lost(
        self,
        lease: Lease,
        batch: Batch,
        outcomes: Sequence[RowOutcome],
        messages: Mapping[int, str],
        settle_seconds: float,
    ) -> None:
        """Every row of a lost batch is in doubt."""
        with self._fenced(lease):
            self._record(lease.sync, batch.batch_id, outcomes, messages, settle_seconds, self._now())

    # -- merge -------------------------------------------------------------------------------------------------

    def unmerged(self, sync: str) -> list[Batch]:
        """Recorded batches in the order of their outcomes."""
        return self._batches("b.sync = ? and b.state = 'recorded'", sync)

    def merged(self, lease: Lease, up_to: int) -> None:
        """The ledger has every outcome up to this one; what it says is dropped here."""
        with self._fenced(lease):
            done = "select batch_id from batch where sync = ? and state = 'recorded' and outcome_seq <= ?"
            self._db.execute(f"delete from row_outcome where batch_id in ({done})", (lease.sync, up_to))
            self._db.execute(
                "update batch set state = 'merged', destination_keys = null where sync = ? and state = 'recorded' and outcome_seq <= ?",
                (lease.sync, up_to),
            )

    def position(self, sync: str) -> int:
        """The latest outcome of a sync: its ledger's position once everything is merged."""
        return int(self._one("select coalesce(max(outcome_seq), 0) from batch where sync = ?", sync)[0])

    def merged_through(self, sync: str) -> int:
        """The latest outcome that the ledger is known to have had."""
        query = "select coalesce(max(outcome_seq), 0) from batch where sync = ? and state = 'merged'"
        return int(self._one(query, sync)[0])

    def forget(self, lease: Lease, *, by: str, note: str) -> None:
        """Everything about what the destination holds; message keys and suppressions stay."""
        with self._fenced(lease):
            self._db.execute("delete from open_row where sync = ?", (lease.sync,))
            self._db.execute(
                "update batch set state = 'merged' where sync = ? and state in ('recorded', 'in_flight')",
                (lease.sync,),
            )
            self._append_audit({"event": "forgotten", "sync": lease.sync, "by": by, "note": note})

    def plans_in_use(self) -> set[str]:
        """Names of plan files that a batch still refers to."""
        rows = self._db.execute(
            "select distinct plan_path from run join batch using (run_id) where state in ('in_flight', 'recorded') and plan_path is not null"
        )
        return {name for (name,) in rows}

    def _batches(self, where: str, sync: str) -> list[Batch]:
        columns = "b.batch_id, b.outcome_seq, b.run_id, r.plan_path, b.first, b.count, b.recorded_at, b.destination_keys"
        rows = self._db.execute(
            f"select {columns} from batch b join run r using (run_id) where {where} order by b.outcome_seq, b.batch_id",
            (sync,),
        )
        return [self._batch(row) for row in rows.fetchall()]

    def _batch(self, row: Sequence[Any]) -> Batch:
        found = self._db.execute(
            "select position, outcome, reason from row_outcome where batch_id = ?", (row[0],)
        )
        return Batch(
            batch_id=row[0],
            outcome_seq=row[1],
            run_id=row[2],
            plan_path=row[3],
            span=Span(first=row[4], count=row[5]),
            recorded_at=_time(row[6]),
            exceptions=[(position, Outcome(outcome), reason) for position, outcome, reason in found],
            destination_keys=json.loads(zlib.decompress(row[7])) if row[7] else None,
        )

    # -- open rows ---------------------------------------------------------------------------------------------

    def open_rows(self, sync: str) -> list[OpenRow]:
        columns = (
            "row_key, identity, state, payload_hash, destination_key, sealed, maybe, settle_until, reason"
        )
        rows = self._db.execute(f"select {columns} from open_row where sync = ?", (sync,))
        return [
            OpenRow(
                row_key=r[0],
                identity=r[1],
                state=OpenState(r[2]),
                payload_hash=r[3],
                destination_key=r[4],
                sealed=r[5],
                maybe=bool(r[6]),
                settle_until=_time(r[7]),
                reason=r[8],
            )
            for r in rows
        ]

    def forget_rejected(self, lease: Lease, rows: Iterable[tuple[str, str]]) -> None:
        """Rejected rows that nobody wants any more and that the destination never held."""
        with self._fenced(lease):
            self._db.executemany(
                "delete from open_row where sync = ? and row_key = ? and identity = ? and state = 'rejected' and maybe = 0",
                [(lease.sync, *key) for key in rows],
            )

    # -- suppressions ------------------------------------------------------------------------------------------

    def suppress(self, digests: Iterable[str], *, channel: str, reason: str, source: str) -> None:
        """From the next claim on, nothing but a removal leaves for these digests on this channel (or `all`)."""
        now = _iso(self._now())
        with self._transaction():
            self._db.executemany(
                "insert into suppression (digest, channel, reason, source, committed_at) values (?, ?, ?, ?, ?)",
                [(d, channel, reason, source, now) for d in digests],
            )
            self._append_audit(
                {"event": "suppressed", "channel": channel, "reason": reason, "source": source}
            )

    def lift(self, digests: Iterable[str], *, channel: str, reason: str, source: str) -> int:
        """Take suppressions back; the number of lines that were there."""
        with self._transaction():
            lifted = sum(
                self._db.execute(
                    "delete from suppression where digest = ? and channel = ?", (digest, channel)
                ).rowcount
                for digest in digests
            )
            self._append_audit({"event": "lifted", "channel": channel, "reason": reason, "source": source})
        return lifted

    def suppressed_digests(self, channel: str) -> frozenset[str]:
        rows = self._db.execute("select digest from suppression where channel in (?, 'all')", (channel,))
        return frozenset(digest for (digest,) in rows)

    # -- audit -------------------------------------------------------------------------------------------------

    def verify_audit(self) -> int:
        """The number of lines; ActivationsError when a line was changed, removed or reordered."""
        previous, count = "", 0
        for count, (at, event, before, stored) in enumerate(
            self._db.execute("select at, event, previous_hash, hash from audit order by seq"), 1
        ):
            if before != previous or stored != self._chain(previous, at, event):
                raise ActivationsError(
                    f"line {count} of the audit trail was altered. Restore the journal from a backup and find out who did it"
                )
            previous = stored
        return count

    def _append_audit(self, event: Mapping[str, Any]) -> None:
        row = self._db.execute("select hash from audit order by seq desc limit 1").fetchone()
        previous = row[0] if row else ""
        at, text = _iso(self._now()), json.dumps(event, sort_keys=True)
        self._db.execute(
            "insert into audit (at, event, previous_hash, hash) values (?, ?, ?, ?)",
            (at, text, previous, self._chain(previous, at, text)),
        )

    def _chain(self, previous: str, at: str, event: str) -> str:
        return hmac.new(
            self._audit_key, "\x1f".join((previous, at, event)).encode(), hashlib.sha256
        ).hexdigest()

    # -- plumbing ----------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._mutex:
            try:
                self._db.execute("begin immediate")
                yield
                self._db.execute("commit")
            except sqlite3.Error as error:
                self._undo()
                raise ActivationsError(
                    f"the journal cannot be written ({error}). Free the disk or stop who holds it, and run the sync again"
                ) from None
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        """After a full disk even this may fail; the file is then as it was before."""
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("rollback")

    @contextmanager
    def _fenced(self, lease: Lease) -> Iterator[None]:
        with self._transaction():
            if self._one("select epoch from lease where sync = ?", lease.sync)[0] != lease.epoch:
                raise Fenced(
                    f"a newer engine took over the sync `{lease.sync}`. Nothing more is sent from here"
                )
            yield

    def _one(self, query: str, *parameters: Any) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(query, parameters).fetchone()
        return row

    def _identify(self, key_check: str) -> str:
        """The journal's id. With another hashing key no suppression and no message key would be found any more."""
        with self._transaction():
            own = [("journal_id", uuid.uuid4().hex), ("key_check", key_check)]
            self._db.executemany("insert into meta values (?, ?) on conflict do nothing", own)
            if self._one("select value from meta where key = 'key_check'")[0] != key_check:
                raise SecretError(
                    "is not the key this journal was written with",
                    file="hash.key",
                    fix="Restore both from the same backup",
                )
            return str(self._one("select value from meta where key = 'journal_id'")[0])


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        for pragma in ("journal_mode = wal", "synchronous = full", "secure_delete = on", "foreign_keys = on"):
            db.execute(f"pragma {pragma}")
        _check_version(db, path)
        db.executescript(resources.files(__package__).joinpath("schema.sql").read_text(encoding="utf-8"))
    except sqlite3.DatabaseError as error:
        db.close()
        raise ActivationsError(
            f"the journal {path.name} cannot be used ({error}). Restore it from a backup; do not delete it, it knows what was sent"
        ) from None
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    """A new journal gets our version; one of another version is not guessed at."""
    [is_new] = db.execute("select count(*) = 0 from sqlite_master").fetchone()
    if is_new:
        db.execute(f"pragma user_version = {VERSION}")
    [found] = db.execute("pragma user_version").fetchone()
    if found != VERSION:
        db.close()
        raise ActivationsError(
            f"the journal {path.name} was written by another version of this program (layout {found}, not {VERSION}). Use that version"
        )


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
