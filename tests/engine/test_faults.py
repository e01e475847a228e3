"""An engine that dies, a warehouse that is taken, two engines at once."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from activations import parts
from activations.delivery import deliverer
from activations.destinations.webhook import SignedWebhook
from activations.errors import (
    ActivationsError,
    Fenced,
    MachineError,
    SecretError,
    SyncBusy,
    WarehouseLocked,
)
from activations.journal import Journal, Lease
from activations.journal.postgres import PostgresStore
from activations.journal.sqlite import SQLiteStore
from activations.model import Request, Response, RunStatus
from activations.planning import PlanFile
from activations.run import discard_plans, new_run
from tests.engine.world import (
    ACCOUNT,
    FakeClock,
    Killed,
    OtherSide,
    World,
    killed_after,
    killed_before,
    status,
)
from tests.warehouses.stores import locked


@pytest.mark.parametrize("kill", [killed_before, killed_after])
def test_a_killed_state_sync_converges(world: World, kill: object) -> None:
    world.other.script.append(kill)  # type: ignore[arg-type]
    with pytest.raises(Killed):
        world.add("a", "b").run()
    run = world.run()
    assert (run.run_status, run.delivered) == (RunStatus.SUCCEEDED, 2)
    assert world.other.emails == {"a@example.com", "b@example.com"}
    assert [s.run_status for s in world.engine().status()] == [RunStatus.SUCCEEDED]


def test_status_shows_a_run_that_died_before_anybody_recovers_it(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(account=ACCOUNT | {"batch_rows": 2, "concurrency": 1}).add("a", "b", "c", "d", "e")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr(parts, "this_process", lambda: f"{socket.gethostname()}:{gone.pid}")
    world.other.script += [OtherSide.accept, killed_after]
    with pytest.raises(Killed):
        world.run()
    [shown] = world.engine().status()
    assert (shown.run_status, shown.delivered, shown.in_doubt) == (RunStatus.INTERRUPTED, 2, 2)
    world.engine().plan("people")
    assert world.engine().status()[0].in_doubt == 2, "the next run found the same"


def test_status_shows_what_a_run_under_way_did_so_far(make_world: Callable[..., World]) -> None:
    world = make_world(account=ACCOUNT | {"batch_rows": 2, "concurrency": 1}).add("a", "b", "c")
    shown = []

    def look(other: OtherSide, request: Request) -> Response:
        shown.extend(world.engine().status())
        return other.accept(request)

    world.other.script += [OtherSide.accept, look]
    world.run()
    assert [(run.run_status, run.delivered, run.in_doubt) for run in shown] == [(RunStatus.RUNNING, 2, 0)]


@pytest.mark.parametrize("kill", [killed_before, killed_after])
def test_a_killed_message_is_in_doubt_and_never_repeated(
    make_world: Callable[..., World], kill: object
) -> None:
    world = make_world(mode="append")
    world.other.script.append(kill)  # type: ignore[arg-type]
    with pytest.raises(Killed):
        world.add("a").run()
    assert dict(world.run().counts.waiting_by_reason) == {"in_doubt": 1}
    assert len(world.other.received) <= 1


def test_someone_killed_in_flight_who_then_leaves_is_removed(world: World) -> None:
    world.other.script.append(killed_after)
    with pytest.raises(Killed):
        world.add("a", "b").run()
    world.drop("a").run()
    assert world.other.emails == {"b@example.com"}


@pytest.mark.parametrize("commit", range(1, 12))
def test_a_crash_at_any_commit_of_the_journal_loses_nothing(
    world: World, commit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die at the n-th commit, recover, and the other side equals the audience; every outcome is counted once."""
    world.add("a", "b").build()
    seen = 0

    def dying(transaction: Callable[[Any], AbstractContextManager[None]]) -> Any:
        @contextmanager
        def until_the_commit(store: Any) -> Iterator[None]:
            nonlocal seen
            with transaction(store):
                yield
                seen += 1
                if seen == commit:
                    store.close()  # a dead process holds no transaction
                    raise Killed

        return until_the_commit

    with monkeypatch.context() as patch:
        for store in (SQLiteStore, PostgresStore):
            patch.setattr(store, "transaction", dying(store.transaction))
        with suppress(Killed):
            world.engine().sync("people")
    world.store.execute_in_journal(
        "update lease set until = null"
    )  # the time of the dead one's lease is over
    assert seen >= min(commit, 5), "the crash point was reached"
    world.run()
    world.clock.sleep(3600)
    world.run()
    assert world.other.emails == {"a@example.com", "b@example.com"}
    assert world.query("select count(*), count(distinct primary_key) from activation.sync_snapshot") == [
        (2, 2)
    ]
    assert world.query(
        "select count(*) from (select 1 from activation.sync_changelog group by journal_id, seq, position having count(*) > 1)"
    ) == [(0,)]
    assert world.run().counts.planned == 0


def test_only_the_drafts_of_this_sync_are_cleared_away(world: World) -> None:
    """Another sync may be planned at this moment, in the same folder."""
    plans = world.root / "var/plans"
    plans.mkdir(parents=True)
    for name in ("preview-people-dead.draft", "preview-people_too-alive.draft"):
        (plans / name).touch()
    world.add("a").run()
    assert [path.name for path in plans.iterdir()] == ["preview-people_too-alive.draft"]


def test_a_crash_between_ledger_and_journal_counts_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from activations.journal import Journal

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "merged", die)
        with pytest.raises(Killed):
            world.add("a", "b").run()
    world.run()
    assert world.query("select count(*) from activation.sync_changelog") == [(2,)]
    assert world.query("select count(*) from activation.sync_snapshot") == [(2,)]


def test_two_engines_never_work_on_one_sync(world: World) -> None:
    def second_engine(other: OtherSide, request: Request) -> Response:
        with pytest.raises(SyncBusy, match="another process is running the sync"):
            world.engine().sync("people")
        return other.accept(request)

    world.other.script.append(second_engine)
    assert world.add("a").run().delivered == 1


def test_an_engine_whose_plan_was_discarded_by_a_newer_one_stops(world: World) -> None:
    with pytest.raises(Fenced, match="a newer engine took over its sync"):
        PlanFile(world.root / "var/plans/of-an-older-engine.parquet").slice(0, 1)


def test_an_engine_that_slept_through_a_takeover_leaves_the_newer_plan_alone(world: World) -> None:
    """Nothing refers to a plan before its first batch."""
    world.add("a").run()
    engine, plan = world.engine(), world.root / "var/plans/20990101T000000-00000000.parquet"
    with engine.leased("people") as (journal, newer):
        journal.save_run(
            newer, new_run(engine.project.sync("people"), plan.stem, world.clock.now(), RunStatus.PLANNED)
        )
        plan.touch()
        with pytest.raises(Fenced):
            discard_plans(engine, journal, Lease(sync="people", epoch=newer.epoch - 1))
    assert plan.exists()


def test_plans_are_listed_before_the_lease_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked first and listed then would find a plan that a newer engine made in between."""
    world.add("a").run()
    engine, plan = world.engine(), world.root / "var/plans/20990101T000000-00000000.parquet"
    in_use = Journal.plans_in_use

    def asked(journal: Journal, lease: Lease) -> set[str]:
        found = in_use(journal, lease)
        plan.touch()
        return found

    monkeypatch.setattr(Journal, "plans_in_use", asked)
    with engine.leased("people") as (journal, lease):
        journal.save_run(
            lease, new_run(engine.project.sync("people"), plan.stem, world.clock.now(), RunStatus.PLANNED)
        )
        (plan.parent / "of-nobody.txt").touch()
        discard_plans(engine, journal, lease)
    assert plan.exists()


def test_a_locked_file_is_named_and_changes_nothing(duckdb_world: World) -> None:
    world = duckdb_world.add("a").build()
    with (
        locked(world.root / "var") as holder,
        pytest.raises(WarehouseLocked, match=f"process {holder} holds warehouse.duckdb"),
    ):
        world.engine().sync("people")
    assert world.other.requests == 0
    assert world.run().delivered == 1


def test_a_warehouse_that_is_locked_after_sending_is_merged_by_the_next_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from activations import ledger

    def locked(*_: object) -> int:
        raise WarehouseLocked("somebody holds it")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "merge", locked)
        run = world.add("a").run()
    assert (run.run_status, run.delivered) == (RunStatus.SUCCEEDED, 1)
    assert "the next run does" in (run.error or "")
    assert world.run().counts.planned == 0
    assert world.query("select count(*) from activation.sync_snapshot") == [(1,)]


def test_no_model_and_no_ledger_are_two_different_messages(world: World) -> None:
    world.store.execute("drop table audiences.aud_people")
    with pytest.raises(ActivationsError, match="aud_people has not been built"):
        world.engine().sync("people")
    world.store.execute("drop schema activation cascade")
    with pytest.raises(ActivationsError, match="activations init"):
        world.engine().sync("people")


def test_no_warehouse_file_is_a_message_of_its_own(duckdb_world: World) -> None:
    (duckdb_world.root / "var/warehouse.duckdb").unlink()
    with pytest.raises(ActivationsError, match="no warehouse file"):
        duckdb_world.engine().sync("people")


def test_a_finished_run_leaves_no_plan_behind(world: World) -> None:
    world.add("a").run()
    world.engine().plan("people")
    assert list((world.root / "var/plans").iterdir()) == []


def test_a_preview_writes_nothing(world: World) -> None:
    world.add("a").build()
    plan = world.engine().plan("people")
    assert plan.counts.added == 1
    assert world.other.requests == 0
    assert [run.run_status for run in world.engine().status()] == [RunStatus.NEVER_RUN]


def test_an_interrupted_run_says_what_it_did_and_is_in_the_ledger(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_second(other: OtherSide, request: Request) -> Response:
        if other.requests == 2:
            raise Killed
        return other.accept(request)

    monkeypatch.setattr(SignedWebhook, "capabilities", replace(SignedWebhook.capabilities, max_batch_rows=1))
    world.other.always = die_second
    with pytest.raises(Killed):
        world.add("a", "b").run()
    world.other.always = None
    world.run()
    found = world.query(
        "select run_status, delivered, in_doubt from activation.sync_runs order by started_at"
    )
    assert found == [("interrupted", 1, 1), ("succeeded", 1, 0)]


def test_an_old_epoch_writes_nothing(tmp_path: Path) -> None:
    journal = Journal(SQLiteStore(tmp_path / "j.sqlite3"), audit_key=b"k", key_check="c", now=FakeClock().now)
    with journal.lease("people", "first") as lease:
        pass
    with journal.lease("people", "second"), pytest.raises(Fenced):
        journal.postpone(lease, "hook", FakeClock().now())
    with pytest.raises(Fenced):
        journal.merged(Lease(sync="people", epoch=1), 1, [])
    journal.close()


def test_a_destination_that_keeps_failing_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SignedWebhook, "capabilities", replace(SignedWebhook.capabilities, max_batch_rows=1))
    world.other.always = status(500)
    run = world.add(*(f"p{n}" for n in range(20))).run()
    assert (run.run_status, world.other.requests) == (RunStatus.FAILED, deliverer.FAILURES_IN_A_ROW)
    assert run.in_doubt + run.retryable == 20


def test_a_failed_plan_leaves_no_draft(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from activations.planning import freezing

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    world.add("a").build()
    monkeypatch.setattr(freezing.os, "fsync", full)
    with pytest.raises(MachineError, match="the disk that holds var/plans is full"):
        world.engine().plan("people")
    assert list((world.root / "var/plans").iterdir()) == []


def test_a_lost_or_damaged_key_is_an_error_not_an_amnesty(world: World) -> None:
    world.add("a").run()
    key = world.root / "var/hash.key"
    kept = key.read_text()
    for damage in (None, "", "zz"):
        key.unlink() if damage is None else key.write_text(damage)
        with pytest.raises(SecretError, match="backup"):
            world.run()
        key.unlink(missing_ok=True)
    key.write_text(kept)
    assert world.run().counts.planned == 0
