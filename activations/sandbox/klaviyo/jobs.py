"""Import jobs, which take their time."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from activations.sandbox.klaviyo.jsonapi import Refusal, document, get, iso, page, read_data, root_of
from activations.sandbox.klaviyo.lists import join, require_lists
from activations.sandbox.klaviyo.profiles import check_number, problem_of, profile_resource, unset_of, upsert
from activations.sandbox.state import State

MAX_IMPORT = 10_000
KEPT_JOBS = 200


class ImportJobs:
    """`/api/profile-bulk-import-jobs`. `job_seconds` is how long one is under way: half of it queued, half processing."""

    def __init__(self, state: State, job_seconds: float) -> None:
        self.state, self.job_seconds = state, job_seconds

    async def create(self, request: Request) -> Response:
        data = await read_data(request, "profile-bulk-import-job")
        profiles = get(data, "attributes", "profiles", "data")
        lists = [str(item.get("id")) for item in get(data, "relationships", "lists", "data") or []]
        check_number(profiles, MAX_IMPORT)
        job_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        with self.state.transaction() as db:
            require_lists(db, lists)
            self._run(db, job_id, profiles, lists, is_partial=_is_partial(request))
        return document(self._job_resource(request, job_id), request, 202)

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
            problem = problem_of(profile) or ("rejected" if is_partial and position % 3 == 0 else None)
            if problem:
                errors.append((job_id, position, json.dumps(_import_error(problem, position, profile))))
            else:
                done.append((job_id, position, upsert(db, profile["attributes"], unset_of(profile))))
        db.executemany("insert into klaviyo_job_profiles values (?, ?, ?)", done)
        db.executemany("insert into klaviyo_job_errors values (?, ?, ?)", errors)
        for list_id in lists:
            join(db, list_id, [profile_id for _, _, profile_id in done])
        _forget_old_jobs(db)

    async def show(self, request: Request) -> Response:
        return document(self._job_resource(request, request.path_params["job_id"]), request)

    def _job_resource(self, request: Request, job_id: str) -> dict[str, Any]:
        job = self._job(job_id)
        status, age = self._status(job), time.time() - job["created_at"]
        failed = self.state.count("select count(*) from klaviyo_job_errors where job_id = ?", job_id)
        is_done = status == "complete"
        ended = iso(job["created_at"] + self.job_seconds) if is_done else None
        return {
            "type": "profile-bulk-import-job",
            "id": job_id,
            "attributes": {
                "status": status,
                "created_at": iso(job["created_at"]),
                "started_at": iso(job["created_at"] + self.job_seconds / 2) if status != "queued" else None,
                "completed_at": ended,
                "total_count": job["total"],
                "completed_count": job["total"] - failed if is_done else int(age < 0),
                "failed_count": failed if is_done else 0,
            },
            "links": {"self": f"{root_of(request)}/api/profile-bulk-import-jobs/{job_id}/"},
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

    async def profiles(self, request: Request) -> Response:
        self._finished(request)
        sql = (
            "select p.*, position from klaviyo_job_profiles join klaviyo_profiles p using (profile_id)"
            " where job_id = ? order by position limit ? offset ?"
        )
        return page(self.state, request, sql, request.path_params["job_id"], resource=profile_resource)

    async def errors(self, request: Request) -> Response:
        self._finished(request)
        sql = "select error from klaviyo_job_errors where job_id = ? order by position limit ? offset ?"
        return page(
            self.state,
            request,
            sql,
            request.path_params["job_id"],
            resource=lambda _, row: json.loads(row["error"]),
        )

    def _finished(self, request: Request) -> None:
        if self._status(self._job(request.path_params["job_id"])) != "complete":
            raise Refusal(404, "not_found", "The job is not complete.")


def _is_partial(request: Request) -> bool:
    return getattr(request.state, "fault", None) == "partial"


def _forget_old_jobs(db: sqlite3.Connection) -> None:
    old = db.execute(
        "select job_id from klaviyo_jobs order by created_at desc limit -1 offset ?", (KEPT_JOBS,)
    )
    for (job_id,) in old.fetchall():
        for table in ("klaviyo_jobs", "klaviyo_job_profiles", "klaviyo_job_errors"):
            db.execute(f"delete from {table} where job_id = ?", (job_id,))


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
