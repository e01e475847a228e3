"""A no is heard, whenever and however it was said; a yes that nobody gave is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

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
from tests.warehouses.stores import locked


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
    assert engine.lift(["a"], channel="email", reason="mistake", source="test") == 1
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


# -- the warehouse knows a person's other names ------------------------------------------------------------------


def test_a_no_by_any_of_their_names_is_a_no(world: World) -> None:
    world.other_names = [("a", "+491701234567"), ("a", "old@example.com")]
    world.add("a", "b").build()
    said = world.engine().suppress(
        ["OLD@example.com", "+4999"], channel="all", reason="objection", source="test"
    )
    assert (said.known, said.unasked) == (1, None)
    assert world.run().delivered == 1
    assert world.other.emails == {"b@example.com"}


def test_it_is_said_when_nobody_could_be_asked_for_the_other_names(duckdb_world: World) -> None:
    world = duckdb_world.add("a", "b").build()
    suppress = partial(world.engine().suppress, channel="all", reason="objection", source="test")
    with locked(world.root / "var"):
        said = suppress(["a@example.com"])
        assert said.known == 0 and "holds warehouse.duckdb" in str(said.unasked)
    world.run()
    assert world.other.emails == {"b@example.com"}, "what was named is suppressed all the same"


def test_a_no_outlives_that_two_people_become_one(world: World) -> None:
    """Persons merge and split; whom a no is about is known by all their identifiers, not by one id."""
    world.other_names = [("a", "+491701234567")]
    world.add("a", "b").run()
    world.engine().suppress(["+491701234567"], channel="all", reason="objection", source="test")
    world.run()
    world.other_names = []
    world.drop("a").add("merged", email="a@example.com").run()
    assert world.other.emails == {"b@example.com"}


def test_taking_one_no_back_leaves_another_one(world: World) -> None:
    world.other_names = [("a", "+491701234567")]
    world.add("a", "b").build()
    for said in ("+491701234567", "a@example.com"):
        world.engine().suppress([said], channel="all", reason="objection", source="test")
    assert world.engine().lift(["A@example.com"], channel="all", reason="mistake", source="test") == 1
    world.run()
    assert world.other.emails == {"b@example.com"}
    assert world.engine().lift(["+491701234567"], channel="all", reason="mistake", source="test") == 1
    world.run()
    assert world.other.emails == {"a@example.com", "b@example.com"}


@pytest.mark.parametrize(("key", "said"), [("C-1", "c-1"), ("c-1", "C-1")])
def test_a_person_is_called_by_their_id_in_any_case(world: World, key: str, said: str) -> None:
    world.add(key, email="c@example.com").add("b").run()
    world.engine().suppress([said], channel="all", reason="objection", source="test")
    world.run()
    assert world.other.emails == {"b@example.com"}


def test_of_two_rows_of_one_person_the_one_that_said_no_leaves(world: World) -> None:
    """Nobody knows which of the two is right, but whoever is there by the address of the one said no."""
    world.add("p", email="first@example.com").run()
    world.add("p", email="second@example.com").build()
    world.engine().suppress(["first@example.com"], channel="all", reason="objection", source="test")
    world.engine().sync("people")
    assert world.other.emails == set()


@pytest.mark.parametrize(
    ("email", "said"),
    [
        ("jose\u0301@example.com", "jos\u00e9@example.com"),
        ("stra\u00dfe@example.com", "STRASSE@example.com"),
        ("\ufb01nn@example.com", "finn@example.com"),
        ("\u0130pek@example.com", "\u0130pek@example.com"),
    ],
)
def test_who_is_there_leaves_whichever_way_their_letters_are_written(
    world: World, email: str, said: str
) -> None:
    world.add("p", email=email).add("b").run()
    world.engine().suppress([said], channel="all", reason="objection", source="test")
    world.run()
    assert world.other.emails == {"b@example.com"}


@pytest.mark.parametrize("blockers", ["jurisdiction,consent", "jurisdiction,erased,consent"])
def test_who_withdrew_leaves_whatever_else_stands_in_their_way(
    make_world: Callable[..., World], blockers: str
) -> None:
    world = make_world(guard={"floor_rows": 0})
    world.add(*"abcdefgh").run()
    world.drop(*"bcde").block("a", "jurisdiction").build()
    world.store.execute(
        f"update eligibility.fct_eligibility set blockers = '{blockers}' where person_id = 'a'"
    )
    run = world.engine().sync("people")
    assert (run.run_status, run.delivered) == (RunStatus.HELD, 1)
    assert "a@example.com" not in world.other.emails and len(world.other.held) == 7
