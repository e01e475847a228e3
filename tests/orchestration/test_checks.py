"""Expectations: bad data fail, an expectation that cannot be evaluated is an error, and no value is ever shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import duckdb
import pytest

from dagster_project.defs.checks import CheckError, evaluate, suite_check, verdict
from dagster_project.defs.suites import Suite, audience_suite, profiles_suite, unique
from dagster_project.resources import Warehouse

CANARY = "canary@leak"

AUDIENCE = {
    "name": "aud_test",
    "config": {"meta": {"primary_key": ["person_id"], "channels": ["email"], "purpose": "marketing"}},
    "columns": {
        "person_id": {},
        "email": {"config": {"meta": {"pii": "email"}}},
        "phone": {"config": {"meta": {"pii": "phone"}}},
    },
}

GOOD = [
    "create schema audiences; create schema eligibility; create schema consent; create schema profiles; create schema staging",
    """create table audiences.aud_test as
       select 'p' || i as person_id, 'p' || i || '@example.com' as email, '+120255501' || (10 + i) as phone
       from range(5) as t(i)""",
    "create table profiles.dim_profiles as select * from audiences.aud_test",
    "create table staging.stg_crm__contacts as select * from range(9)",
    """create table eligibility.fct_eligibility as
       select person_id, 'email' as channel, 'marketing' as purpose, true as is_eligible, 'e1' as consent_event_id
       from audiences.aud_test""",
    "create table consent.dim_suppressions (person_id varchar, channel varchar)",
]


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for statement in GOOD:
            connection.execute(statement)
        yield connection


def broken(suite: Suite, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return {f.rule: f.broken for f in evaluate(suite, connection) if not f.held}


def test_good_data_hold_every_rule(connection: duckdb.DuckDBPyConnection) -> None:
    assert broken(audience_suite(AUDIENCE), connection) == {}
    assert broken(profiles_suite(), connection) == {}


@pytest.mark.parametrize(
    ("damage", "rule", "rows"),
    [
        ("update audiences.aud_test set person_id = null where person_id = 'p1'", "person_id is present", 1),
        ("insert into audiences.aud_test select * from audiences.aud_test limit 1", "person_id is unique", 2),
        (
            f"update audiences.aud_test set email = '{CANARY}' where person_id = 'p1'",
            "email has the form of email",
            1,
        ),
        (
            "update audiences.aud_test set phone = '2025550111' where person_id < 'p2'",
            "phone has the form of phone",
            2,
        ),
        ("delete from audiences.aud_test", "rows are 1 to any number", 1),
        (
            "delete from eligibility.fct_eligibility where person_id = 'p1'",
            "every member has a verdict for email and marketing",
            1,
        ),
        (
            "update eligibility.fct_eligibility set channel = 'sms'",
            "every member has a verdict for email and marketing",
            5,
        ),
        (
            "update eligibility.fct_eligibility set consent_event_id = null where person_id = 'p1'",
            "everybody eligible for email has a consent event",
            1,
        ),
        (
            "insert into consent.dim_suppressions values ('p1', 'email'), ('p2', 'all'), ('p3', 'sms')",
            "nobody suppressed is eligible for email",
            2,
        ),
        ("alter table audiences.aud_test add column score double", "no column is a raw float", 1),
    ],
)
def test_each_rule_finds_its_damage(
    connection: duckdb.DuckDBPyConnection, damage: str, rule: str, rows: int
) -> None:
    connection.execute(damage)
    assert broken(audience_suite(AUDIENCE), connection).get(rule) == rows


def test_an_ineligible_person_may_be_suppressed_and_unproven(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("update eligibility.fct_eligibility set is_eligible = false, consent_event_id = null")
    connection.execute("insert into consent.dim_suppressions values ('p1', 'email')")
    assert broken(audience_suite(AUDIENCE), connection) == {}


def test_two_people_with_one_address_fail_the_profiles(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("update profiles.dim_profiles set email = 'p1@example.com' where person_id = 'p2'")
    assert broken(profiles_suite(), connection) == {"email is unique": 2}


def test_more_people_than_contacts_cannot_be(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("delete from staging.stg_crm__contacts where range > 3")
    assert list(broken(profiles_suite(), connection)) == ["rows are 1 to 4"]


def test_the_band_of_an_audience_comes_from_its_yaml(connection: duckdb.DuckDBPyConnection) -> None:
    meta = {**AUDIENCE["config"]["meta"], "row_count": {"min": 2, "max": 4}}
    banded = audience_suite({**AUDIENCE, "config": {"meta": meta}})
    assert list(broken(banded, connection)) == ["rows are 2 to 4"]


def test_a_rule_that_cannot_be_evaluated_is_an_error(connection: duckdb.DuckDBPyConnection) -> None:
    """Great Expectations answers `success: false` for it, exactly as for bad data."""
    suite = profiles_suite()
    frame = replace(suite.frames[0], rules=[unique("no_such_column")])
    with pytest.raises(CheckError, match="no_such_column is unique"):
        list(evaluate(replace(suite, frames=[frame]), connection))


def check_result(tmp_path: Any, damage: str) -> dg.ExecuteInProcessResult:
    path = str(tmp_path / "warehouse.duckdb")
    with duckdb.connect(path) as connection:
        for statement in [*GOOD, damage]:
            connection.execute(statement)
    job = (
        dg.Definitions(
            assets=[dg.AssetSpec(["audiences", "aud_test"])],
            asset_checks=[suite_check(audience_suite(AUDIENCE))],
            jobs=[dg.define_asset_job("checks", dg.AssetSelection.all_asset_checks())],
            resources={"warehouse": Warehouse(path=path)},
        )
        .get_repository_def()
        .get_job("checks")
    )
    return job.execute_in_process(raise_on_error=False)


def test_a_failed_check_shows_counts_and_no_value(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    result = check_result(tmp_path, f"update audiences.aud_test set email = '{CANARY}'")
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.blocking
    assert evaluation.metadata["broken/email has the form of email"].value == 5
    shown = "".join(str(event) for event in result.all_events) + "".join(capfd.readouterr())
    assert CANARY not in shown


def test_a_check_that_errs_is_a_failed_step_and_not_a_failed_check(tmp_path: Any) -> None:
    result = check_result(tmp_path, "drop table consent.dim_suppressions")
    assert not result.success
    assert not result.get_asset_check_evaluations()


def test_a_verdict_without_findings_broken_passes() -> None:
    assert verdict([]).passed
