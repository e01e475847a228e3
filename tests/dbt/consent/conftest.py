"""The consent and eligibility layers of the dbt project, compiled once and run on small worlds written by a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dbt.cli.main import dbtRunner

PROJECT = Path(__file__).parents[3] / "dbt"
AS_OF = datetime(2017, 9, 1, 16)

INPUTS: Mapping[str, str] = {
    "staging.run_clock": "as_of timestamp",
    "staging.stg_consent__events": "event_id text, subject_type text, subject text, channel text, purpose text, "
    "program text, action text, legal_basis text, jurisdiction text, captured_at timestamp, "
    "recorded_at timestamp, source text, policy_version text, proof text, expires_at timestamp",
    "staging.stg_crm__phone_history": "phone text, contact_key text, valid_from timestamp, valid_to timestamp",
    "staging.stg_web__events": "event_id text, anonymous_id text, occurred_at timestamp, login_email text, "
    "has_gpc boolean",
    "staging.stg_messaging__events": "message_id text, channel text, recipient text, event_type text, "
    "occurred_at timestamp",
    "staging.stg_suppression__list": "identifier_type text, identifier text, channel text, reason text, source text, "
    "suppressed_at timestamp",
    "identity.identity_map": "identifier_type text, identifier text, person_id text, is_current boolean",
    "profiles.dim_profiles": "person_id text, email text, phone text, country text, region text, time_zone text",
    "profiles.dim_profile_traits": "person_id text, order_count integer",
    "profiles.fct_profile_identifiers": "person_id text, identifier_type text, identifier text",
    "profiles.fct_profile_values": "person_id text, field text, value text, lost_because text",
    "activation.sync_changelog": "run_id text, sync text, channel text, primary_key text, operation text, "
    "outcome text, recorded_at timestamp",
    "activation.sync_runs": "run_id text, mode text",
}
"""What the two layers read, with the columns they read."""

Row = Mapping[str, Any]


@dataclass(kw_only=True)
class World:
    """Rows per input; what is not given is empty."""

    rows: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, relation: str, *rows: Row) -> World:
        self.rows.setdefault(relation, []).extend(rows)
        return self

    def person(self, name: str, *other_emails: str, country: str = "US", region: str = "NY") -> World:
        """Somebody with a mailbox, a number and a browser of their own, all named after them."""
        emails = (f"{name}@example.com", *other_emails)
        phone, browser = phone_of(name), f"browser-{name}"
        owned = [("email", email) for email in emails] + [("phone", phone), ("anonymous_id", browser)]
        self.add(
            "profiles.dim_profiles",
            {"person_id": name, "email": emails[0], "phone": phone, "country": country, "region": region}
            | {"time_zone": "America/New_York"},
        )
        for kind, value in owned:
            identifier = {"person_id": name, "identifier_type": kind, "identifier": value}
            self.add("profiles.fct_profile_identifiers", identifier)
            self.add("identity.identity_map", identifier | {"is_current": True})
        return self.add(
            "profiles.fct_profile_values",
            *({"person_id": name, "field": "email", "value": e} for e in emails),
        )

    def says(self, event_id: str, subject: str, action: str, **other: Any) -> World:
        """A consent event that would hold as a grant, unless `other` spoils it."""
        kind = "phone" if subject.startswith("+") else "email" if "@" in subject else "anonymous_id"
        event = {
            "event_id": event_id, "subject_type": kind, "subject": subject, "channel": "email",
            "purpose": "marketing", "action": action, "legal_basis": "consent", "jurisdiction": "US-NY",
            "captured_at": datetime(2017, 5, 1), "source": "form", "policy_version": "v1", "proof": "hash",
        }  # fmt: skip
        event |= other
        return self.add("staging.stg_consent__events", {"recorded_at": event["captured_at"]} | event)


def phone_of(name: str) -> str:
    return f"+1212555{sum(map(ord, name)) % 10000:04d}"


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The compiled models in the order in which they build."""

    models: Sequence[tuple[str, str]]
    connection: duckdb.DuckDBPyConnection

    def build(self, world: World) -> Layers:
        self._write({"staging.run_clock": [{"as_of": AS_OF}], **world.rows})
        for relation, sql in self.models:
            self.connection.execute(f"create or replace table {relation} as {sql}")
        return self

    def _write(self, rows: Mapping[str, Iterable[Row]]) -> None:
        for relation, columns in INPUTS.items():
            self.connection.execute(f"create or replace table {relation} ({columns})")
            names = [column.split()[0] for column in columns.split(", ")]
            values = [[row.get(name) for name in names] for row in rows.get(relation, ())]
            if values:
                marks = ", ".join("?" for _ in names)
                self.connection.executemany(f"insert into {relation} values ({marks})", values)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def eligible(self) -> set[tuple[str, str]]:
        """(person, channel) of everybody who may be reached."""
        rows = self.query("select person_id, channel from eligibility.fct_eligibility where is_eligible")
        return {(person, channel) for person, channel in rows}

    def blockers(self, person: str, channel: str) -> str:
        sql = "select blockers from eligibility.fct_eligibility where person_id = ? and channel = ?"
        return str(self.connection.execute(sql, [person, channel]).fetchall()[0][0])


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Sequence[tuple[str, str]]:
    """(relation, select) of each model of the two layers, dependencies first."""
    folder = tmp_path_factory.mktemp("consent")
    flags = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    flags += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    flags += ["--select", "consent", "eligibility"]
    flags += ["--exclude", "dim_holdouts", "resource_type:test", "resource_type:unit_test"]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ACTIVATIONS_VAR", str(folder))
        result: Any = dbtRunner().invoke(["--quiet", "compile", *flags])
    assert result.success, result.exception
    nodes = {run.node.unique_id: run.node for run in result.result.results}
    return [(nodes[name].relation_name, nodes[name].compiled_code) for name in _in_order(nodes)]


def _in_order(nodes: Mapping[str, Any]) -> list[str]:
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name in nodes and name not in ordered:
            for upstream in nodes[name].depends_on.nodes:
                visit(upstream)
            ordered.append(name)

    for name in sorted(nodes):
        visit(name)
    return ordered


@pytest.fixture(scope="session")
def layers(compiled: Sequence[tuple[str, str]]) -> Iterator[Layers]:
    with duckdb.connect() as connection:
        # Compiled SQL names the catalog after the file in the profile.
        connection.execute("attach ':memory:' as warehouse; use warehouse")
        for schema in {name.split(".")[0] for name in INPUTS} | {"consent", "eligibility"}:
            connection.execute(f"create schema {schema}")
        yield Layers(models=compiled, connection=connection)
