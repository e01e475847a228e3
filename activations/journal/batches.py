"""Batches of a plan: claimed before the request, recorded after it, merged into the ledger; and rows that stay open."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from activations.journal.accounts import Accounts
from activations.journal.base import iso, time
from activations.journal.messages import Messages
from activations.journal.records import (
    Acknowledged,
    Batch,
    Claim,
    Lease,
    OpenRow,
    OpenState,
    RowOutcome,
    Span,
)
from activations.journal.suppressions import Suppressions
from activations.model import Outcome, SyncMode

_UNSETTLED = {Outcome.UNKNOWN: OpenState.IN_DOUBT, Outcome.REJECTED: OpenState.REJECTED}


class Batches(Messages, Suppressions, Accounts):
    # -- intents -----------------------------------------------------------------------------------------------

    def claim(
        self,
        lease: Lease,
        run_id: str,
        span: Span,
        *,
        send_by: datetime,
        account: str,
        channel: str,
        refuses: Callable[[frozenset[str]], Collection[int]],
        messages: Mapping[int, str],
    ) -> Claim | None:
        """Commit the intent to send a span; None when the account wants to be left alone. In the same transaction,
        suppressions are read again and every message key is passed through its one-way door. `refuses` is given the
        digests of everybody who said no and returns the positions that may not be sent; it is asked only when there
        are any, and the set is the same object until somebody else says no."""

        def intend() -> Claim | None:
            moment = self._now()
            until = self._once(("not before", account), lambda: self.not_before(account))
            if until and until > moment:
                return None
            now = iso(moment)
            batch_id = int(
                self._one(
                    "insert into batch (sync, run_id, first, count, state, epoch, claimed_at, send_by) values (?, ?, ?, ?, 'in_flight', ?, ?, ?) returning batch_id",
                    *(lease.sync, run_id, span.first, span.count, lease.epoch, now, iso(send_by)),
                )
            )
            refused = self._suppressed(refuses, channel)
            allowed = {position: key for position, key in messages.items() if position not in refused}
            if allowed:
                refused |= self._open_doors(allowed, lease.sync, batch_id, now)
            self._remark(batch_id, ((position, *verdict) for position, verdict in refused.items()))
            return Claim(batch_id=batch_id, span=span, send_by=send_by, refused=refused)

        return self._together(lease, intend)

    def renew(
        self,
        lease: Lease,
        claim: Claim,
        *,
        send_by: datetime,
        channel: str,
        refuses: Callable[[frozenset[str]], Collection[int]],
    ) -> bool:
        """Commit that a later request of the same exchange may leave until `send_by`; false when somebody among its
        rows has said no since the claim."""

        def intend() -> bool:
            if not self._suppressed(refuses, channel).keys() <= claim.refused.keys():
                return False
            extend = "update batch set send_by = ? where batch_id = ? and state = 'in_flight'"
            self._store.run(extend, iso(send_by), claim.batch_id)
            return True

        return self._together(lease, intend)

    def _suppressed(
        self, refuses: Callable[[frozenset[str]], Collection[int]], channel: str
    ) -> dict[int, tuple[Outcome, str]]:
        said_no = self._once(("said no", channel), lambda: self.suppressed_digests(channel))
        return dict.fromkeys(refuses(said_no), (Outcome.SUPPRESSED, "suppressed")) if said_no else {}

    def release(self, lease: Lease, claim: Claim, messages: Mapping[int, str]) -> None:
        """Nothing of the claim was sent, provably: rows and messages may be claimed again."""

        def reopen() -> None:
            self._store.run(
                "update batch set state = 'released' where batch_id = ? and state = 'in_flight'",
                claim.batch_id,
            )
            self._reopen_doors(claim, messages)

        self._together(lease, reopen)

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
        self._together(
            lease,
            lambda: self._record(lease.sync, claim.batch_id, outcomes, messages, settle_seconds, sent_at),
        )

    def record_delivered(
        self,
        lease: Lease,
        claim: Claim,
        *,
        rows: int,
        keys: Callable[[], Sequence[Acknowledged]],
        sent_at: datetime,
    ) -> None:
        """All `rows` rows of a claim were delivered, and there is nothing else to say about them: no messages, no keys
        of the destination. `keys` names them; it is asked only while the sync has open rows."""

        def close() -> None:
            self._close(claim.batch_id, {Outcome.DELIVERED.value: rows}, self._now(), None)
            self._settle_known(lease.sync, keys, sent_at)

        self._together(lease, close)

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
        keys = [row.destination_key for row in outcomes]
        packed = zlib.compress(json.dumps(keys).encode()) if any(keys) else None
        self._close(batch_id, Counter(row.outcome.value for row in outcomes), now, packed)
        notable = (row for row in outcomes if row.outcome is not Outcome.DELIVERED or row.reason)
        self._remark(batch_id, ((row.position, row.outcome, row.reason) for row in notable))
        self._settle_known(sync, lambda: _acknowledged(outcomes), sent_at)
        for row in outcomes:
            if row.outcome in _UNSETTLED:
                settle_until = now + timedelta(seconds=settle_seconds)
                self._open(sync, row, messages.get(row.position), now, settle_until)
        if messages:
            self._close_doors(batch_id, outcomes, messages)

    def _close(
        self, batch_id: int, tally: Mapping[str, int], now: datetime, destination_keys: bytes | None
    ) -> None:
        self._store.run(
            "update batch set state = 'recorded', recorded_at = ?, destination_keys = ?, tally = ?, outcome_seq = ? where batch_id = ? and state = 'in_flight'",
            *(iso(now), destination_keys, json.dumps(tally), self._next("outcome"), batch_id),
        )

    def _remark(self, batch_id: int, remarks: Iterable[tuple[int, Outcome, str | None]]) -> None:
        lines = [(batch_id, position, outcome.value, reason) for position, outcome, reason in remarks]
        if lines:
            self._store.many(
                "insert into row_outcome values (?, ?, ?, ?) on conflict (batch_id, position) do update set outcome = excluded.outcome, reason = excluded.reason",
                lines,
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

    def merged(self, lease: Lease, up_to: int, run_ids: Sequence[str]) -> None:
        """The ledger has every outcome up to this one, whose words are dropped here, and these runs."""
        done = "sync = ? and state = 'recorded' and outcome_seq <= ?"
        with self._fenced(lease):
            self._store.run(
                f"delete from row_outcome where batch_id in (select batch_id from batch where {done})",
                *(lease.sync, up_to),
            )
            self._store.run(
                f"update batch set state = 'merged', destination_keys = null where {done}",
                *(lease.sync, up_to),
            )
            self._store.many("update run set in_ledger = 1 where run_id = ?", [(i,) for i in run_ids])

    def position(self, sync: str) -> int:
        """The latest outcome of a sync: its ledger's position once everything is merged."""
        return self._one("select max(outcome_seq) from batch where sync = ?", sync) or 0

    def count_on_from(self, outcome_seq: int) -> None:
        """A journal that was restored from a backup would give numbers out again that the ledger has, and takes for
        outcomes it knows."""
        if self._one("select value from counter where name = 'outcome'") < outcome_seq:
            with self._store.transaction():
                self._store.run(
                    "update counter set value = ? where name = 'outcome' and value < ?",
                    outcome_seq,
                    outcome_seq,
                )

    def merged_through(self, sync: str) -> int:
        """The latest outcome that the ledger is known to have had."""
        return self._one("select max(outcome_seq) from batch where sync = ? and state = 'merged'", sync) or 0

    def forget(self, lease: Lease, *, by: str, note: str) -> None:
        """Everything about what the destination holds; messages, those in doubt too, and suppressions stay."""
        with self._fenced(lease):
            self._store.run("delete from open_row where sync = ? and message_key is null", lease.sync)
            self._store.run(
                "update message set state = 'unknown', reason = 'interrupted' where state = 'in_flight' and batch_id in "
                "(select batch_id from batch where sync = ? and state = 'in_flight')",
                lease.sync,
            )
            self._store.run(
                "update batch set state = 'merged' where sync = ? and state in ('recorded', 'in_flight')",
                lease.sync,
            )
            self._append_audit({"event": "forgotten", "sync": lease.sync, "by": by, "note": note})

    def decided(self, lease: Lease, event: str, *, by: str, note: str) -> None:
        """What somebody decided about a whole sync in the ledger (`resynced`, `adopted`), for the audit trail."""
        with self._fenced(lease):
            self._append_audit({"event": event, "sync": lease.sync, "by": by, "note": note})

    def _batches(self, where: str, sync: str) -> list[Batch]:
        rows = self._store.rows(
            "select b.batch_id, b.outcome_seq, b.run_id, r.owner, r.plan_path, b.first, b.count, b.recorded_at, b.destination_keys "
            f"from batch as b join run as r using (run_id) where {where} order by b.outcome_seq, b.batch_id",
            sync,
        )
        runs = {run_id: self._summary_of(run_id) for run_id in {row[2] for row in rows}}
        return [self._batch(row, runs[row[2]]) for row in rows]

    def _summary_of(self, run_id: str) -> dict[str, Any]:
        return dict(json.loads(self._one("select summary from run where run_id = ?", run_id)))

    def _batch(self, row: Sequence[Any], run: Mapping[str, Any]) -> Batch:
        batch_id, outcome_seq, run_id, owner, plan_path, first, count, recorded_at, keys = row
        remarks = self._store.rows(
            "select position, outcome, reason from row_outcome where batch_id = ?", batch_id
        )
        return Batch(
            batch_id=batch_id,
            outcome_seq=outcome_seq,
            run_id=run_id,
            owner=owner,
            place=run["place"],
            mode=SyncMode(run["mode"]),
            plan_path=plan_path,
            span=Span(first=first, count=count),
            recorded_at=time(recorded_at),
            exceptions=[(position, Outcome(outcome), reason) for position, outcome, reason in remarks],
            destination_keys=json.loads(zlib.decompress(keys)) if keys else None,
        )

    # -- open rows ---------------------------------------------------------------------------------------------

    def open_rows(self, sync: str) -> list[OpenRow]:
        rows = self._store.rows(
            "select row_key, identity, state, payload_hash, destination_key, sealed, maybe, settle_until, reason from open_row where sync = ?",
            sync,
        )
        return [
            OpenRow(
                row_key=r[0],
                identity=r[1],
                state=OpenState(r[2]),
                payload_hash=r[3],
                destination_key=r[4],
                sealed=r[5],
                maybe=bool(r[6]),
                settle_until=time(r[7]),
                reason=r[8],
            )
            for r in rows
        ]

    def forget_rejected(self, lease: Lease, rows: Iterable[tuple[str, str]]) -> None:
        """Rejected rows that nobody wants any more and that the destination never held."""
        with self._fenced(lease):
            self._store.many(
                "delete from open_row where sync = ? and row_key = ? and identity = ? and state = 'rejected' and maybe = 0",
                [(lease.sync, *key) for key in rows],
            )

    def _open(
        self, sync: str, row: RowOutcome, message_key: str | None, now: datetime, settle_until: datetime
    ) -> None:
        """A rejection of a row that was in doubt does not forget that the destination may hold its older value."""
        in_doubt = row.outcome is Outcome.UNKNOWN
        self._store.run(
            "insert into open_row (sync, row_key, identity, state, operation, payload_hash, destination_key, sealed, maybe, reason, "
            "attempts, first_seen_at, last_seen_at, settle_until, message_key) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?) "
            "on conflict (sync, row_key, identity) do update set state = excluded.state, operation = excluded.operation, payload_hash = excluded.payload_hash, "
            "destination_key = coalesce(excluded.destination_key, open_row.destination_key), sealed = coalesce(excluded.sealed, open_row.sealed), "
            "maybe = case when open_row.maybe = 1 then 1 else excluded.maybe end, reason = excluded.reason, attempts = open_row.attempts + 1, "
            "last_seen_at = excluded.last_seen_at, settle_until = coalesce(excluded.settle_until, open_row.settle_until), message_key = excluded.message_key",
            sync,
            row.row_key,
            row.identity,
            _UNSETTLED[row.outcome].value,
            row.operation.value,
            row.payload_hash,
            row.destination_key,
            row.sealed,
            int(in_doubt),
            row.reason,
            iso(now),
            iso(now),
            iso(settle_until) if in_doubt else None,
            message_key,
        )

    def _settle_known(
        self, sync: str, acknowledged: Callable[[], Sequence[Acknowledged]], sent_at: datetime
    ) -> None:
        """Those of the acknowledged rows that were open."""
        has_open = "select exists (select 1 from open_row where sync = ?)"
        if not self._once(("has open rows", sync), lambda: self._one(has_open, sync)):
            return  # rows that another batch has just opened are not among these: a plan has each row once
        rows = acknowledged()
        keys = [row_key for row_key, _, _ in rows]
        query = "select row_key, identity from open_row where sync = ? and row_key"
        were_open = set(self._among(query, keys, sync))
        for row_key, identity, payload_hash in rows:
            if (row_key, identity) in were_open:
                self._settle(sync, row_key, identity, payload_hash, sent_at)

    def _settle(
        self, sync: str, row_key: str, identity: str, payload_hash: str | None, sent_at: datetime
    ) -> None:
        """Acknowledged. Only a request that left after the settle window proves that nothing older can follow it."""
        mine = "sync = ? and row_key = ? and identity = ?"
        key = (sync, row_key, identity)
        self._store.run(
            f"delete from open_row where {mine} and (settle_until is null or settle_until <= ?)",
            *(*key, iso(sent_at)),
        )
        self._store.run(
            f"update open_row set state = 'settling', payload_hash = ? where {mine}", payload_hash, *key
        )


def _acknowledged(outcomes: Sequence[RowOutcome]) -> list[Acknowledged]:
    return [(r.row_key, r.identity, r.payload_hash) for r in outcomes if r.outcome is Outcome.DELIVERED]
