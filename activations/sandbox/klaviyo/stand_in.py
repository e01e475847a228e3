"""One account: its routes, its key, and what the page shows of it."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from activations.sandbox.credentials import credentials_for
from activations.sandbox.klaviyo.jobs import ImportJobs
from activations.sandbox.klaviyo.jsonapi import MEDIA_TYPE, Refusal, errors
from activations.sandbox.klaviyo.lists import Lists
from activations.sandbox.klaviyo.profiles import Profiles
from activations.sandbox.klaviyo.subscriptions import Subscriptions
from activations.sandbox.refusals import Handler, guarded
from activations.sandbox.state import Place, State


class KlaviyoStandIn:
    """One account. `job_seconds` is how long an import job is under way."""

    name = "klaviyo"
    kind = "klaviyo"

    def __init__(self, state: State, job_seconds: float = 0.3) -> None:
        self.state = state
        self.jobs = ImportJobs(state, job_seconds)
        self.lists = Lists(state)
        self.profiles = Profiles(state)
        self.subscriptions = Subscriptions(state)

    def register(self, place: Place) -> None:
        with self.state.transaction() as db:
            db.execute(
                "insert into klaviyo_lists values (?, ?) on conflict (list_id) do update set name = excluded.name",
                (str(place.target["list_id"]), place.name),
            )

    def routes(self) -> list[Route]:
        jobs, profiles = "/api/profile-bulk-import-jobs", "/api/profiles"
        members = "/api/lists/{list_id}/relationships/profiles"
        consent = "/api/profile-subscription-bulk-{}-jobs"
        return [
            self._route("POST", jobs, self.jobs.create),
            self._route("GET", jobs + "/{job_id}", self.jobs.show),
            self._route("GET", jobs + "/{job_id}/profiles", self.jobs.profiles),
            self._route("GET", jobs + "/{job_id}/import-errors", self.jobs.errors),
            self._route("GET", "/api/lists/{list_id}", self.lists.show),
            self._route("POST", members, self.lists.add_members),
            self._route("DELETE", members, self.lists.remove_members),
            self._route("GET", profiles, self.profiles.find),
            self._route("PATCH", profiles + "/{profile_id}", self.profiles.update),
            self._route("POST", consent.format("create"), self.subscriptions.subscribe),
            self._route("POST", consent.format("delete"), self.subscriptions.unsubscribe),
        ]

    def _route(self, method: str, path: str, handler: Handler) -> Route:
        return Route(path, guarded(handler, self._admit), methods=[method])

    def error(self, status: int) -> Response:
        titles = {429: ("throttled", "Request was throttled."), 500: ("error", "A server error occurred.")}
        code, title = titles[status]
        return errors(status, code, title, title, None)

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
