"""Identity and profiles on the slice of the demonstration data, scored against the truth only tests may read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import duckdb
import pytest

from dagster_project.raw.load import Scale, load_all

from .conftest import Warehouse

PRECISION_FLOOR = 0.99
# Given up on purpose: records that share nothing but a name while a namesake or another phone says "maybe not".
RECALL_FLOOR = 0.95


def pair_count(groups: Counter[Any]) -> int:
    return sum(size * (size - 1) // 2 for size in groups.values())


@pytest.fixture(scope="module")
def built(warehouse: Warehouse) -> Warehouse:
    with duckdb.connect(str(warehouse.path)) as connection:
        load_all(connection, Scale.SLICE)
    warehouse.run("path:models/staging", "run_clock", "path:models/identity", "path:models/profiles")
    return warehouse


@pytest.fixture(scope="module")
def scores(built: Warehouse) -> Mapping[str, float]:
    """Pairwise: of all pairs of records put into one person, how many belong there, and the other way round."""
    pairs = built.query(
        "select person_id, true_person_id from staging.stg_overlay__true_persons as truth "
        "join identity.identity_map on identifier_type = 'contact' and identifier = contact_key and is_current"
    )
    found, real = Counter(person for person, _ in pairs), Counter(true for _, true in pairs)
    right = pair_count(Counter(pairs))
    return {
        "precision": right / pair_count(found),
        "recall": right / pair_count(real),
        "real pairs": pair_count(real),
    }


def test_wrong_merges_are_all_but_absent(scores: Mapping[str, float]) -> None:
    print(scores)
    assert scores["real pairs"] > 80, "too few true pairs to score anything"
    assert scores["precision"] >= PRECISION_FLOOR, scores


def test_recall_stays_above_the_stated_floor(scores: Mapping[str, float]) -> None:
    assert scores["recall"] >= RECALL_FLOOR, scores


def test_second_build_and_full_refresh_keep_every_id(built: Warehouse) -> None:
    before = built.query("select * from identity.identity_map order by all")
    built.run("path:models/identity")
    assert built.query("select * from identity.identity_map order by all") == before
    built.run("path:models/identity", arguments=["--full-refresh"])
    assert built.query("select * from identity.identity_map order by all") == before


def test_lost_map_is_minted_alike(built: Warehouse) -> None:
    """Ids of people who never merged or split come back even without the backup."""
    before = built.query(
        "select identifier, person_id from identity.identity_map where is_current order by all"
    )
    built.query("drop table identity.identity_map")
    built.run("identity_map")
    assert (
        built.query("select identifier, person_id from identity.identity_map where is_current order by all")
        == before
    )


def test_recycled_number_reaches_its_new_owner_only(built: Warehouse) -> None:
    moved = built.query(
        "select old.phone, new.contact_key, old.contact_key from staging.stg_crm__phone_history as old "
        "join staging.stg_crm__phone_history as new on new.phone = old.phone and new.valid_from >= old.valid_to "
        "cross join staging.run_clock where new.valid_from <= as_of"
    )
    assert moved, "the slice must contain a recycled number"
    person = dict(
        built.query(
            "select identifier, person_id from identity.identity_map where identifier_type = 'contact' and is_current"
        )
    )
    owner = dict(built.query("select phone, person_id from profiles.dim_profiles where phone is not null"))
    for phone, new_contact, old_contact in moved:
        assert person.get(new_contact) != person.get(old_contact)
        assert owner.get(phone) != person.get(old_contact)


def test_bounced_address_gives_way_to_a_deliverable_one(built: Warehouse) -> None:
    bounced = built.query(
        "select count(*), count_if(dim_profiles.email is not null) from profiles.fct_profile_values "
        "join profiles.dim_profiles using (person_id) where field = 'email' and lost_because = 'undeliverable'"
    )
    ((lost, replaced),) = bounced
    assert lost > 0
    assert replaced > 0
    still_used = built.query(
        "select count(*) from profiles.dim_profiles as p join profiles.int_profiles__undeliverable_addresses as u "
        "on u.address in (p.email, p.phone)"
    )
    assert still_used == [(0,)]


def test_shared_mailbox_is_sent_to_one_person_and_known_of_all(built: Warehouse) -> None:
    rows = built.query(
        "select identifier, count(distinct i.person_id), count(distinct p.person_id) "
        "from profiles.fct_profile_identifiers as i left join profiles.dim_profiles as p on p.email = i.identifier "
        "where identifier_type = 'email' and identifier like 'family.%' group by identifier"
    )
    assert any(holders > 1 for _, holders, _ in rows)
    assert all(owners <= 1 for _, _, owners in rows)


def test_robot_session_is_quarantined(built: Warehouse) -> None:
    longest = built.query(
        "select is_quarantined from profiles.fct_web_sessions where ended_at - started_at > interval 12 hour"
    )
    assert longest
    assert all(is_quarantined for (is_quarantined,) in longest)


def test_nothing_after_the_logical_now_is_seen(built: Warehouse) -> None:
    later = built.query(
        "select count(*) from profiles.fct_web_sessions, staging.run_clock where ended_at > as_of "
        "union all select count(*) from profiles.dim_profile_traits, staging.run_clock where last_order_on > as_of"
    )
    assert later == [(0,), (0,)]
