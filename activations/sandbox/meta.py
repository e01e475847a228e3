"""Meta's stand-in: custom audiences that take hashed people and answer in counts."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from activations.sandbox.credentials import credentials_for
from activations.sandbox.refusals import Refused, guarded
from activations.sandbox.state import Place, State

MAX_ROWS = 10_000
HASHED = frozenset(
    {"EMAIL", "PHONE", "FN", "LN", "ZIP", "CT", "ST", "COUNTRY", "GEN", "DOBY", "DOBM", "DOBD", "FI"}
)
PLAIN = frozenset({"EXTERN_ID", "MADID"})
EMPTY_DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Refusal(Refused):
    """A request that is answered with a Graph API error."""

    def __init__(self, status: int, code: int, message: str, subcode: int | None = None) -> None:
        super().__init__(_error(status, code, message, subcode))


class MetaStandIn:
    """One ad account."""

    name = "meta"
    kind = "meta_custom_audience"

    def __init__(self, state: State) -> None:
        self.state = state

    def register(self, place: Place) -> None:
        with self.state.transaction() as db:
            db.execute(
                "insert into meta_audiences values (?, ?)"
                " on conflict (audience_id) do update set name = excluded.name",
                (str(place.target["audience_id"]), place.name),
            )

    def routes(self) -> list[Route]:
        audience = "/{version}/{audience_id}"
        return [
            Route(audience + "/users", guarded(self.users, self._admit), methods=["POST", "DELETE"]),
            Route(audience + "/sessions", guarded(self.sessions, self._admit), methods=["GET"]),
            Route(audience, guarded(self.audience, self._admit), methods=["GET"]),
        ]

    def error(self, status: int) -> Response:
        if status == 429:
            return _error(429, 80_003, "There have been too many calls to this ad account.", 2_446_079)
        return _error(500, 2, "An unexpected error has occurred. Please retry your request later.", None)

    def _admit(self, request: Request) -> None:
        expected = f"Bearer {credentials_for('meta_custom_audience')['access_token']}"
        if request.headers.get("authorization") != expected:
            raise Refusal(401, 190, "Invalid OAuth access token.")
        if not re.fullmatch(r"v[0-9]{1,3}\.[0-9]{1,2}", request.path_params["version"]):
            raise Refusal(400, 2500, "Unknown path components.")
        known = "select 1 from meta_audiences where audience_id = ?"
        if self.state.one(known, request.path_params["audience_id"]) is None:
            raise Refusal(400, 100, "Unsupported request. The object does not exist.", 33)

    async def users(self, request: Request) -> Response:
        body = await _body(request)
        schema, data = _payload(body)
        session = body.get("session")
        if not isinstance(session, dict) or not isinstance(session.get("session_id"), int):
            raise Refusal(400, 100, "session with a session_id is required.")
        audience_id = request.path_params["audience_id"]
        rows = [dict(zip(schema, row, strict=True)) for row in data]
        invalid = [row for row in rows if not _can_match(row)]
        if getattr(request.state, "fault", None) == "partial":
            invalid = [row for row in rows if sum(map(ord, _extern_id(row))) % 3 == 0]
        valid = [row for row in rows if row not in invalid] if invalid else rows
        with self.state.transaction() as db:
            _use_session(db, audience_id, session, len(rows), len(invalid))
            (_add if request.method == "POST" else _remove)(db, audience_id, valid)
        return JSONResponse(_counts(audience_id, session, rows, invalid))

    async def sessions(self, request: Request) -> Response:
        rows = self.state.rows(
            "select * from meta_sessions where audience_id = ? order by started_at desc limit 25",
            request.path_params["audience_id"],
        )
        wanted = request.query_params.get("session_id")
        return JSONResponse({"data": [_session(row) for row in rows if wanted in (None, row["session_id"])]})

    async def audience(self, request: Request) -> Response:
        audience_id = request.path_params["audience_id"]
        row = self.state.only("select * from meta_audiences where audience_id = ?", audience_id)
        status = {"code": 200, "description": "Normal"}
        return JSONResponse(
            {"id": audience_id, "name": row["name"], "subtype": "CUSTOM", "operation_status": status}
        )

    def members(self, audience_id: str) -> dict[str, dict[str, str]]:
        """EXTERN_ID → hashed keys of everybody in the audience."""
        rows = self.state.rows("select * from meta_members where audience_id = ?", audience_id)
        return {row["extern_id"]: json.loads(row["match_keys"]) for row in rows}

    def summary(self) -> dict[str, Any]:
        rows = self.state.rows(
            "select audience_id, name, count(extern_id) as members from meta_audiences"
            " left join meta_members using (audience_id) group by audience_id, name order by name"
        )
        return {"audiences": {r["audience_id"]: {"name": r["name"], "members": r["members"]} for r in rows}}


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, 100, "The body must be a JSON object.")
    return body


def _payload(body: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One malformed value fails the whole call, and the answer does not say which."""
    payload = body.get("payload")
    schema, data = (payload.get("schema"), payload.get("data")) if isinstance(payload, dict) else (None, None)
    if not isinstance(schema, list) or not schema or not set(schema) <= HASHED | PLAIN:
        raise Refusal(400, 100, "Invalid schema.")
    if not isinstance(data, list) or not 1 <= len(data) <= MAX_ROWS:
        raise Refusal(400, 100, f"Between 1 and {MAX_ROWS} rows are accepted.")
    for row in data:
        if not isinstance(row, list) or len(row) != len(schema) or not all(map(_is_valid, schema, row)):
            raise Refusal(400, 100, "Invalid parameter")
    return schema, data


def _is_valid(column: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return column in PLAIN or value == "" or _DIGEST.fullmatch(value) is not None


def _can_match(row: Mapping[str, str]) -> bool:
    keys = [value for column, value in row.items() if column in HASHED]
    if not keys:
        return bool(row.get("EXTERN_ID"))
    return any(keys) and EMPTY_DIGEST not in keys


def _use_session(
    db: sqlite3.Connection, audience_id: str, session: Mapping[str, Any], received: int, invalid: int
) -> None:
    session_id, is_last = str(session["session_id"]), bool(session.get("last_batch_flag"))
    known = db.execute(
        "select is_finished from meta_sessions where audience_id = ? and session_id = ?",
        (audience_id, session_id),
    ).fetchone()
    if known and known["is_finished"]:
        raise Refusal(400, 2650, "The session has ended.", 1_870_145)
    db.execute(
        "insert into meta_sessions values (?, ?, ?, ?, ?, ?) on conflict do update set"
        " num_received = num_received + excluded.num_received,"
        " num_invalid = num_invalid + excluded.num_invalid, is_finished = excluded.is_finished",
        (audience_id, session_id, received, invalid, is_last, time.time()),
    )


def _add(db: sqlite3.Connection, audience_id: str, rows: Sequence[Mapping[str, str]]) -> None:
    now = time.time()
    db.executemany(
        "insert into meta_members values (?, ?, ?, ?)"
        " on conflict do update set match_keys = excluded.match_keys",
        [(audience_id, _extern_id(row), json.dumps(_keys(row)), now) for row in rows],
    )


def _remove(db: sqlite3.Connection, audience_id: str, rows: Sequence[Mapping[str, str]]) -> None:
    db.executemany(
        "delete from meta_members where audience_id = ? and extern_id = ?",
        [(audience_id, _extern_id(row)) for row in rows],
    )


def _extern_id(row: Mapping[str, str]) -> str:
    return row.get("EXTERN_ID") or "".join(_keys(row).values())


def _keys(row: Mapping[str, str]) -> dict[str, str]:
    return {column: value for column, value in row.items() if column in HASHED and value}


def _counts(
    audience_id: str, session: Mapping[str, Any], rows: Sequence[Any], invalid: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    samples = {str(n): json.dumps(list(row.values())) for n, row in enumerate(invalid[:5])}
    return {
        "audience_id": audience_id,
        "session_id": str(session["session_id"]),
        "num_received": len(rows),
        "num_invalid_entries": len(invalid),
        "invalid_entry_samples": samples,
    }


def _session(row: sqlite3.Row) -> dict[str, str]:
    return {
        "session_id": row["session_id"],
        "num_received": str(row["num_received"]),
        "num_invalid_entries": str(row["num_invalid"]),
        "progress": "100",
        "stage": "FINISHED" if row["is_finished"] else "UPLOADING",
    }


def _error(status: int, code: int, message: str, subcode: int | None) -> Response:
    error: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code}
    if subcode is not None:
        error["error_subcode"] = subcode
    error["fbtrace_id"] = secrets.token_urlsafe(12)
    return JSONResponse({"error": error}, status_code=status)
