"""One journal after another over the same store: what several engines share, or one engine after its restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from activations.journal import Claim, Journal, Lease, RowOutcome, Span
from activations.journal.postgres import PostgresStore
from activations.journal.sqlite import SQLiteStore
from activations.journal.store import Store
from activations.model import Channel, Counts, Operation, Outcome, RunStatus, SyncMode, SyncRun
from tests.engine.world import FakeClock
from tests.warehouses.server import Server

SYNC, RUN, ACCOUNT = "people", "run-1", "hook"
BY = {"by": "ann", "note": "ticket"}


@dataclass
class Journals:
    """A place for a journal, and as many connections to it as a test wants."""

    new_store: Callable[..., Store]
    clock: FakeClock = field(default_factory=FakeClock)
    _open: ExitStack = field(default_factory=ExitStack)

    def open(self, *, key_check: str = "c", **options: Any) -> Journal:
        store = self.new_store(**options)
        journal = Journal(store, audit_key=b"k", key_check=key_check, now=self.clock.now)
        return self._open.enter_context(closing(journal))

    def close(self) -> None:
        self._open.close()


def postgres_schema(dsn: str) -> Callable[..., PostgresStore]:
    return partial(PostgresStore, dsn, schema="activations_journal")


@pytest.fixture
def on_postgres(server: Server) -> Iterator[Journals]:
    with server.database() as database, closing(Journals(postgres_schema(server.dsn(database)))) as found:
        yield found


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Journals]:
    with closing(Journals(lambda: SQLiteStore(tmp_path / "journal.sqlite3"))) as found:
        yield found


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def journals(request: pytest.FixtureRequest) -> Journals:
    """Every test that asks for it runs on both."""
    found: Journals = request.getfixturevalue(f"on_{request.param}")
    return found


@pytest.fixture
def journal(journals: Journals) -> Journal:
    return journals.open()


@pytest.fixture
def lease(journal: Journal) -> Iterator[Lease]:
    """Of a sync that has a run."""
    with journal.lease(SYNC, "host:1") as held:
        save_run(journal, held)
        yield held


def save_run(journal: Journal, lease: Lease, run_id: str = RUN, **facts: Any) -> None:
    run = SyncRun(
        run_id=run_id,
        sync=lease.sync,
        audience="aud",
        destination=ACCOUNT,
        channel=Channel.EMAIL,
        purpose="marketing",
        mode=SyncMode.MIRROR,
        run_status=RunStatus.RUNNING,
        plan_id="",
        counts=Counts(),
        started_at=datetime(2026, 1, 5),
    )
    journal.save_run(lease, run, plan_path=Path(f"{run_id}.parquet"), **facts)


def claimed(journal: Journal, lease: Lease, *, first: int = 0, count: int = 2, **options: Any) -> Claim:
    given: dict[str, Any] = {"account": ACCOUNT, "channel": "email", "refuses": lambda _: [], "messages": {}}
    claim = journal.claim(
        lease,
        options.pop("run_id", RUN),
        Span(first=first, count=count),
        **({"send_by": datetime(2026, 1, 6)} | given | options),
    )
    assert claim is not None
    return claim


def outcome(position: int, found: Outcome, **facts: Any) -> RowOutcome:
    return RowOutcome(
        position=position,
        row_key=f"p{position}",
        identity=f"i{position}",
        operation=Operation.ADDED,
        outcome=found,
        payload_hash="h1",
        **facts,
    )


def recorded(
    journal: Journal,
    lease: Lease,
    *outcomes: RowOutcome,
    messages: dict[int, str] | None = None,
    sent_at: datetime = datetime(2026, 1, 5, 12),
    settle_seconds: float = 900,
) -> Claim:
    """Claimed and recorded."""
    claim = claimed(journal, lease, first=outcomes[0].position, count=len(outcomes), messages=messages or {})
    journal.record(
        lease,
        claim,
        outcomes,
        messages=messages or {},
        settle_seconds=settle_seconds,
        sent_at=sent_at,
    )
    return claim


def later(journals: Journals, seconds: float) -> datetime:
    return journals.clock.moment + timedelta(seconds=seconds)
