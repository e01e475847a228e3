"""What is peculiar to Meta: hashed columns, counts instead of rows, errors with status 400 for everything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from activations.destinations.meta import MAX_CALLS, MetaCustomAudience, MetaTarget
from activations.errors import BatchRefused, FatalDestinationError, UnreadableResponse
from activations.model import Outcome, Request, Response
from activations.sandbox.server import RunningSandbox
from tests.contract.conftest import AUDIENCE, make
from tests.contract.driver import Driver, a_batch, a_removal, an_addition, canned, outcomes, pseudonym
from tests.contract.test_normalise import PUBLISHED

EVERYTHING = {
    "email": " John_Smith@gmail.com ",
    "phone": "+1 (650) 555-1212",
    "fn": "Mary",
    "ln": "Valéry",
    "zip": "94041-1234",
    "ct": "Menlo Park",
    "st": "CA",
    "country": "US",
}


def meta() -> Any:
    return make("meta_custom_audience", {"access_token": "t"})


def first_request(*changes: Any) -> Request:
    request = next(meta().exchange(a_batch(changes)))
    assert isinstance(request, Request)
    return request


def taken(received: int, invalid: int = 0) -> Response:
    body = {"num_received": received, "num_invalid_entries": invalid, "audience_id": "1", "session_id": "1"}
    return Response(status=200, body=json.dumps(body).encode())


def refusal(code: int, subcode: int | None = None, status: int = 400, **more: Any) -> Response:
    error = {"code": code, "error_subcode": subcode, "message": "about john_smith@gmail.com", **more}
    return Response(status=status, body=json.dumps({"error": error}).encode())


def two() -> list[Any]:
    return [an_addition(n, {"email": f"p{n}@example.com"}) for n in (0, 1)]


def test_schema_and_digests_are_as_meta_publishes_them() -> None:
    body = first_request(an_addition(0, EVERYTHING)).json_body
    row = dict(zip(body["payload"]["schema"], body["payload"]["data"][0], strict=True))
    assert list(row) == ["EXTERN_ID", "EMAIL", "PHONE", "FN", "LN", "ZIP", "CT", "ST", "COUNTRY"]
    assert row["EXTERN_ID"] == pseudonym(0)
    assert row["EMAIL"] == PUBLISHED["john_smith@gmail.com"]
    assert row["PHONE"] == PUBLISHED["16505551212"]
    assert row["FN"] == PUBLISHED["mary"]
    assert row["LN"] == PUBLISHED["valéry"]


def test_rows_have_every_column_and_unknown_is_empty() -> None:
    changes = [
        an_addition(0, {"email": "a@example.com", "fn": "Ada"}),
        an_addition(1, {"email": "b@example.com"}),
    ]
    payload = first_request(*changes).json_body["payload"]
    assert payload["schema"] == ["EXTERN_ID", "EMAIL", "FN"]
    assert [len(row) for row in payload["data"]] == [3, 3]
    assert payload["data"][1][2] == ""


def test_nothing_plain_leaves() -> None:
    text = json.dumps(first_request(an_addition(0, EVERYTHING)).json_body).lower()
    assert not [v for v in ("john_smith", "6505551212", "mary", "val", "menlo") if v in text]


def test_sessions_are_closed_and_never_reused() -> None:
    sessions = [first_request(*two()).json_body["session"] for _ in range(2)]
    assert sessions[0]["session_id"] != sessions[1]["session_id"]
    assert all(s["last_batch_flag"] and s["estimated_num_total"] == 2 for s in sessions)


def test_removal_needs_only_our_own_id() -> None:
    request = first_request(a_removal(0, "known"), a_removal(1, None))
    assert request.method == "DELETE"
    assert request.json_body["payload"] == {"schema": ["EXTERN_ID"], "data": [["known"], [pseudonym(1)]]}


def test_a_row_without_anything_to_match_is_rejected_before_it_spoils_the_call(
    build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    changes = [*two(), an_addition(2, {"phone": "+0000000000"}), an_addition(3, {"email": "  "})]
    results = driver.run(build("meta_custom_audience"), changes)
    assert outcomes(results) == {"0": "delivered", "1": "delivered", "2": "rejected", "3": "rejected"}
    assert results["2"].reason == "no_match_key"
    assert len(sandbox.sandbox.meta.members(AUDIENCE)) == 2


def test_a_batch_of_unmatchable_rows_makes_no_request() -> None:
    results = canned(meta(), a_batch([an_addition(0, {"email": ""})]), [])
    assert [r.outcome for r in results] == [Outcome.REJECTED]


def test_invalid_rows_are_found_by_halves_without_claiming_that_nothing_was_taken() -> None:
    changes = [an_addition(n, {"email": f"p{n}@example.com"}) for n in range(4)]
    answers = [taken(4, 1), taken(2), taken(2, 1), taken(1, 1), taken(1)]
    results = canned(meta(), a_batch(changes), answers)
    said = {r.key: r.outcome.value for r in results}
    assert said == {"0": "delivered", "1": "rejected", "2": "delivered", "3": "delivered"}
    assert [r.reason for r in results if r.outcome is Outcome.REJECTED] == ["invalid_entry"]


def test_the_search_is_bounded_and_leaves_the_rest_in_doubt() -> None:
    changes = [an_addition(n, {"email": f"p{n}@example.com"}) for n in range(1_000)]
    flow = meta().exchange(a_batch(changes))
    step, calls = next(flow), 1
    try:
        while True:
            size = len(step.json_body["payload"]["data"])
            step, calls = flow.send(taken(size, size)), calls + 1
    except StopIteration as finished:
        results = finished.value
    assert calls == MAX_CALLS
    assert len(results) == 1_000
    assert {r.outcome for r in results} == {Outcome.REJECTED, Outcome.UNKNOWN}


def test_one_malformed_value_refuses_the_call_and_splits() -> None:
    with pytest.raises(BatchRefused, match="meta_100"):
        canned(meta(), a_batch(two()), [refusal(100)])
    (result,) = canned(meta(), a_batch(two()[:1]), [refusal(100)])
    assert (result.outcome, result.reason) == (Outcome.REJECTED, "meta_100")


@pytest.mark.parametrize("code", [[1], {"a": 1}, "100", None])
def test_a_code_that_is_no_number_is_no_code(code: Any) -> None:
    odd = Response(status=400, body=json.dumps({"error": {"code": code, "error_subcode": code}}).encode())
    (result,) = canned(meta(), a_batch(two()[:1]), [odd])
    assert (result.outcome, result.reason) == (Outcome.REJECTED, "http_400")


@pytest.mark.parametrize("code", [17, 613, 80_003])
def test_a_quota_that_comes_as_400_is_retryable(code: int) -> None:
    results = canned(meta(), a_batch(two()), [refusal(code)])
    assert {(r.outcome, r.reason) for r in results} == {(Outcome.RETRYABLE, "throttled")}


def test_a_quota_in_the_middle_of_a_search_is_in_doubt() -> None:
    results = canned(meta(), a_batch(two()), [taken(2, 1), refusal(17), refusal(17)])
    assert {r.outcome for r in results} == {Outcome.UNKNOWN}


@pytest.mark.parametrize(
    ("code", "subcode", "reason"),
    [
        (190, 463, "token_refused"),
        (100, 33, "audience_not_found"),
        (100, 1_713_230, "audience_flagged"),
        (200, 1_870_034, "terms_not_accepted"),
        (200, 1_870_047, "audience_too_small"),
        (200, None, "no_permission"),
    ],
)
def test_what_a_person_must_settle_stops_the_run(code: int, subcode: int | None, reason: str) -> None:
    with pytest.raises(FatalDestinationError, match=reason):
        canned(meta(), a_batch(two()), [refusal(code, subcode)])


@pytest.mark.parametrize(
    "unclear",
    [
        refusal(2),
        refusal(100, is_transient=True),
        taken(1),
        Response(status=200, body=b"[]"),
        Response(status=200, body=b'{"num_received": 2}'),
        Response(status=304, body=b"{}"),
        Response(status=408, body=b"{}"),
        Response(status=425, body=b"{}"),
        refusal(100, status=408),
        Response(status=400, body=b'{"error": "invalid_request"}'),
        Response(status=400, body=b'{"error": [1]}'),
    ],
)
def test_unclear_answers_are_in_doubt(unclear: Response) -> None:
    with pytest.raises(UnreadableResponse):
        canned(meta(), a_batch(two()), [unclear])


def test_an_unknown_audience_is_told_by_name(build: Any, driver: Driver) -> None:
    with pytest.raises(FatalDestinationError, match="audience_id"):
        driver.run(build("meta_custom_audience", audience_id="404"), two())


def test_mappings_are_checked_when_the_sync_loads() -> None:
    target = MetaTarget(audience_id="1")
    check = MetaCustomAudience.check_mapping
    assert "no fields" in str(check(frozenset({"email"}), frozenset({"score"}), target))
    assert "e-mail or telephone" in str(check(frozenset({"fn"}), frozenset(), target))
    assert check(frozenset({"email", "fn"}), frozenset(), target) is None
