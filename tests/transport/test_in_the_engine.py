"""Pace, rate and compression where they meet the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from activations.clock import SystemClock
from activations.config import Egress
from activations.delivery.connections import Gate, NotSent
from activations.delivery.deliverer import SEND_WITHIN, TRIES
from activations.delivery.exchange import Conversation
from activations.delivery.pace import Pace
from activations.delivery.rate import RateLimiter
from activations.delivery.transport import NoAnswer, RequestsTransport
from activations.journal import Claim, Journal, open_journal
from activations.model import Outcome, Request, Response, RunStatus, SyncRun
from activations.runner import Engine, load_project
from activations.sandbox.server import start_in_background
from tests.contract.conftest import make
from tests.contract.driver import a_batch, an_addition
from tests.engine.world import FakeClock, OtherSide, World
from tests.transport.servers import OK, answer, running

SECRET = "whsec_" + "c2VjcmV0" * 5


class Answers:
    """A transport that says one thing."""

    def __init__(self, answer: Response | Exception, clock: FakeClock) -> None:
        self.answer, self.clock = answer, clock

    def send(self, request: Request, *, seconds: float) -> Response:
        self.clock.sleep(0.02)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        (Response(status=200, body=b'{"accepted":true}'), 5),
        (Response(status=400, body=b"{}"), 5),
        (Response(status=429), 2),
        (Response(status=500), 2),
        (Response(status=503), 2),
        (NoAnswer("connection_lost"), 2),
        (NotSent("cannot_connect"), 2),
    ],
)
def test_every_answer_moves_the_pace(answer: Response | Exception, limit: int) -> None:
    clock = FakeClock()
    pace = Pace(8, clock)
    Conversation(
        destination=make("webhook", {"url": "https://hooks.example.com", "signing_secret": SECRET}),
        transport=Answers(answer, clock),
        limiter=RateLimiter(None, clock, reserve=lambda *_: clock.now()),
        pace=pace,
        clock=clock,
        send_by=clock.now() + timedelta(minutes=1),
        renew=lambda: None,
    ).hold(a_batch([an_addition(0, {"email": "a@example.com"})]))
    assert pace.limit == limit


def told_elsewhere(world: World, seconds: float) -> Callable[[OtherSide, Request], Response]:
    """While this request is answered, another process of the account is told to wait."""

    def answer(other: OtherSide, request: Request) -> Response:
        journal = open_journal(load_project(world.root), world.clock.now)
        with journal.lease("another_sync", "another process") as lease:
            journal.postpone(lease, "hook", world.clock.now() + timedelta(seconds=seconds))
        journal.close()
        world.clock.sleep(1)
        return other.accept(request)

    return answer


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("ACTIVATIONS_VAR", raising=False)
    monkeypatch.delenv("DBT_TARGET_PATH", raising=False)
    world = World(tmp_path)
    file = world.root / "activations/destinations.yml"
    document = yaml.safe_load(file.read_text())
    document["destinations"]["hook"]["batch_rows"] = 1
    file.write_text(yaml.safe_dump(document))
    return world.add("a", "b")


def test_a_wait_that_another_process_was_told_is_waited_for(world: World) -> None:
    world.other.script.append(told_elsewhere(world, 20))
    started = world.clock.monotonic()
    assert world.run().delivered == 2
    assert world.clock.monotonic() - started >= 20


def test_a_long_wait_that_another_process_was_told_ends_the_run_and_loses_nothing(world: World) -> None:
    world.other.script.append(told_elsewhere(world, 600))
    run = world.run()
    assert (run.run_status, run.delivered, run.retryable) == (RunStatus.FAILED, 1, 1)
    assert "asked to wait" in str(run.error)
    assert world.other.requests == 1
    world.clock.sleep(600)
    assert world.run().delivered == 1
    assert world.other.emails == {"a@example.com", "b@example.com"}


def test_a_wait_that_was_told_while_the_intent_was_late_is_obeyed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has had its place; before its intent is committed, another host is told to wait."""
    claim, waits = Journal.claim, iter([20.0])

    def late(self: Journal, *arguments: Any, **options: Any) -> Claim | None:
        for seconds in waits:
            told_elsewhere(world, seconds)(
                OtherSide(), Request(method="POST", url="", body=b'{"changes":[]}')
            )
        return claim(self, *arguments, **options)

    monkeypatch.setattr(Journal, "claim", late)
    started, left = world.clock.monotonic(), []
    world.other.always = lambda other, request: left.append(world.clock.monotonic()) or other.accept(request)
    assert world.run().delivered == 2
    assert min(left) - started >= 20


@pytest.fixture
def before_its_turn(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens next between a committed intent and its turn."""
    claim, happens = Journal.claim, list[Callable[[], object]]()

    def claim_early(self: Journal, *arguments: Any, **options: Any) -> Claim | None:
        claimed = claim(self, *arguments, **options)
        if happens:
            happens.pop(0)()
        return claimed

    monkeypatch.setattr(Journal, "claim", claim_early)
    return happens


def test_a_wait_that_was_told_while_a_batch_waited_for_its_turn_is_obeyed(
    world: World, before_its_turn: list[Callable[[], object]]
) -> None:
    told = told_elsewhere(world, 20)
    before_its_turn.append(lambda: told(OtherSide(), Request(method="POST", url="", body=b'{"changes":[]}')))
    started, left = world.clock.monotonic(), []
    world.other.always = lambda other, request: left.append(world.clock.monotonic()) or other.accept(request)
    assert world.run().delivered == 2
    assert min(left) - started >= 20


def test_an_intent_that_runs_out_before_its_turn_is_no_failed_try(
    world: World, before_its_turn: list[Callable[[], object]]
) -> None:
    before_its_turn.extend([lambda: world.clock.sleep(SEND_WITHIN.total_seconds() + 1)] * 3 * TRIES)
    run = world.run()
    assert (run.delivered, run.requests, before_its_turn) == (2, 2, [])


def test_who_said_no_while_an_intent_ran_out_before_its_turn_is_not_sent(
    world: World, before_its_turn: list[Callable[[], object]]
) -> None:
    def says_no() -> None:
        world.clock.sleep(SEND_WITHIN.total_seconds() + 1)
        world.engine().suppress(["a"], channel="email", reason="objection", source="me")

    before_its_turn.append(says_no)
    run = world.run()
    assert (run.delivered, run.suppressed, world.other.emails) == (1, 1, {"b@example.com"})


def test_a_run_told_to_stop_takes_the_intent_back_that_waits_for_its_turn(
    world: World, before_its_turn: list[Callable[[], object]]
) -> None:
    world.build()
    engine = world.engine()
    before_its_turn.append(engine.stop.set)
    run = engine.sync("people")
    assert (run.run_status, run.retryable, run.in_doubt) == (RunStatus.INTERRUPTED, 2, 0)
    assert world.other.requests == 0
    assert world.run().delivered == 2


def test_a_run_that_waits_for_the_destination_ends_when_it_is_told_to_stop(world: World) -> None:
    """Real time: the clock of the tests never really waits."""
    journal = open_journal(load_project(world.root), SystemClock().now)
    with journal.lease("another_sync", "another process") as lease:
        journal.postpone(lease, "hook", SystemClock().now() + timedelta(seconds=25))
    journal.close()
    world.build()
    engine = Engine(load_project(world.root), transport=lambda _: world.other)
    threading.Timer(0.5, engine.stop.set).start()
    started = time.monotonic()
    run = engine.sync("people")
    assert time.monotonic() - started < 10
    assert (run.run_status, run.retryable, world.other.requests) == (RunStatus.INTERRUPTED, 2, 0)


def live(world: World, monkeypatch: pytest.MonkeyPatch, **egress: str) -> SyncRun:
    """A run with the engine's own transport, to an address that must not be reached."""
    file = world.root / "activations/destinations.yml"
    document = yaml.safe_load(file.read_text())
    document["destinations"]["hook"] |= {"environment": "live", "url": "https://localhost:9/"}
    file.write_text(yaml.safe_dump(document))
    settings = yaml.safe_load((world.root / "activations/project.yml").read_text()) | {"egress": egress}
    (world.root / "activations/project.yml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("NOT_SET", SECRET)
    world.build()
    return Engine(load_project(world.root), clock=world.clock).sync("people")


def test_a_name_that_leads_inside_fails_the_run_with_a_reason_and_sends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = live(world, monkeypatch)
    assert (run.run_status, run.delivered, run.in_doubt, run.retryable) == (RunStatus.FAILED, 0, 0, 2)
    assert "localhost leads to" in str(run.error)
    assert "a loopback address" in str(run.error)


def test_the_projects_proxy_is_the_engines(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"")
    with running(refuses) as proxy:
        monkeypatch.setenv("OUR_PROXY", f"http://us:secret@127.0.0.1:{proxy.port}")
        run = live(world, monkeypatch, proxy="env:OUR_PROXY")
    assert "the proxy does not let us through to localhost" in str(run.error)
    assert [said.split(b"\r\n")[0] for said in proxy.received] == [b"CONNECT localhost:9 HTTP/1.0"]
    assert b"Proxy-Authorization: Basic" in proxy.received[0]


@pytest.mark.parametrize("key", ["secret\nkey", "secret…key"])
def test_a_credential_that_no_header_carries_fails_the_run_with_a_reason_and_sends_nothing(
    world: World, key: str
) -> None:
    transport = RequestsTransport(Gate(egress=Egress(), is_sandbox=True))

    def carry(_other: OtherSide, request: Request) -> Response:
        return transport.send(replace(request, url=server.url, headers={"x-api-key": key}), seconds=5)

    world.other.always = carry
    with running(answer(OK)) as server:
        run = world.run()
    assert (run.run_status, run.retryable, run.in_doubt) == (RunStatus.FAILED, 2, 0)
    assert "a credential, its own or the proxy's, probably holds a line break" in str(run.error)
    assert "Set the credential that destinations.yml" in str(run.error)
    assert "secret" not in str(run.error)
    assert server.received == []
    transport.close()
    world.other.always = None
    assert world.run().delivered == 2


def test_a_compressed_body_is_signed_as_receivers_unpack_it(tmp_path: Path) -> None:
    """The stand-in verifies with an independent library."""
    from activations.sandbox.credentials import base_url_for, credentials_for

    changes = [an_addition(n, {"email": f"p{n}@example.com"}) for n in range(50)]
    with start_in_background(tmp_path) as sandbox:
        options = {**credentials_for("webhook"), "base_url": base_url_for("webhook", sandbox.url)}
        flow = make("webhook", options).exchange(a_batch(changes))
        transport = RequestsTransport(Gate(egress=Egress(), is_sandbox=True), compress=True)
        request = next(flow)
        assert isinstance(request, Request)
        try:
            flow.send(transport.send(request, seconds=5))
        except StopIteration as finished:
            results = list(finished.value)
        transport.close()
    assert [result.outcome for result in results] == [Outcome.DELIVERED] * 50
