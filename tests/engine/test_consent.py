"""A no is heard, whenever and however it was said; a yes that nobody gave is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from activations.destinations.base import Exchange
from activations.destinations.webhook import SignedWebhook
from activations.errors import ActivationsError, PlanRejected
from activations.journal import Journal
from activations.model import Batch, Request, Response, RunStatus, Wait
from tests.engine.world import (
    OtherSide,
    World,
)


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


@pytest.mark.parametrize(
    ("person", "email", "said"),
    [
        ("P1", "a@example.com", "P1"),
        ("p", "straße@example.com", "straße@example.com"),
        ("p", "A.B@Example.COM", "a.b@example.com "),
    ],
)
def test_a_suppression_is_found_however_it_was_written(
    world: World, person: str, email: str, said: str
) -> None:
    world.add(person, email=email).add("other").run()
    world.engine().suppress([said], channel="all", reason="objection", source="test")
    run = world.run()
    assert (run.counts.removed, world.other.emails) == (1, {"other@example.com"})


def test_a_suppressed_person_who_left_is_removed_although_the_plan_is_held(
    make_world: Callable[..., World],
) -> None:
    world = make_world(guard={"floor_rows": 0})
    world.add(*"abcdefgh").run()
    world.engine().suppress(["a"], channel="all", reason="objection", source="test")
    run = world.drop(*"abcde").run()
    assert run.run_status is RunStatus.HELD
    assert "a@example.com" not in world.other.emails and len(world.other.held) == 7


def test_a_lifted_suppression_no_longer_holds(world: World) -> None:
    engine = world.add("a").engine()
    engine.suppress(["a"], channel="email", reason="mistake", source="test")
    assert world.run().run_status is RunStatus.SUCCEEDED
    assert world.other.held == {}
    assert engine.lift(["a"], channel="email", reason="mistake", source="test") > 0
    assert world.run().delivered == 1


def test_consent_withdrawn_between_plan_and_send_is_honoured(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests: while the first is under way, a person of the second withdraws."""

    world = make_world()
    monkeypatch.setattr(SignedWebhook, "capabilities", replace(SignedWebhook.capabilities, max_batch_rows=1))

    def withdraw_meanwhile(other: OtherSide, request: Request) -> Response:
        world.engine().suppress(["b@example.com"], channel="email", reason="withdrawn", source="test")
        return other.accept(request)

    world.other.script.append(withdraw_meanwhile)
    run = world.add("a", "b", "c").run()
    assert (run.delivered, run.suppressed) == (2, 1)
    assert world.other.emails == {"a@example.com", "c@example.com"}


def test_a_paused_engine_reads_consent_again_before_it_sends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = Journal.claim
    pauses = iter([60.0])

    def paused(self: Journal, *args: object, **options: object) -> object:
        claim = claimed(self, *args, **options)  # type: ignore[arg-type]
        if pause := next(pauses, 0.0):
            world.clock.sleep(pause)
            world.engine().suppress(["a"], channel="all", reason="objection", source="test")
        return claim

    monkeypatch.setattr(Journal, "claim", paused)
    run = world.add("a", "b").run()
    assert (run.delivered, run.suppressed, world.other.emails) == (1, 1, {"b@example.com"})


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
