"""What holds a plan back, who may let it pass, and what nothing may hold back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activations.config import Guard
from activations.destinations.base import Exchange
from activations.destinations.webhook import SignedWebhook
from activations.errors import ActivationsError, PlanRejected
from activations.guards import Shape, checks, held_because
from activations.model import Batch, Request, Response, RunStatus, Wait
from tests.engine.world import OtherSide, World


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


def test_an_altered_audit_line_is_noticed(guarded: World) -> None:
    guarded.engine().suppress(["p01"], channel="all", reason="objection", source="test")
    guarded.store.execute_in_journal("update audit set event = replace(event, 'objection', 'nothing')")
    with pytest.raises(ActivationsError, match="was altered"):
        guarded.engine().verify_audit()


def test_a_suppressed_person_is_removed_by_the_next_run(world: World) -> None:
    world.add("a", "b").run()
    world.engine().suppress(["A@Example.com "], channel="email", reason="objection", source="test")
    run = world.run()
    assert (run.counts.removed, dict(run.counts.ineligible_by_reason)) == (1, {"suppressed": 1})
    assert world.other.emails == {"b@example.com"}


def test_a_suppression_by_person_covers_every_channel_it_names(world: World) -> None:
    world.engine().suppress(["a"], channel="all", reason="objection", source="test")
    assert world.add("a", "b").run().delivered == 1
    assert world.other.emails == {"b@example.com"}


def test_consent_withdrawn_between_plan_and_send_is_honoured(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests: while the first is under way, a person of the second withdraws."""
    from dataclasses import replace

    world = make_world()
    monkeypatch.setattr(SignedWebhook, "capabilities", replace(SignedWebhook.capabilities, max_batch_rows=1))

    def withdraw_meanwhile(other: OtherSide, request: Request) -> Response:
        world.engine().suppress(["b@example.com"], channel="email", reason="withdrawn", source="test")
        return other.accept(request)

    world.other.script.append(withdraw_meanwhile)
    run = world.add("a", "b", "c").run()
    assert (run.delivered, run.suppressed) == (2, 1)
    assert world.other.emails == {"a@example.com", "c@example.com"}


@pytest.fixture
def in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A destination that is sent the rows once more after a minute, as a job that first has to be done."""
    exchange = SignedWebhook.exchange

    def twice(self: SignedWebhook, batch: Batch) -> Exchange:
        yield from exchange(self, batch)
        yield Wait(seconds=60)
        return (yield from exchange(self, batch))

    monkeypatch.setattr(SignedWebhook, "exchange", twice)


@pytest.mark.usefixtures("in_two_steps")
def test_an_exchange_that_takes_long_goes_on_while_nobody_says_no(world: World) -> None:
    run = world.add("a", "b").run()
    assert (run.delivered, run.requests) == (2, 2)


@pytest.mark.usefixtures("in_two_steps")
def test_an_exchange_ends_when_somebody_in_it_says_no(world: World) -> None:
    """The second request leaves after the suppression is effective, so it may not leave at all."""
    effective = []

    def says_no(other: OtherSide, request: Request) -> Response:
        said = world.engine().suppress(["b@example.com"], channel="email", reason="withdrawn", source="test")
        effective.append(said.effective_at)
        return other.accept(request)

    world.other.script.append(says_no)
    run = world.add("a", "b").run()
    assert (world.other.requests, run.in_doubt) == (1, 2)
    assert world.clock.now() > effective[0]
    world.run()
    assert world.other.emails == {"a@example.com"}


def test_missing_rules_and_holdouts_are_errors_not_empty_audiences(make_world: Callable[..., World]) -> None:
    world = make_world(purpose="newsletter")
    world.add("a").build()
    with pytest.raises(ActivationsError, match="built for purpose marketing"):
        world.engine().sync("people")
    world.configure(purpose="marketing", holdout="no_such_holdout")
    with pytest.raises(PlanRejected, match="no_such_holdout"):
        world.engine().sync("people")


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
    from dataclasses import replace

    fewer, more = (
        held_because(checks(Guard(), shape), approved=False),
        held_because(checks(Guard(), replace(shape, removed=shape.removed + 1)), approved=False),
    )
    assert fewer is None or more is not None
