"""Cases in which an engine that looks right is wrong: each of them was, or could be, a person left behind, a message
sent twice, or a no that was not heard."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activations.config import FieldMapping, OnNull
from activations.delivery import deliverer
from activations.delivery.rate import RateLimiter, retry_after
from activations.destinations.webhook import SignedWebhook
from activations.errors import ActivationsError, BatchRefused, Fenced, MachineError, PlanRejected, SecretError
from activations.journal import Journal, Lease
from activations.journal.sqlite import SQLiteStore
from activations.model import Batch, Operation, Outcome, Request, Response, RunStatus
from tests.engine.world import (
    Answer,
    FakeClock,
    Killed,
    OtherSide,
    World,
    cannot_connect,
    killed_after,
    killed_before,
    lost_after,
    refuse_rows,
    status,
)


@pytest.fixture
def messages(make_world: Callable[..., World]) -> World:
    return make_world(mode="append")


def score_is(value: int) -> Callable[[object], bool]:
    return lambda change: change["fields"].get("score") == value  # type: ignore[index]


# -- a no that has to be heard -----------------------------------------------------------------------------------


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


def test_two_answers_about_one_person_are_an_error_not_a_yes(world: World) -> None:
    world.add("a").build()
    world.store.execute(
        "insert into eligibility.fct_eligibility select person_id, channel, purpose, false, false, 'consent', 'consent', null, evaluated_at from eligibility.fct_eligibility where person_id = 'a'"
    )
    with pytest.raises(PlanRejected, match="there may be one row per person"):
        world.engine().sync("people")


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


# -- people who must not be left behind --------------------------------------------------------------------------


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


# -- messages ----------------------------------------------------------------------------------------------------


def refuse_late(self: SignedWebhook, batch: Batch) -> object:
    """A destination that takes the batch with its first request and refuses it with the second."""
    yield Request(
        method="POST",
        url="https://x",
        json_body={
            "changes": [
                {
                    "key": c.pseudonym,
                    "operation": c.operation.value,
                    "identifiers": dict(c.identifiers),
                    "fields": {},
                }
                for c in batch.changes
            ]
        },
    )
    yield Request(method="POST", url="https://x", json_body={"changes": []})
    raise BatchRefused("late")


def test_a_batch_refused_after_something_was_taken_is_in_doubt_not_repeated(
    messages: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SignedWebhook, "exchange", refuse_late)
    run = messages.add("a", "b").run()
    assert (run.in_doubt, sorted(email for _, _, email in messages.other.received)) == (
        2,
        ["a@example.com", "b@example.com"],
    )


def test_a_refusal_in_the_first_answer_took_nothing(messages: World) -> None:
    messages.other.always = status(404)
    run = messages.add("a").run()
    assert run.in_doubt == 0 and run.retryable + run.rejected == 1


def test_a_row_refused_at_the_claim_is_not_in_doubt_when_the_engine_dies(
    messages: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def suppress_meanwhile(self: deliverer.Deliverer, rows: object) -> bool:
        messages.engine().suppress(["b"], channel="all", reason="objection", source="test")
        return False

    messages.add("a", "b").other.script.append(killed_before)
    with monkeypatch.context() as patch:
        patch.setattr(deliverer.Deliverer, "_is_too_heavy", suppress_meanwhile)
        with pytest.raises(Killed):
            messages.run()
        patch.setattr("activations.run.is_gone", lambda _: True)
        [shown] = messages.engine().status()
        assert (shown.in_doubt, shown.suppressed) == (1, 1)
    run = messages.run()
    assert dict(run.counts.waiting_by_reason) == {"in_doubt": 1}
    assert dict(run.counts.ineligible_by_reason) == {"suppressed": 1}


# -- runs, guards, approvals -------------------------------------------------------------------------------------


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


def test_a_destination_that_keeps_failing_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SignedWebhook, "capabilities", replace(SignedWebhook.capabilities, max_batch_rows=1))
    world.other.always = status(500)
    run = world.add(*(f"p{n}" for n in range(20))).run()
    assert (run.run_status, world.other.requests) == (RunStatus.FAILED, deliverer.FAILURES_IN_A_ROW)
    assert run.in_doubt + run.retryable == 20


def test_a_null_is_left_out_or_clears_as_the_mapping_says(world: World) -> None:
    world.configure(fields={"score": {"column": "score", "on_null": "clear"}, "event": "event_id"})
    world.add("a", score=None, event_id=None).run()
    [row] = world.other.held.values()
    assert row == {"email": "a@example.com", "score": None}
    assert FieldMapping(column="x").on_null is OnNull.OMIT


def test_no_value_escapes_with_an_error_of_the_warehouse(world: World) -> None:
    world.add("a").build()
    world.store.execute(
        "create table audiences.base as select * from audiences.aud_people",
        "drop table audiences.aud_people",
        "create view audiences.aud_people as select person_id, email, cast(email as integer) as score, event_id from audiences.base",
    )
    with pytest.raises(ActivationsError) as caught:
        world.engine().sync("people")
    assert "@" not in str(caught.value) and caught.value.__cause__ is None


def test_a_failed_plan_leaves_no_draft(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from activations.planning import freezing

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    world.add("a").build()
    monkeypatch.setattr(freezing.os, "fsync", full)
    with pytest.raises(MachineError, match="the disk that holds var/plans is full"):
        world.engine().plan("people")
    assert list((world.root / "var/plans").iterdir()) == []


# -- transport and rate ------------------------------------------------------------------------------------------


def test_waiting_workers_hear_of_a_retry_after() -> None:
    clock = FakeClock()
    limiter = RateLimiter(1.0, clock, reserve=lambda *_: clock.now())
    limiter.wait()
    started = clock.monotonic()
    asleep = clock.sleep

    def told_meanwhile(seconds: float, *_: object) -> None:
        clock.sleep = asleep  # type: ignore[method-assign]
        limiter.postpone(30)
        asleep(seconds)

    clock.sleep = told_meanwhile  # type: ignore[method-assign]
    limiter.wait()
    assert clock.monotonic() - started >= 30


@pytest.mark.parametrize("value", ["²", "", "soon", "Wed, 99 Foo", "99999999999999999999999"])
def test_no_retry_after_breaks_the_run(value: str) -> None:
    response = Response(status=429, headers={"retry-after": value})
    assert 0 <= retry_after(response, FakeClock().now(), default=1.0) <= 3600


def test_operations_and_outcomes_have_the_names_the_ledger_uses() -> None:
    assert [o.value for o in Operation] == ["added", "changed", "removed"]
    assert {o.value for o in Outcome} == {"delivered", "rejected", "retryable", "unknown", "suppressed"}


def test_a_journal_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    import sqlite3

    def open_it() -> Journal:
        return Journal(
            SQLiteStore(tmp_path / "j.sqlite3"), audit_key=b"k", key_check="c", now=FakeClock().now
        )

    open_it().close()
    with sqlite3.connect(tmp_path / "j.sqlite3") as db:
        db.execute("pragma user_version = 99")
    with pytest.raises(ActivationsError, match="another version"):
        open_it()


def test_a_shorter_wait_does_not_end_a_longer_one(tmp_path: Path) -> None:
    """Two requests in flight, two answers: the second one asks for less."""
    clock = FakeClock()
    journal = Journal(SQLiteStore(tmp_path / "j.sqlite3"), audit_key=b"k", key_check="c", now=clock.now)
    with journal.lease("people", "me") as lease:
        long, short = clock.now() + timedelta(seconds=90), clock.now() + timedelta(seconds=2)
        journal.postpone(lease, "hook", long)
        journal.postpone(lease, "hook", short)
    assert journal.not_before("hook") == long
    journal.close()


def test_rows_in_doubt_settle_without_a_release(make_world: Callable[..., World]) -> None:
    """Asserting them again is no new addition and no new change, however many they are."""
    world = make_world(guard={"floor_rows": 0})
    world.other.script.append(status(500))
    assert world.add(*"abcdefgh").run().in_doubt == 8
    assert world.run().delivered == 8
    world.clock.sleep(3600)
    assert (world.run().delivered, world.run().counts.planned) == (8, 0)
