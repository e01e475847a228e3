"""The signed webhook: checked with an independent Standard Webhooks library, answered row by row."""

from __future__ import annotations

import base64
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from activations.destinations.webhook import SignedWebhook, WebhookConfig, WebhookTarget
from activations.errors import BatchRefused, ConfigError, FatalDestinationError, UnreadableResponse
from activations.model import Outcome, Request, Response
from activations.sandbox.server import RunningSandbox
from tests.contract.conftest import make
from tests.contract.driver import Driver, a_batch, a_removal, an_addition, canned, outcomes, pseudonym

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"another-secret-of-24-byte").decode()


def webhook(**config: Any) -> Any:
    return make("webhook", {"signing_secret": SECRET, **config})


def first_request(destination: Any, *changes: Any) -> Request:
    request = next(destination.exchange(a_batch(changes, idempotency_key="batch_1")))
    assert isinstance(request, Request)
    return request


def answer(body: Any, status: int = 200) -> Response:
    return Response(status=status, body=json.dumps(body).encode())


def two() -> list[Any]:
    return [an_addition(n, {"email": f"p{n}@example.com"}) for n in (0, 1)]


def test_an_independent_library_verifies_the_signature() -> None:
    change = an_addition(
        0, {"email": "añe@example.com"}, {"revenue": Decimal("12.50"), "on": date(2017, 9, 1)}
    )
    request = first_request(webhook(), change)
    document = Webhook(SECRET).verify(request.body or b"", dict(request.headers))
    assert document == {
        "sync": "a_sync",
        "run": "run1",
        "batch": 1,
        "idempotency_key": "batch_1",
        "changes": [
            {
                "operation": "added",
                "key": pseudonym(0),
                "identifiers": {"email": "añe@example.com"},
                "fields": {"revenue": "12.50", "on": "2017-09-01"},
            }
        ],
    }
    assert request.headers["webhook-id"] == "batch_1"


def test_the_library_refuses_what_was_tampered_with() -> None:
    request = first_request(webhook(), *two())
    body, headers = request.body or b"", dict(request.headers)
    tampered = [
        (body.replace(b"p0@", b"px@"), headers),
        (body, {**headers, "webhook-id": "batch_2"}),
        (body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
    ]
    for changed_body, changed_headers in tampered:
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(changed_body, changed_headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)


def test_the_time_is_signed() -> None:
    class Yesterday(SignedWebhook):
        def now(self) -> datetime:
            return datetime.now(UTC) - timedelta(days=1)

    settings = WebhookConfig(url="https://hooks.example.com/a", signing_secret=SECRET)  # type: ignore[arg-type]
    request = first_request(Yesterday(settings, WebhookTarget()), *two())
    with pytest.raises(WebhookVerificationError, match="old"):
        Webhook(SECRET).verify(request.body or b"", dict(request.headers))


def test_both_secrets_sign_while_one_is_rotated() -> None:
    request = first_request(webhook(previous_signing_secret=OTHER), *two())
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(request.body or b"", dict(request.headers))


def test_a_removal_carries_no_personal_data() -> None:
    request = first_request(webhook(), a_removal(0, "known"))
    (change,) = json.loads(request.body or b"")["changes"]
    assert change == {"operation": "removed", "key": "known", "identifiers": {}, "fields": {}}


def test_rows_are_answered_one_by_one() -> None:
    said = [
        {"key": pseudonym(0), "status": "ok"},
        {"key": pseudonym(1), "status": "rejected", "reason": "not_wanted"},
        {"key": pseudonym(2), "status": "retry", "reason": "locked"},
        {"key": pseudonym(3), "status": "perhaps"},
        {"key": "somebody_else", "status": "ok"},
    ]
    changes = [an_addition(n, {"email": f"p{n}@example.com"}) for n in range(5)]
    results = canned(webhook(), a_batch(changes), [answer({"results": said})])
    assert {r.key: (r.outcome, r.reason) for r in results} == {
        "0": (Outcome.DELIVERED, None),
        "1": (Outcome.REJECTED, "not_wanted"),
        "2": (Outcome.RETRYABLE, "locked"),
        "3": (Outcome.UNKNOWN, "unknown_status"),
        "4": (Outcome.UNKNOWN, "not_in_results"),
    }


@pytest.mark.parametrize("again", ["ok", "rejected", "retry"])
def test_a_row_that_is_answered_twice_is_in_doubt_whatever_comes_last(again: str) -> None:
    said = [
        {"key": pseudonym(0), "status": "rejected", "reason": "not_wanted"},
        {"key": pseudonym(1), "status": "ok"},
        {"key": pseudonym(0), "status": again},
    ]
    results = canned(webhook(), a_batch(two()), [answer({"results": said})])
    assert [(r.outcome, r.reason) for r in results] == [
        (Outcome.UNKNOWN, "contradictory_results"),
        (Outcome.DELIVERED, None),
    ]


@pytest.mark.parametrize(
    "reason",
    [
        "p0@example.com is bad",
        "Jane Roe",
        "15551234567",
        "call_12125550123",
        "x" * 41,
        "",
        None,
        7,
        ["a"],
        {"a": 1},
    ],
)
def test_a_receivers_words_are_reduced_to_a_short_code(reason: Any) -> None:
    said = [{"key": pseudonym(0), "status": "rejected", "reason": reason}]
    (result,) = canned(webhook(), a_batch(two()[:1]), [answer({"results": said})])
    assert result.reason == "rejected"


def test_all_or_nothing_answers() -> None:
    assert {r.outcome for r in canned(webhook(), a_batch(two()), [answer({"accepted": True})])} == {
        Outcome.DELIVERED
    }
    with pytest.raises(BatchRefused, match="full"):
        canned(webhook(), a_batch(two()), [answer({"accepted": False, "reason": "full"})])


@pytest.mark.parametrize(
    "unclear",
    [
        Response(status=200),
        Response(status=204),
        Response(status=200, body=b"OK"),
        answer({}),
        answer({"accepted": "yes"}),
        answer([]),
        answer({}, status=408),
        answer({}, status=425),
        answer({}, status=302),
    ],
)
def test_a_2xx_that_says_nothing_is_in_doubt(unclear: Response) -> None:
    with pytest.raises(UnreadableResponse):
        canned(webhook(), a_batch(two()), [unclear])


def test_refusals() -> None:
    with pytest.raises(BatchRefused, match="http_422"):
        canned(webhook(), a_batch(two()), [answer({}, status=422)])
    for status in (404, 410):
        with pytest.raises(FatalDestinationError, match="url"):
            canned(webhook(), a_batch(two()), [answer({}, status=status)])


def test_a_repeated_message_id_is_done_once(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    for _ in range(2):
        results = driver.run(build("webhook"), two(), idempotency_key="batch_1")
        assert set(outcomes(results).values()) == {"delivered"}
    records = sandbox.sandbox.webhook.records("a_sync")
    assert [record["deliveries"] for record in records.values()] == [1, 1]


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "whsec_c2hvcnQ="])
def test_a_bad_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match="signing_secret") as problem:
        webhook(signing_secret=secret or "whsec_")
    assert "not base64" not in str(problem.value)


@pytest.mark.parametrize(
    "url", ["http://hooks.example.com/a", "https://u:p@hooks.example.com/a", "hooks", "https://"]
)
def test_only_https_addresses_without_credentials_load(url: str) -> None:
    with pytest.raises(ValidationError):
        webhook(url=url)
