"""What a run is made of: warehouse, journal, transport and keys of one project, and the steps they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import pyarrow as pa

from activations import ledger, planning
from activations.clock import Clock, SystemClock
from activations.config import Environment, Project, Sync
from activations.config.documents import parse_model
from activations.config.kinds import own_host, secret_keys
from activations.delivery import RequestsTransport, Rows, Transport
from activations.delivery.connections import Gate
from activations.delivery.sealing import Sealer
from activations.destinations.base import Destination
from activations.destinations.registry import KINDS
from activations.digests import Digester, derived_key
from activations.errors import PackageMissing, WarehouseError, machine_errors
from activations.journal import Journal, Lease, OpenState, open_journal
from activations.manifest import load_manifest
from activations.planning import FrozenPlan, PlanInput
from activations.planning.comparing import OPEN_ROW_COLUMNS
from activations.processes import this_process
from activations.sandbox.credentials import base_url_for, credentials_for
from activations.warehouses import DuckDBWarehouse, Session, Warehouse


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
        raise PackageMissing("the warehouse", error.name) from None
    return PostgresWarehouse(project.warehouse_dsn(), wait_seconds=project.settings.warehouse.wait_seconds)


def open_transport(project: Project, gate: Gate, **options: Any) -> RequestsTransport:
    """By the project's rules for what may be called, and how. Close it when done."""
    egress = project.settings.egress
    return RequestsTransport(
        gate,
        proxy=None if gate.is_sandbox else egress.proxy_address(project.root),
        ca_bundle=project.root / egress.ca_bundle if egress.ca_bundle else None,
        **options,
    )


@dataclass(slots=True)
class Parts:
    """Opened late and closed early: nothing is held while a destination is waited for but the sync's lease."""

    project: Project
    clock: Clock = field(default_factory=SystemClock)
    transport: Callable[[Sync], Transport] | None = None
    """How a sync reaches its destination; tests hand in their own."""
    stop: Event = field(default_factory=Event)
    """Set it, and the run ends after the batch in flight with a true state."""

    @property
    def plans(self) -> Path:
        return self.project.plans_path

    def warehouse(self) -> Warehouse:
        return open_warehouse(self.project, self.clock)

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        with machine_errors(self.project.root, self.project.var):
            journal = open_journal(self.project, self.clock.now)
        try:
            with self.machine_errors():
                yield journal
        finally:
            journal.close()

    def machine_errors(self) -> AbstractContextManager[None]:
        """The plan file is what is written while somebody works."""
        return machine_errors(self.project.root, self.plans)

    @contextmanager
    def leased(self, sync: str) -> Iterator[tuple[Journal, Lease]]:
        """The journal, and the right to work on the sync; SyncBusy when somebody else has it."""
        with self.journal() as journal, journal.lease(sync, this_process()) as lease:
            yield journal, lease

    def digester(self, use: str) -> Digester:
        return Digester.for_use(self.project.hash_key(), use)

    def rows(self, sync: Sync) -> Rows:
        digester = partial(Digester.for_use, self.project.hash_key())
        return Rows(
            sync=sync,
            place=sync.place,
            pseudonyms=digester("pseudonym", sync.name),
            messages=digester("message", sync.name),
            suppressions=digester("suppression"),
            batches=digester("batch", sync.name),
            sealer=Sealer(derived_key(self.project.hash_key(), "seal"), sync.name),
        )

    def merge_pending(self, sync: Sync, journal: Journal, lease: Lease) -> None:
        """Bring the ledger up to date."""
        if journal.unmerged(sync.name) or journal.runs_for_ledger(sync.name):
            with self.warehouse().write() as session:
                ledger.merge(session, journal, lease, sync, self.plans)

    def make_plan(self, sync: Sync, journal: Journal, session: Session, path: Path) -> FrozenPlan:
        manifest = load_manifest(self.project)
        if not session.columns(ledger.SNAPSHOT):
            raise WarehouseError("the ledger's tables are not there yet. Run `activations init`")
        ledger.check(session, journal, sync)
        return planning.make_plan(
            self.project, sync, manifest, self.warehouse(), session, self.plan_input(sync, journal, path)
        )

    def plan_input(self, sync: Sync, journal: Journal, path: Path) -> PlanInput:
        now = self.clock.now()
        return PlanInput(
            open_rows=_open_rows(journal, sync, now),
            suppressions=sorted(journal.suppressed_digests(sync.channel.value)),
            ledger_position=self.ledger_position(sync, journal),
            approved=journal.approved(sync.name),
            installation_key=self.project.hash_key(),
            now=now,
            path=path,
        )

    @staticmethod
    def ledger_position(sync: Sync, journal: Journal) -> str:
        """Names the snapshot's contents, once every outcome is merged."""
        return f"{journal.journal_id}:{journal.position(sync.name)}"

    @contextmanager
    def transport_for(self, sync: Sync) -> Iterator[Transport]:
        if self.transport:
            yield self.transport(sync)
            return
        account = sync.account
        gate = Gate(
            egress=self.project.settings.egress,
            own_host=own_host(KINDS[account.kind]),
            is_sandbox=account.environment is Environment.SANDBOX,
        )
        own = open_transport(self.project, gate, pool=sync.concurrency, compress=account.compress is not None)
        with closing(own):
            yield own


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
