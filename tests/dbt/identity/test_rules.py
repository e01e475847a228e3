"""The rules of identity on small cases: `cases.yml` says who is one person, one build decides all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Warehouse

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "cases.yml").read_text())
CONTACT_COLUMNS = (
    "contact_key varchar, contact_id varchar, source_system varchar, household_id bigint, first_name varchar, "
    "last_name varchar, email varchar, email_match_key varchar, phone varchar, is_deleted boolean, "
    "created_at timestamp, updated_at timestamp"
)
HISTORY_COLUMNS = "phone varchar, contact_key varchar, valid_from timestamp, valid_to timestamp"
EVENT_COLUMNS = "event_id varchar, anonymous_id varchar, occurred_at timestamp, login_email_match_key varchar"
CREATED, UPDATED, AS_OF = datetime(2016, 1, 1), datetime(2016, 6, 1), datetime(2017, 9, 1)


def contact_row(case_number: int, record: Mapping[str, Any]) -> tuple[Any, ...]:
    key, email = f"{case_number}.{record['key']}", record.get("email")
    values = [record.get(field) for field in ("household", "first", "last")]
    return (
        key, key, record["system"], *values, email, email, record.get("phone"),
        record.get("is_deleted", False), CREATED, UPDATED,
    )  # fmt: skip


@pytest.fixture(scope="module")
def persons(warehouse: Warehouse) -> Mapping[int, set[frozenset[str]]]:
    """The groups that the build made of every case."""
    numbered = list(enumerate(CASES))
    contacts = [contact_row(n, record) for n, case in numbered for record in case.get("records", ())]
    periods = [
        (row["phone"], f"{n}.{row['key']}", row["from"], row.get("to"))
        for n, case in numbered
        for row in case.get("phones", ())
    ]
    logins = [
        (f"{n}.{i}", f"{n}.{device}", UPDATED, email)
        for n, case in numbered
        for i, (device, email) in enumerate(case.get("logins", ()))
    ]
    warehouse.write("staging.run_clock", "as_of timestamp", [(AS_OF,)])
    warehouse.write("staging.stg_crm__contacts", CONTACT_COLUMNS, contacts)
    warehouse.write("staging.stg_crm__phone_history", HISTORY_COLUMNS, periods)
    warehouse.write("staging.stg_web__events", EVENT_COLUMNS, logins)
    warehouse.run("path:models/identity")
    groups: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    rows = warehouse.query(
        "select identifier, person_id from identity.identity_map "
        "where is_current and identifier_type in ('contact', 'anonymous_id')"
    )
    for identifier, person in rows:
        number, name = identifier.split(".", 1)
        groups[int(number)][person].add(name)
    return {number: {frozenset(group) for group in of_case.values()} for number, of_case in groups.items()}


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["case"] for case in CASES])
def test_records_form_the_persons_of_the_case(
    persons: Mapping[int, set[frozenset[str]]], number: int
) -> None:
    assert persons.get(number, set()) == {frozenset(group) for group in CASES[number]["groups"]}


def test_every_refusal_is_readable_in_the_quarantine(
    warehouse: Warehouse, persons: Mapping[int, set[frozenset[str]]]
) -> None:
    reasons = {
        reason
        for (reason,) in warehouse.query("select distinct reason from identity.int_identity__quarantine")
    }
    assert reasons == {
        "deleted_record", "fan_out", "names_conflict", "namesake_in_one_system", "placeholder", "role_account",
        "several_persons", "undecided_name",
    }  # fmt: skip
