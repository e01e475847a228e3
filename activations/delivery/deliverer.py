"""One run's delivery: claim a span, send it, record an outcome for every row of it.

Spans never overlap and never mix removals with the rest. A span that provably was not accepted goes back to the
queue; one that the destination refused without naming a row is halved until the bad row stands alone.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event

from activations.clock import Clock
from activations.config import OnNull, Sync
from activations.delivery.exchange import Conversation, Verdict
from activations.delivery.rate import RateLimiter
from activations.delivery.sealing import Sealer
from activations.delivery.transport import Transport
from activations.destinations.base import Destination
from activations.digests import SEPARATOR, Digester, normalised_identity
from activations.errors import BatchRefused
from activations.journal import Claim, Journal, Lease, RowOutcome, Span
from activations.model import Batch, Change, Operation, Outcome, RowResult, SyncMode
from activations.planning import PlanFile, PlanRow

SEND_WITHIN = timedelta(seconds=8)
"""From the committed intent to the first byte. Later than this, consent is read again."""
TRIES = 4
"""How often a span that provably was not accepted is tried in one run."""
FAILURES_IN_A_ROW = 5
"""So many spans without a clear answer, and the destination is left alone until the next run."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a delivery is: rows with an outcome, of all rows."""

    sync: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Digesters:
    """The installation's digests by use."""

    pseudonym: Digester
    message: Digester
    suppression: Digester
    batch: Digester


@dataclass(slots=True)
class Tally:
    """What became of the rows. Rows that were not tried count as retryable: the next run plans them again."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    requests: int = 0
    error: str | None = None
    interrupted: bool = False


@dataclass(slots=True)
class _Work:
    span: Span
    tries: int = 0


@dataclass(slots=True, kw_only=True)
class Deliverer:
    """Everything one run needs to deliver its plan."""

    sync: Sync
    run_id: str
    plan: PlanFile
    destination: Destination  # type: ignore[type-arg]
    journal: Journal
    lease: Lease
    transport: Transport
    limiter: RateLimiter
    clock: Clock
    digesters: Digesters
    sealer: Sealer
    stop: Event = field(default_factory=Event)
    on_progress: Callable[[Progress], None] = lambda _: None
    tally: Tally = field(default_factory=Tally)
    _failures: int = 0

    def deliver(self, *, rows: int, removals: int) -> Tally:
        """Send the first `rows` rows of the plan, of which the first `removals` are removals."""
        queue = deque(_Work(span) for span in self._spans(rows, removals))
        while queue:
            if self._must_stop():
                self._leave(queue)
                break
            self._process(queue.popleft(), queue)
            self.on_progress(Progress(self.sync.name, self.tally.outcomes.total(), rows))
        return self.tally

    def _spans(self, rows: int, removals: int) -> list[Span]:
        size = self.sync.capabilities.max_batch_rows
        removals = min(removals, rows)
        starts = [(first, min(size, removals - first)) for first in range(0, removals, size)]
        starts += [(first, min(size, rows - first)) for first in range(removals, rows, size)]
        return [Span(first=first, count=count) for first, count in starts]

    def _must_stop(self) -> bool:
        self.tally.interrupted = self.stop.is_set()
        if self._failures >= FAILURES_IN_A_ROW:
            self.tally.error = (
                self.tally.error
                or f"{self._failures} requests in a row had no clear answer. Check the destination and run the sync again"
            )
        return self.tally.interrupted or self.tally.error is not None

    def _leave(self, queue: deque[_Work]) -> None:
        """No intent was committed for these rows, so nothing has to be written about them."""
        self.tally.outcomes[Outcome.RETRYABLE] += sum(work.span.count for work in queue)

    # -- one span ----------------------------------------------------------------------------------------------

    def _process(self, work: _Work, queue: deque[_Work]) -> None:
        rows = self.plan.slice(work.span.first, work.span.count)
        if len(rows) > 1 and self._bytes(rows) > self._most_bytes():
            self._halve(work, queue)
            return
        messages = self._message_keys(rows)
        claim = self._claim(work.span, rows, messages)
        sent_at = self.clock.now()
        if sent_at > claim.send_by:  # paused since the intent: whoever withdrew meanwhile has to be seen
            self.journal.release(self.lease, claim, messages)
            queue.appendleft(work)
            return
        verdict = self._attempt([row for row in rows if row.position not in claim.refused])
        if verdict is None:
            self.journal.release(self.lease, claim, messages)
            self._halve(work, queue)
        elif self._may_try_again(work, verdict, claim):
            self.journal.release(self.lease, claim, messages)
            self.clock.sleep(0.5 * 2**work.tries)
            queue.appendleft(_Work(work.span, work.tries + 1))
        else:
            self._record(rows, claim, verdict, messages, sent_at)

    def _attempt(self, rows: Sequence[PlanRow]) -> Verdict | None:
        """What is known after sending; None when the destination took nothing and one of several rows is to blame."""
        if len(rows) == 1 and self._bytes(rows) > self._most_bytes():
            return self._reject(rows, "row_too_large")
        try:
            verdict = self._send(rows)
        except BatchRefused as refusal:
            return self._reject(rows, refusal.reason) if len(rows) == 1 else None
        self.tally.requests += verdict.requests
        if verdict.retry_after is not None:
            self.journal.postpone(self.lease, self.clock.now() + timedelta(seconds=verdict.retry_after))
        return verdict

    def _record(
        self,
        rows: Sequence[PlanRow],
        claim: Claim,
        verdict: Verdict,
        messages: Mapping[int, str],
        sent_at: datetime,
    ) -> None:
        outcomes = self._outcomes(rows, claim, verdict)
        settle = self.sync.capabilities.settle_seconds
        self.journal.record(
            self.lease, claim, outcomes, messages=messages, settle_seconds=settle, sent_at=sent_at
        )
        self._count(outcomes, verdict)

    @staticmethod
    def _halve(work: _Work, queue: deque[_Work]) -> None:
        """One bad row among n costs at most 2·log₂ n requests, and its neighbours still go out."""
        first, second = work.span.halves()
        queue.extendleft((_Work(second), _Work(first)))

    def _most_bytes(self) -> float:
        return self.sync.capabilities.max_batch_bytes or math.inf

    @staticmethod
    def _bytes(rows: Sequence[PlanRow]) -> int:
        """About what the rows weigh on the wire; generous, since names and envelope differ by destination."""
        values = (
            str(value)
            for row in rows
            for value in (*row.identifiers.values(), *row.fields.values())
            if value is not None
        )
        names = sum(len(name) + 8 for name in (*rows[0].identifiers, *rows[0].fields)) + 256 if rows else 0
        return sum(len(value.encode("utf-8", "surrogatepass")) for value in values) + len(rows) * names

    def _claim(self, span: Span, rows: Sequence[PlanRow], messages: Mapping[int, str]) -> Claim:
        return self.journal.claim(
            self.lease,
            self.run_id,
            span,
            send_by=self.clock.now() + SEND_WITHIN,
            channel=self.sync.channel.value,
            digests=lambda: {
                row.position: self._suppression_digests(row)
                for row in rows
                if row.operation is not Operation.REMOVED
            },
            messages=messages,
        )

    def _send(self, rows: Sequence[PlanRow]) -> Verdict:
        if not rows:
            return Verdict(results=[], requests=0)
        talk = Conversation(
            destination=self.destination, transport=self.transport, limiter=self.limiter, clock=self.clock
        )
        try:
            return talk.hold(self._batch(rows))
        except BatchRefused:
            self.tally.requests += talk.requests
            raise

    @staticmethod
    def _reject(rows: Sequence[PlanRow], reason: str) -> Verdict:
        results = [RowResult(key=str(row.position), outcome=Outcome.REJECTED, reason=reason) for row in rows]
        return Verdict(results=results, requests=0)

    @staticmethod
    def _may_try_again(work: _Work, verdict: Verdict, claim: Claim) -> bool:
        """Only what provably was not accepted, and not when the destination asked for peace."""
        nothing_accepted = bool(verdict.results) and all(
            r.outcome is Outcome.RETRYABLE for r in verdict.results
        )
        final = verdict.fatal or verdict.retry_after is not None or claim.refused
        return nothing_accepted and not final and work.tries + 1 < TRIES

    def _count(self, outcomes: Sequence[RowOutcome], verdict: Verdict) -> None:
        self.tally.outcomes.update(row.outcome for row in outcomes)
        unclear = bool(verdict.results) and all(
            r.outcome in (Outcome.UNKNOWN, Outcome.RETRYABLE) for r in verdict.results
        )
        self._failures = self._failures + 1 if unclear else 0
        if verdict.fatal:
            self.tally.error = str(verdict.fatal)
        elif unclear and verdict.results[0].reason in ("cannot_connect", "unknown_host"):
            self.tally.error = f"the destination `{self.sync.account.name}` cannot be reached ({verdict.results[0].reason}). Check its address and the network, then run the sync again"
        elif verdict.retry_after is not None:
            self.tally.error = (
                f"the destination asked to wait {verdict.retry_after:.0f} s. The next run after that goes on"
            )

    # -- rows --------------------------------------------------------------------------------------------------

    def _batch(self, rows: Sequence[PlanRow]) -> Batch:
        content = [
            part
            for row in rows
            for part in (row.row_key, row.identity, row.operation.value, row.payload_hash or "")
        ]
        return Batch(
            sync=self.sync.name,
            run_id=self.run_id,
            number=rows[0].position,
            changes=[self._change(row) for row in rows],
            idempotency_key=self.digesters.batch(self.sync.name, *content)[:32],
        )

    def _change(self, row: PlanRow) -> Change:
        removed = row.operation is Operation.REMOVED
        return Change(
            key=str(row.position),
            operation=row.operation,
            identifiers=self.sealer.open(row.sealed)
            if removed
            else {k: v for k, v in row.identifiers.items() if v is not None},
            fields={} if removed else self._fields(row),
            destination_key=row.destination_key,
            pseudonym=self._pseudonym(row),
        )

    def _pseudonym(self, row: PlanRow) -> str:
        """Of the person at this destination; of an occurrence where occurrences are sent."""
        occurrence = [row.row_key] if self.sync.mode is SyncMode.APPEND else []
        return self.digesters.pseudonym(self.sync.name, row.identity, *occurrence)

    def _fields(self, row: PlanRow) -> dict[str, object]:
        """Nulls are left out unless the mapping says that they clear the destination's value."""
        cleared = {name for name, mapping in self.sync.fields.items() if mapping.on_null is OnNull.CLEAR}
        return {name: value for name, value in row.fields.items() if value is not None or name in cleared}

    def _message_keys(self, rows: Sequence[PlanRow]) -> dict[int, str]:
        if self.sync.mode is not SyncMode.APPEND:
            return {}
        return {
            row.position: message_key(self.digesters.message, self.sync.name, row.row_key) for row in rows
        }

    def _suppression_digests(self, row: PlanRow) -> list[str]:
        person = row.row_key.split(SEPARATOR)[0]
        values = [person, *(value for value in row.identifiers.values() if value)]
        return [self.digesters.suppression(normalised_identity(value)) for value in values]

    def _outcomes(self, rows: Sequence[PlanRow], claim: Claim, verdict: Verdict) -> list[RowOutcome]:
        results = {int(result.key): result for result in verdict.results}
        return [self._outcome(row, claim, results) for row in rows]

    def _outcome(self, row: PlanRow, claim: Claim, results: Mapping[int, RowResult]) -> RowOutcome:
        if row.position in claim.refused:
            outcome, reason = claim.refused[row.position]
            return row_outcome(row, outcome, reason)
        result = results[row.position]
        sealed = seal(self.sealer, self.sync, row) if result.outcome is Outcome.UNKNOWN else None
        return row_outcome(
            row, result.outcome, result.reason, destination_key=result.destination_key, sealed=sealed
        )


def seal(sealer: Sealer, sync: Sync, row: PlanRow) -> bytes | None:
    """The identifiers of a row in doubt, where the destination has not named the row yet. Messages are never
    removed, so nothing of theirs is kept."""
    if sync.mode is SyncMode.APPEND or row.destination_key is not None:
        return None
    if row.operation is Operation.REMOVED:
        return row.sealed
    return sealer.seal({name: value for name, value in row.identifiers.items() if value is not None})


def row_outcome(
    row: PlanRow,
    outcome: Outcome,
    reason: str | None,
    *,
    destination_key: str | None = None,
    sealed: bytes | None = None,
) -> RowOutcome:
    """A planned row with what became of it."""
    return RowOutcome(
        position=row.position,
        row_key=row.row_key,
        identity=row.identity,
        operation=row.operation,
        outcome=outcome,
        reason=reason,
        payload_hash=row.payload_hash,
        destination_key=destination_key or row.destination_key,
        sealed=sealed,
    )


def message_key(digester: Digester, sync: str, row_key: str) -> str:
    """One key per person and occurrence, for ever: the name under which a message passes its one-way door."""
    return digester(sync, row_key)
