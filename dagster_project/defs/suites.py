"""What must be true of profiles and audiences before anything is sent, as data.

A suite is a few frames: a query and the rules that hold for its rows. Audiences describe themselves in their dbt YAML
(`config.meta`: primary_key, channels, purpose, row_count; per column `pii`), so a new audience is checked by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

EMAIL = r"^[^@\s,;<>\"]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.[A-Za-z]{2,63}$"
E164 = r"^\+[1-9]\d{6,14}$"
FORMS = {"email": EMAIL, "phone": E164}

FLOATS = ["FLOAT", "DOUBLE", "REAL"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One expectation of Great Expectations: its type, its arguments, and the name people see."""

    name: str
    expectation: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Rows to look at, and what must hold for them. `at_most`: a query for the highest plausible number of rows."""

    query: str
    rules: Sequence[Rule]
    at_least: int | None = None
    at_most: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Everything that is checked on one relation."""

    layer: str
    model: str
    description: str
    frames: Sequence[Frame] = field(default_factory=tuple)


def not_null(column: str) -> Rule:
    return Rule(
        name=f"{column} is present", expectation="ExpectColumnValuesToNotBeNull", arguments={"column": column}
    )


def unique(*columns: str) -> Rule:
    name = f"{' + '.join(columns)} is unique"
    if len(columns) == 1:
        return Rule(name=name, expectation="ExpectColumnValuesToBeUnique", arguments={"column": columns[0]})
    arguments = {"column_list": list(columns)}
    return Rule(name=name, expectation="ExpectCompoundColumnsToBeUnique", arguments=arguments)


def has_form(column: str, kind: str) -> Rule:
    """A sendable address or number; missing ones are another rule's business."""
    arguments = {"column": column, "regex": FORMS[kind]}
    return Rule(
        name=f"{column} has the form of {kind}",
        expectation="ExpectColumnValuesToMatchRegex",
        arguments=arguments,
    )


def holds(column: str, name: str) -> Rule:
    """A condition that the query computed per row."""
    arguments = {"column": column, "value_set": [True]}
    return Rule(name=name, expectation="ExpectColumnValuesToBeInSet", arguments=arguments)


def none_of(column: str, values: Sequence[str], name: str) -> Rule:
    arguments = {"column": column, "value_set": list(values)}
    return Rule(name=name, expectation="ExpectColumnValuesToNotBeInSet", arguments=arguments)


def profiles_suite() -> Suite:
    addresses = [rule for column in FORMS for rule in (unique(column), has_form(column, column))]
    people = Frame(
        query="select person_id, email, phone from profiles.dim_profiles",
        rules=[not_null("person_id"), unique("person_id"), *addresses],
        at_least=1,
        at_most="select count(*) from staging.stg_crm__contacts",
    )
    return Suite(
        layer="profiles",
        model="dim_profiles",
        description="One person per row and per address, addresses that can be sent to, no more people than contacts.",
        frames=[people],
    )


def audience_suites(manifest: Mapping[str, Any]) -> list[Suite]:
    """A suite per public audience of the dbt project."""
    nodes = manifest["nodes"].values()
    audiences = [n for n in nodes if n["resource_type"] == "model" and n["fqn"][1] == "audiences"]
    return [audience_suite(node) for node in sorted(audiences, key=lambda n: str(n["name"]))]


def audience_suite(node: Mapping[str, Any]) -> Suite:
    meta = node["config"]["meta"]
    relation = f"audiences.{node['name']}"
    gates = [_gate(relation, channel, meta["purpose"]) for channel in meta["channels"]]
    return Suite(
        layer="audiences",
        model=node["name"],
        description=(
            "Keys, forms and volume hold; every member has a verdict of fct_eligibility, nobody suppressed is "
            "eligible, nobody is eligible without the consent event that allows it; no column is a raw float."
        ),
        frames=[_members(node, relation), *gates, _column_types(node["name"])],
    )


def _members(node: Mapping[str, Any], relation: str) -> Frame:
    meta = node["config"]["meta"]
    key = meta["primary_key"]
    forms = dict(_forms(node))
    band = meta.get("row_count", {})
    columns = ", ".join(dict.fromkeys([*key, *forms]))
    return Frame(
        query=f"select {columns} from {relation}",
        rules=[
            *map(not_null, key),
            unique(*key),
            *(has_form(column, kind) for column, kind in forms.items()),
        ],
        at_least=band.get("min", 1),
        at_most=band.get("max"),
    )


def _forms(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Column → form, for the columns that dbt tags as an address."""
    for name, column in node["columns"].items():
        kind = (column.get("config", {}).get("meta") or column.get("meta") or {}).get("pii")
        if kind in FORMS:
            yield name, kind


def _gate(relation: str, channel: str, purpose: str) -> Frame:
    """The consent gate as rows: may each member be asked about, and is each yes proven and unsuppressed."""
    return Frame(
        query=f"""
            select
                e.person_id is not null as has_verdict,
                not coalesce(e.is_eligible, false) or e.consent_event_id is not null as is_proven,
                not (coalesce(e.is_eligible, false) and s.person_id is not null) as is_unsuppressed
            from (select distinct person_id from {relation}) as a
            left join eligibility.fct_eligibility as e
                on e.person_id = a.person_id and e.channel = '{channel}' and e.purpose = '{purpose}'
            left join (
                select distinct person_id from consent.dim_suppressions where channel in ('{channel}', 'all')
            ) as s on s.person_id = a.person_id
        """,
        rules=[
            holds("has_verdict", f"every member has a verdict for {channel} and {purpose}"),
            holds("is_proven", f"everybody eligible for {channel} has a consent event"),
            holds("is_unsuppressed", f"nobody suppressed is eligible for {channel}"),
        ],
    )


def _column_types(model: str) -> Frame:
    return Frame(
        query=f"""
            select data_type from information_schema.columns
            where table_schema = 'audiences' and table_name = '{model}'
        """,
        rules=[none_of("data_type", FLOATS, "no column is a raw float")],
        at_least=1,
    )
