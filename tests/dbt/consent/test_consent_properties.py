"""What must hold for every ledger, not only for the ones somebody thought of."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dbt.consent.conftest import Layers, Row, World, phone_of

PERSONS = [f"p{n}" for n in range(4)]
START = datetime(2017, 5, 1)
CHANNELS = [("email", "marketing"), ("sms", "marketing"), ("ads", "ads_share")]
DENIALS = ["denied", "withdrawn", "objected", "erased"]
FEW = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def statements(draw: st.DrawFn, actions: list[str]) -> dict[str, Any]:
    """One consent event of somebody. Few different times, so that ties are common."""
    person = draw(st.sampled_from(PERSONS))
    channel, purpose = draw(st.sampled_from(CHANNELS))
    captured_at = START + timedelta(days=draw(st.integers(0, 6)))
    return {
        "subject": draw(
            st.sampled_from([f"{person}@example.com", f"{person}+x@example.com", phone_of(person)])
        ),
        "action": draw(st.sampled_from(actions)),
        "channel": channel,
        "purpose": purpose,
        "program": draw(st.sampled_from([None, "offers"])),
        "captured_at": captured_at,
        "expires_at": draw(st.sampled_from([None, None, None, captured_at + timedelta(days=2)])),
    }


ledgers = st.lists(
    statements([*DENIALS, "granted", "granted", "granted", "pending", "confirmed"]), max_size=40
)
denials = st.lists(statements(DENIALS), min_size=1, max_size=3)
delays = st.lists(st.integers(0, 60), min_size=40, max_size=40)


def _owner(event: dict[str, Any]) -> str:
    owners = {name: person for person in PERSONS for name in (phone_of(person), person)}
    return owners[event["subject"].split("@")[0].split("+x")[0]]


def world_of(events: list[dict[str, Any]]) -> World:
    world = World()
    for person in PERSONS:
        world.person(person)
        # Something to lose.
        world.says(f"0-{person}", f"{person}@example.com", "granted", captured_at=START - timedelta(days=9))
        world.says(
            f"1-{person}", phone_of(person), "granted", channel="sms", captured_at=START - timedelta(days=9)
        )
    for number, event in enumerate(events):
        world.says(f"event-{number:02d}", **event)
    return world


@FEW
@given(ledger=ledgers, more=denials)
def test_one_more_denial_never_makes_anybody_eligible(
    layers: Layers, ledger: list[dict[str, Any]], more: list[dict[str, Any]]
) -> None:
    before = layers.build(world_of(ledger)).eligible()
    after = layers.build(world_of(ledger + more)).eligible()
    assert after <= before


@FEW
@given(ledger=ledgers, last=denials)
def test_a_last_word_no_on_any_identifier_is_the_persons_no(
    layers: Layers, ledger: list[dict[str, Any]], last: list[dict[str, Any]]
) -> None:
    latest = [event | {"captured_at": START + timedelta(days=30), "program": None} for event in last]
    eligible = layers.build(world_of(ledger + latest)).eligible()
    assert not eligible & {(_owner(event), event["channel"]) for event in latest}


@FEW
@given(ledger=ledgers, order=st.randoms(use_true_random=False), late=delays)
def test_the_order_of_arrival_does_not_change_the_state(
    layers: Layers, ledger: list[dict[str, Any]], order: Any, late: list[int]
) -> None:
    state = "select * from consent.fct_consent_state order by all"
    world = world_of(ledger)
    expected = layers.build(world).query(state)

    events = world.rows["staging.stg_consent__events"]
    arrived: list[Row] = [
        {**event, "recorded_at": event["captured_at"] + timedelta(days=days)}
        for event, days in zip(events, late + late, strict=False)
    ]
    order.shuffle(arrived)
    world.rows["staging.stg_consent__events"] = arrived
    assert layers.build(world).query(state) == expected


@FEW
@given(ledger=ledgers)
def test_suppression_wins_over_every_ledger(layers: Layers, ledger: list[dict[str, Any]]) -> None:
    world = world_of(ledger)
    for person in PERSONS:
        listed = {"identifier_type": "email", "identifier": f"{person}@example.com", "reason": "legal"}
        world.add("staging.stg_suppression__list", listed | {"channel": "all", "source": "counsel"})
    assert layers.build(world).eligible() == set()
