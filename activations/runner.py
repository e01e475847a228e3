"""The only place that puts the parts together: configuration, warehouse, journal, destination, clock."""

from __future__ import annotations

import os
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import pyarrow as pa
import sqlglot.expressions as exp

from activations import config, ledger
from activations.clock import Clock, SystemClock
from activations.config import Environment, Project, Sync
from activations.config.documents import parse_model
from activations.config.project import secret_keys
from activations.delivery import Deliverer, Progress, RequestsTransport, Rows, Tally, Transport
from activations.delivery.rate import RateLimiter
from activations.delivery.sealing import Sealer
from activations.destinations.base import Destination
from activations.destinations.registry import KINDS
from activations.digests import Digester, forms_of_identity
from activations.errors import ActivationsError, PlanRejected, WarehouseError
from activations.explain import Explanation, explain
from activations.journal import Batch, Journal, Lease, OpenState
from activations.manifest import check_sync, load_manifest
from activations.model import Counts, Outcome, Plan, RunStatus, SyncRun
from activations.planning import FrozenPlan, PlanFile, PlanInput, make_plan
from activations.planning.planner import OPEN_ROW_COLUMNS
from activations.sandbox.credentials import base_url_for, credentials_for
from activations.warehouses import DuckDBWarehouse, Session, Warehouse

APPROVAL_VALID = timedelta(hours=24)
LONGEST_PAUSE = 30.0
"""Seconds a run waits for a destination that asked to be left alone; a longer wait is left to the next run."""

OnProgress = Callable[[Progress], None]


def load_project(root: Path | None = None) -> Project:
    """The project in or above `root` (default: the current folder), with every known kind of destination."""
    return config.load_project(root, KINDS)


def open_warehouse(project: Project, clock: Clock | None = None) -> Warehouse:
    settings = project.settings.warehouse
    if settings.type == "postgres":
        return _open_postgres(project)
    return DuckDBWarehouse(
        project.warehouse_path,
        wait_seconds=settings.wait_seconds,
        memory_limit=settings.memory_limit,
        clock=clock,
    )


def _open_postgres(project: Project) -> Warehouse:
    try:
        from activations.warehouses.postgres import PostgresWarehouse  # an extra that few have installed
    except ModuleNotFoundError as error:
        raise WarehouseError(
            f"the warehouse is Postgres, and the package {error.name} is not installed. Run `pip install -r requirements-postgres.lock`"
        ) from None
    return PostgresWarehouse(project.warehouse_dsn(), wait_seconds=project.settings.warehouse.wait_seconds)


@dataclass(slots=True)
class Engine:
    """Plans and runs the syncs of one project."""

    project: Project
    clock: Clock = field(default_factory=SystemClock)
    transport: Callable[[Sync], Transport] | None = None
    """How a sync reaches its destination; tests hand in their own."""
    stop: Event = field(default_factory=Event)
    """Set it, and the run ends after the batch in flight with a true state."""

    def prepare(self) -> None:
        """Create what dbt and the engine expect: the ledger's tables and the journal."""
        ledger.prepare(self._warehouse())
        with self._journal():
            pass

    def plan(self, name: str) -> Plan:
        """What a run would do now. Sends nothing; what an earlier run left is settled first, as a run would do."""
        sync = self.project.sync(name)
        with self._journal() as journal, journal.lease(name, _owner()) as lease:
            recover(self, sync, journal, lease)
            self._merge_pending(sync, journal, lease)
            path = self._plans / f"preview-{uuid.uuid4().hex[:12]}.parquet"
            try:
                with self._warehouse().read() as session:
                    return self._make_plan(sync, journal, session, path).plan
            finally:
                path.unlink(missing_ok=True)

    def sync(self, name: str, on_progress: OnProgress | None = None) -> SyncRun:
        """Plan and deliver. Returns the finished run, also a failed or held one; raises when no plan could be made."""
        sync = self.project.sync(name)
        destination = build_destination(self.project, sync)
        with self._journal() as journal, journal.lease(name, _owner()) as lease:
            run = _Run(engine=self, sync=sync, journal=journal, lease=lease, destination=destination)
            return run.go(on_progress or (lambda _: None))

    def status(self) -> list[SyncRun]:
        """The last run of every sync, in the order of their names; a sync that never ran is NEVER_RUN."""
        with self._journal() as journal:
            last = journal.last_runs()
        return [
            SyncRun.from_summary(last[n]) if n in last else _new_run(s, "", None, RunStatus.NEVER_RUN)
            for n, s in self.project.syncs.items()
        ]

    def check(self) -> list[str]:
        """Every sync against the manifest; returns their names. The first problem is raised."""
        manifest = load_manifest(self.project)
        for sync in self.project.syncs.values():
            check_sync(
                sync, manifest.audience(sync.audience, sync.file), self.project.settings.dbt.person_key
            )
        manifest.relation(self.project.settings.dbt.eligibility)
        manifest.relation(self.project.settings.dbt.holdouts)
        return list(self.project.syncs)

    def release(self, name: str, *, by: str, note: str) -> str:
        """Let the plan that is held pass, once, as it is. Returns the run that held it."""
        self.project.sync(name)
        with self._journal() as journal:
            held = journal.held_plan(name)
            if held is None:
                raise PlanRejected(
                    f"the last run of `{name}` is not held, so there is nothing to release. See `activations status`"
                )
            journal.approve(name, held[1], by=by, note=note, valid=APPROVAL_VALID)
        return held[0]

    def suppress(self, identifiers: Sequence[str], *, channel: str, reason: str, source: str) -> int:
        """From the next claim on, nothing but a removal leaves for these people, whichever of their identifiers was
        named. Returns how many of the identifiers belong to somebody that dbt knows; the others are kept too."""
        digests, known = self._digests_of(identifiers)
        with self._journal() as journal:
            journal.suppress(digests, channel=channel, reason=reason, source=source)
        return known

    def lift(self, identifiers: Sequence[str], *, channel: str, reason: str, source: str) -> int:
        """Take suppressions of exactly this channel back; how many lines there were."""
        digests, _ = self._digests_of(identifiers)
        with self._journal() as journal:
            return journal.lift(digests, channel=channel, reason=reason, source=source)

    def forget(self, name: str, *, by: str, note: str) -> None:
        """Forget what the destination of a sync holds: the next run sends everybody again. Messages that were sent
        are not forgotten."""
        sync = self.project.sync(name)
        with self._journal() as journal, journal.lease(name, _owner()) as lease:
            with self._warehouse().write() as session:
                ledger.forget(session, journal, lease, sync, by=by, note=note)
            _discard_plans(self, sync, journal)

    def _digests_of(self, identifiers: Sequence[str]) -> tuple[list[str], int]:
        """Digests of every form of every identifier and of the people they belong to; how many belong to somebody."""
        digest = self._digester("suppression")
        people = [self._people_if_readable(value) for value in identifiers]
        names = [name for value, found in zip(identifiers, people, strict=True) for name in (value, *found)]
        forms = dict.fromkeys(form for name in names for form in forms_of_identity(name))
        return [digest(form) for form in forms], sum(map(bool, people))

    def _people_if_readable(self, identifier: str) -> list[str]:
        """A "no" is recorded even while the warehouse is locked or not built."""
        try:
            return self.people_with(identifier)
        except ActivationsError:
            return []

    def explain(self, person: str) -> list[Explanation]:
        """For every sync: why this person is in or out, and what the destination holds."""
        manifest = load_manifest(self.project)
        with self._journal() as journal, self._warehouse().read() as session:
            return [
                explain(
                    self.project,
                    sync,
                    manifest,
                    self._warehouse(),
                    session,
                    self._plan_input(sync, journal, Path()),
                    person,
                )
                for sync in self.project.syncs.values()
            ]

    def people_with(self, identifier: str) -> list[str]:
        """The person ids that an identifier belongs to, by dbt's identity graph."""
        relation = load_manifest(self.project).relation(self.project.settings.dbt.identifiers)
        person = exp.column(self.project.settings.dbt.person_key)
        known = exp.func("lower", exp.column("identifier"))
        query = (
            exp.select(person)
            .distinct()
            .from_(exp.table_(relation.name, db=relation.schema, quoted=True))
            .where(
                exp.In(this=known, expressions=[exp.Literal.string(f) for f in forms_of_identity(identifier)])
            )
        )
        with self._warehouse().read() as session:
            return sorted(str(found) for (found,) in session.rows(query))

    def verify_audit(self) -> int:
        with self._journal() as journal:
            return journal.verify_audit()

    # -- parts -------------------------------------------------------------------------------------------------

    @property
    def _plans(self) -> Path:
        return self.project.var / "plans"

    def _warehouse(self) -> Warehouse:
        return open_warehouse(self.project, self.clock)

    @contextmanager
    def _journal(self) -> Iterator[Journal]:
        journal = Journal(
            self.project.var / "journal.sqlite3",
            audit_key=bytes.fromhex(self._digester("audit").key),
            key_check=self._digester("check")("this journal"),
            now=self.clock.now,
        )
        try:
            yield journal
        finally:
            journal.close()

    def _digester(self, use: str) -> Digester:
        return Digester.for_use(self.project.hash_key(), use)

    def _rows(self, sync: Sync) -> Rows:
        return Rows(
            sync=sync,
            place=sync.place,
            pseudonyms=self._digester("pseudonym"),
            messages=self._digester("message"),
            suppressions=self._digester("suppression"),
            batches=self._digester("batch"),
            sealer=Sealer(self._digester("seal").key, sync.name),
        )

    def _merge_pending(self, sync: Sync, journal: Journal, lease: Lease) -> None:
        """Bring the ledger up to date."""
        if journal.unmerged(sync.name) or journal.runs_for_ledger(sync.name):
            with self._warehouse().write() as session:
                ledger.merge(session, journal, lease, sync, self._plans)

    def _make_plan(self, sync: Sync, journal: Journal, session: Session, path: Path) -> FrozenPlan:
        manifest = load_manifest(self.project)
        if not session.columns(ledger.SNAPSHOT):
            raise WarehouseError("the ledger's tables are not there yet. Run `activations init`")
        ledger.check(session, journal, sync)
        return make_plan(
            self.project, sync, manifest, self._warehouse(), session, self._plan_input(sync, journal, path)
        )

    def _plan_input(self, sync: Sync, journal: Journal, path: Path) -> PlanInput:
        now = self.clock.now()
        return PlanInput(
            open_rows=_open_rows(journal, sync, now),
            suppressions=sorted(journal.suppressed_digests(sync.channel.value)),
            ledger_position=f"{journal.journal_id}:{journal.position(sync.name)}",
            approved_hash=journal.approved_hash(sync.name),
            installation_key=self.project.hash_key(),
            now=now,
            path=path,
        )

    @contextmanager
    def _transport(self, sync: Sync) -> Iterator[Transport]:
        if self.transport:
            yield self.transport(sync)
            return
        is_sandbox = sync.account.environment is Environment.SANDBOX
        with closing(
            RequestsTransport(self.clock, allow_plain_loopback=is_sandbox, pool=sync.concurrency)
        ) as own:
            yield own


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run of one sync, from lease to ledger."""

    engine: Engine
    sync: Sync
    journal: Journal
    lease: Lease
    destination: Destination[Any, Any]
    run: SyncRun = field(init=False)
    _stopwatch: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        now = self.engine.clock.now()
        self.run = _new_run(self.sync, f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}", now, RunStatus.PLANNED)

    def go(self, on_progress: OnProgress) -> SyncRun:
        try:
            frozen = self._plan()
            tally = self._deliver(frozen, on_progress)
        except ActivationsError as error:
            self._finish(replace(self.run, run_status=RunStatus.FAILED, error=str(error)))
            raise
        if not frozen.plan.held_reason and tally.outcomes.total() > tally.outcomes[Outcome.RETRYABLE]:
            self.journal.use_approval(self.lease, frozen.content_hash, self.run.run_id)
        self._finish(_judged(self.run, tally), frozen.closed_rejections)
        return self.run

    def _plan(self) -> FrozenPlan:
        with self._timed("plan"):
            recover(self.engine, self.sync, self.journal, self.lease)
            self.journal.save_run(self.lease, self.run)
            self.engine._merge_pending(self.sync, self.journal, self.lease)
            path = self.engine._plans / f"{self.run.run_id}.parquet"
            with self.engine._warehouse().read() as session:
                frozen = self.engine._make_plan(self.sync, self.journal, session, path)
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
            self.lease, self.run, content_hash=frozen.content_hash, plan_path=path, expires_at=plan.expires_at
        )

    def _deliver(self, frozen: FrozenPlan, on_progress: OnProgress) -> Tally:
        """The whole plan; of a held one only the removals that nobody may hold back."""
        with self._timed("deliver"):
            if not frozen.sendable_rows:
                return Tally()
            if refusal := self._wait_for_destination():
                return Tally(error=refusal, outcomes=_untried(frozen.sendable_rows))
            with self.engine._transport(self.sync) as transport:
                deliverer = self._deliverer(frozen, transport, on_progress)
                return deliverer.deliver(rows=frozen.sendable_rows, removals=frozen.frozen.removals)

    def _wait_for_destination(self) -> str | None:
        """A Retry-After that was committed binds every later run."""
        until = self.journal.not_before(self.sync.name)
        pause = (until - self.engine.clock.now()).total_seconds() if until else 0.0
        if pause > LONGEST_PAUSE:
            return f"the destination asked to be left alone for another {pause:.0f} s. Run the sync again after that"
        self.engine.clock.sleep(max(pause, 0.0))
        return None

    def _deliverer(self, frozen: FrozenPlan, transport: Transport, on_progress: OnProgress) -> Deliverer:
        engine = self.engine
        rate = self.sync.account.rate_limit or self.sync.capabilities.requests_per_second
        return Deliverer(
            sync=self.sync,
            run_id=self.run.run_id,
            plan=frozen.frozen.file,
            destination=self.destination,
            journal=self.journal,
            lease=self.lease,
            transport=transport,
            limiter=RateLimiter(rate, engine.clock),
            clock=engine.clock,
            rows=engine._rows(self.sync),
            stop=engine.stop,
            on_progress=on_progress,
        )

    def _finish(self, run: SyncRun, closed: Sequence[tuple[str, str]] = ()) -> None:
        """Outcomes into the ledger, the plan away. A ledger that cannot be written now is written by the next run."""
        with self._timed("merge"):
            self.run = replace(run, finished_at=self.engine.clock.now(), seconds=dict(self._stopwatch))
            self.journal.save_run(self.lease, self.run)
            self.journal.forget_rejected(self.lease, closed)
            trouble = self._merge(closed)
        self.run = replace(self.run, seconds=dict(self._stopwatch), error=self.run.error or trouble)
        self.journal.save_run(self.lease, self.run)
        if not trouble:
            self.journal.runs_in_ledger(self.lease, [self.run.run_id])
        _discard_plans(
            self.engine, self.sync, self.journal
        )  # also those of dead runs that were merged just now

    def _merge(self, closed: Sequence[tuple[str, str]]) -> str | None:
        """Why the ledger is not up to date, or None."""
        try:
            with self.engine._warehouse().write() as session:
                if session.columns(ledger.SNAPSHOT):
                    ledger.merge(session, self.journal, self.lease, self.sync, self.engine._plans)
                    ledger.close_rejections(session, self.sync, closed)
        except WarehouseError as error:
            return (
                f"delivered, but the ledger could not be brought up to date, which the next run does: {error}"
            )
        return None

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = self.engine.clock.monotonic()
        try:
            yield
        finally:
            self._stopwatch[stage] = round(self.engine.clock.monotonic() - started, 3)


def recover(engine: Engine, sync: Sync, journal: Journal, lease: Lease) -> None:
    """Whatever an engine that died had in flight is in doubt; its runs are interrupted. Safe to repeat."""
    for batch in journal.in_flight(sync.name):
        _record_lost(engine, sync, journal, lease, batch)
    for summary in journal.unfinished_runs(sync.name):
        run = _judged(SyncRun.from_summary(summary), Tally(outcomes=journal.outcomes_of(summary["run_id"])))
        journal.save_run(
            lease, replace(run, run_status=RunStatus.INTERRUPTED, finished_at=engine.clock.now())
        )
    _discard_plans(engine, sync, journal)


def _discard_plans(engine: Engine, sync: Sync, journal: Journal) -> None:
    """Plans of this sync that nothing refers to any more, and drafts that were never finished."""
    in_use, runs = journal.plans_in_use(), journal.run_ids(sync.name)
    for path in engine._plans.glob("*"):
        if (path.stem in runs or path.name.startswith("preview-")) and path.name not in in_use:
            path.unlink(missing_ok=True)


def _record_lost(engine: Engine, sync: Sync, journal: Journal, lease: Lease, batch: Batch) -> None:
    plan = PlanFile(engine._plans / batch.plan_path)
    if not plan.path.exists():
        raise ActivationsError(
            f"the plan {batch.plan_path} is gone while {batch.span.count} rows of `{sync.name}` were being sent, so nobody can tell which. Restore it from a backup of the state folder"
        )
    rows, planned = engine._rows(sync), plan.slice(batch.span.first, batch.span.count)
    journal.record_lost(
        lease,
        batch,
        rows.lost(planned, batch.exceptions),
        rows.message_keys(planned),
        sync.capabilities.settle_seconds,
    )


def build_destination(project: Project, sync: Sync) -> Destination[Any, Any]:
    """The destination with its credentials: the vendor's, or the sandbox's."""
    account, kind = sync.account, KINDS[sync.account.kind]
    if account.environment is Environment.SANDBOX:
        options = {
            **account.options,
            **credentials_for(account.kind),
            "base_url": base_url_for(account.kind, project.sandbox_url),
        }
    else:
        options = account.resolved_options(secret_keys(kind))
    settings = parse_model(kind.Config, options, account.file, f"destinations.{account.name}")
    return kind(settings, parse_model(kind.TargetConfig, dict(sync.target), sync.file, "target"))


def _open_rows(journal: Journal, sync: Sync, now: datetime) -> pa.Table:
    rows = [
        {
            "row_key": row.row_key,
            "identity": row.identity,
            "state": row.state.value,
            "payload_hash": row.payload_hash,
            "destination_key": row.destination_key,
            "sealed": row.sealed,
            "maybe": row.maybe,
            "is_due": row.state is OpenState.IN_DOUBT
            or (row.state is OpenState.SETTLING and row.settle_until is not None and row.settle_until <= now),
        }
        for row in journal.open_rows(sync.name)
    ]
    # Through polars: pyarrow's own way from Python objects imports pandas, half a second and 50 MB.
    return pl.DataFrame(rows, schema=OPEN_ROW_COLUMNS).to_arrow()


def _new_run(sync: Sync, run_id: str, started_at: datetime | None, status: RunStatus) -> SyncRun:
    return SyncRun(
        run_id=run_id,
        sync=sync.name,
        audience=sync.audience,
        destination=sync.account.name,
        channel=sync.channel,
        purpose=sync.purpose,
        mode=sync.mode,
        run_status=status,
        plan_id="",
        counts=Counts(),
        started_at=started_at,
    )


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


def _untried(rows: int) -> Counter[Outcome]:
    return Counter({Outcome.RETRYABLE: rows})


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
