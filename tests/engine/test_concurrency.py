"""Several requests in flight at once change nothing but the time it takes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from activations.journal import Claim, Journal
from activations.model import Request, Response, RunStatus
from tests.engine.world import Killed, OtherSide, World, refuse_batch_with


@pytest.fixture
def parallel(make_world: Callable[..., World]) -> World:
    """Eight requests in flight, two rows each."""
    world = make_world()
    world.configure_account(concurrency=8, batch_rows=2)
    return world.add(*(f"p{n:03}" for n in range(100)))


class AtOnce:
    """An other side that takes its time: how many requests were inside it together."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.lock = threading.Lock()
        self.barrier = threading.Barrier(8)

    def __call__(self, other: OtherSide, request: Request) -> Response:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            is_in_the_round = 24 < other.requests <= 32  # by then the pace has grown to what is allowed
        if is_in_the_round:
            self.barrier.wait(timeout=10)
        with self.lock:
            self.inside -= 1
            return other.accept(request)


def test_every_row_is_sent_once_with_the_allowed_number_in_flight(parallel: World) -> None:
    parallel.other.always = AtOnce()
    run = parallel.run()
    assert (run.delivered, run.requests, run.run_status) == (100, 50, RunStatus.SUCCEEDED)
    assert parallel.other.always.most == 8
    assert set(Counter(key for _, key, _ in parallel.other.received).values()) == {1}
    assert parallel.run().counts.planned == 0


def test_an_answer_is_recorded_while_as_many_as_allowed_are_in_flight(
    parallel: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel.configure_account(concurrency=2, batch_rows=2)
    record, is_recording, have_met = Journal.record_delivered, threading.Event(), threading.Event()
    recorder_and_two_requests = threading.Barrier(3, action=have_met.set)

    def record_slowly(self: Journal, *arguments: Any, **options: Any) -> None:
        if not is_recording.is_set():
            is_recording.set()
            recorder_and_two_requests.wait(timeout=10)
        record(self, *arguments, **options)

    def answer(other: OtherSide, request: Request) -> Response:
        if is_recording.is_set() and not have_met.is_set():
            recorder_and_two_requests.wait(timeout=10)
        return other.accept(request)

    monkeypatch.setattr(Journal, "record_delivered", record_slowly)
    parallel.other.always = answer
    assert parallel.run().delivered == 100


class Intents:
    """How many intents were committed at most that had no answer yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = self.most = 0
        self.changed = threading.Condition()
        claim = Journal.claim

        def counted(journal: Journal, *arguments: Any, **options: Any) -> Claim | None:
            claimed = claim(journal, *arguments, **options)
            self._count(1)
            return claimed

        monkeypatch.setattr(Journal, "claim", counted)

    def _count(self, change: int) -> None:
        with self.changed:
            self.open += change
            self.most = max(self.most, self.open)
            self.changed.notify_all()

    def answer_at(self, number: int, patience: float) -> Callable[[OtherSide, Request], Response]:
        """Nobody has an answer before so many intents were open, or after some patience."""

        def answer(other: OtherSide, request: Request) -> Response:
            with self.changed:
                self.changed.wait_for(lambda: self.most >= number, timeout=patience)
                response = other.accept(request)
            self._count(-1)
            return response

        return answer


def test_the_next_intent_is_committed_while_as_many_as_allowed_are_in_flight(
    parallel: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel.configure_account(concurrency=2, batch_rows=2)
    intents = Intents(monkeypatch)
    parallel.other.always = intents.answer_at(3, patience=10)
    assert parallel.run().delivered == 100
    assert intents.most == 3, "two in flight, one ahead"


@pytest.mark.parametrize(("mode", "rate"), [("append", None), ("mirror", 10_000)])
def test_no_intent_is_committed_ahead_of_a_message_or_of_a_place_in_a_rate(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, mode: str, rate: float | None
) -> None:
    world = make_world(mode=mode).add(*(f"p{n}" for n in range(20)))
    world.configure_account(concurrency=2, batch_rows=2, rate_limit=rate)
    intents = Intents(monkeypatch)
    world.other.always = intents.answer_at(3, patience=0.05)
    assert world.run().delivered == 20
    assert intents.most == 2


def test_bad_rows_are_isolated_while_others_are_in_flight(parallel: World) -> None:
    parallel.other.always = refuse_batch_with(
        lambda change: change["identifiers"].get("email", "").startswith("p00")
    )
    run = parallel.run()
    assert (run.delivered, run.rejected) == (90, 10)
    assert parallel.query("select count(*) from activation.sync_changelog") == [(100,)]


def test_an_error_in_one_worker_ends_the_run_and_loses_nothing(parallel: World) -> None:
    def die_once(other: OtherSide, request: Request) -> Response:
        if other.requests == 10:
            raise Killed
        return other.accept(request)

    parallel.other.always = die_once
    with pytest.raises(Killed):
        parallel.run()
    parallel.other.always = None
    parallel.run()
    assert len(parallel.other.held) == 100


def test_removals_are_settled_before_anything_else_leaves(parallel: World) -> None:
    parallel.run()
    parallel.other.received.clear()
    for n in range(0, 100, 2):
        parallel.set(f"p{n:03}", email=f"new{n}@example.com")
    parallel.run()
    operations = [operation for operation, _, _ in parallel.other.received]
    assert operations == ["removed"] * 50 + ["added"] * 50
