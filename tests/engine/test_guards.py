"""What holds a plan back, who may let it pass, and what nothing may hold back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activations.config import Guard
from activations.errors import ActivationsError, PlanRejected
from activations.guards import Shape, checks, held_because
from activations.model import RunStatus
from tests.engine.world import (
    World,
    cannot_connect,
    lost_after,
    status,
)


@pytest.fixture
def guarded(make_world: Callable[..., World]) -> World:
    world = make_world(guard={"max_removed_share": 0.2, "floor_rows": 2})
    world.add(*(f"p{n:02}" for n in range(20))).run()
    return world


def people(first: int, last: int) -> list[str]:
    return [f"p{n:02}" for n in range(first, last)]


def test_a_mass_removal_is_held_and_sends_nothing(guarded: World) -> None:
    run = guarded.drop(*people(0, 10)).run()
    assert run.run_status is RunStatus.HELD
    assert "remove 10 of 20 rows, 50% (max_removed_share: 0.2)" in (run.held_reason or "")
    assert len(guarded.other.held) == 20


def test_an_emptied_audience_is_held_whatever_its_size(world: World) -> None:
    world.add("a", "b").run()
    assert world.drop("a", "b").run().run_status is RunStatus.HELD


def test_people_who_asked_leave_even_while_the_plan_is_held(guarded: World) -> None:
    for person, reason in zip(people(15, 19), ("consent", "objection", "suppressed", "erased"), strict=True):
        guarded.block(person, reason)
    run = guarded.drop(*people(0, 10)).run()
    assert (run.run_status, run.delivered) == (RunStatus.HELD, 4)
    assert not guarded.other.emails & {f"{p}@example.com" for p in people(15, 19)}
    assert len(guarded.other.held) == 16


def test_their_removals_do_not_count_toward_the_guard(guarded: World) -> None:
    for person in people(0, 15):
        guarded.block(person, "consent")
    assert guarded.run().run_status is RunStatus.SUCCEEDED
    assert len(guarded.other.held) == 5


def test_a_released_plan_passes_once(guarded: World) -> None:
    guarded.drop(*people(0, 10)).run()
    guarded.engine().release("people", by="someone", note="the shop was sold")
    run = guarded.run()
    assert (run.run_status, run.delivered) == (RunStatus.SUCCEEDED, 10)
    guarded.drop(*people(10, 15))
    assert guarded.run().run_status is RunStatus.HELD, "a new plan needs a new release"


def test_a_release_is_bound_to_the_plan_it_was_given_for(guarded: World) -> None:
    guarded.drop(*people(0, 10)).run()
    guarded.engine().release("people", by="someone", note="")
    assert guarded.drop("p10").run().run_status is RunStatus.HELD
    assert len(guarded.other.held) == 20


def test_a_sync_is_ended_by_an_audience_of_nobody_that_somebody_lets_pass(guarded: World) -> None:
    assert guarded.drop(*people(0, 20)).run().run_status is RunStatus.HELD
    guarded.engine().release("people", by="someone", note="the campaign is over")
    assert guarded.run().run_status is RunStatus.SUCCEEDED
    assert not guarded.other.held


def test_only_a_held_plan_can_be_released_and_the_release_is_audited(guarded: World) -> None:
    with pytest.raises(PlanRejected, match="not held"):
        guarded.engine().release("people", by="someone", note="")
    guarded.drop(*people(0, 10)).run()
    guarded.engine().release("people", by="someone", note="")
    assert guarded.engine().verify_audit() == 1


@pytest.mark.parametrize("gone", ["seq = 2", "true"])
def test_a_missing_audit_line_is_noticed(guarded: World, gone: str) -> None:
    for person in ("p01", "p02"):
        guarded.engine().suppress([person], channel="all", reason="objection", source="test")
    guarded.store.execute_in_journal(f"delete from audit where {gone}")
    with pytest.raises(ActivationsError, match="more were written"):
        guarded.engine().verify_audit()


def test_an_altered_audit_line_is_noticed(guarded: World) -> None:
    guarded.engine().suppress(["p01"], channel="all", reason="objection", source="test")
    guarded.store.execute_in_journal("update audit set event = replace(event, 'objection', 'nothing')")
    with pytest.raises(ActivationsError, match="was altered"):
        guarded.engine().verify_audit()


counts = st.integers(0, 10_000)


@given(
    st.builds(
        Shape,
        audience_size=counts,
        held=counts,
        added=counts,
        changed=counts,
        removed=counts,
        is_append=st.just(False),
    )
)
def test_more_removals_never_pass_where_fewer_were_held(shape: Shape) -> None:

    fewer, more = (
        held_because(checks(Guard(), shape), approved=False),
        held_because(checks(Guard(), replace(shape, removed=shape.removed + 1)), approved=False),
    )
    assert fewer is None or more is not None


def test_an_empty_audience_is_held_also_the_first_time(world: World) -> None:
    run = world.run()
    assert run.run_status is RunStatus.HELD and "the audience is empty" in (run.held_reason or "")


def test_messages_have_an_absolute_limit(make_world: Callable[..., World]) -> None:
    world = make_world(mode="append", guard={"max_added_rows": 2})
    assert world.add("a", "b", "c").run().run_status is RunStatus.HELD
    assert world.other.requests == 0


def test_people_who_may_be_there_count_for_the_guard(make_world: Callable[..., World]) -> None:
    world = make_world(guard={"floor_rows": 0})
    world.other.script.append(lost_after)
    world.add(*"abcdefgh").run()
    assert world.drop(*"abcdefg").run().run_status is RunStatus.HELD


def test_a_release_outlives_a_run_that_could_not_send_and_not_its_term(
    make_world: Callable[..., World],
) -> None:
    world = make_world(guard={"floor_rows": 0, "max_added_share": 100})
    world.add(*"abcdefgh").run()
    world.drop(*"abcdefg").run()
    world.engine().release("people", by="ops", note="")
    world.other.always = cannot_connect
    assert world.run().run_status is RunStatus.FAILED
    world.other.always = None
    world.clock.sleep(timedelta(hours=25).total_seconds())
    assert world.run().run_status is RunStatus.HELD, "the release ran out"
    world.engine().release("people", by="ops", note="")
    assert world.run().delivered == 7
    world.add(*"abcdefg").run()
    assert world.drop(*"abcdefg").run().run_status is RunStatus.HELD, "used once"


def test_rows_in_doubt_settle_without_a_release(make_world: Callable[..., World]) -> None:
    """Asserting them again is no new addition and no new change, however many they are."""
    world = make_world(guard={"floor_rows": 0})
    world.other.script.append(status(500))
    assert world.add(*"abcdefgh").run().in_doubt == 8
    assert world.run().delivered == 8
    world.clock.sleep(3600)
    assert (world.run().delivered, world.run().counts.planned) == (8, 0)
