"""One run of one sync, from lease to ledger, and what a run that died leaves to the next one."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from activations import ledger
from activations.config import Sync
from activations.delivery import Deliverer, Progress, Tally, Transport
from activations.delivery.pace import AHEAD, Pace
from activations.delivery.rate import RateLimiter
from activations.destinations.base import Destination
from activations.errors import ActivationsError, MachineError, PlanRejected, WarehouseError
from activations.journal import Batch, Journal, Lease
from activations.model import Counts, Outcome, RunStatus, SyncMode, SyncRun
from activations.parts import Parts
from activations.planning import Expectation, FrozenPlan, PlanDocument, PlanFile
from activations.processes import is_gone

OnProgress = Callable[[Progress], None]


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of one sync, from lease to ledger."""

    parts: Parts
    sync: Sync
    journal: Journal
    lease: Lease
    destination: Destination[Any, Any]
    expected: PlanDocument | None = None
    run: SyncRun = field(init=False)
    _stopwatch: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        now = self.parts.clock.now()
        self.run = new_run(self.sync, f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}", now, RunStatus.PLANNED)

    def go(self, on_progress: OnProgress) -> SyncRun:
        try:
            with self.parts.machine_errors():
                frozen = self._plan()
                tally = self._deliver(frozen, on_progress)
        except ActivationsError as error:
            self._finish(replace(self.run, run_status=RunStatus.FAILED, error=str(error)))
            raise
        if not frozen.plan.held_reason and tally.outcomes.total() > tally.outcomes[Outcome.RETRYABLE]:
            self.journal.use_approval(self.lease, frozen.plan.content_hash, self.run.run_id)
        self._finish(_judged(self.run, tally), frozen.closed_rejections, _known_afterwards(frozen, tally))
        return self.run

    def _plan(self) -> FrozenPlan:
        with self._timed("plan"):
            recover(self.parts, self.sync, self.journal, self.lease)
            self.journal.save_run(self.lease, self.run)
            self.parts.merge_pending(self.sync, self.journal, self.lease)
            path = self.parts.plans / f"{self.run.run_id}.parquet"
            with self.parts.warehouse().read() as session:
                frozen = self.parts.make_plan(self.sync, self.journal, session, path)
            if self.expected:
                self.expected.check(frozen.plan)
            self._plan_made(frozen, path)
        return frozen

    def _plan_made(self, frozen: FrozenPlan, path: Path) -> None:
        plan = frozen.plan
        status = RunStatus.HELD if plan.held_reason else RunStatus.RUNNING
        self.run = replace(
            self.run,
            plan_id=plan.plan_id,
            counts=plan.counts,
            held_reason=plan.held_reason,
            run_status=status,
        )
        self.journal.save_run(
            self.lease,
            self.run,
            content_hash=frozen.plan.content_hash,
            plan_path=path,
        )

    def _deliver(self, frozen: FrozenPlan, on_progress: OnProgress) -> Tally:
        """The whole plan; of a held one only the removals that nobody may hold back."""
        with self._timed("deliver"):
            if not frozen.sendable_rows:
                return Tally()
            with self.parts.transport_for(self.sync) as transport:
                deliverer = self._deliverer(frozen, transport, on_progress)
                return deliverer.deliver(rows=frozen.sendable_rows, removals=frozen.frozen.removals)

    @property
    def _rate(self) -> float | None:
        return self.sync.account.rate_limit or self.sync.capabilities.requests_per_second

    def _pace(self) -> Pace:
        """Whoever has a place in a rate leaves then, whatever becomes of the pace; and a message that waits is one more in doubt after a crash."""
        may_wait = self._rate is None and self.sync.mode is not SyncMode.APPEND
        return Pace(self.sync.concurrency, self.parts.clock, ahead=AHEAD if may_wait else 0.0)

    def _limiter(self) -> RateLimiter:
        account = self.sync.account.name
        return RateLimiter(
            self._rate,
            self.parts.clock,
            reserve=partial(self.journal.reserve, account),
            not_before=partial(self.journal.not_before, account),
            chunk=self.sync.concurrency,
        )

    def _deliverer(self, frozen: FrozenPlan, transport: Transport, on_progress: OnProgress) -> Deliverer:
        parts = self.parts
        return Deliverer(
            sync=self.sync,
            run_id=self.run.run_id,
            plan=frozen.frozen.file,
            destination=self.destination,
            journal=self.journal,
            lease=self.lease,
            transport=transport,
            limiter=self._limiter(),
            pace=self._pace(),
            clock=parts.clock,
            rows=parts.rows(self.sync),
            suppressions=frozen.suppressions,
            stop=parts.stop,
            on_progress=on_progress,
        )

    def _finish(
        self,
        run: SyncRun,
        closed: Sequence[tuple[str, str]] = (),
        afterwards: Expectation | None = None,
    ) -> None:
        """Outcomes into the ledger, the plan away. A ledger that cannot be written now is written by the next run."""
        with self._timed("merge"):
            self.run = replace(run, finished_at=self.parts.clock.now(), seconds=dict(self._stopwatch))
            self.journal.save_run(self.lease, self.run)
            if closed:
                self.journal.forget_rejected(self.lease, closed)
            trouble = self._merge(closed, afterwards)
        self.run = replace(self.run, seconds=dict(self._stopwatch), error=self.run.error or trouble)
        self.journal.save_run(self.lease, self.run, in_ledger=not trouble)
        # Also those of dead runs that were merged just now.
        discard_plans(self.parts, self.journal, self.lease)

    def _merge(self, closed: Sequence[tuple[str, str]], afterwards: Expectation | None) -> str | None:
        """Why the ledger is not up to date, or None."""
        # Read before the merge, which is fenced: nobody else's outcomes are in it.
        position = self.parts.ledger_position(self.sync, self.journal)
        try:
            with self.parts.machine_errors(), self.parts.warehouse().write() as session:
                ledger.merge(session, self.journal, self.lease, self.sync, self.parts.plans)
                ledger.refresh(session, self.sync, self.parts.plans / f"{self.run.run_id}.parquet")
                ledger.close_rejections(session, self.sync, closed)
                if afterwards:
                    ledger.expect(session, self.sync, position, afterwards)
        except PlanRejected as error:  # somebody put an older warehouse in place meanwhile
            return f"delivered, but not in the ledger: {error}"
        except (MachineError, WarehouseError) as error:
            return (
                f"delivered, but the ledger could not be brought up to date, which the next run does: {error}"
            )
        return None

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = self.parts.clock.monotonic()
        try:
            yield
        finally:
            self._stopwatch[stage] = round(self.parts.clock.monotonic() - started, 3)


def recover(parts: Parts, sync: Sync, journal: Journal, lease: Lease) -> None:
    """Whatever an engine that died had in flight is in doubt; its runs are interrupted. Safe to repeat."""
    for batch in journal.in_flight(sync.name):
        _record_lost(parts, sync, journal, lease, batch)
    for summary in journal.unfinished_runs(sync.name):
        run = _so_far(journal, SyncRun.from_summary(summary))
        journal.save_run(lease, replace(run, run_status=RunStatus.INTERRUPTED, finished_at=parts.clock.now()))
    discard_plans(parts, journal, lease)


def last_known(journal: Journal, run: SyncRun) -> SyncRun:
    """The run as the journal has it. One that is under way: what it did so far. One whose process died: interrupted, and
    in doubt what was in flight, as the next run will find it."""
    if run.finished_at:
        return run
    if not is_gone(journal.owner_of(run.run_id)):
        return replace(_so_far(journal, run), run_status=run.run_status)
    lost = chain.from_iterable(batch.outcomes_when_lost for batch in journal.in_flight(run.sync))
    return replace(_so_far(journal, run, lost), run_status=RunStatus.INTERRUPTED)


def _so_far(journal: Journal, run: SyncRun, lost: Iterable[Outcome] = ()) -> SyncRun:
    return _judged(run, Tally(outcomes=journal.outcomes_of(run.run_id) + Counter(lost)))


def discard_plans(parts: Parts, journal: Journal, lease: Lease) -> None:
    """Plans of this sync that nothing refers to any more, and drafts that were never finished. Whoever slept through a
    takeover must not touch the plan of the newer engine, to which nothing refers yet: files are listed first, and only
    then is asked whether the lease still holds."""
    if not (paths := list(parts.plans.glob("*"))):
        return
    in_use, runs = journal.plans_in_use(lease), journal.run_ids(lease.sync)
    for path in paths:
        is_ours = path.stem in runs or path.name.startswith(f"preview-{lease.sync}-")
        if is_ours and path.name not in in_use:
            path.unlink(missing_ok=True)


def _record_lost(parts: Parts, sync: Sync, journal: Journal, lease: Lease, batch: Batch) -> None:
    plan = PlanFile(parts.plans / batch.plan_path)
    if not plan.path.exists():
        raise ActivationsError(
            f"the plan {batch.plan_path} is not here, and {batch.span.count} rows of `{sync.name}` were being sent by {batch.owner} when that died, so nobody can tell which. If it ran on another host, share `plan: folder` with it or run the sync there; else restore the file from a backup of the state folder"
        )
    rows = replace(parts.rows(replace(sync, mode=batch.mode)), place=batch.place)
    planned = plan.slice(batch.span.first, batch.span.count)
    journal.record_lost(
        lease,
        batch,
        rows.lost(planned, batch.exceptions),
        rows.message_keys(planned),
        sync.capabilities.settle_seconds,
    )


def new_run(sync: Sync, run_id: str, started_at: datetime | None, status: RunStatus) -> SyncRun:
    return SyncRun(
        run_id=run_id,
        sync=sync.name,
        audience=sync.audience,
        destination=sync.account.name,
        channel=sync.channel,
        purpose=sync.purpose,
        mode=sync.mode,
        place=sync.place,
        run_status=status,
        plan_id="",
        counts=Counts(),
        started_at=started_at,
    )


def _known_afterwards(frozen: FrozenPlan, tally: Tally) -> Expectation | None:
    """What the next plan finds, after a plan that was delivered whole."""
    return frozen.afterwards if tally.outcomes[Outcome.DELIVERED] == frozen.plan.rows else None


def _judged(run: SyncRun, tally: Tally) -> SyncRun:
    """The run with its outcomes and the one word that sums them up."""
    found = tally.outcomes
    return replace(
        run,
        delivered=found[Outcome.DELIVERED],
        rejected=found[Outcome.REJECTED],
        retryable=found[Outcome.RETRYABLE],
        in_doubt=found[Outcome.UNKNOWN],
        suppressed=found[Outcome.SUPPRESSED],
        requests=tally.requests,
        error=tally.error,
        run_status=_status(run, tally),
    )


def _status(run: SyncRun, tally: Tally) -> RunStatus:
    found = tally.outcomes
    if tally.interrupted:
        return RunStatus.INTERRUPTED
    if tally.error:
        return RunStatus.FAILED
    if run.held_reason:
        return RunStatus.HELD
    return (
        RunStatus.PARTIAL
        if found[Outcome.REJECTED] or found[Outcome.RETRYABLE] or found[Outcome.UNKNOWN]
        else RunStatus.SUCCEEDED
    )
