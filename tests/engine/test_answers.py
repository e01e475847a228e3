"""Answers that prove less than they seem to, and answers of a shape nobody documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.delivery.exchange import Conversation, Verdict
from activations.delivery.pace import Pace
from activations.delivery.rate import RateLimiter
from activations.destinations.registry import KINDS
from activations.errors import BatchRefused
from activations.model import Batch, Change, Outcome, Request, Response, RunStatus
from tests.contract.conftest import make
from tests.contract.driver import a_batch, a_removal, an_addition
from tests.engine.conftest import forget_environment
from tests.engine.world import ACCOUNT, FakeClock, OtherSide, World, status

# -- redirects ------------------------------------------------------------------------------------------------------


def redirect(code: int, *, takes: bool) -> Callable[[OtherSide, Request], Response]:
    def answer(other: OtherSide, request: Request) -> Response:
        if takes:
            other.accept(request)
        return Response(status=code, headers={"location": "https://hooks.example.com/done"})

    return answer


@pytest.mark.parametrize(("code", "takes"), [(303, True), (302, True), (307, False)])
def test_a_message_that_is_answered_with_a_redirect_is_never_sent_again(
    make_world: Callable[..., World], code: int, takes: bool
) -> None:
    world = make_world(mode="append")
    world.other.script.append(redirect(code, takes=takes))
    run = world.add("a").run()
    assert (run.run_status, run.in_doubt, run.retryable) == (RunStatus.FAILED, 1, 0)
    assert dict(world.run().counts.waiting_by_reason) == {"in_doubt": 1}
    assert world.other.requests == 1
    assert len(world.other.received) == takes


def test_a_redirect_stops_the_run_and_says_what_to_do(make_world: Callable[..., World]) -> None:
    world = make_world(account=ACCOUNT | {"batch_rows": 1}).add("a", "b")
    world.other.script.append(redirect(302, takes=True))
    run = world.run()
    assert (
        str(run.error) == "the destination redirects (HTTP 302). Put the final address into destinations.yml"
    )
    assert (run.in_doubt, run.retryable, world.other.requests) == (1, 1, 1)
    assert world.run().delivered == 2


@pytest.mark.parametrize("code", [401, 403])
def test_a_message_that_met_a_refused_credential_was_not_taken(
    make_world: Callable[..., World], code: int
) -> None:
    world = make_world(mode="append")
    world.other.script.append(status(code))
    run = world.add("a").run()
    assert (run.run_status, run.in_doubt, run.retryable) == (RunStatus.FAILED, 0, 1)
    assert "refused our credentials" in str(run.error)
    assert world.run().delivered == 1


# -- odd answers ----------------------------------------------------------------------------------------------------

VALUES = st.none() | st.booleans() | st.integers(-1, 300) | st.sampled_from(["", "ok", "complete", "\ud800"])


def odd(names: str, inside: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[Any]:
    """An object with some of these names, or a list of such, or something else in its place."""
    some = st.fixed_dictionaries({}, optional=dict.fromkeys(names.split(), inside))
    return some | st.lists(some | VALUES, max_size=2) | VALUES


CONSENT = odd("email", odd("marketing", odd("consent suppression", odd("reason"))))
ATTRIBUTES = odd("email status failed_count subscriptions", CONSENT | st.just("p0@example.com"))
ITEMS = odd(
    "id key status code error_subcode is_transient reason source next attributes", odd("pointer") | ATTRIBUTES
)
BODIES = odd("data errors error results links accepted num_received num_invalid_entries sid code", ITEMS)
"""Where each destination looks for something, there may be anything."""
ANSWERS = st.builds(
    Response,
    status=st.sampled_from([200, 201, 400, 404]),
    body=BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=9),
)
CREDENTIALS: dict[str, dict[str, Any]] = {
    "klaviyo": {"api_key": "k"},
    "twilio": {"account_sid": "AC" + "0" * 32, "auth_token": "t"},
    "meta_custom_audience": {"access_token": "t"},
    "webhook": {"signing_secret": "whsec_" + "c2VjcmV0" * 5},
}
PERSON = {"email": "p0@example.com", "phone": "+12125550123"}


class Says:
    """A transport that gives these answers, and the last of them again and again."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)

    def send(self, request: Request, *, seconds: float) -> Response:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def destination(kind: str) -> Any:
    return make(kind, CREDENTIALS[kind])


def held(destination: Any, batch: Batch, *answers: Response) -> Verdict:
    """What the engine knows of a batch after these answers."""
    clock = FakeClock()
    return Conversation(
        destination=destination,
        transport=Says(*answers),
        limiter=RateLimiter(None, clock, reserve=lambda *_: clock.now()),
        pace=Pace(8, clock),
        clock=clock,
        send_by=clock.now() + timedelta(minutes=1),
        renew=lambda: clock.now() + timedelta(minutes=1),
    ).hold(batch)


@pytest.mark.parametrize("kind", KINDS)
@given(
    change=st.sampled_from([an_addition(0, PERSON, {"title": None, "items": 1}), a_removal(0, None, PERSON)]),
    answers=st.lists(ANSWERS, min_size=1, max_size=4),
    is_job=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_answered_every_row_gets_an_outcome_and_nothing_is_raised(
    kind: str, change: Change, answers: list[Response], is_job: bool
) -> None:
    job = b'{"data": {"id": "job1", "attributes": {"status": "complete", "failed_count": 1}}}'
    first = [Response(status=202, body=job)] * 2 if is_job else []
    try:
        verdict = held(destination(kind), a_batch([change]), *first, *answers)
    except BatchRefused:
        return
    assert [result.key for result in verdict.results] == ["0"]


ODDITIES = {
    "a text as error": ("meta_custom_audience", 400, b'{"error": "p0@example.com"}'),
    "a list as code": ("meta_custom_audience", 400, b'{"error": {"code": ["p0@example.com"]}}'),
    "a list as job": ("klaviyo", 202, b'{"data": ["p0@example.com"]}'),
    "errors by name": ("klaviyo", 400, b'{"errors": {"p0@example.com": 1}}'),
    "errors as texts": ("klaviyo", 400, b'{"errors": ["p0@example.com"]}'),
    "deeper than anybody reads": ("webhook", 200, b"[" * 200_000),
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_odd_answer_ends_no_run_and_is_repeated_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oddity: str
) -> None:
    """It may be a gateway's, and it may quote what was sent."""
    kind, code, body = ODDITIES[oddity]
    forget_environment(monkeypatch)
    targets = {"klaviyo": {"list_id": "L1"}, "meta_custom_audience": {"audience_id": "1200"}, "webhook": {}}
    secrets = dict.fromkeys(CREDENTIALS[kind], "env:NOT_SET")
    account = {"kind": kind, "environment": "sandbox", "concurrency": 1, **secrets}
    channel = "ads" if kind == "meta_custom_audience" else "email"
    world = World(
        tmp_path,
        account=account | ({"url": ACCOUNT["url"]} if kind == "webhook" else {}),
        channel=channel,
        target=targets[kind],
        fields={},
    )
    world.other.always = lambda _other, _request: Response(status=code, body=body)
    run = world.add("p0").run()
    assert (run.run_status, run.delivered, run.in_doubt + run.rejected) == (RunStatus.PARTIAL, 0, 1)
    assert "p0@example.com" not in str(run.summary())


class Stumbles:
    """A destination that finds something in an answer which it never thought of."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def exchange(self, batch: Batch) -> Any:
        yield Request(method="POST", url="https://x", json_body={})
        raise self.failure


@pytest.mark.parametrize(
    "failure", [AttributeError(), TypeError(), KeyError(), IndexError(), ValueError(), RecursionError()]
)
def test_a_destination_that_stumbles_over_an_answer_leaves_the_batch_in_doubt(
    failure: Exception,
) -> None:
    batch = a_batch([an_addition(0, PERSON), an_addition(1, PERSON)])
    verdict = held(Stumbles(failure), batch, Response(status=200))
    assert [(r.outcome, r.reason) for r in verdict.results] == [(Outcome.UNKNOWN, "unreadable_answer")] * 2
    assert verdict.fatal is None


# -- one profile among others -----------------------------------------------------------------------------------------

KLAVIYO = {"kind": "klaviyo", "environment": "sandbox", "api_key": "env:NOT_SET", "concurrency": 1}


class OneProfileIsStuck:
    """Klaviyo, as far as it is asked here. It imports everybody and refuses to empty the fields of `stuck`."""

    def __init__(self) -> None:
        self.list: set[str] = set()
        self.jobs: list[list[str]] = []
        self.subscribed: list[str] = []

    def send(self, request: Request, *, seconds: float) -> Response:
        path = request.url.partition("/api/")[2].split("/")
        if path[-1] == "stuck":
            return Response(status=400, body=b'{"errors": [{"code": "invalid"}]}')
        return Response(status=200, body=json.dumps(self._take(request, path)).encode())

    def _take(self, request: Request, path: list[str]) -> Any:
        match request.method, path:
            case "POST", ["profile-bulk-import-jobs"]:
                self.jobs.append([profile["attributes"]["email"] for profile in _profiles(request)])
                self.list.update(self.jobs[-1])
            case "POST", _:
                self.subscribed += [profile["id"] for profile in _profiles(request)]
            case "DELETE", _:
                self.list -= {f"{member['id']}@example.com" for member in request.json_body["data"]}
            case "GET", [_, job, "profiles"]:
                people = self.jobs[int(job) - 1]
                return {"data": [{"id": p.partition("@")[0], "attributes": {"email": p}} for p in people]}
        state = {"status": "complete", "failed_count": 0}
        return {"data": {"id": str(len(self.jobs)), "attributes": state}}


def _profiles(request: Request) -> Any:
    return request.json_body["data"]["attributes"]["profiles"]["data"]


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, OneProfileIsStuck]:
    forget_environment(monkeypatch)
    fields = {"title": {"column": "event_id", "on_null": "clear"}}
    world = World(tmp_path, account=KLAVIYO, target={"list_id": "L1"}, fields=fields)
    klaviyo = OneProfileIsStuck()
    world.other = klaviyo  # type: ignore[assignment]
    return world.add("a", "b", "stuck", event_id=None), klaviyo


def run_later(world: World) -> Any:
    world.clock.sleep(3600)
    return world.run()


def test_a_profile_that_cannot_be_cleared_keeps_no_neighbour_in_doubt(
    stuck: tuple[World, OneProfileIsStuck],
) -> None:
    world, klaviyo = stuck
    first = world.run()
    assert (first.delivered, first.in_doubt) == (2, 1)
    second = run_later(world)
    assert (second.counts.unchanged, second.rejected, second.in_doubt) == (2, 1, 0)
    assert world.query("select reason from activation.rejected_records") == [("invalid",)]
    third = run_later(world)
    assert (third.counts.planned, dict(third.counts.waiting_by_reason)) == (0, {"rejected": 1})
    assert klaviyo.subscribed == ["a", "b"]


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_who_could_not_be_cleared_is_taken_off_the_list_when_they_leave(
    stuck: tuple[World, OneProfileIsStuck], runs: int
) -> None:
    world, klaviyo = stuck
    for _ in range(runs):
        run_later(world)
    assert "stuck@example.com" in klaviyo.list
    world.drop("stuck")
    run_later(world)
    assert klaviyo.list == {"a@example.com", "b@example.com"}


def test_who_could_not_be_cleared_is_delivered_once_the_value_changes(
    stuck: tuple[World, OneProfileIsStuck],
) -> None:
    world, klaviyo = stuck
    run_later(world)
    run_later(world)
    run = world.set("stuck", event_id="a title") and run_later(world)
    assert (run.delivered, run.run_status) == (1, RunStatus.SUCCEEDED)
    assert klaviyo.subscribed == ["a", "b", "stuck"]
