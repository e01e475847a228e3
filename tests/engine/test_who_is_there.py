"""What a destination holds, over several runs: nobody stays there whom nobody wants, and no older value."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from activations.errors import ActivationsError, PlanRejected
from activations.model import Request, Response, RunStatus
from tests.engine.world import (
    Answer,
    Killed,
    OtherSide,
    World,
    cannot_connect,
    killed_after,
    lost_after,
    lost_before,
    refuse_rows,
)

BY = {"by": "ops", "note": "looked into it"}


def score_is(value: int) -> Callable[[object], bool]:
    return lambda change: change["fields"].get("score") == value  # type: ignore[index]


def test_state_that_returns_is_a_new_occasion_for_a_receiver_that_deduplicates(world: World) -> None:
    keys: list[str] = []

    def remember(other: OtherSide, request: Request) -> Response:
        keys.append(request.headers["webhook-id"])
        return other.accept(request)

    world.other.always = remember
    world.add("a", "b").run()
    world.drop("a").run()
    world.add("a").run()
    assert len(set(keys)) == 3


def test_an_upsert_hands_an_address_over(make_world: Callable[..., World]) -> None:
    world = make_world(mode="upsert")
    world.add("a", email="x@example.com").run()
    run = world.drop("a").add("b", email="x@example.com", score=7).run()
    assert (run.delivered, run.counts.invalid) == (1, 0)


def test_whose_address_was_handed_over_comes_back_to_an_address_that_is_taken(
    make_world: Callable[..., World],
) -> None:
    """Otherwise two members would overwrite each other in turn, and the one that leaves take the other one along."""
    world = make_world(mode="upsert")
    world.add("a", email="x@example.com").add("z").run()
    world.drop("a").add("b", email="x@example.com", score=7).run()
    assert world.add("a", email="x@example.com").run().counts.invalid == 1
    world.configure(mode="mirror")
    world.run()
    world.drop("a").run()
    assert world.run().counts.planned == 0
    assert world.other.emails == {"x@example.com", "z@example.com"}


def test_a_value_in_doubt_then_refused_is_corrected_when_it_returns(world: World) -> None:
    world.add("a", score=1).add("b").run()
    world.other.script.append(lost_after)
    world.set("a", score=2).run()
    world.other.always = refuse_rows(score_is(3))
    assert world.set("a", score=3).run().rejected == 1
    world.other.always = None
    world.set("a", score=1).run()
    assert {row["score"] for row in world.other.held.values()} == {1}


def test_someone_refused_after_doubt_who_leaves_is_removed(world: World) -> None:
    world.add("b").run()
    world.other.script.append(lost_after)
    world.add("a", score=2).run()
    world.other.always = refuse_rows(score_is(3))
    assert world.set("a", score=3).run().rejected == 1
    world.other.always = None
    world.drop("a").run()
    assert world.other.emails == {"b@example.com"}


def test_a_corrected_case_is_the_same_person(world: World) -> None:
    world.add("a", email="A@example.com").run()
    assert world.set("a", email="a@example.com").run().counts.planned == 0


def test_refused_rows_that_nobody_wants_any_more_are_forgotten(world: World) -> None:
    world.other.always = refuse_rows(score_is(13))
    world.add("b").add("a", score=13).run()
    assert world.query("select count(*) from activation.rejected_records") == [(1,)]
    world.drop("a").run()
    assert world.query("select count(*) from activation.rejected_records") == [(0,)]


# -- another place, an older ledger ----------------------------------------------------------------------------------


def test_a_sync_that_points_elsewhere_is_refused_until_somebody_decides(world: World) -> None:
    world.add("a").run()
    world.configure_account(url="https://hooks.example.com/y")
    with pytest.raises(PlanRejected, match="points to another account or place"):
        world.run()
    world.engine().forget("people", by="ops", note="moved")
    assert world.run().delivered == 1
    assert world.run().counts.planned == 0


@pytest.mark.parametrize("fault", [lost_after, killed_after])
def test_a_sync_that_is_pointed_elsewhere_before_its_first_run_was_settled_is_refused(
    world: World, fault: Answer
) -> None:
    world.other.script.append(fault)
    with suppress(Killed):
        world.add("a").run()
    world.configure_account(url="https://hooks.example.com/y")
    with pytest.raises(PlanRejected, match="points to another account or place"):
        world.run()
    with pytest.raises(PlanRejected, match="points to another account or place"):
        world.engine().plan("people")
    world.configure_account(url="https://hooks.example.com/x")
    assert world.run().run_status is RunStatus.SUCCEEDED
    assert world.other.emails == {"a@example.com"}


def test_a_place_that_took_nobody_is_left_without_a_decision(world: World) -> None:
    world.other.always = refuse_rows(lambda _: True)
    assert world.add("a").run().rejected == 1
    world.configure_account(url="https://hooks.example.com/y")
    world.other.always = None
    world.engine().retry("people", by="ops", note="a typing error in the address")
    assert world.run().delivered == 1


def lose_the_ledger(world: World) -> None:
    """As a warehouse that was restored from before the first run."""
    world.store.execute("delete from activation.sync_snapshot", "delete from activation.merge_mark")


def test_a_ledger_older_than_the_journal_is_refused(world: World) -> None:
    world.add("a").run()
    lose_the_ledger(world)
    with pytest.raises(PlanRejected, match="older than the journal"):
        world.run()


@pytest.mark.parametrize("command", ["plan", "sync"])
def test_it_is_refused_also_while_the_ledger_lacks_something_of_later(world: World, command: str) -> None:
    """Whatever is merged into an older ledger makes it look as new as any: who left since then would stay there."""
    world.add("a", "b").run()
    world.other.script.append(killed_after)
    with pytest.raises(Killed):
        world.add("c").run()
    lose_the_ledger(world)
    world.drop("b").build()
    for _ in range(2):
        with pytest.raises(PlanRejected, match="older than the journal"):
            getattr(world.engine(), command)("people")
    world.engine().forget("people", **BY)
    world.run()
    assert world.query("select count(*) from activation.sync_snapshot") == [(2,)]


def test_a_ledger_that_was_replaced_while_sending_is_said(world: World) -> None:
    world.add("a").run()

    def meanwhile(other: OtherSide, request: Request) -> Response:
        lose_the_ledger(world)
        return other.accept(request)

    world.other.script.append(meanwhile)
    assert "older than the journal" in world.add("b").run().error


def test_a_run_whose_ledger_vanished_while_sending_is_in_the_next_one(duckdb_world: World) -> None:
    world = duckdb_world.add("a").build()

    def meanwhile(other: OtherSide, request: Request) -> Response:
        world.store.execute("drop schema activation cascade")
        return other.accept(request)

    world.other.script.append(meanwhile)
    run = world.engine().sync("people")
    assert "activations init" in run.error
    world.engine().prepare()
    world.run()
    assert (run.run_id,) in world.query("select run_id from activation.sync_runs")


def test_what_a_restored_journal_forgot_is_not_counted_again(duckdb_world: World) -> None:
    """The ledger has numbers of outcomes that the backup gives out once more."""
    world = duckdb_world.add("a")
    world.run()
    journal = world.root / "var/journal.sqlite3"
    backup = journal.read_bytes()
    for person in "bcd":
        world.add(person).run()
    journal.write_bytes(backup)
    assert world.add("z").run().delivered == 1
    assert world.run().counts.planned == 0


def lose_the_journal(world: World) -> None:
    for file in (world.root / "var").glob("journal.sqlite3*"):
        file.unlink()


def test_a_new_journal_does_not_take_the_place_of_a_lost_one_unseen(duckdb_world: World) -> None:
    """Who was in doubt would be forgotten, and stay where they are."""
    world = duckdb_world.add("a")
    world.run()
    world.other.script.append(lost_after)
    world.add("b").run()
    lose_the_journal(world)
    for work in (world.run, lambda: world.engine().plan("people")):
        with pytest.raises(PlanRejected, match="a new one stands in its place"):
            work()
    world.engine().adopt("people", **BY)
    assert world.run().delivered == 2, "everybody is asserted again"
    assert (world.run().counts.planned, world.engine().verify_audit()) == (0, 1)


@pytest.mark.parametrize("command", ["sync", "forget"])
def test_without_its_journal_no_message_is_sent_again_unseen(tmp_path: Path, command: str) -> None:
    world = World(tmp_path, mode="append")
    world.add("sent").run()
    world.other.script.append(lost_after)
    world.add("in doubt", email="doubt@example.com").run()
    lose_the_journal(world)
    with pytest.raises(PlanRejected, match="a new one stands in its place"):
        world.run() if command == "sync" else world.engine().forget("people", **BY)
    assert len(world.other.received) == 2
    world.engine().adopt("people", **BY)
    world.run()
    assert sorted(email for _, _, email in world.other.received) == [
        "doubt@example.com",
        "doubt@example.com",
        "sent@example.com",
    ]


# -- a sync whose file is gone ---------------------------------------------------------------------------------------


def rename(world: World) -> None:
    world.sync_file.rename(world.sync_file.with_name("persons.yml"))


def left_behind(world: World) -> list[str]:
    return [run.sync for run in world.engine().left_behind()]


def test_whoever_is_left_at_a_destination_is_not_passed_over_in_silence(world: World) -> None:
    world.add("a", "b").run()
    assert left_behind(world) == []
    rename(world)
    assert left_behind(world) == ["people"]
    world.engine().forget("people", **BY)
    assert left_behind(world) == []
    assert world.query("select count(*) from activation.sync_snapshot") == [(0,)]
    with pytest.raises(ActivationsError, match="there is no sync"):
        world.engine().forget("people", **BY)


def test_a_sync_that_was_emptied_leaves_nobody(world: World) -> None:
    world.add("a", "b").run()
    assert world.drop("a", "b").run().held_reason
    rename(world)
    assert left_behind(world) == ["people"]
    world.sync_file.with_name("persons.yml").rename(world.sync_file)
    world.engine().release("people", **BY)
    assert world.run().delivered == 2
    rename(world)
    assert left_behind(world) == []


def test_a_last_run_that_failed_may_have_left_somebody(world: World) -> None:
    world.add("a").run()
    world.other.always = cannot_connect
    world.drop("a").run()
    rename(world)
    assert left_behind(world) == ["people"]


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_where_nobody_is_ever_removed_nobody_is_left_behind(
    make_world: Callable[..., World], mode: str
) -> None:
    world = make_world(mode=mode)
    world.add("a").run()
    rename(world)
    assert left_behind(world) == []


def test_a_sync_that_came_back_after_it_was_forgotten_counts_again(world: World) -> None:
    world.add("a").run()
    rename(world)
    world.engine().forget("people", **BY)
    world.sync_file.with_name("persons.yml").rename(world.sync_file)
    world.clock.sleep(1)
    world.run()
    rename(world)
    assert left_behind(world) == ["people"]


def test_who_has_an_invalid_row_may_be_there(world: World) -> None:
    """A key in two rows removes nobody: nobody knows which of them is right."""
    world.add("a").run()
    assert world.add("a").run().counts.invalid == 2
    rename(world)
    assert left_behind(world) == ["people"]


def test_a_removal_that_has_to_be_made_once_more_is_not_made(world: World) -> None:
    world.other.script.append(lost_before)
    world.add("a").run()
    world.drop("a").run()
    world.engine().release("people", **BY)
    world.run()
    rename(world)
    assert left_behind(world) == ["people"]
