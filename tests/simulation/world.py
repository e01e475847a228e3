"""The people behind a schedule, and the warehouse that dbt would build from them.

Two syncs of one account: `people` mirrors an audience, `messages` sends each occurrence once. A state folder belongs
to one schedule; the YAML, the manifest and the parsed project are shared by all schedules of an OS process.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import yaml

from activations.config import Guard, Project
from activations.runner import load_project
from tests.simulation.ports import moment, run
from tests.simulation.provider import MESSAGES, PEOPLE

_TYPES = {
    "person_id": "varchar",
    "email": "varchar",
    "full_name": "varchar",
    "phone": "varchar",
    "score": "integer",
    "event_id": "varchar",
}
_SYNCS: Mapping[str, Mapping[str, Any]] = {
    PEOPLE: {
        "audience": "aud_people",
        "mode": "mirror",
        "fields": {"score": "score", "person": "person_id", "name": "full_name", "phone": "phone"},
    },
    MESSAGES: {
        "audience": "aud_events",
        "mode": "append",
        "fields": {"person": "person_id", "event": "event_id"},
        "occurrence": "event_id",
    },
}
CANARIES = ("example.com", "EXAMPLE.COM", "Canary", "+4930")
"""Parts of every address, name and phone number here: none of them may be found where personal data has no business."""
POISON = "poison"
BAD_SCORE = 13
"""Every multiple of it is a value that the other side refuses."""


@dataclass(slots=True)
class Person:
    """What the warehouse will say about somebody after the next build."""

    name: str
    email: str
    score: int
    is_member: bool = True
    blocker: str | None = None
    events: list[str] = field(default_factory=list)

    @property
    def row(self) -> dict[str, Any]:
        """What the mirror has to hold of this person."""
        return {
            "email": self.email,
            "score": self.score,
            "person": self.name,
            "name": f"Canary {self.name}",
            "phone": f"+4930{self.name[1:]:0>7}",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a schedule's project looks like."""

    batch_rows: int
    concurrency: int
    settle_seconds: float
    guard: Guard
    names_bad_rows: bool
    several_hosts: bool = False
    """Then a process can lose its lease while it stalls, and clocks differ."""
    requests_per_second: float | None = None
    is_large: bool = True
    """Planned as an audience of which not every row is looked at."""


class World:
    """Everybody, and the changes that happen to them."""

    def __init__(self, random_source: random.Random, count: int) -> None:
        self._random = random_source
        self.people: dict[str, Person] = {}
        self.built: dict[str, Person] = {}
        """As the last build saw everybody."""
        self.free_emails: list[str] = []
        self._tables: dict[str, list[tuple[Any, ...]]] = {}
        for _ in range(count):
            self.join()

    # -- what happens to people --------------------------------------------------------------------------------

    def happen(self) -> str:
        """One random change; its name."""
        name: str = self._random.choice(
            ("join", "leave", "leave", "come_back", "rescore", "rescore", "poison_value", "move", "new_event", "withdraw", "consent_again")
        )  # fmt: skip
        getattr(self, name)()
        return name

    def join(self) -> None:
        name = f"p{len(self.people):03}"
        email = f"{name}@example.com"
        if self._random.random() < 0.1:
            email = f"{POISON}.{email}"
        elif self.free_emails and self._random.random() < 0.4:  # somebody else's old address
            email = self.free_emails.pop()
        self.people[name] = Person(name, email, self._random.randint(1, 12))
        if self._random.random() < 0.7:
            self._add_event(self.people[name])

    def leave(self) -> None:
        self._anybody().is_member = False

    def come_back(self) -> None:
        self._anybody().is_member = True

    def rescore(self) -> None:
        self._anybody().score = self._random.choice([n for n in range(1, 40) if n % BAD_SCORE])

    def poison_value(self) -> None:
        self._anybody().score = BAD_SCORE * self._random.randint(1, 3)

    def move(self) -> None:
        person = self._anybody()
        self.free_emails.append(person.email)
        person.email = f"{person.name}.{self._random.randint(0, 2)}@example.com"
        if person.email in self.free_emails:
            self.free_emails.remove(person.email)

    def new_event(self) -> None:
        self._add_event(self._anybody())

    def withdraw(self) -> None:
        self._anybody().blocker = self._random.choice(("consent", "objection", "erased"))

    def consent_again(self) -> None:
        self._anybody().blocker = None

    def half_leaves(self) -> None:
        """What a broken model does: far more people disappear than ever left before."""
        for person in self.people.values():
            if self._random.random() < 0.6:
                person.is_member = False

    def refused_leave(self) -> None:
        """Whoever has a value that the other side refuses; it may still hold the older one."""
        for person in self.people.values():
            if person.score % BAD_SCORE == 0:
                person.is_member = False

    def _add_event(self, person: Person) -> None:
        person.events.append(f"{person.name}-{len(person.events)}")

    def _anybody(self) -> Person:
        return self._random.choice(list(self.people.values()))

    # -- what dbt makes of it ----------------------------------------------------------------------------------

    def build(self, db: duckdb.DuckDBPyConnection) -> None:
        """Audiences and eligibility, in one transaction; a table that would be the same is left alone."""
        self.built = {name: replace(p, events=list(p.events)) for name, p in self.people.items()}
        members = [p for p in self.built.values() if p.is_member]
        people = [_audience_row(p, "") for p in members]
        events = [_audience_row(p, event) for p in members for event in p.events]
        rules = [
            (p.name, "email", "marketing", p.blocker is None, False, p.blocker, p.blocker or "", None, moment(0))
            for p in self.built.values()
        ]  # fmt: skip
        db.begin()
        for table, rows in (
            ("audiences.aud_people", people),
            ("audiences.aud_events", events),
            ("eligibility.fct_eligibility", rules),
        ):
            if rows == self._tables.get(table):
                continue
            self._tables[table] = rows
            run(db, f"delete from {table}")
            if rows:
                values = ", ".join("unnest(?)" for _ in rows[0])
                run(
                    db,
                    f"insert into {table} select {values}",
                    [list(column) for column in zip(*rows, strict=True)],
                )
        db.commit()

    def expected_people(self) -> dict[str, dict[str, Any]]:
        """Person → the row the mirror has to hold, by the last build; poison and suppression aside."""
        return {p.name: p.row for p in self.built.values() if p.is_member and p.blocker is None}

    def expected_events(self) -> list[tuple[Person, str]]:
        return [(p, e) for p in self.built.values() if p.is_member and p.blocker is None for e in p.events]


def _audience_row(person: Person, event: str) -> tuple[Any, ...]:
    """In the order of the audience's columns."""
    row = person.row
    return (person.name, person.email, row["name"], row["phone"], person.score, event)


def is_bad(change: Mapping[str, Any]) -> bool:
    """Whether the other side would refuse this row: a bad address, or a bad value."""
    if change["operation"] == "removed":
        return False
    return (
        change["identifiers"].get("email", "").startswith(POISON)
        or change["fields"].get("score", 1) % BAD_SCORE == 0
    )


def create_tables(db: duckdb.DuckDBPyConnection) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
    for statement in (
        "create schema audiences",
        "create schema eligibility",
        f"create table audiences.aud_people ({columns})",
        f"create table audiences.aud_events ({columns})",
        "create table eligibility.fct_eligibility (person_id varchar, channel varchar, purpose varchar, is_eligible boolean, "
        "is_deferred boolean, first_blocker varchar, blockers varchar, consent_event_id varchar, evaluated_at timestamp)",
        "create table eligibility.dim_holdouts (holdout varchar, person_id varchar, is_held_out boolean, assigned_at timestamp)",
    ):
        run(db, statement)


# -- the project on disk -------------------------------------------------------------------------------------------


def fast_folder() -> Path | None:
    """Memory, where the machine has some in its file system: schedules write and throw away many small files."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


@lru_cache(maxsize=1)
def _project_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="simulation-", dir=fast_folder())
    write_project(Path(folder.name))
    return folder


@lru_cache(maxsize=1)
def _parsed() -> Project:
    return load_project(Path(_project_folder().name))


def project(shape: Shape, schedule: str) -> Project:
    """The project of one schedule, with a state folder of its own."""
    parsed = _parsed()
    account = next(iter(parsed.accounts.values()))
    account = replace(
        account,
        batch_rows=shape.batch_rows,
        concurrency=shape.concurrency,
        rate_limit=shape.requests_per_second,
    )
    syncs = {
        name: replace(
            sync,
            account=account,
            guard=shape.guard,
            capabilities=replace(sync.capabilities, settle_seconds=shape.settle_seconds),
        )
        for name, sync in parsed.syncs.items()
    }
    var = Path(_project_folder().name) / "var" / schedule
    var.mkdir(parents=True)
    (var / "hash.key").write_text("5e" * 32, encoding="ascii")
    return replace(parsed, var=var, syncs=syncs, accounts={account.name: account})


def write_project(
    root: Path, *, settings: Mapping[str, Any] | None = None, account: Mapping[str, Any] | None = None
) -> None:
    """`settings` go into project.yml, `account` into the one account, beside what every project here has."""
    home = root / "activations"
    (home / "syncs").mkdir(parents=True)
    (home / "project.yml").write_text(yaml.safe_dump({"warehouse": {"wait_seconds": 60}, **(settings or {})}))
    account = {
        "kind": "webhook",
        "environment": "sandbox",
        "url": "https://hooks.example.com/x",
        "signing_secret": "env:NOT_SET",
        **(account or {}),
    }
    (home / "destinations.yml").write_text(yaml.safe_dump({"destinations": {"hook": account}}))
    common = {
        "destination": "hook",
        "channel": "email",
        "purpose": "marketing",
        "identifiers": {"email": "email"},
        "guard": {"min_audience_rows": 0},
        "owner": "tests",
    }
    for name, own in _SYNCS.items():
        (home / f"syncs/{name}.yml").write_text(yaml.safe_dump({**common, **own}))
    nodes = [
        _node("aud_people", "audiences", ["person_id"]),
        _node("aud_events", "audiences", ["person_id", "event_id"]),
        _node("fct_eligibility", "eligibility"),
        _node("dim_holdouts", "eligibility"),
    ]
    (root / "dbt/target").mkdir(parents=True)
    manifest = {"nodes": {node["unique_id"]: node for node in nodes}}
    (root / "dbt/target/manifest.json").write_text(json.dumps(manifest))


def _node(name: str, schema: str, key: list[str] | None = None) -> dict[str, Any]:
    meta = {"primary_key": key, "purpose": "marketing", "channels": ["email"]}
    columns = {
        column: {"name": column, "data_type": kind, "config": {"meta": {"pii": "email"} if column == "email" else {}}}
        for column, kind in _TYPES.items()
    }  # fmt: skip
    return {
        "resource_type": "model",
        "unique_id": f"model.simulation.{name}",
        "name": name,
        "alias": name,
        "schema": schema,
        "access": "public" if key else "private",
        "columns": columns if key else {},
        "config": {"contract": {"enforced": True}, "meta": meta} if key else {},
        "description": "",
    }
