"""What every destination promises, whatever its vendor: one suite, run over real HTTP against the sandbox.

A kind that is added to the registry has to appear here, or `test_every_kind_is_in_the_suite` fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from activations.destinations.registry import KINDS
from activations.errors import UnreadableResponse
from activations.model import Outcome, RowResult, SyncMode
from activations.sandbox.server import RunningSandbox
from tests.contract.conftest import AUDIENCE, LIST
from tests.contract.driver import (
    Driver,
    InDoubt,
    Stopped,
    a_batch,
    a_change,
    a_removal,
    an_addition,
    outcomes,
    pseudonym,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a kind is fed, and how its other side is read."""

    kind: str
    person: Callable[[int], dict[str, str]]
    fields: dict[str, Any]
    members: Callable[[RunningSandbox], dict[str, Any]]
    """What the other side calls each member → what it holds of them."""
    called: Callable[[int], str]
    vendor: str
    changed: dict[str, Any] | None = None
    holds_change: Callable[[Any], bool] = lambda held: True
    partial: frozenset[Outcome] = frozenset({Outcome.REJECTED, Outcome.DELIVERED})
    """What rows become while the fault `partial` is on, and for how many requests it is."""
    partial_requests: int = 1


KLAVIYO = Case(
    kind="klaviyo",
    vendor="klaviyo",
    person=lambda n: {"email": f"Person{n}@Example.com"},
    fields={"first_name": "Ada", "lead_score": 7, "revenue": Decimal("12.50")},
    changed={"first_name": "Bea", "lead_score": 9},
    members=lambda sandbox: sandbox.sandbox.klaviyo.members(LIST),
    called=lambda n: f"person{n}@example.com",
    holds_change=lambda held: held["first_name"] == "Bea" and held["properties"]["lead_score"] == 9,
)
META = Case(
    kind="meta_custom_audience",
    vendor="meta",
    person=lambda n: {"email": f"person{n}@example.com", "fn": "Ada", "phone": "+12125550123"},
    fields={},
    members=lambda sandbox: sandbox.sandbox.meta.members(AUDIENCE),
    called=pseudonym,
    partial_requests=64,
)
WEBHOOK = Case(
    kind="webhook",
    vendor="webhook",
    person=lambda n: {"email": f"person{n}@example.com"},
    fields={"first_name": "Ada", "revenue": Decimal("12.50")},
    changed={"first_name": "Bea"},
    members=lambda sandbox: sandbox.sandbox.webhook.records("a_sync"),
    called=pseudonym,
    holds_change=lambda held: held["fields"] == {"first_name": "Bea"},
    partial=frozenset(set(Outcome) - {Outcome.SUPPRESSED}),
)
TWILIO = Case(
    kind="twilio",
    vendor="twilio",
    person=lambda n: {"phone": f"+1212555{100 + n:04d}"},
    fields={"first_name": "Ada", "items": 2},
    members=lambda sandbox: dict(sandbox.sandbox.twilio.messages()),
    called=lambda n: f"+1212555{100 + n:04d}",
)
CASES = (KLAVIYO, META, WEBHOOK, TWILIO)
AUDIENCES = tuple(case for case in CASES if case is not TWILIO)
every_kind = pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
every_audience = pytest.mark.parametrize("case", AUDIENCES, ids=lambda case: case.kind)


def add(driver: Driver, destination: Any, case: Case, people: range) -> dict[str, RowResult]:
    """Add these people in batches of the size that the kind allows."""
    size, results = destination.capabilities.max_batch_rows, {}
    changes = [an_addition(n, case.person(n), case.fields) for n in people]
    for start in range(0, len(changes), size):
        results |= driver.run(destination, changes[start : start + size])
    return results


def test_every_kind_is_in_the_suite() -> None:
    assert {case.kind for case in CASES} == set(KINDS)


@every_kind
def test_added_people_are_on_the_other_side_and_named(
    case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    destination = build(case.kind)
    results = add(driver, destination, case, range(7))
    assert set(outcomes(results).values()) == {"delivered"}
    is_named = destination.capabilities.called_by_pseudonym
    assert all(is_named or result.destination_key for result in results.values())
    assert set(case.members(sandbox)) == {case.called(n) for n in range(7)}


@every_audience
def test_add_change_remove_leaves_what_was_asked_for(
    case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    destination = build(case.kind)
    keys = {n: result.destination_key for n, result in add(driver, destination, case, range(6)).items()}
    changed = driver.run(
        destination, [a_change(n, case.person(n), case.changed or case.fields, keys[str(n)]) for n in (1, 2)]
    )
    removed = driver.run(destination, [a_removal(n, keys[str(n)]) for n in (0, 1)])
    members = case.members(sandbox)
    assert set(outcomes(changed | removed).values()) == {"delivered"}
    assert set(members) == {case.called(n) for n in (2, 3, 4, 5)}
    assert case.holds_change(members[case.called(2)])


@every_audience
def test_adding_and_removing_twice_changes_nothing(
    case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    destination = build(case.kind)
    first, second = (add(driver, destination, case, range(4)) for _ in range(2))
    assert {n: r.destination_key for n, r in first.items()} == {
        n: r.destination_key for n, r in second.items()
    }
    removals = [a_removal(n, first[str(n)].destination_key) for n in (0, 1)]
    for _ in range(2):
        assert set(outcomes(driver.run(destination, removals)).values()) == {"delivered"}
    assert set(case.members(sandbox)) == {case.called(2), case.called(3)}


@every_audience
def test_removing_a_row_in_doubt_needs_no_destination_key(
    case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    destination = build(case.kind)
    add(driver, destination, case, range(3))
    removals = [a_removal(0, None, case.person(0)), a_removal(9, None, case.person(9))]
    assert set(outcomes(driver.run(destination, removals)).values()) == {"delivered"}
    assert set(case.members(sandbox)) == {case.called(1), case.called(2)}


@every_kind
def test_throttling_is_survived(case: Case, build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    sandbox.arm("429", vendor=case.vendor, next_n=2)
    results = add(driver, build(case.kind), case, range(2))
    assert set(outcomes(results).values()) == {"delivered"}
    assert [answer.status_code for _, answer in driver.seen].count(429) == 2
    assert len(case.members(sandbox)) == 2


@every_kind
def test_rows_of_a_partial_failure_keep_their_own_outcome(
    case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    sandbox.arm("partial", vendor=case.vendor, next_n=case.partial_requests)
    results = add(driver, build(case.kind), case, range(8))
    said = {result.outcome for result in results.values()}
    assert said == case.partial
    taken = {case.called(int(n)) for n, result in results.items() if result.outcome is Outcome.DELIVERED}
    assert set(case.members(sandbox)) == taken
    assert all(r.reason for r in results.values() if r.outcome is not Outcome.DELIVERED)


@every_kind
@pytest.mark.parametrize("kind", ["500_before", "500_after", "reset_after", "timeout_after"])
def test_an_answer_that_never_comes_is_in_doubt_and_a_repetition_heals_it(
    kind: str, case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    driver.timeout = 0.3
    destination, changes = build(case.kind), [an_addition(1, case.person(1), case.fields)]
    sandbox.arm(kind, vendor=case.vendor, method="POST", seconds=0.4)
    with pytest.raises(InDoubt):
        driver.run(destination, changes)
    assert len(case.members(sandbox)) == (0 if kind == "500_before" else 1)
    if destination.capabilities.modes != {SyncMode.APPEND}:
        assert outcomes(driver.run(destination, changes)) == {"1": "delivered"}
        assert set(case.members(sandbox)) == {case.called(1)}


@every_kind
def test_a_cut_off_answer_is_unreadable_and_never_a_yes(
    case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    sandbox.arm("malformed", vendor=case.vendor, method="POST")
    with pytest.raises(UnreadableResponse):
        driver.run(build(case.kind), [an_addition(1, case.person(1), case.fields)])


@every_kind
def test_a_wrong_credential_stops_before_anything_is_accepted(
    case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    secret = {
        "klaviyo": {"api_key": "pk_wrong"},
        "twilio": {"auth_token": "wrong"},
        "meta_custom_audience": {"access_token": "wrong"},
        "webhook": {"signing_secret": "whsec_" + "d3Jvbmcg" * 5},
    }[case.kind]
    with pytest.raises(Stopped):
        driver.run(build(case.kind, config=secret), [an_addition(1, case.person(1), case.fields)])
    assert not case.members(sandbox)


@every_kind
def test_a_batch_of_the_largest_size_travels_at_once(
    case: Case, build: Any, driver: Driver, sandbox: RunningSandbox
) -> None:
    destination = build(case.kind)
    size = min(destination.capabilities.max_batch_rows, 1_000)
    assert set(outcomes(add(driver, destination, case, range(size))).values()) == {"delivered"}
    assert len(case.members(sandbox)) == size
    posts = [request for request, _ in driver.seen if request.method == "POST"]
    assert len(posts) == (2 if case is KLAVIYO else 1)
    largest = destination.capabilities.max_batch_bytes
    assert largest is None or max(len(request.body or b"") for request in posts) < largest


@every_kind
def test_no_credential_and_no_address_is_in_a_url_or_a_repr(case: Case, build: Any) -> None:
    destination = build(case.kind)
    flow = destination.exchange(_batch(case))
    request = next(flow)
    secrets = [
        v.get_secret_value() for v in vars(destination.config).values() if hasattr(v, "get_secret_value")
    ]
    hidden = [*case.person(1).values(), *secrets]
    if case is TWILIO:
        # The account's SID is part of Twilio's address; it opens nothing without the token.
        hidden.remove(destination.config.account_sid.get_secret_value())
    assert secrets
    assert not [value for value in hidden if value in request.url or value in repr(request)]


def _batch(case: Case) -> Any:
    return a_batch([an_addition(1, case.person(1), case.fields)])
