"""What is peculiar to Klaviyo."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from typing import Any

import pytest
import requests

from activations.destinations.klaviyo import Klaviyo, KlaviyoTarget
from activations.errors import BatchRefused, FatalDestinationError, UnreadableResponse
from activations.model import Outcome, Response, Wait
from activations.sandbox.server import RunningSandbox
from tests.contract.conftest import LIST, make
from tests.contract.driver import (
    Driver,
    a_batch,
    a_change,
    a_removal,
    an_addition,
    canned,
    outcomes,
)

FULL = {"first_name": "Ada", "location.city": "Utica", "nickname": "A", "revenue": Decimal("12.50")}


def email(n: int) -> dict[str, str]:
    return {"email": f"p{n}@example.com"}


def unsubscribe_at_klaviyo(sandbox: RunningSandbox, *people: int) -> None:
    profiles = [{"type": "profile", "attributes": email(n)} for n in people]
    kind = "profile-subscription-bulk-delete-job"
    answer = requests.post(
        f"{sandbox.url}/klaviyo/api/{kind}s",
        json={"data": {"type": kind, "attributes": {"profiles": {"data": profiles}}}},
        headers={"Authorization": "Klaviyo-API-Key pk_sandbox", "revision": "2026-07-15"},
        timeout=5,
    )
    assert answer.status_code == 202


def test_fields_find_their_place(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    driver.run(build("klaviyo"), [an_addition(0, email(0), FULL)])
    assert sandbox.sandbox.klaviyo.members(LIST)["p0@example.com"] == {
        "first_name": "Ada",
        "location": {"city": "Utica"},
        "properties": {"nickname": "A", "revenue": 12.5},
        "consent": "SUBSCRIBED",
    }


def test_a_cleared_field_is_empty_afterwards(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    """An import ignores null, so clearing takes `unset` for properties and a request for standard fields."""
    klaviyo = build("klaviyo")
    added = driver.run(klaviyo, [an_addition(0, email(0), FULL), an_addition(1, email(1), FULL)])
    cleared = dict.fromkeys(FULL)
    driver.run(klaviyo, [a_change(0, email(0), cleared, added["0"].destination_key)])
    members = sandbox.sandbox.klaviyo.members(LIST)
    assert members["p0@example.com"] == {"location": {}, "properties": {}, "consent": "SUBSCRIBED"}
    assert members["p1@example.com"]["first_name"] == "Ada"


def test_an_absent_field_keeps_its_value(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    klaviyo = build("klaviyo")
    added = driver.run(klaviyo, [an_addition(0, email(0), FULL)])
    driver.run(klaviyo, [a_change(0, email(0), {"score": 1}, added["0"].destination_key)])
    assert sandbox.sandbox.klaviyo.members(LIST)["p0@example.com"]["first_name"] == "Ada"


def test_only_added_people_are_subscribed(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    """A change is no consent: it turns neither a no nor a silence into a yes."""
    added = driver.run(build("klaviyo", subscribe=False), [an_addition(n, email(n)) for n in (0, 1)])
    unsubscribe_at_klaviyo(sandbox, 0)
    changes = [a_change(n, email(n), {"score": 1}, added[str(n)].destination_key) for n in (0, 1)]
    driver.run(build("klaviyo"), changes)
    consents = [member["consent"] for member in sandbox.sandbox.klaviyo.members(LIST).values()]
    assert sorted(consents) == ["NEVER_SUBSCRIBED", "UNSUBSCRIBED"]


def test_a_no_said_at_klaviyo_survives_being_added_again(
    build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    klaviyo = build("klaviyo")
    driver.run(klaviyo, [an_addition(n, email(n)) for n in (0, 1)])
    unsubscribe_at_klaviyo(sandbox, 0)
    again = driver.run(klaviyo, [an_addition(n, email(n)) for n in (0, 1)])
    assert sandbox.sandbox.klaviyo.members(LIST)["p0@example.com"]["consent"] == "UNSUBSCRIBED"
    assert (again["0"].outcome, again["0"].reason) == (Outcome.DELIVERED, "unsubscribed_at_destination")
    assert again["1"].reason is None


def test_subscribe_false_leaves_consent_alone(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    driver.run(build("klaviyo", subscribe=False), [an_addition(0, email(0))])
    assert sandbox.sandbox.klaviyo.members(LIST)["p0@example.com"]["consent"] == "NEVER_SUBSCRIBED"


def test_removal_leaves_consent_and_profile_alone(
    build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    klaviyo = build("klaviyo")
    added = driver.run(klaviyo, [an_addition(n, email(n)) for n in (0, 1)])
    driver.run(klaviyo, [a_removal(0, added["0"].destination_key)])
    row = sandbox.sandbox.state.one("select * from klaviyo_profiles where email = 'p0@example.com'")
    assert row is not None
    assert row["consent"] == "SUBSCRIBED"
    assert not any("delete-job" in request.url for request, _ in driver.seen if request.url)


def test_import_errors_name_their_row_and_repeat_nothing(build: Any, driver: Driver) -> None:
    people = [
        an_addition(0, email(0)),
        an_addition(1, {"email": "broken@@example"}),
        an_addition(2, email(2)),
    ]
    results = driver.run(build("klaviyo"), people)
    assert outcomes(results) == {"0": "delivered", "1": "rejected", "2": "delivered"}
    assert results["1"].reason == "invalid_email"


def test_a_number_without_country_is_left_out(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    driver.run(build("klaviyo"), [an_addition(0, {**email(0), "phone_number": "212 555 0123"})])
    row = sandbox.sandbox.state.one("select phone_number from klaviyo_profiles")
    assert row is not None
    assert row["phone_number"] is None


def test_one_person_who_cannot_be_subscribed_does_not_keep_the_others_from_it(
    build: Any, driver: Driver, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from activations.sandbox.klaviyo import jsonapi, subscriptions

    def check(data: Any, profiles: Any) -> None:
        if any(profile["attributes"]["email"] == "p3@example.com" for profile in profiles):
            raise jsonapi.Refusal(400, "invalid", "refused for this test")

    monkeypatch.setattr(subscriptions, "_check_subscription", check)
    results = driver.run(build("klaviyo"), [an_addition(n, email(n)) for n in range(8)])
    consents = {e: m["consent"] for e, m in sandbox.sandbox.klaviyo.members(LIST).items()}
    assert {e for e, c in consents.items() if c != "SUBSCRIBED"} == {"p3@example.com"}
    assert {n: r.reason for n, r in results.items() if r.reason} == {"3": "not_subscribed"}
    assert set(outcomes(results).values()) == {"delivered"}


def test_an_unknown_list_needs_a_person(build: Any, driver: Driver) -> None:
    for changes in ([an_addition(0, email(0))], [a_removal(0, "01" + "A" * 24)]):
        with pytest.raises(FatalDestinationError, match="list_id"):
            driver.run(build("klaviyo", list_id="NOLIST"), changes)


def test_a_profile_that_is_gone_counts_as_removed(build: Any, driver: Driver) -> None:
    results = driver.run(build("klaviyo"), [a_removal(0, "01" + "A" * 24)])
    assert outcomes(results) == {"0": "delivered"}


def test_a_gone_profile_among_others_is_found_by_splitting(build: Any, driver: Driver) -> None:
    klaviyo = build("klaviyo")
    added = driver.run(klaviyo, [an_addition(0, email(0))])
    with pytest.raises(BatchRefused):
        driver.run(klaviyo, [a_removal(0, added["0"].destination_key), a_removal(1, "01" + "A" * 24)])


def test_a_refused_import_took_nothing(build: Any, sandbox: RunningSandbox) -> None:
    refusal = Response(status=400, body=json.dumps({"errors": [{"code": "invalid"}]}).encode())
    klaviyo = build("klaviyo")
    with pytest.raises(BatchRefused) as refused:
        canned(klaviyo, a_batch([an_addition(n, email(n)) for n in (0, 1)]), [refusal])
    assert refused.value.reason == "invalid"
    single = canned(klaviyo, a_batch([an_addition(0, email(0))]), [refusal])
    assert [(r.outcome, r.reason) for r in single] == [(Outcome.REJECTED, "invalid")]


def job(status: str, failed: int = 0) -> Response:
    attributes = {"status": status, "failed_count": failed, "total_count": 1, "created_at": ""}
    body = {"data": {"type": "profile-bulk-import-job", "id": "job1", "attributes": attributes}}
    return Response(status=200, body=json.dumps(body).encode())


@pytest.mark.parametrize("answers", [[job("queued")] * 500, [job("queued"), job("cancelled")]])
def test_a_job_that_does_not_end_well_is_in_doubt(answers: list[Response]) -> None:
    klaviyo = make("klaviyo", {"api_key": "k"})
    with pytest.raises(UnreadableResponse):
        canned(klaviyo, a_batch([an_addition(0, email(0))]), answers)


def answer(status: int, body: Any = None) -> Response:
    return Response(status=status, body=json.dumps(body or {}).encode())


@pytest.mark.parametrize("status", [408, 425])
def test_an_answer_that_may_be_a_proxys_is_no_refusal(status: int) -> None:
    for change in (an_addition(0, email(0)), a_removal(0, "known")):
        with pytest.raises(UnreadableResponse):
            canned(make("klaviyo", {"api_key": "k"}), a_batch([change]), [answer(status)])


@pytest.mark.parametrize("errors", [{"code": "invalid"}, ["x"], "x", 7, [], [{"code": ["invalid"]}]])
def test_a_refusal_whose_errors_are_odd_is_still_a_refusal(errors: Any) -> None:
    (result,) = canned(
        make("klaviyo", {"api_key": "k"}),
        a_batch([an_addition(0, email(0))]),
        [answer(400, {"errors": errors})],
    )
    assert (result.outcome, result.reason) == (Outcome.REJECTED, "http_400")


@pytest.mark.parametrize("data", [[1], ["job1"], "job1", 1, {"id": 1}, {"id": ["job1"]}])
def test_a_job_without_a_usable_id_is_in_doubt(data: Any) -> None:
    with pytest.raises(UnreadableResponse):
        canned(
            make("klaviyo", {"api_key": "k"}),
            a_batch([an_addition(0, email(0))]),
            [answer(202, {"data": data})],
        )


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"id": "1"}}, {"data": ["1"]}, {"data": "1"}])
def test_a_lookup_that_lists_nothing_readable_does_not_count_anybody_as_gone(body: Any) -> None:
    klaviyo = make("klaviyo", {"api_key": "k"})
    with pytest.raises(UnreadableResponse):
        canned(klaviyo, a_batch([a_removal(0, None, email(0))]), [answer(200, body)])


def imported(*people: int) -> list[Response]:
    """What an import of these people is answered until their fields are cleared; nobody is new to Klaviyo."""
    yes = {"email": {"marketing": {"consent": "SUBSCRIBED"}}}
    profiles = [{"id": f"id{n}", "attributes": {**email(n), "subscriptions": yes}} for n in people]
    return [job("queued"), job("complete"), answer(200, {"data": profiles})]


def cleared(*answers: Response) -> list[tuple[Outcome, str | None]]:
    """Rows 0, 1, … that are known to Klaviyo, one answer each to the request that empties a field."""
    changes = [a_change(n, email(n), {"title": None}, f"id{n}") for n in range(len(answers))]
    people = imported(*range(len(answers)))
    results = canned(make("klaviyo", {"api_key": "k"}), a_batch(changes), [*people, *answers])
    return [(result.outcome, result.reason) for result in results]


def test_a_profile_that_cannot_be_cleared_is_rejected_alone() -> None:
    refusals = [answer(404, {"errors": [{"code": "not_found"}]}), answer(400)]
    assert cleared(answer(200), *refusals, answer(200)) == [
        (Outcome.DELIVERED, None),
        (Outcome.REJECTED, "not_found"),
        (Outcome.REJECTED, "http_400"),
        (Outcome.DELIVERED, None),
    ]


@pytest.mark.parametrize("status", [408, 425])
def test_a_profile_that_may_have_been_cleared_is_in_doubt_alone(status: int) -> None:
    assert cleared(answer(status), answer(200)) == [
        (Outcome.UNKNOWN, "not_cleared"),
        (Outcome.DELIVERED, None),
    ]


def test_an_addition_that_cannot_be_cleared_is_on_the_list_and_gets_a_name() -> None:
    """A rejected addition counts as never held: whoever left the audience would stay on the list."""
    batch = a_batch([an_addition(0, email(0), {"title": None})])
    (result,) = canned(make("klaviyo", {"api_key": "k"}), batch, [*imported(0), answer(400)])
    assert (result.outcome, result.destination_key) == (Outcome.UNKNOWN, "id0")


def test_polling_slows_down_and_is_bounded() -> None:
    flow = make("klaviyo", {"api_key": "k"}).exchange(a_batch([an_addition(0, email(0))]))
    next(flow)
    waits = [flow.send(job("queued"))]
    with contextlib.suppress(UnreadableResponse):
        while flow.send(None):  # type: ignore[arg-type]
            waits.append(flow.send(job("processing")))
    seconds = [wait.seconds for wait in waits if isinstance(wait, Wait)]
    assert seconds == sorted(seconds)
    assert 600 <= sum(seconds) < 630


def test_only_the_cursor_of_a_next_link_is_followed() -> None:
    """A full link would let an answer send our key to any host."""
    page = {"data": [], "links": {"next": "https://elsewhere.example.net/steal?page%5Bcursor%5D=abc"}}
    klaviyo = make("klaviyo", {"api_key": "k"})
    flow = klaviyo.exchange(a_batch([a_removal(0, None, email(0))]))
    first = next(flow)
    second = flow.send(Response(status=200, body=json.dumps(page).encode()))
    assert (first.url, second.url) == ("https://a.klaviyo.com/api/profiles",) * 2  # type: ignore[union-attr]
    assert second.params["page[cursor]"] == "abc"  # type: ignore[union-attr]


def test_a_quote_in_an_address_cannot_leave_the_filter() -> None:
    klaviyo = make("klaviyo", {"api_key": "k"})
    request = next(klaviyo.exchange(a_batch([a_removal(0, None, {"email": '"),equals(id,"x'})])))
    assert request.params["filter"] == 'any(email,["\\"),equals(id,\\"x"])'  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("identifiers", "fields", "problem"),
    [
        ({"phone_number"}, set(), "map `email`"),
        ({"email"}, {"phone_number"}, "under identifiers"),
        ({"email"}, {"location.planet"}, "no field `location.planet`"),
        ({"email"}, {"first_name", "location.city", "anything"}, None),
    ],
)
def test_mappings_are_checked_when_the_sync_loads(
    identifiers: set[str], fields: set[str], problem: str | None
) -> None:
    found = Klaviyo.check_mapping(frozenset(identifiers), frozenset(fields), KlaviyoTarget(list_id="x"))
    assert (found is None) if problem is None else (problem in str(found))
