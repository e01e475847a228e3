"""A whole small world for the engine: a project on disk, a warehouse, a manifest, and another side with a memory and faults that answers in this process. Nothing of the engine itself is replaced but the socket and the clock."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import yaml

from activations.config import Sync
from activations.delivery.transport import NoAnswer, NotSent
from activations.model import Request, Response
from activations.runner import Engine, load_project
from tests.warehouses.stores import NewStore, Table, duckdb_store

ACCOUNT = {
    "kind": "webhook",
    "environment": "sandbox",
    "url": "https://hooks.example.com/x",
    "signing_secret": "env:NOT_SET",
    "concurrency": 1,
}

Answer = Callable[["OtherSide", Request], Response]

AUDIENCE_TYPES = {"person_id": "varchar", "email": "varchar", "score": "integer", "event_id": "varchar"}
ELIGIBILITY_TYPES = {
    "person_id": "varchar",
    "channel": "varchar",
    "purpose": "varchar",
    "is_eligible": "boolean",
    "is_deferred": "boolean",
    "first_blocker": "varchar",
    "blockers": "varchar",
    "consent_event_id": "varchar",
    "evaluated_at": "timestamp",
}
IDENTIFIER_TYPES = {"person_id": "varchar", "identifier": "varchar"}
HOLDOUT_TYPES = {
    "holdout": "varchar",
    "person_id": "varchar",
    "is_held_out": "boolean",
    "assigned_at": "timestamp",
}


class FakeClock:
    """Starts at a fixed moment; sleeping moves it on and takes no time."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 5, 12, 0)

    def now(self) -> datetime:
        self.moment += timedelta(milliseconds=1)
        return self.moment

    def monotonic(self) -> float:
        return (self.moment - datetime(2026, 1, 1)).total_seconds()

    def sleep(self, seconds: float, unless: Event | None = None) -> None:
        if unless is None or not unless.is_set():
            self.moment += timedelta(seconds=seconds)


class OtherSide:
    """A webhook receiver. `held`: pseudonym → fields it holds; `received`: every row it ever accepted."""

    def __init__(self) -> None:
        self.held: dict[str, Mapping[str, Any]] = {}
        self.received: list[tuple[str, str, str]] = []
        self.requests = 0
        self.script: deque[Answer] = deque()
        """What to do with the next requests instead of accepting them."""
        self.always: Answer | None = None

    def send(self, request: Request, *, seconds: float) -> Response:
        self.requests += 1
        answer = self.script.popleft() if self.script else self.always
        return answer(self, request) if answer else self.accept(request)

    def accept(
        self, request: Request, *, results: Callable[[Mapping[str, Any]], str] = lambda _: "ok"
    ) -> Response:
        """Apply every row for which `results` says ok, and answer with one result per row."""
        answers = []
        for change in changes_in(request):
            status = results(change)
            answers.append({"key": change["key"], "status": status, "reason": "bad_row"})
            if status == "ok":
                self._apply(change)
        return Response(status=200, body=json.dumps({"results": answers}).encode())

    def _apply(self, change: Mapping[str, Any]) -> None:
        email = change["identifiers"].get("email", "")
        self.received.append((change["operation"], change["key"], email))
        if change["operation"] == "removed":
            self.held.pop(change["key"], None)
        else:
            self.held[change["key"]] = {"email": email, **change["fields"]}

    @property
    def emails(self) -> set[str]:
        return {str(row["email"]) for row in self.held.values()}


def changes_in(request: Request) -> list[dict[str, Any]]:
    document = request.json_body if request.json_body is not None else json.loads(request.body or b"{}")
    return list(document["changes"])


def status(code: int, headers: Mapping[str, str] | None = None) -> Answer:
    return lambda _other, _request: Response(status=code, headers=headers or {})


def cannot_connect(_other: OtherSide, _request: Request) -> Response:
    raise NotSent("cannot_connect")


def lost_before(_other: OtherSide, _request: Request) -> Response:
    raise NoAnswer("timeout")


def lost_after(other: OtherSide, request: Request) -> Response:
    """Applied, but the answer never came back."""
    other.accept(request)
    raise NoAnswer("timeout")


class Killed(BaseException):
    """Like kill -9: nothing catches it, nothing is cleaned up after it."""


def killed_before(_other: OtherSide, _request: Request) -> Response:
    raise Killed


def killed_after(other: OtherSide, request: Request) -> Response:
    other.accept(request)
    raise Killed


def garbled(other: OtherSide, request: Request) -> Response:
    other.accept(request)
    return Response(status=200, body=b"<html>")


def refuse_rows(is_bad: Callable[[Mapping[str, Any]], bool]) -> Answer:
    return lambda other, request: other.accept(request, results=lambda c: "rejected" if is_bad(c) else "ok")


def refuse_batch_with(is_bad: Callable[[Mapping[str, Any]], bool]) -> Answer:
    """All or nothing, without saying which row was bad."""
    return lambda other, request: (
        Response(status=400) if any(map(is_bad, changes_in(request))) else other.accept(request)
    )


class World:
    """Build it in a temporary folder, change the audience, run the sync, look at the other side."""

    def __init__(
        self,
        root: Path,
        *,
        mode: str = "mirror",
        new_store: NewStore = duckdb_store,
        account: Mapping[str, Any] | None = None,
        **sync: Any,
    ) -> None:
        self.root, self.clock, self.other = root, FakeClock(), OtherSide()
        self.store = new_store(root / "var")
        self.sync_file = root / "activations/syncs/people.yml"
        self.audience_key = ["person_id", "event_id"] if mode == "append" else ["person_id"]
        self.channel = sync.get("channel", "email")
        self._write_files(mode, account or ACCOUNT, sync)
        self.rows: list[dict[str, Any]] = []
        self.eligible: dict[str, str | None] = {}
        self.held_out: set[str] = set()
        self.other_names: list[tuple[str, str]] = []
        """Person and an identifier of theirs that the audience does not have."""
        self.engine().prepare()
        self.build()

    # -- people ------------------------------------------------------------------------------------------------

    def add(self, *people: str, score: int = 1, **columns: Any) -> World:
        for person in people:
            row = {
                "person_id": person,
                "email": f"{person}@example.com",
                "score": score,
                "event_id": f"{person}-1",
                **columns,
            }
            self.rows.append(row)
            self.eligible.setdefault(person, None)
        return self

    def set(self, person: str, **columns: Any) -> World:
        for row in self.rows:
            if row["person_id"] == person:
                row.update(columns)
        return self

    def drop(self, *people: str) -> World:
        self.rows = [row for row in self.rows if row["person_id"] not in people]
        return self

    def block(self, person: str, reason: str) -> World:
        self.eligible[person] = reason
        return self

    # -- running -----------------------------------------------------------------------------------------------

    def build(self) -> World:
        """What dbt would do: audience, eligibility and holdouts as tables."""
        now = self.clock.moment
        audience = [[row[name] for name in AUDIENCE_TYPES] for row in self.rows]
        rules = [
            _rule(p, self.channel, reason, now)
            for p, reason in [*self.eligible.items(), ("somebody", "consent")]
        ]
        holdouts = [["control", p, p in self.held_out, now] for p in [*self.eligible, "somebody"]]
        self.store.replace(
            Table("audiences", "aud_people", AUDIENCE_TYPES, audience),
            Table("eligibility", "fct_eligibility", ELIGIBILITY_TYPES, rules),
            Table("eligibility", "dim_holdouts", HOLDOUT_TYPES, holdouts),
            Table("profiles", "fct_profile_identifiers", IDENTIFIER_TYPES, self._identifiers()),
        )
        return self

    def _identifiers(self) -> list[list[Any]]:
        known = [(row["person_id"], row["email"]) for row in self.rows if row["email"]]
        return [list(one) for one in dict.fromkeys([*known, *self.other_names])]

    def engine(self) -> Engine:
        return Engine(load_project(self.root), clock=self.clock, transport=self._transport)

    def run(self) -> Any:
        """Build, then sync."""
        self.build()
        return self.engine().sync("people")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.store.query(sql)

    def configure(self, **keys: Any) -> None:
        document = yaml.safe_load(self.sync_file.read_text()) | keys
        self.sync_file.write_text(yaml.safe_dump(document))

    def configure_account(self, **keys: Any) -> None:
        file = self.root / "activations/destinations.yml"
        document = yaml.safe_load(file.read_text())
        document["destinations"]["hook"] |= keys
        file.write_text(yaml.safe_dump(document))

    def _transport(self, _sync: Sync) -> OtherSide:
        return self.other

    # -- files -------------------------------------------------------------------------------------------------

    def _write_files(self, mode: str, account: Mapping[str, Any], sync: Mapping[str, Any]) -> None:
        home = self.root / "activations"
        (home / "syncs").mkdir(parents=True)
        (home / "project.yml").write_text(
            yaml.safe_dump({"warehouse": dict(self.store.settings), "journal": dict(self.store.journal)})
        )
        (home / "destinations.yml").write_text(yaml.safe_dump({"destinations": {"hook": dict(account)}}))
        document = {
            "audience": "aud_people",
            "destination": "hook",
            "channel": "email",
            "purpose": "marketing",
            "mode": mode,
            "identifiers": {"email": "email"},
            "fields": {"score": "score"},
            "guard": {"floor_rows": 1000},
            "owner": "tests",
            **({"occurrence": "event_id"} if mode == "append" else {}),
            **sync,
        }
        self.sync_file.write_text(yaml.safe_dump(document))
        self._write_manifest()

    def _write_manifest(self) -> None:
        pii = "phone" if self.channel == "sms" else "email"
        columns = {
            name: {
                "name": name,
                "data_type": kind,
                "config": {"meta": {"pii": pii} if name == "email" else {}},
            }
            for name, kind in AUDIENCE_TYPES.items()
        }
        meta = {"primary_key": self.audience_key, "purpose": "marketing", "channels": [self.channel]}
        audience = _node(
            "aud_people", "audiences", "public", columns, {"contract": {"enforced": True}, "meta": meta}
        )
        others = [
            _node("fct_eligibility", "eligibility"),
            _node("dim_holdouts", "eligibility"),
            _node("fct_profile_identifiers", "profiles"),
        ]
        target = self.root / "dbt/target"
        target.mkdir(parents=True)
        nodes = {node["unique_id"]: node for node in [audience, *others]}
        (target / "manifest.json").write_text(json.dumps({"nodes": nodes}))


def _rule(person: str, channel: str, reason: str | None, now: datetime) -> list[Any]:
    deferred = reason == "deferred"
    blocker = None if deferred else reason
    return [person, channel, "marketing", blocker is None, deferred, blocker, reason or "", None, now]


def _node(
    name: str,
    schema: str,
    access: str = "private",
    columns: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "resource_type": "model",
        "unique_id": f"model.test.{name}",
        "name": name,
        "alias": name,
        "schema": schema,
        "access": access,
        "columns": columns or {},
        "config": config or {},
        "description": "",
    }
