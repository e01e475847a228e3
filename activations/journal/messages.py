"""The one-way door of every message, and what providers and people say about messages in doubt and refused rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from activations.errors import ActivationsError
from activations.journal.base import Base
from activations.journal.records import Claim, Lease, MessageInDoubt, RowInDoubt, RowOutcome
from activations.model import Outcome

_HANDLE = 12
"""Characters of a message key by which people name it."""

_ALREADY = {
    "sent": (Outcome.DELIVERED, "sent_before"),
    "rejected": (Outcome.REJECTED, "rejected_before"),
}
_IN_DOUBT = (Outcome.UNKNOWN, "in_doubt_before")

_STATES = {
    Outcome.DELIVERED: "sent",
    Outcome.REJECTED: "rejected",
    Outcome.UNKNOWN: "unknown",
    Outcome.RETRYABLE: "pending",
}


class Messages(Base):
    def _open_doors(
        self, messages: Mapping[int, str], sync: str, batch_id: int, now: str
    ) -> dict[int, tuple[Outcome, str]]:
        """pending → in_flight by compare-and-set. Returns what the others became before, by position."""
        keys = list(messages.values())
        self._store.many(
            "insert into message values (?, ?, ?, 'pending', null, null, ?) on conflict do nothing",
            [(key, sync, batch_id, now) for key in keys],
        )
        moved = self._among(
            "update message set state = 'in_flight', batch_id = ?, claimed_at = ? where state = 'pending' and message_key",
            keys,
            *(batch_id, now),
            then="returning message_key",
        )
        opened = {key for (key,) in moved}
        closed = {}
        for position, key in messages.items():
            if key in opened:
                opened.remove(key)  # the same message twice in one batch goes through once
            else:
                closed[position] = key
        states = dict(
            self._among("select message_key, state from message where message_key", list(closed.values()))
        )
        return {position: _ALREADY.get(states[key], _IN_DOUBT) for position, key in closed.items()}

    def _reopen_doors(self, claim: Claim, messages: Mapping[int, str]) -> None:
        """Nothing was sent, provably."""
        self._store.many(
            "update message set state = 'pending' where message_key = ? and state = 'in_flight' and batch_id = ?",
            [(key, claim.batch_id) for key in messages.values()],
        )

    def _close_doors(
        self, batch_id: int, outcomes: Sequence[RowOutcome], messages: Mapping[int, str]
    ) -> None:
        self._store.many(
            "update message set state = ?, provider_id = ?, reason = ? where message_key = ? and batch_id = ? and state = 'in_flight'",
            [
                (_STATES[r.outcome], r.destination_key, r.reason, messages[r.position], batch_id)
                for r in outcomes
                if r.position in messages and r.outcome in _STATES
            ],
        )

    # -- the provider says it -----------------------------------------------------------------------------------

    def rows_in_doubt(self, sync: str) -> list[RowInDoubt]:
        """Messages that may or may not have been sent, with the rows they belong to."""
        rows = self._store.rows(
            "select m.message_key, b.run_id, o.row_key, o.identity from message as m join batch as b using (batch_id) "
            "join open_row as o on o.sync = m.sync and o.message_key = m.message_key where m.sync = ? and m.state = 'unknown'",
            sync,
        )
        return [RowInDoubt(message_key=m, run_id=run, row_key=key, identity=i) for m, run, key, i in rows]

    def confirm(self, lease: Lease, taken: Mapping[str, str]) -> None:
        """The provider says that it took these messages: message key → its own id. What the next run makes of them:
        see `mark_delivered`."""
        with self._fenced(lease):
            for key, provider_id in taken.items():
                self._store.run("update message set provider_id = ? where message_key = ?", provider_id, key)
                event = {"event": "message_confirmed", "provider_id": provider_id}
                self._settle_as_sent(lease.sync, key, event)

    # -- a person decides --------------------------------------------------------------------------------------

    def retry_rejected(self, lease: Lease, *, by: str, note: str) -> int:
        """The next run tries refused rows again as if their value had changed, and refused messages as if they had
        never been tried: the provider said that it did not take them. Returns how many."""
        rejected = "sync = ? and state = 'rejected'"
        with self._fenced(lease):
            rows = int(self._one(f"select count(*) from open_row where {rejected}", lease.sync))
            self._store.run(f"update message set state = 'pending' where {rejected}", lease.sync)
            self._store.run(f"delete from open_row where {rejected} and message_key is not null", lease.sync)
            self._store.run(f"update open_row set payload_hash = null where {rejected}", lease.sync)
            self._append_audit(
                {"event": "rejected_retried", "sync": lease.sync, "rows": rows, "by": by, "note": note}
            )
        return rows

    def messages_in_doubt(self, sync: str) -> list[MessageInDoubt]:
        """Messages that may or may not have been sent, the oldest first."""
        rows = self._store.rows(
            "select m.message_key, m.claimed_at, m.reason, m.provider_id, b.run_id from message as m join batch as b using (batch_id) "
            "where m.sync = ? and m.state = 'unknown' order by m.claimed_at, m.message_key",
            sync,
        )
        return [
            MessageInDoubt(
                handle=key[:_HANDLE],
                claimed_at=datetime.fromisoformat(at),
                reason=reason,
                provider_id=provider_id,
                run_id=run_id,
            )
            for key, at, reason, provider_id, run_id in rows
        ]

    def mark_delivered(self, lease: Lease, handle: str, *, by: str, note: str) -> None:
        """A person has evidence that the message arrived. The next run plans the occurrence once more and meets the
        shut door: no request leaves, and the outcome `sent_before` brings it into the ledger."""
        with self._fenced(lease):
            key = self._in_doubt(lease.sync, handle)
            self._settle_as_sent(lease.sync, key, {"event": "message_delivered", "by": by, "note": note})

    def resend_as_new(self, lease: Lease, handle: str, *, by: str, second: str, note: str) -> None:
        """Two people accept that the message may arrive twice. What happened to the first one stays, under a key of
        its own; the occurrence's key is free, so the next run sends it."""
        if len({by.strip().casefold(), second.strip().casefold()} - {""}) < 2:
            raise ActivationsError(
                "a message that may have arrived is sent again only when two people say so. Name a second person"
            )
        with self._fenced(lease):
            key = self._in_doubt(lease.sync, handle)
            self._store.run(
                "update message set state = 'replaced', message_key = ? where message_key = ?",
                *(self._key_of_its_own(lease.sync, key), key),
            )
            self._forget_open(lease.sync, key)
            event = {"event": "message_resent", "sync": lease.sync, "message": handle}
            self._append_audit(event | {"by": by, "second": second, "note": note})

    def _settle_as_sent(self, sync: str, key: str, event: Mapping[str, str]) -> None:
        self._store.run("update message set state = 'sent' where message_key = ?", key)
        self._forget_open(sync, key)
        self._append_audit({**event, "sync": sync, "message": key[:_HANDLE]})

    def _in_doubt(self, sync: str, handle: str) -> str:
        """The key of the one message in doubt that is called so."""
        rows = self._store.rows("select message_key from message where sync = ? and state = 'unknown'", sync)
        found = [key for (key,) in rows if handle and key.startswith(handle)]
        if len(found) != 1:
            number = "more than one message" if found else "no message"
            raise ActivationsError(
                f"{number} of `{sync}` in doubt is called `{handle}`. `activations resolve {sync}` lists them"
            )
        return str(found[0])

    def _key_of_its_own(self, sync: str, key: str) -> str:
        earlier = self._one(
            "select count(*) from message where sync = ? and state = 'replaced' and substr(message_key, 1, ?) = ?",
            *(sync, len(key) + 1, f"{key}/"),
        )
        return f"{key}/{earlier + 1}"

    def _forget_open(self, sync: str, key: str) -> None:
        """Planning waits for a person as long as the row is open."""
        self._store.run("delete from open_row where sync = ? and message_key = ?", sync, key)
