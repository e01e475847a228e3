"""One run's delivery: claim a span, send it, record an outcome for every row of it.

Spans never overlap and never mix removals with the rest; all removals are settled before anything else leaves. A span
that provably was not accepted goes back to the queue; one that the destination refused without naming a row is halved
until the bad row stands alone.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from activations.clock import Clock
from activations.config import Sync
from activations.delivery.columns import Preparation, weight
from activations.delivery.consent import Refusals
from activations.delivery.exchange import Conversation, Verdict
from activations.delivery.pace import Pace
from activations.delivery.rate import LONGEST_PATIENCE, RateLimiter
from activations.delivery.rows import Rows
from activations.delivery.transport import Transport
from activations.delivery.work import Work, WorkQueue
from activations.destinations.base import Destination
from activations.errors import BatchRefused
from activations.journal import Claim, Journal, Lease, RowOutcome, Span
from activations.model import Outcome, RowResult, SyncMode
from activations.planning import PlanFile, PlanReader, PlanSlice

SEND_WITHIN = timedelta(seconds=8)
"""From the committed intent to the first byte. Later than this, consent is read again."""
TRIES = 4
"""How often a span that provably was not accepted is tried in one run."""
FAILURES_IN_A_ROW = 5
"""So many spans without a clear answer, and the destination is left alone until the next run."""
BESIDE = 0.5
"""Workers beyond the requests in flight, as a share of them: some make the next batches ready, some record."""
_UNREACHABLE = ("cannot_connect", "unknown_host")
_UNWRITABLE = "invalid_request"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a delivery is: rows with an outcome, of all rows."""

    sync: str
    done: int
    total: int


@dataclass(slots=True)
class Tally:
    """What became of the rows. Rows that were not tried count as retryable: the next run plans them again."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    requests: int = 0
    error: str | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A span with a committed intent, to be sent."""

    work: Work
    rows: PlanSlice
    messages: Mapping[int, str]
    claim: Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A span whose rows all have a word, to be recorded."""

    ready: _Ready
    sent_at: datetime
    verdict: Verdict

    @property
    def went_well(self) -> bool:
        """Every row was delivered, and there is nothing else to say about any of them."""
        return self.verdict.all_delivered and not (self.ready.messages or self.ready.claim.refused)


@dataclass(slots=True, kw_only=True)
class Deliverer:
    """Everything one run needs to deliver its plan."""

    sync: Sync
    run_id: str
    plan: PlanFile
    rows: Rows
    destination: Destination  # type: ignore[type-arg]
    journal: Journal
    lease: Lease
    transport: Transport
    limiter: RateLimiter
    pace: Pace
    clock: Clock
    stop: threading.Event
    on_progress: Callable[[Progress], None] = lambda _: None
    suppressions: frozenset[str] = frozenset()
    """Those that the plan was compared with when it was made."""
    tally: Tally = field(default_factory=Tally)
    _reader: PlanReader = field(init=False)
    _refusals: Refusals = field(init=False)
    _total: int = 0
    _failures: int = 0
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._reader = self.plan.open(Preparation(self.sync, self.destination.write))
        self._refusals = Refusals(self.rows.refused, self.suppressions)

    def deliver(self, *, rows: int, removals: int) -> Tally:
        """Send the first `rows` rows of the plan, of which the first `removals` are removals."""
        self._total = rows
        removals = min(removals, rows)
        for first, last in ((0, removals), (removals, rows)):
            self._drain(WorkQueue(self._spans(first, last)))
        return self.tally

    def _spans(self, first: int, last: int) -> list[Span]:
        size = self.sync.batch_rows
        return [Span(first=start, count=min(size, last - start)) for start in range(first, last, size)]

    def _drain(self, queue: WorkQueue) -> None:
        """Work through the queue with as many workers as the account allows requests in flight, and some that meanwhile
        make the next batches ready, or record what was answered."""
        if self.sync.concurrency == 1:
            self._work(queue)
            return
        workers = self.sync.concurrency + math.ceil(self.sync.concurrency * BESIDE)
        with ThreadPoolExecutor(workers, thread_name_prefix=self.sync.name) as threads:
            futures = [threads.submit(self._work, queue) for _ in range(workers)]
        for future in futures:
            future.result()

    def _work(self, queue: WorkQueue) -> None:
        while (work := queue.take()) is not None:
            try:
                with self.pace.work():
                    ready = self._make_ready(work, queue)
                    delivered = self._take_turn(ready, queue) if ready else None
                if delivered:
                    self._record_delivered(delivered)
            except BaseException:
                queue.drain()  # the other workers end too, and the error is raised in their caller
                raise
            finally:
                queue.finish()

    def _must_stop(self) -> bool:
        with self._mutex:
            if self.stop.is_set():
                self.tally.interrupted = True
            elif self._failures >= FAILURES_IN_A_ROW and not self.tally.error:
                self.tally.error = f"{self._failures} requests in a row had no clear answer. Check the destination and run the sync again"
            return self.tally.interrupted or self.tally.error is not None

    def _may_leave(self) -> bool:
        """Waits for its turn at the account; false when the run has to end instead."""
        pause = self.limiter.wait(self.stop)
        if pause:  # somebody was told to wait longer than a run waits
            with self._mutex:
                self.tally.error = self.tally.error or _told_to_wait(pause)
        return not (pause or self.stop.is_set())

    def _leave(self, rows: int) -> None:
        """No intent was committed for these rows, so nothing has to be written about them."""
        with self._mutex:
            self.tally.outcomes[Outcome.RETRYABLE] += rows

    # -- one span ----------------------------------------------------------------------------------------------

    def _make_ready(self, work: Work, queue: WorkQueue) -> _Ready | None:
        """Commit the intent to send a span; None when it was put back or left to the next run."""
        if self._must_stop():
            self._leave(work.span.count + queue.drain())
            return None
        rows = self._reader.slice(work.span.first, work.span.count)
        if len(rows) > 1 and self._is_too_heavy(rows):
            queue.put_back(*work.halves())
            return None
        messages = self._message_keys(rows)
        claim = self._claim(work.span, rows, messages)
        if claim is None:
            queue.put_back(work)
            return None
        return _Ready(work=work, rows=rows, messages=messages, claim=claim)

    def _take_turn(self, ready: _Ready, queue: WorkQueue) -> _Sent | None:
        """Send a span. One that went well is returned, to be recorded after its turn; whatever else there is to say is
        said before somebody else may send."""
        with self.pace.turn():
            if not self._may_still_leave(ready.claim):
                self._release(ready)
                queue.put_back(ready.work)
                return None
            return self._send(ready, queue)

    def _may_still_leave(self, claim: Claim) -> bool:
        """While a span waited for its turn its intent may have run out, or somebody was told to wait or to stop."""
        return self.clock.now() <= claim.send_by and self.limiter.is_free() and not self._must_stop()

    def _release(self, ready: _Ready) -> None:
        """Nothing of the span was accepted, provably."""
        self.journal.release(self.lease, ready.claim, ready.messages)

    def _send(self, ready: _Ready, queue: WorkQueue) -> _Sent | None:
        work, claim, sent_at = ready.work, ready.claim, self.clock.now()
        verdict = self._attempt(ready.rows.without(claim.refused), claim)
        if verdict is None:
            self._release(ready)
            queue.put_back(*work.halves())
            return None
        if self._may_try_again(work, verdict, claim):
            self._release(ready)
            self._back_off(work, verdict)
            queue.put_back(Work(work.span, work.tries + 1))
            return None
        sent = _Sent(ready=ready, sent_at=sent_at, verdict=verdict)
        if sent.went_well:
            return sent
        self._record(sent)
        return None

    def _is_too_heavy(self, rows: PlanSlice) -> bool:
        return weight(rows) > (self.sync.capabilities.max_batch_bytes or math.inf)

    def _message_keys(self, rows: PlanSlice) -> Mapping[int, str]:
        return self.rows.message_keys(rows.rows) if self.sync.mode is SyncMode.APPEND else {}

    def _claim(self, span: Span, rows: PlanSlice, messages: Mapping[int, str]) -> Claim | None:
        """The committed intent; None when nothing may leave now."""
        if not self._may_leave():  # asked before the intent: what waits here can still be withdrawn
            return None
        claim = self.journal.claim(
            self.lease,
            self.run_id,
            span,
            send_by=self.clock.now() + SEND_WITHIN,
            account=self.sync.account.name,
            channel=self.sync.channel.value,
            refuses=lambda said_no: self._refusals.among(rows, said_no),
            messages=messages,
        )
        if claim is None:
            self.limiter.look_again()
        return claim

    def _renew(self, rows: PlanSlice, claim: Claim) -> datetime | None:
        """Until when more of an exchange may leave; None when somebody of it has said no since."""
        send_by = self.clock.now() + SEND_WITHIN
        is_renewed = self.journal.renew(
            self.lease,
            claim,
            send_by=send_by,
            channel=self.sync.channel.value,
            refuses=lambda said_no: self._refusals.among(rows, said_no),
        )
        return send_by if is_renewed else None

    def _attempt(self, rows: PlanSlice, claim: Claim) -> Verdict | None:
        """What is known after sending; None when the destination took nothing and one of several rows is to blame."""
        if not len(rows):
            return Verdict(results=[], requests=0)
        if len(rows) == 1 and self._is_too_heavy(rows):
            return _rejected(rows, "row_too_large")
        talk = Conversation(
            destination=self.destination,
            transport=self.transport,
            limiter=self.limiter,
            pace=self.pace,
            clock=self.clock,
            send_by=claim.send_by,
            renew=lambda: self._renew(rows, claim),
        )
        try:
            return talk.hold(self.rows.batch(self.run_id, rows))
        except BatchRefused as refusal:
            return _rejected(rows, refusal.reason) if len(rows) == 1 else None
        finally:
            with self._mutex:
                self.tally.requests += talk.requests

    @staticmethod
    def _may_try_again(work: Work, verdict: Verdict, claim: Claim) -> bool:
        """Only what provably was not accepted, and not when the destination wants more peace than a run can wait."""
        nothing_accepted = verdict.is_nothing_but(Outcome.RETRYABLE)
        too_long = verdict.retry_after is not None and verdict.retry_after > LONGEST_PATIENCE
        return (
            nothing_accepted and not (verdict.fatal or too_long or claim.refused) and work.tries + 1 < TRIES
        )

    def _back_off(self, work: Work, verdict: Verdict) -> None:
        """Everybody waits as long as the destination asked for; a failure to connect is waited for with patience."""
        if verdict.retry_after is not None:
            self._postpone(verdict.retry_after)
        else:
            self.clock.sleep(0.5 * 2**work.tries, self.stop)

    def _postpone(self, seconds: float) -> None:
        """Committed, so that a restart obeys it too."""
        self.journal.postpone(
            self.lease, self.sync.account.name, self.clock.now() + timedelta(seconds=seconds)
        )
        self.limiter.postpone(seconds)

    def _record_delivered(self, sent: _Sent) -> None:
        """The batch that goes well: as little as there is to say about it."""
        claim, rows = sent.ready.claim, sent.ready.rows
        self.journal.record_delivered(
            self.lease, claim, rows=len(rows), keys=rows.acknowledged, sent_at=sent.sent_at
        )
        self._count({Outcome.DELIVERED: len(rows)}, sent.verdict)

    def _record(self, sent: _Sent) -> None:
        if sent.verdict.retry_after is not None:
            self._postpone(sent.verdict.retry_after)
        outcomes = self._outcomes(sent)
        self.journal.record(
            self.lease,
            sent.ready.claim,
            outcomes,
            messages=sent.ready.messages,
            settle_seconds=self.sync.capabilities.settle_seconds,
            sent_at=sent.sent_at,
        )
        self._count(Counter(row.outcome for row in outcomes), sent.verdict)

    def _outcomes(self, sent: _Sent) -> list[RowOutcome]:
        results = {int(result.key): result for result in sent.verdict.results}
        for position, (outcome, reason) in sent.ready.claim.refused.items():
            results[position] = RowResult(key=str(position), outcome=outcome, reason=reason)
        return [self.rows.outcome(row, results[row.position]) for row in sent.ready.rows.rows]

    def _count(self, outcomes: Mapping[Outcome, int], verdict: Verdict) -> None:
        unclear = verdict.is_nothing_but(Outcome.UNKNOWN, Outcome.RETRYABLE)
        with self._mutex:
            self.tally.outcomes.update(outcomes)
            self._failures = self._failures + 1 if unclear else 0
            self.tally.error = self.tally.error or self._problem(verdict, unclear=unclear)
            self.on_progress(Progress(self.sync.name, self.tally.outcomes.total(), self._total))

    def _problem(self, verdict: Verdict, *, unclear: bool) -> str | None:
        """Why nothing more should be sent in this run, or None."""
        if verdict.fatal:
            return str(verdict.fatal)
        if verdict.retry_after is not None:
            return _told_to_wait(verdict.retry_after)
        if unclear and verdict.results[0].reason in _UNREACHABLE:
            return f"the destination `{self.sync.account.name}` cannot be reached ({verdict.results[0].reason}). Check its address and the network, then run the sync again"
        if unclear and verdict.results[0].reason == _UNWRITABLE:
            return f"no request to the destination `{self.sync.account.name}` can be written ({_UNWRITABLE}): a credential, its own or the proxy's, probably holds a line break or a typographic character, which no header carries. Set the credential that destinations.yml or egress.proxy refers to anew, check the address too, then run the sync again"
        return None


def _told_to_wait(seconds: float) -> str:
    return f"the destination asked to wait {seconds:.0f} s. The next run after that goes on"


def _rejected(rows: PlanSlice, reason: str) -> Verdict:
    results = [
        RowResult(key=str(position), outcome=Outcome.REJECTED, reason=reason) for position in rows.positions
    ]
    return Verdict(results=results, requests=0)
