"""Klaviyo's stand-in: profiles, lists, import jobs that take their time, subscriptions (revision 2026-07-15)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from activations.sandbox.credentials import credentials_for
from activations.sandbox.state import Place, State

MEDIA_TYPE = "application/vnd.api+json"
MAX_IMPORT, MAX_RELATIONSHIP, MAX_SUBSCRIBE, MAX_UNSUBSCRIBE = 10_000, 1_000, 1_000, 100
KEPT_JOBS = 200
_EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;.]+(\.[^@\s,;.]+)+")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_IDENTIFIERS = ("email", "phone_number", "external_id")


class Refusal(Exception):
    """A request that is answered with a JSON:API error."""

    def __init__(self, status: int, code: str, detail: str, pointer: str = "/data") -> None:
        self.status, self.code, self.detail, self.pointer = status, code, detail, pointer
        super().__init__(code)


class KlaviyoStandIn:
    """One account. `job_seconds` is how long an import job is under way: half of it queued, half processing."""

    name = "klaviyo"
    kind = "klaviyo"

    def __init__(self, state: State, job_seconds: float = 0.3) -> None:
        self.state, self.job_seconds = state, job_seconds

    def register(self, place: Place) -> None:
        with self.state.transaction() as db:
            db.execute(
                "insert into klaviyo_lists values (?, ?) on conflict (list_id) do update set name = excluded.name",
                (str(place.target["list_id"]), place.name),
            )

    def routes(self) -> list[Route]:
        jobs, members = "/api/profile-bulk-import-jobs", "/api/lists/{list_id}/relationships/profiles"
        return [
            Route(jobs, self._guarded(self.create_job), methods=["POST"]),
            Route(jobs + "/{job_id}", self._guarded(self.job), methods=["GET"]),
            Route(jobs + "/{job_id}/profiles", self._guarded(self.job_profiles), methods=["GET"]),
            Route(jobs + "/{job_id}/import-errors", self._guarded(self.job_errors), methods=["GET"]),
            Route("/api/lists/{list_id}", self._guarded(self.show_list), methods=["GET"]),
            Route(members, self._guarded(self.add_members), methods=["POST"]),
            Route(members, self._guarded(self.remove_members), methods=["DELETE"]),
            Route("/api/profiles", self._guarded(self.profiles), methods=["GET"]),
            Route("/api/profiles/{profile_id}", self._guarded(self.update_profile), methods=["PATCH"]),
            Route(
                "/api/profile-subscription-bulk-create-jobs", self._guarded(self.subscribe), methods=["POST"]
            ),
            Route(
                "/api/profile-subscription-bulk-delete-jobs",
                self._guarded(self.unsubscribe),
                methods=["POST"],
            ),
        ]

    def error(self, status: int) -> Response:
        titles = {429: ("throttled", "Request was throttled."), 500: ("error", "A server error occurred.")}
        code, title = titles[status]
        return _errors(status, code, title, title, None)

    def _guarded(self, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                self._admit(request)
                response: Response = await handler(request)
            except Refusal as refusal:
                return _errors(
                    refusal.status, refusal.code, "Invalid input.", refusal.detail, refusal.pointer
                )
            return response

        return answer

    def _admit(self, request: Request) -> None:
        expected = f"Klaviyo-API-Key {credentials_for('klaviyo')['api_key']}"
        if request.headers.get("authorization") != expected:
            raise Refusal(401, "not_authenticated", "Missing or invalid private key.")
        if not request.headers.get("revision"):
            raise Refusal(400, "invalid", "A revision header is required.", "/headers/revision")
        if request.method in ("POST", "PATCH", "DELETE"):
            media_type = request.headers.get("content-type", "").split(";")[0]
            if media_type not in (MEDIA_TYPE, "application/json"):
                raise Refusal(415, "unsupported_media_type", f"The body must be {MEDIA_TYPE}.")

    # ------------------------------------------------------------------ import jobs

    async def create_job(self, request: Request) -> Response:
        data = await _data(request, "profile-bulk-import-job")
        profiles = _get(data, "attributes", "profiles", "data")
        lists = [str(item.get("id")) for item in _get(data, "relationships", "lists", "data") or []]
        if not isinstance(profiles, list) or not 1 <= len(profiles) <= MAX_IMPORT:
            raise Refusal(400, "invalid", f"Between 1 and {MAX_IMPORT} profiles are accepted.")
        job_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        with self.state.transaction() as db:
            _require_lists(db, lists)
            self._run(db, job_id, profiles, lists, is_partial=_is_partial(request))
        return _document(self._job_resource(request, job_id), request, 202)

    def _run(
        self,
        db: sqlite3.Connection,
        job_id: str,
        profiles: Sequence[Any],
        lists: Sequence[str],
        *,
        is_partial: bool,
    ) -> None:
        now = time.time()
        db.execute(
            "insert into klaviyo_jobs values (?, ?, ?, ?)", (job_id, now, len(profiles), json.dumps(lists))
        )
        done, errors = [], []
        for position, profile in enumerate(profiles):
            problem = _problem(profile) or ("rejected" if is_partial and position % 3 == 0 else None)
            if problem:
                errors.append((job_id, position, json.dumps(_import_error(problem, position, profile))))
            else:
                done.append((job_id, position, _upsert(db, profile["attributes"], _unset(profile))))
        db.executemany("insert into klaviyo_job_profiles values (?, ?, ?)", done)
        db.executemany("insert into klaviyo_job_errors values (?, ?, ?)", errors)
        for list_id in lists:
            _join(db, list_id, [profile_id for _, _, profile_id in done])
        _forget_old_jobs(db)

    async def job(self, request: Request) -> Response:
        return _document(self._job_resource(request, request.path_params["job_id"]), request)

    def _job_resource(self, request: Request, job_id: str) -> dict[str, Any]:
        job = self._job(job_id)
        status, age = self._status(job), time.time() - job["created_at"]
        failed = self.state.count("select count(*) from klaviyo_job_errors where job_id = ?", job_id)
        is_done = status == "complete"
        ended = _iso(job["created_at"] + self.job_seconds) if is_done else None
        return {
            "type": "profile-bulk-import-job",
            "id": job_id,
            "attributes": {
                "status": status,
                "created_at": _iso(job["created_at"]),
                "started_at": _iso(job["created_at"] + self.job_seconds / 2) if status != "queued" else None,
                "completed_at": ended,
                "total_count": job["total"],
                "completed_count": job["total"] - failed if is_done else int(age < 0),
                "failed_count": failed if is_done else 0,
            },
            "links": {"self": f"{_root(request)}/api/profile-bulk-import-jobs/{job_id}/"},
        }

    def _job(self, job_id: str) -> sqlite3.Row:
        job = self.state.one("select * from klaviyo_jobs where job_id = ?", job_id)
        if job is None:
            raise Refusal(404, "not_found", "There is no such job.")
        return job

    def _status(self, job: sqlite3.Row) -> str:
        age = time.time() - job["created_at"]
        if age >= self.job_seconds:
            return "complete"
        return "processing" if age >= self.job_seconds / 2 else "queued"

    async def job_profiles(self, request: Request) -> Response:
        self._finished(request)
        sql = (
            "select p.*, position from klaviyo_job_profiles join klaviyo_profiles p using (profile_id)"
            " where job_id = ? order by position limit ? offset ?"
        )
        return self._page(request, sql, request.path_params["job_id"], resource=_profile_resource)

    async def job_errors(self, request: Request) -> Response:
        self._finished(request)
        sql = "select error from klaviyo_job_errors where job_id = ? order by position limit ? offset ?"
        return self._page(
            request, sql, request.path_params["job_id"], resource=lambda _, row: json.loads(row["error"])
        )

    def _finished(self, request: Request) -> None:
        if self._status(self._job(request.path_params["job_id"])) != "complete":
            raise Refusal(404, "not_found", "The job is not complete.")

    def _page(
        self,
        request: Request,
        sql: str,
        *values: Any,
        resource: Callable[[Request, sqlite3.Row], dict[str, Any]],
    ) -> Response:
        size = int(request.query_params.get("page[size]", "20"))
        if not 1 <= size <= 100:
            raise Refusal(400, "invalid", "page[size] is between 1 and 100.", "/query/page[size]")
        offset = _offset(request.query_params.get("page[cursor]"))
        rows = self.state.rows(sql, *values, size + 1, offset)
        links = {"self": str(request.url), "prev": None, "next": None}
        if len(rows) > size:
            links["next"] = str(request.url.include_query_params(**{"page[cursor]": _cursor(offset + size)}))
        data = [resource(request, row) for row in rows[:size]]
        return _json({"data": data, "links": {k: v for k, v in links.items() if v}})

    # ------------------------------------------------------------------ lists and profiles

    async def show_list(self, request: Request) -> Response:
        list_id = request.path_params["list_id"]
        row = self.state.one("select * from klaviyo_lists where list_id = ?", list_id)
        if row is None:
            raise Refusal(404, "not_found", "There is no such list.")
        attributes = {"name": row["name"], "opt_in_process": "single_opt_in"}
        links = {"self": f"{_root(request)}/api/lists/{list_id}/"}
        return _document({"type": "list", "id": list_id, "attributes": attributes, "links": links}, request)

    async def add_members(self, request: Request) -> Response:
        return await self._change_members(request, _join)

    async def remove_members(self, request: Request) -> Response:
        return await self._change_members(request, _leave)

    async def _change_members(
        self, request: Request, change: Callable[[sqlite3.Connection, str, Sequence[str]], None]
    ) -> Response:
        body = await _body(request)
        ids = [str(item.get("id")) for item in body.get("data") or []]
        if not 1 <= len(ids) <= MAX_RELATIONSHIP:
            raise Refusal(400, "invalid", f"Between 1 and {MAX_RELATIONSHIP} profiles are accepted.")
        with self.state.transaction() as db:
            _require_lists(db, [request.path_params["list_id"]])
            _require_profiles(db, ids)
            change(db, request.path_params["list_id"], ids)
        return Response(status_code=204)

    async def profiles(self, request: Request) -> Response:
        emails = _filtered_emails(request.query_params.get("filter", ""))
        marks = ",".join("?" * len(emails))
        sql = f"select * from klaviyo_profiles where email in ({marks}) order by profile_id limit ? offset ?"
        return self._page(request, sql, *emails, resource=_profile_resource)

    async def update_profile(self, request: Request) -> Response:
        """Unlike an import, this one clears what is given as null."""
        data = await _data(request, "profile")
        profile_id = request.path_params["profile_id"]
        with self.state.transaction() as db:
            _require_profiles(db, [profile_id])
            row = db.execute("select * from klaviyo_profiles where profile_id = ?", (profile_id,)).fetchone()
            attributes = json.loads(row["attributes"])
            _merge(attributes, data.get("attributes") or {}, clears=True)
            db.execute(
                "update klaviyo_profiles set attributes = ? where profile_id = ?",
                (json.dumps(attributes), profile_id),
            )
            row = db.execute("select * from klaviyo_profiles where profile_id = ?", (profile_id,)).fetchone()
        return _document(_profile_resource(request, row), request)

    # ------------------------------------------------------------------ consent

    async def subscribe(self, request: Request) -> Response:
        data = await _data(request, "profile-subscription-bulk-create-job")
        profiles = _get(data, "attributes", "profiles", "data") or []
        _check_subscription(data, profiles)
        list_id = _get(data, "relationships", "list", "data", "id")
        with self.state.transaction() as db:
            _require_lists(db, [list_id] if list_id else [])
            ids = [_find_or_create(db, profile) for profile in profiles]
            source = _get(data, "attributes", "custom_source")
            db.executemany(
                "update klaviyo_profiles set consent = 'SUBSCRIBED', consented_at = ?, source = ?"
                " where profile_id = ?",
                [(_iso(time.time()), source, profile_id) for profile_id in ids],
            )
            if list_id:
                _join(db, list_id, ids)
        return Response(status_code=202)

    async def unsubscribe(self, request: Request) -> Response:
        """The trap of the real one included: whoever is not on the list is unsubscribed from everything too."""
        data = await _data(request, "profile-subscription-bulk-delete-job")
        profiles = _get(data, "attributes", "profiles", "data") or []
        if not 1 <= len(profiles) <= MAX_UNSUBSCRIBE:
            raise Refusal(400, "invalid", f"Between 1 and {MAX_UNSUBSCRIBE} profiles are accepted.")
        emails = [str(_get(profile, "attributes", "email") or "").lower() for profile in profiles]
        with self.state.transaction() as db:
            db.executemany(
                "update klaviyo_profiles set consent = 'UNSUBSCRIBED' where email = ?", [(e,) for e in emails]
            )
        return Response(status_code=202)

    # ------------------------------------------------------------------ for the page and for tests

    def members(self, list_id: str) -> dict[str, dict[str, Any]]:
        """E-mail → attributes and consent of everybody on the list."""
        rows = self.state.rows(
            "select p.* from klaviyo_members join klaviyo_profiles p using (profile_id) where list_id = ?",
            list_id,
        )
        return {r["email"]: {**json.loads(r["attributes"]), "consent": r["consent"]} for r in rows}

    def summary(self) -> dict[str, Any]:
        rows = self.state.rows(
            "select list_id, name, count(p.profile_id) as members,"
            " coalesce(sum(consent = 'SUBSCRIBED'), 0) as subscribed"
            " from klaviyo_lists left join klaviyo_members using (list_id)"
            " left join klaviyo_profiles p using (profile_id) group by list_id, name order by name"
        )
        return {
            "lists": {r["list_id"]: {k: r[k] for k in ("name", "members", "subscribed")} for r in rows},
            "profiles": self.state.count("select count(*) from klaviyo_profiles"),
            "jobs": self.state.count("select count(*) from klaviyo_jobs"),
        }


# ---------------------------------------------------------------------- reading requests


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise Refusal(400, "parse_error", "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "invalid", "The body must be an object.")
    return body


async def _data(request: Request, kind: str) -> dict[str, Any]:
    data = (await _body(request)).get("data")
    if not isinstance(data, dict) or data.get("type") != kind:
        raise Refusal(400, "invalid", f"data.type must be {kind}.", "/data/type")
    return data


def _get(value: Any, *path: str) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _is_partial(request: Request) -> bool:
    return getattr(request.state, "fault", None) == "partial"


def _filtered_emails(text: str) -> list[str]:
    match = re.fullmatch(r'(?:any\(email,(\[.*\])\)|equals\(email,(".*")\))', text)
    if not match:
        raise Refusal(
            400, "invalid", "The filter must be any(email,[…]) or equals(email,…).", "/query/filter"
        )
    found = json.loads(match[1] or f"[{match[2]}]")
    return [str(email).lower() for email in found]


def _check_subscription(data: Mapping[str, Any], profiles: Sequence[Any]) -> None:
    if not 1 <= len(profiles) <= MAX_SUBSCRIBE:
        raise Refusal(400, "invalid", f"Between 1 and {MAX_SUBSCRIBE} profiles are accepted.")
    is_historical = bool(_get(data, "attributes", "historical_import"))
    for profile in profiles:
        marketing = _get(profile, "attributes", "subscriptions", "email", "marketing") or {}
        if marketing.get("consent") != "SUBSCRIBED":
            raise Refusal(400, "invalid", "consent must be SUBSCRIBED.")
        if ("consented_at" in marketing) != is_historical:
            raise Refusal(400, "invalid", "consented_at belongs to historical_import, which needs it.")


# ---------------------------------------------------------------------- rows


def _problem(profile: Any) -> str | None:
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


def _upsert(db: sqlite3.Connection, given: Mapping[str, Any], unset: Sequence[str] = ()) -> str:
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
        (profile_id, *identifiers.values(), json.dumps(attributes), _iso(time.time())),
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


def _find_or_create(db: sqlite3.Connection, profile: Mapping[str, Any]) -> str:
    if profile.get("id"):
        _require_profiles(db, [str(profile["id"])])
        return str(profile["id"])
    given = {k: v for k, v in (profile.get("attributes") or {}).items() if k in _IDENTIFIERS}
    return _upsert(db, given)


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


def _unset(profile: Any) -> list[str]:
    names = _get(profile, "meta", "patch_properties", "unset") or []
    return [names] if isinstance(names, str) else list(names)


def _new_id(identifiers: Mapping[str, str | None]) -> str:
    seed = next(value for value in identifiers.values() if value)
    digest = base64.b32encode(hashlib.sha256(seed.encode()).digest()).decode("ascii")
    return "01" + digest[:24]


def _require_lists(db: sqlite3.Connection, lists: Sequence[str]) -> None:
    for list_id in lists:
        if not db.execute("select 1 from klaviyo_lists where list_id = ?", (list_id,)).fetchone():
            raise Refusal(404, "not_found", "There is no such list.", "/data/relationships/lists")


def _require_profiles(db: sqlite3.Connection, ids: Sequence[str]) -> None:
    for position, profile_id in enumerate(ids):
        if not db.execute("select 1 from klaviyo_profiles where profile_id = ?", (profile_id,)).fetchone():
            raise Refusal(404, "not_found", "There is no such profile.", f"/data/{position}/id")


def _join(db: sqlite3.Connection, list_id: str, ids: Sequence[str]) -> None:
    now = _iso(time.time())
    db.executemany("insert or ignore into klaviyo_members values (?, ?, ?)", [(list_id, i, now) for i in ids])


def _leave(db: sqlite3.Connection, list_id: str, ids: Sequence[str]) -> None:
    db.executemany(
        "delete from klaviyo_members where list_id = ? and profile_id = ?", [(list_id, i) for i in ids]
    )


def _forget_old_jobs(db: sqlite3.Connection) -> None:
    old = db.execute(
        "select job_id from klaviyo_jobs order by created_at desc limit -1 offset ?", (KEPT_JOBS,)
    )
    for (job_id,) in old.fetchall():
        for table in ("klaviyo_jobs", "klaviyo_job_profiles", "klaviyo_job_errors"):
            db.execute(f"delete from {table} where job_id = ?", (job_id,))


# ---------------------------------------------------------------------- answers


def _json(body: Any, status: int = 200) -> Response:
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE)


def _document(resource: dict[str, Any], request: Request, status: int = 200) -> Response:
    return _json({"data": resource, "links": {"self": str(request.url)}}, status)


def _errors(status: int, code: str, title: str, detail: str, pointer: str | None) -> Response:
    error = {"id": str(uuid.uuid4()), "status": status, "code": code, "title": title, "detail": detail}
    return _json({"errors": [error | {"source": {"pointer": pointer or "/data"}}]}, status)


def _import_error(code: str, position: int, profile: Any) -> dict[str, Any]:
    """Like the real one, it repeats what was sent: a destination must not pass that on."""
    payload = profile.get("attributes") if isinstance(profile, dict) else None
    return {
        "type": "import-error",
        "id": str(uuid.uuid4()),
        "attributes": {
            "code": code,
            "title": "Invalid input.",
            "detail": f"The profile was not imported: {code}.",
            "source": {"pointer": f"/data/attributes/profiles/data/{position}/attributes"},
            "original_payload": payload if isinstance(payload, dict) else {},
        },
    }


def _profile_resource(request: Request, row: sqlite3.Row) -> dict[str, Any]:
    attributes = {name: row[name] for name in _IDENTIFIERS} | json.loads(row["attributes"])
    fields = request.query_params.get("fields[profile]")
    if fields:
        attributes = {k: v for k, v in attributes.items() if k in fields.split(",")}
    if request.query_params.get("additional-fields[profile]") == "subscriptions":
        attributes["subscriptions"] = _subscriptions(row)
    links = {"self": f"{_root(request)}/api/profiles/{row['profile_id']}/"}
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


def _cursor(offset: int) -> str:
    return base64.urlsafe_b64encode(f"offset:{offset}".encode()).decode("ascii")


def _offset(cursor: str | None) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor).decode().removeprefix("offset:")) if cursor else 0
    except ValueError:
        raise Refusal(400, "invalid", "The cursor is not one of ours.", "/query/page[cursor]") from None


def _root(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
