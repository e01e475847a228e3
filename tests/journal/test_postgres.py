"""What only a server has: leases that run out, clocks that differ, transactions side by side, several hosts at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from activations.errors import ActivationsError, Fenced, SyncBusy
from activations.journal import Journal, Lease
from activations.journal.postgres import PostgresStore, Timing
from tests.journal.conftest import ACCOUNT, RUN, SYNC, Journals, claimed, save_run
from tests.warehouses.server import Server

pytestmark = pytest.mark.postgres

NO_HEARTBEAT = Timing(lease=0.4, renew=60, skew=0.1)


def taken_over(journals: Journals, timing: Timing, stack: ExitStack) -> tuple[Lease, float]:
    """The lease once it can be had, and how long that took."""
    started, other = time.monotonic(), journals.open(timing=timing)
    while True:
        try:
            lease = stack.enter_context(other.lease(SYNC, "second:2"))
        except SyncBusy:
            assert time.monotonic() - started < 10
            time.sleep(0.02)
        else:
            return lease, time.monotonic() - started


def test_a_lease_is_taken_over_only_after_its_end_and_twice_the_skew(on_postgres: Journals) -> None:
    silent = on_postgres.open(timing=NO_HEARTBEAT)
    with ExitStack() as stack, silent.lease(SYNC, "first:1") as old:
        new, seconds = taken_over(on_postgres, NO_HEARTBEAT, stack)
        assert 0.55 < seconds < 5
        assert new.epoch == old.epoch + 1
        with pytest.raises(Fenced):
            silent.postpone(old, ACCOUNT, datetime(2027, 1, 1))
    with on_postgres.open().lease(SYNC, "third:3") as third:
        assert third.epoch == 3, "who was fenced did not give away what it no longer had"


def test_who_was_fenced_does_not_end_the_lease_of_its_successor(on_postgres: Journals) -> None:
    with ExitStack() as stack:
        with on_postgres.open(timing=NO_HEARTBEAT).lease(SYNC, "first:1"):
            taken_over(on_postgres, Timing(skew=0.1), stack)
        with pytest.raises(SyncBusy, match="second:2"):
            on_postgres.open().lease(SYNC, "third:3").__enter__()


def test_every_write_renews_the_lease(on_postgres: Journals) -> None:
    journal = on_postgres.open(timing=NO_HEARTBEAT)
    with journal.lease(SYNC, "first:1") as lease:
        save_run(journal, lease)
        for _ in range(6):
            time.sleep(0.15)
            claimed(journal, lease)
        with pytest.raises(SyncBusy):
            on_postgres.open(timing=NO_HEARTBEAT).lease(SYNC, "second:2").__enter__()


def test_the_heart_beats_while_nothing_is_written(on_postgres: Journals) -> None:
    beating = Timing(lease=0.4, renew=0.1, skew=0.1)
    with on_postgres.open(timing=beating).lease(SYNC, "first:1"):
        time.sleep(1.2)
        with pytest.raises(SyncBusy):
            on_postgres.open(timing=beating).lease(SYNC, "second:2").__enter__()
    assert not [thread for thread in threading.enumerate() if thread.name == f"lease of {SYNC}"]


def test_who_is_busy_says_who_and_until_when(on_postgres: Journals) -> None:
    with on_postgres.open().lease(SYNC, "host-a:41"), pytest.raises(SyncBusy) as busy:
        on_postgres.open().lease(SYNC, "host-b:42").__enter__()
    assert "`people` (host-a:41;" in str(busy.value)
    until = str(busy.value).partition("soon after ")[2][:8]
    now = datetime.now(UTC)
    assert until in {f"{now + timedelta(seconds=20 - n):%H:%M:%S}" for n in range(6)}


@pytest.mark.parametrize("seconds", [-5, 5])
def test_a_host_whose_clock_is_wrong_does_not_start(on_postgres: Journals, seconds: float) -> None:
    def wrong() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=seconds)

    with pytest.raises(ActivationsError, match=r"differ by [45]\.\d s.* Synchronise both"):
        on_postgres.open(host_now=wrong)


def test_the_first_hosts_may_come_at_once(on_postgres: Journals) -> None:
    with ThreadPoolExecutor(4) as threads:
        journals = list(threads.map(lambda _: on_postgres.open(), range(4)))
    assert len({journal.journal_id for journal in journals}) == 1


def test_another_layout_is_not_guessed_at(on_postgres: Journals) -> None:
    on_postgres.open()._store.run("update meta set value = '99' where key = 'layout'")
    with pytest.raises(
        ActivationsError, match=r"activations_journal was written by another version .*layout 99"
    ):
        on_postgres.open()


def test_commits_are_durable_whatever_the_servers_default(on_postgres: Journals) -> None:
    """The tests' own server has it off."""
    assert on_postgres.open()._store.rows("show synchronous_commit") == [("on",)]


# -- side by side ------------------------------------------------------------------------------------------------------


class Holding:
    """A claim that stands between its look at the suppressions and its commit until it is let go."""

    def __init__(self, journal: Journal, lease: Lease) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: claimed(journal, lease, refuses=self._wait))

    def _wait(self, _: frozenset[str]) -> list[int]:
        self.inside.set()
        assert self.go.wait(10)
        return []

    def __enter__(self) -> Holding:
        self._thread.start()
        assert self.inside.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._thread.join()


@pytest.fixture
def held(on_postgres: Journals) -> Iterator[Holding]:
    on_postgres.open().suppress({"d": ["d"]}, channel="email", reason="stop", source="test")
    journal = on_postgres.open()
    with journal.lease(SYNC, "host:1") as lease:
        save_run(journal, lease)
        with Holding(journal, lease) as holding:
            yield holding


def test_claims_of_two_syncs_do_not_wait_for_each_other(on_postgres: Journals, held: Holding) -> None:
    other = on_postgres.open()
    with other.lease("another", "host:2") as lease:
        save_run(other, lease, "run-2")
        assert claimed(other, lease, run_id="run-2", refuses=lambda _: [0]).refused
        other.record_delivered(
            lease, claimed(other, lease, run_id="run-2"), rows=2, keys=list, sent_at=datetime(2026, 1, 5)
        )
    assert not held.go.is_set()


def test_who_says_no_and_who_claims_come_one_after_the_other(on_postgres: Journals, held: Holding) -> None:
    """A "no" that is committed has been seen by every claim that commits after it."""
    journal, done = on_postgres.open(), threading.Event()

    def suppress() -> None:
        journal.suppress({"e": ["e"]}, channel="email", reason="stop", source="test")
        done.set()

    thread = threading.Thread(target=suppress)
    thread.start()
    assert not done.wait(0.3)
    held.go.set()
    thread.join(10)
    assert done.is_set()


def test_a_host_that_stalls_inside_a_transaction_does_not_stop_the_others(on_postgres: Journals) -> None:
    stalled = on_postgres.open()
    stalled._store.run("set idle_in_transaction_session_timeout = '200ms'")

    def stall() -> None:
        with stalled._store.transaction():
            stalled._next("outcome")
            time.sleep(0.5)

    with pytest.raises(ActivationsError, match="cannot be used"):
        stall()
    assert on_postgres.open()._next("outcome") == 1


# -- what a person reads -----------------------------------------------------------------------------------------------


def test_a_server_that_goes_away_ends_the_run_with_a_reason(server: Server, on_postgres: Journals) -> None:
    journal = on_postgres.open()
    with journal.lease(SYNC, "host:1") as lease:
        save_run(journal, lease)
        server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'activations journal'"
        )
        with pytest.raises(ActivationsError, match="Nothing that was recorded is lost"):
            claimed(journal, lease)
    assert on_postgres.open().run_ids(SYNC) == {RUN}


@pytest.mark.parametrize("dsn", ["postgresql://u:secret@127.0.0.1:1/x", "u:secret is no dsn"])
def test_an_error_never_shows_the_password(dsn: str) -> None:
    with pytest.raises(ActivationsError, match="`journal: dsn` in project.yml") as error:
        PostgresStore(dsn, schema="activations_journal")
    assert "secret" not in str(error.value)


@pytest.fixture
def modest(server: Server) -> Iterator[str]:
    """A database with a role `modest` that may not create schemas."""
    with server.database() as database:
        server.execute("create role modest login", database=database)
        yield database
        server.execute("drop owned by modest", "drop role modest", database=database)


def test_a_missing_right_is_named_with_its_remedy(server: Server, modest: str) -> None:
    def connect() -> None:
        PostgresStore(server.dsn(modest, "modest"), schema="activations_journal").close()

    with pytest.raises(ActivationsError, match="`create schema … authorization ROLE`"):
        connect()
    server.execute("create schema activations_journal authorization modest", database=modest)
    connect()
    server.execute("alter schema activations_journal owner to postgres", database=modest)
    with pytest.raises(ActivationsError, match="`create schema … authorization ROLE`"):
        connect()
