"""What is made up says so, can reach nobody, hangs together, and is good enough to build audiences from."""

from __future__ import annotations

import re

import duckdb
import phonenumbers
import pytest

from dagster_project.raw.load import RAW_TABLES

ADDRESSES = {
    "crm_contacts": "email",
    "web_events": "login_email",
    "message_events": "recipient",
    "consent_events": "subject",
    "suppression_list": "identifier",
}
NUMBERS = ADDRESSES | {"crm_contacts": "phone", "phone_history": "phone", "web_events": "null"}
FICTION = re.compile(r"\+1[2-9]\d\d55501\d\d|\+442079460\d{3}")


def values(connection: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    return [value for (value,) in connection.execute(query).fetchall()]


@pytest.mark.parametrize("name", [table.name for table in RAW_TABLES.values() if table.is_generated])
def test_every_generated_row_says_so(small: duckdb.DuckDBPyConnection, name: str) -> None:
    assert small.execute(f"select distinct _generated from raw.{name}").fetchall() == [(True,)]


@pytest.mark.parametrize(("table", "column"), ADDRESSES.items())
def test_no_address_leaves_the_example_domains(
    small: duckdb.DuckDBPyConnection, table: str, column: str
) -> None:
    addresses = values(small, f"select distinct {column} from raw.{table} where {column} like '%@%'")
    assert addresses
    assert [a for a in addresses if not re.search(r"@example\.(com|org|net)$", a.strip().lower())] == []


@pytest.mark.parametrize(("table", "column"), NUMBERS.items())
def test_international_numbers_are_valid_and_belong_to_nobody(
    small: duckdb.DuckDBPyConnection, table: str, column: str
) -> None:
    for number in values(small, f"select distinct {column} from raw.{table} where {column} like '+%'"):
        assert FICTION.fullmatch(number)
        assert phonenumbers.is_valid_number(phonenumbers.parse(number))


def test_national_numbers_are_valid_and_belong_to_nobody(small: duckdb.DuckDBPyConnection) -> None:
    written = small.execute(
        "select distinct phone, country from raw.crm_contacts where source_system = 'loyalty' and phone <> ''"
    ).fetchall()
    assert written
    for phone, country in written:
        number = phonenumbers.parse(phone, country)
        assert phonenumbers.is_valid_number(number)
        assert FICTION.fullmatch(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("crm_contacts", "source_system, contact_id"),
        ("overlay_true_person", "source_system, contact_id"),
        ("web_events", "event_id"),
        ("message_events", "event_id"),
        ("consent_events", "event_id"),
    ],
)
def test_keys_are_unique(small: duckdb.DuckDBPyConnection, table: str, key: str) -> None:
    doubles = small.execute(f"select {key} from raw.{table} group by all having count(*) > 1").fetchall()
    assert doubles == []


@pytest.mark.parametrize(
    "orphans",
    [
        "from raw.crm_contacts anti join raw.overlay_true_person using (source_system, contact_id)",
        "from raw.overlay_true_person anti join raw.crm_contacts using (source_system, contact_id)",
        "from raw.phone_history anti join raw.crm_contacts using (source_system, contact_id)",
        "from raw.message_events anti join raw.retail_campaign_descriptions using (campaign_id)",
        "from (from raw.web_events where login_email is not null) e"
        + " anti join raw.crm_contacts c on lower(trim(c.email)) = e.login_email",
        "select * from raw.retail_campaigns anti join raw.retail_campaign_descriptions using (campaign_id)",
    ],
)
def test_what_is_referred_to_is_there(small: duckdb.DuckDBPyConnection, orphans: str) -> None:
    assert small.execute(f"{orphans} limit 1").fetchall() == []


@pytest.mark.parametrize(
    ("table", "moment"),
    [
        ("retail_transactions", "transaction_timestamp"),
        ("crm_contacts", "updated_at"),
        ("web_events", "received_at"),
        ("message_events", "occurred_at"),
        ("consent_events", "recorded_at"),
        ("suppression_list", "suppressed_at"),
    ],
)
def test_nothing_is_known_before_its_time(small: duckdb.DuckDBPyConnection, table: str, moment: str) -> None:
    query = f"select count(*) from raw.{table} where {moment} >= (select as_of from raw.clock)"
    assert small.execute(query).fetchall() == [(0,)]


def test_views_come_before_the_real_purchase(small: duckdb.DuckDBPyConnection) -> None:
    """Of the products put into a basket that went through, nearly all are bought in the two days after."""
    query = """
        with bought as (
          select e.occurred_at, e.product_id
          from raw.web_events e
          where e.event_type = 'add_to_cart'
            and exists (
              from raw.web_events c
              where c.anonymous_id = e.anonymous_id and c.event_type = 'checkout'
                and c.occurred_at between e.occurred_at and e.occurred_at + interval 20 minute
            )
            and e.occurred_at < (select as_of - interval 3 day from raw.clock)
        )
        select avg(exists (
          from raw.retail_transactions t
          where t.product_id = b.product_id
            and t.transaction_timestamp between b.occurred_at and b.occurred_at + interval 2 day
        )::integer)
        from bought b
    """
    ((share,),) = small.execute(query).fetchall()
    assert share > 0.95


REACH = """
    with people as (
      select t.true_person_id as person,
        bool_or(regexp_matches(trim(lower(c.email)), '^[a-z.]+[0-9]+([+.][a-z]+)?@example')) as has_email,
        bool_or(regexp_matches(regexp_replace(c.phone, '[^0-9]', '', 'g'), '(55501|2079460)')) as has_phone,
        list(trim(lower(c.email))) || list(c.phone) as subjects
      from raw.crm_contacts c join raw.overlay_true_person t using (source_system, contact_id)
      group by all
    ),
    latest as (
      select lower(subject) as subject, channel,
        max_by(action, least(captured_at, recorded_at)) in ('granted', 'confirmed') as is_live
      from raw.consent_events group by all
    ),
    consents as (
      select person, channel, bool_and(is_live) as is_live
      from people join latest on list_contains(subjects, subject) group by all
    )
    select
      avg(has_email::integer), avg(coalesce(has_phone, false)::integer),
      (select count(*) from consents where channel = 'email' and is_live) / count(*),
      (select count(*) from consents where channel = 'sms' and is_live) / count(*),
      (select count(*) from consents where channel = 'ads' and is_live) / count(*)
    from people
"""


def test_enough_people_can_be_reached(small: duckdb.DuckDBPyConnection) -> None:
    ((email, phone, email_consent, sms_consent, ads_consent),) = small.execute(REACH).fetchall()
    assert email >= 0.85
    assert phone >= 0.70
    assert 0.55 <= email_consent <= 0.75
    assert 0.40 <= sms_consent <= 0.60
    assert 0.60 <= ads_consent <= 0.80


def test_enough_baskets_were_abandoned_lately_by_people_with_a_phone(
    small: duckdb.DuckDBPyConnection,
) -> None:
    query = """
        with abandoned as (
          select distinct anonymous_id from raw.web_events e
          where event_type = 'add_to_cart' and occurred_at > (select as_of - interval 14 day from raw.clock)
            and not exists (
              from raw.web_events c
              where c.anonymous_id = e.anonymous_id and c.event_type = 'checkout'
                and c.occurred_at between e.occurred_at and e.occurred_at + interval 20 minute)
        ),
        consenting as (
          select distinct lower(c.email) as email
          from raw.crm_contacts c join raw.consent_events s on s.subject = c.phone
          where s.channel = 'sms' and s.action = 'granted'
        )
        select count(distinct l.login_email)
        from abandoned join raw.web_events l using (anonymous_id) join consenting c on c.email = l.login_email
    """
    ((people,),) = small.execute(query).fetchall()
    assert people >= 60
