"""What is peculiar to Twilio: one message, once, with a way out in its text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from activations.destinations.twilio import TwilioMessaging, TwilioTarget, render, signature
from activations.errors import FatalDestinationError, UnreadableResponse
from activations.feedback import read_callbacks
from activations.model import Callback, Confirmation, Outcome, Response, SyncMode
from activations.sandbox.server import RunningSandbox
from tests.contract.conftest import TARGETS, make
from tests.contract.driver import Driver, a_batch, an_addition, canned, pseudonym

SERVICE = "MG" + "0" * 32
STOP = "Reply STOP to opt out."


def answer(http: int, **body: Any) -> Response:
    return Response(status=http, body=json.dumps(body).encode())


def send(*answers: Response) -> tuple[Outcome, str | None]:
    twilio = make("twilio", {"account_sid": "AC" + "0" * 32, "auth_token": "t"})
    message = an_addition(0, {"phone": "+12125550123"}, {"first_name": "Ada", "items": 1})
    (result,) = canned(twilio, a_batch([message]), answers)
    return result.outcome, result.reason


def test_the_text_is_filled_in(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    twilio = build("twilio")
    driver.run(twilio, [an_addition(0, {"phone": "+1 212 555 0123"}, {"first_name": "Ada", "items": 2})])
    driver.run(twilio, [an_addition(1, {"phone": "+12125550124"}, {"first_name": None, "items": 3})])
    assert sandbox.sandbox.twilio.messages() == [
        ("+12125550123", f"Hi Ada, 2 items wait for you. {STOP}"),
        ("+12125550124", f"Hi there, 3 items wait for you. {STOP}"),
    ]


@pytest.mark.parametrize(
    ("phone", "fields", "reason"),
    [
        ("+12125550199", {"items": 1}, "opted_out"),
        ("+12125550198", {"items": 1}, "landline"),
        ("2125550123", {"items": 1}, "invalid_number"),
        ("+12125550123", {"items": None}, "missing_field"),
        ("+12125550123", {"items": "x" * 1_600}, "text_too_long"),
    ],
)
def test_what_cannot_be_sent_is_rejected_with_a_reason(
    phone: str, fields: dict[str, Any], reason: str, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    results = driver.run(build("twilio"), [an_addition(0, {"phone": phone}, fields)])
    assert (results["0"].outcome, results["0"].reason) == (Outcome.REJECTED, reason)
    assert sandbox.sandbox.twilio.messages() == []


def test_someone_who_answered_stop_is_not_texted_again(
    build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    sandbox.sandbox.twilio.stop("+12125550123")
    results = driver.run(build("twilio"), [an_addition(0, {"phone": "+12125550123"}, {"items": 1})])
    assert results["0"].reason == "opted_out"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(21610, "opted_out"), (21211, "invalid_number"), (21635, "landline"), (29999, "twilio_29999")],
)
def test_codes_become_reasons_and_the_providers_text_stays_out(code: int, reason: str) -> None:
    assert send(answer(400, code=code, message="+12125550123 is bad", status=400)) == (
        Outcome.REJECTED,
        reason,
    )


def test_a_message_that_failed_at_once_is_no_delivery() -> None:
    assert send(answer(201, sid="SM1", status="failed", error_code=30006)) == (Outcome.REJECTED, "landline")


@pytest.mark.parametrize(
    "unclear",
    [answer(201, status="queued"), Response(status=201, body=b"{"), answer(408), answer(425), answer(302)],
)
def test_an_unclear_answer_is_never_a_no_that_could_be_sent_again(unclear: Response) -> None:
    with pytest.raises(UnreadableResponse):
        send(unclear)


@pytest.mark.parametrize("code", [21606, 21703, 20404])
def test_a_broken_sender_stops_the_run(code: int) -> None:
    with pytest.raises(FatalDestinationError, match=str(code)):
        send(answer(400, code=code))


def test_the_signature_is_that_of_twilios_own_example() -> None:
    caller = "+14158675309"
    form = {"CallSid": "CA1234567890ABCDE", "Caller": caller, "Digits": "1234", "From": caller}
    signed = signature("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", form | {"To": "+18005551212"})
    assert signed == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


@pytest.fixture
def called_back(build: Any, driver: Driver, sandbox: RunningSandbox) -> tuple[TwilioMessaging, Callback]:
    """The destination, and what the stand-in signed about the one message it took."""
    twilio = build("twilio")
    driver.run(twilio, [an_addition(0, {"phone": "+12125550123"}, {"items": 2})], run_id="run7")
    [said] = read_callbacks(map(json.dumps, sandbox.sandbox.twilio.callbacks()))
    return twilio, said


def test_a_callback_names_the_message_the_attempt_and_twilios_id(
    called_back: tuple[TwilioMessaging, Callback], sandbox: RunningSandbox
) -> None:
    twilio, said = called_back
    [(sid,)] = sandbox.sandbox.state.rows("select sid from twilio_messages")
    assert twilio.confirmation(said) == Confirmation(pseudonym=pseudonym(0), run_id="run7", provider_id=sid)
    elsewhere = replace(said, url=said.url.replace("https://hooks.example.com", "http://10.0.0.7:8080"))
    assert twilio.confirmation(elsewhere), "as a receiver behind a proxy sees its address"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, url=c.url.replace("run7", "run8")),
        lambda c: replace(c, url=c.url.replace(f"message={pseudonym(0)}", f"message={pseudonym(1)}")),
        lambda c: replace(c, url=c.url.partition("?")[0]),
        lambda c: replace(c, body=c.body.replace("MessageSid=SM", "MessageSid=SN")),
        lambda c: replace(c, body=c.body + "&More=1"),
        lambda c: replace(c, headers={"x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="}),
        lambda c: replace(c, headers={"x-twilio-signature": "\N{SNOWMAN}"}),
        lambda c: replace(c, headers={"x-twilio-signature": "\ud800"}),
        lambda c: replace(c, headers={}),
        lambda c: replace(c, body=c.body + "\ud800"),
        lambda c: replace(c, url="https://[?message=1&run=2"),
    ],
)
def test_an_altered_callback_says_nothing(
    called_back: tuple[TwilioMessaging, Callback], change: Callable[[Callback], Callback]
) -> None:
    twilio, said = called_back
    assert twilio.confirmation(change(said)) is None


@pytest.mark.parametrize("query", ["", "message=1", "run=1", "other=1"])
def test_a_signed_callback_about_somebody_elses_message_says_nothing(query: str) -> None:
    twilio = make("twilio", {"account_sid": "AC" + "0" * 32, "auth_token": "t"})
    url = f"https://hooks.example.com/twilio?{query}"
    signed = {"x-twilio-signature": signature("t", url, {"MessageSid": "SM1"})}
    assert twilio.confirmation(Callback(url=url, headers=signed, body="MessageSid=SM1")) is None


def test_without_a_receiver_twilio_calls_nobody_back(
    build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    twilio = build("twilio", config={"status_callback": None})
    driver.run(twilio, [an_addition(0, {"phone": "+12125550123"}, {"items": 2})])
    assert sandbox.sandbox.twilio.callbacks() == []
    assert len(sandbox.sandbox.twilio.messages()) == 1


@pytest.mark.parametrize(
    "address",
    [
        "http://hooks.example.com",
        "https://u:p@hooks.example.com",
        "https://h.example/x?y=1",
        "https://h:8443/",
    ],
)
def test_a_receiver_that_twilio_could_not_sign_for_does_not_load(address: str) -> None:
    with pytest.raises(ValidationError, match="status_callback"):
        make("twilio", {"account_sid": "AC", "auth_token": "t", "status_callback": address})


def test_it_takes_messages_only_and_one_at_a_time() -> None:
    able = TwilioMessaging.capabilities
    assert (able.modes, able.max_batch_rows) == ({SyncMode.APPEND}, 1)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ({"body": STOP}, "messaging_service_sid or from_number"),
        ({"body": STOP, "messaging_service_sid": SERVICE, "from_number": "+12125550100"}, "either"),
        ({"body": "Buy now", "messaging_service_sid": SERVICE}, "how to stop"),
        ({"body": "Hi {stop}", "messaging_service_sid": SERVICE}, "how to stop"),
        ({"body": f"Hi {{first_name!r}} {STOP}", "messaging_service_sid": SERVICE}, "braces"),
        ({"body": f"Hi {{a.b}} {STOP}", "messaging_service_sid": SERVICE}, "braces"),
        ({"body": f"Hi {{ {STOP}", "messaging_service_sid": SERVICE}, "braces"),
        ({"body": STOP + "x" * 1_600, "messaging_service_sid": SERVICE}, "1600"),
        ({"body": STOP, "messaging_service_sid": "MG1"}, "MG and 32 hexadecimal"),
    ],
)
def test_a_text_that_cannot_be_right_does_not_load(target: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TwilioTarget(**target)


def test_the_service_may_say_how_to_stop() -> None:
    target = TwilioTarget(body="Buy now", messaging_service_sid=SERVICE, opt_out_added_by_service=True)
    assert target.placeholders == frozenset()


def test_placeholders_must_be_mapped() -> None:
    target = TwilioTarget(**TARGETS["twilio"])
    problem = TwilioMessaging.check_mapping(frozenset({"phone"}), frozenset({"first_name"}), target)
    assert problem is not None
    assert "`items`" in problem
    fields = frozenset({"first_name", "items"})
    assert TwilioMessaging.check_mapping(frozenset({"phone"}), fields, target) is None


def test_values_cannot_break_out_of_their_place() -> None:
    hostile = {"name": "Ada\r\n\r\nSTOP\x00\u2028 {other} %s"}
    assert render("Hi {name}!", hostile) == ("Hi Ada STOP {other} %s!", None)
