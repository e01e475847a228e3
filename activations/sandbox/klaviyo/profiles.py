"""Profiles: what an import, an update and a subscription make of people, and how they are shown."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from activations.sandbox.klaviyo.jsonapi import Refusal, document, get, iso, page, read_data, root_of
from activations.sandbox.state import State

_EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;.]+(\.[^@\s,;.]+)+")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_IDENTIFIERS = ("email", "phone_number", "external_id")


class Profiles:
    """`/api/profiles`."""

    def __init__(self, state: State) -> None:
        self.state = state

    async def find(self, request: Request) -> Response:
        emails = _filtered_emails(request.query_params.get("filter", ""))
        marks = ",".join("?" * len(emails))
        sql = f"select * from klaviyo_profiles where email in ({marks}) order by profile_id limit ? offset ?"
        return page(self.state, request, sql, *emails, resource=profile_resource)

    async def update(self, request: Request) -> Response:
        """Unlike an import, this one clears what is given as null."""
        data = await read_data(request, "profile")
        profile_id = request.path_params["profile_id"]
        with self.state.transaction() as db:
            require_profiles(db, [profile_id])
            sql = "select * from klaviyo_profiles where profile_id = ?"
            attributes = json.loads(db.execute(sql, (profile_id,)).fetchone()["attributes"])
            _merge(attributes, data.get("attributes") or {}, clears=True)
            db.execute(
                "update klaviyo_profiles set attributes = ? where profile_id = ?",
                (json.dumps(attributes), profile_id),
            )
            row = db.execute(sql, (profile_id,)).fetchone()
        return document(profile_resource(request, row), request)


def _filtered_emails(text: str) -> list[str]:
    match = re.fullmatch(r'(?:any\(email,(\[.*\])\)|equals\(email,(".*")\))', text)
    if not match:
        raise Refusal(
            400, "invalid", "The filter must be any(email,[…]) or equals(email,…).", "/query/filter"
        )
    found = json.loads(match[1] or f"[{match[2]}]")
    return [str(email).lower() for email in found]


def check_number(profiles: Any, most: int) -> None:
    """How many profiles one request may name."""
    if not isinstance(profiles, list) or not 1 <= len(profiles) <= most:
        raise Refusal(400, "invalid", f"Between 1 and {most} profiles are accepted.")


def problem_of(profile: Any) -> str | None:
    """The code of the import error that this profile is answered with; None when it is taken."""
    attributes = profile.get("attributes") if isinstance(profile, dict) else None
    if not isinstance(attributes, dict) or profile.get("type") != "profile":
        return "invalid"
    if not any(attributes.get(name) for name in _IDENTIFIERS):
        return "missing_identifier"
    if attributes.get("email") and not _EMAIL.fullmatch(str(attributes["email"])):
        return "invalid_email"
    if attributes.get("phone_number") and not _PHONE.fullmatch(str(attributes["phone_number"])):
        return "invalid_phone_number"
    return None


def unset_of(profile: Any) -> list[str]:
    """The properties that an import takes away."""
    names = get(profile, "meta", "patch_properties", "unset") or []
    return [names] if isinstance(names, str) else list(names)


def upsert(db: sqlite3.Connection, given: Mapping[str, Any], unset: Sequence[str] = ()) -> str:
    identifiers = {name: _identifier(given, name) for name in _IDENTIFIERS}
    row = _find(db, identifiers)
    attributes = json.loads(row["attributes"]) if row else {}
    _merge(attributes, given, clears=False)
    for name in unset:
        attributes.get("properties", {}).pop(name, None)
    profile_id = row["profile_id"] if row else _new_id(identifiers)
    db.execute(
        "insert into klaviyo_profiles (profile_id, email, phone_number, external_id, attributes, updated_at)"
        " values (?, ?, ?, ?, ?, ?) on conflict (profile_id) do update set"
        " email = coalesce(excluded.email, email), phone_number = coalesce(excluded.phone_number, phone_number),"
        " external_id = coalesce(excluded.external_id, external_id),"
        " attributes = excluded.attributes, updated_at = excluded.updated_at",
        (profile_id, *identifiers.values(), json.dumps(attributes), iso(time.time())),
    )
    return str(profile_id)


def _identifier(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if not value:
        return None
    return str(value).strip().lower() if name == "email" else str(value).strip()


def _find(db: sqlite3.Connection, identifiers: Mapping[str, str | None]) -> sqlite3.Row | None:
    for name, value in identifiers.items():
        if value:
            sql = f"select * from klaviyo_profiles where {name} = ?"
            row: sqlite3.Row | None = db.execute(sql, (value,)).fetchone()
            if row:
                return row
    return None


def find_or_create(db: sqlite3.Connection, profile: Mapping[str, Any]) -> str:
    if profile.get("id"):
        require_profiles(db, [str(profile["id"])])
        return str(profile["id"])
    given = {k: v for k, v in (profile.get("attributes") or {}).items() if k in _IDENTIFIERS}
    return upsert(db, given)


def _merge(attributes: dict[str, Any], given: Mapping[str, Any], *, clears: bool) -> None:
    """What is absent stays. An import ignores null, an update clears with it."""
    for name, value in given.items():
        if name in (*_IDENTIFIERS, "subscriptions"):
            continue
        if isinstance(value, dict):
            _merge(attributes.setdefault(name, {}), value, clears=clears)
        elif value is not None:
            attributes[name] = value
        elif clears:
            attributes.pop(name, None)


def _new_id(identifiers: Mapping[str, str | None]) -> str:
    seed = next(value for value in identifiers.values() if value)
    digest = base64.b32encode(hashlib.sha256(seed.encode()).digest()).decode("ascii")
    return "01" + digest[:24]


def require_profiles(db: sqlite3.Connection, ids: Sequence[str]) -> None:
    for position, profile_id in enumerate(ids):
        if not db.execute("select 1 from klaviyo_profiles where profile_id = ?", (profile_id,)).fetchone():
            raise Refusal(404, "not_found", "There is no such profile.", f"/data/{position}/id")


def profile_resource(request: Request, row: sqlite3.Row) -> dict[str, Any]:
    attributes = {name: row[name] for name in _IDENTIFIERS} | json.loads(row["attributes"])
    fields = request.query_params.get("fields[profile]")
    if fields:
        attributes = {k: v for k, v in attributes.items() if k in fields.split(",")}
    if request.query_params.get("additional-fields[profile]") == "subscriptions":
        attributes["subscriptions"] = _subscriptions(row)
    links = {"self": f"{root_of(request)}/api/profiles/{row['profile_id']}/"}
    return {"type": "profile", "id": row["profile_id"], "attributes": attributes, "links": links}


def _subscriptions(row: sqlite3.Row) -> dict[str, Any]:
    has_unsubscribed = row["consent"] == "UNSUBSCRIBED"
    suppression = [{"reason": "UNSUBSCRIBE", "timestamp": row["updated_at"]}] if has_unsubscribed else []
    marketing = {
        "can_receive_email_marketing": not has_unsubscribed,
        "consent": row["consent"],
        "consent_timestamp": row["consented_at"],
        "suppression": suppression,
    }
    return {"email": {"marketing": marketing}}
