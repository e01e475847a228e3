"""What a destination holds, over several runs: nobody stays there whom nobody wants, and no older value."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

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


def test_a_ledger_older_than_the_journal_is_refused(world: World) -> None:
    world.add("a").run()
    world.store.execute("delete from activation.sync_snapshot", "delete from activation.merge_mark")
    with pytest.raises(PlanRejected, match="older than the journal"):
        world.run()


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
