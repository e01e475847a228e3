"""What a person said, through the real models, to whether they may be reached."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.dbt.consent.conftest import Layers, World, phone_of


def granted(name: str, *other_emails: str) -> World:
    """Somebody who agreed to everything."""
    return (
        World()
        .person(name, *other_emails)
        .says("g-email", f"{name}@example.com", "granted")
        .says("g-sms", phone_of(name), "granted", channel="sms")
        .says("g-ads", f"{name}@example.com", "granted", channel="ads", purpose="ads_share")
    )


def test_who_agreed_to_everything_is_reached_everywhere(layers: Layers) -> None:
    assert layers.build(granted("ada")).eligible() == {("ada", "email"), ("ada", "sms"), ("ada", "ads")}


def test_who_never_said_anything_is_reached_nowhere(layers: Layers) -> None:
    layers.build(World().person("ada"))
    assert layers.eligible() == set()
    assert layers.blockers("ada", "email") == "consent"


def test_a_merged_record_that_withdrew_speaks_for_the_person(layers: Layers) -> None:
    world = granted("ada", "ada.old@example.org").says("w", "ada.old@example.org", "withdrawn")
    assert layers.build(world).eligible() == {("ada", "sms"), ("ada", "ads")}


def test_a_denial_under_another_spelling_of_the_mailbox_blocks(layers: Layers) -> None:
    world = granted("ada").says("w", "ada+shop@example.com", "withdrawn", captured_at=datetime(2016, 1, 1))
    assert ("ada", "email") not in layers.build(world).eligible()


def test_a_grant_under_another_spelling_of_the_mailbox_permits_nothing(layers: Layers) -> None:
    world = World().person("ada").says("g", "ada+shop@example.com", "granted")
    assert layers.build(world).eligible() == set()


def test_gpc_in_a_browser_reaches_the_person_who_logs_in_there_later(layers: Layers) -> None:
    signal = {
        "event_id": "e1",
        "anonymous_id": "library",
        "occurred_at": datetime(2017, 6, 1),
        "has_gpc": True,
    }
    login = signal | {"event_id": "e2", "occurred_at": datetime(2017, 7, 1), "has_gpc": False}
    world = granted("ada").add("staging.stg_web__events", signal, login | {"login_email": "ada@example.com"})
    world.says(
        "accepts",
        "ada@example.com",
        "granted",
        channel="ads",
        purpose="ads_share",
        captured_at=datetime(2017, 8, 1),
    )
    assert layers.build(world).eligible() == {("ada", "email"), ("ada", "sms")}


def test_stop_ends_text_messages_only(layers: Layers) -> None:
    stop = {"message_id": "m1", "channel": "sms", "recipient": phone_of("ada"), "event_type": "stop"}
    world = granted("ada").add("staging.stg_messaging__events", stop | {"occurred_at": datetime(2017, 6, 1)})
    assert layers.build(world).eligible() == {("ada", "email"), ("ada", "ads")}
    assert layers.blockers("ada", "sms") == "suppressed"


@pytest.mark.parametrize("action", ["objected", "erased"])
def test_an_objection_or_erasure_reaches_every_channel_and_no_grant_lifts_it(
    layers: Layers, action: str
) -> None:
    world = granted("ada").says("no", "ada@example.com", action, captured_at=datetime(2017, 6, 1))
    world.says("again", "ada@example.com", "granted", captured_at=datetime(2017, 7, 1))
    assert layers.build(world).eligible() == set()


def test_the_next_holder_of_a_number_did_not_agree_to_what_the_last_one_did(layers: Layers) -> None:
    world = granted("ada").add(
        "staging.stg_crm__phone_history",
        {
            "phone": phone_of("ada"),
            "contact_key": "crm:old",
            "valid_from": datetime(2015, 1, 1),
            "valid_to": datetime(2017, 7, 1),
        },
        {"phone": phone_of("ada"), "contact_key": "crm:ada", "valid_from": datetime(2017, 7, 9)},
    )
    contact = {"identifier_type": "contact", "is_current": True}
    world.add(
        "identity.identity_map",
        contact | {"identifier": "crm:old", "person_id": "bo"},
        contact | {"identifier": "crm:ada", "person_id": "ada"},
    )
    assert layers.build(world).eligible() == {("ada", "email"), ("ada", "ads")}


def test_a_deferral_makes_a_message_wait_without_ending_eligibility(layers: Layers) -> None:
    sent = {
        "channel": "sms",
        "recipient": phone_of("ada"),
        "event_type": "sent",
        "occurred_at": datetime(2017, 8, 31),
    }
    world = granted("ada").add(
        "staging.stg_messaging__events", sent | {"message_id": "m1"}, sent | {"message_id": "m2"}
    )
    assert ("ada", "sms") in layers.build(world).eligible()
    assert layers.blockers("ada", "sms") == "frequency_cap"
