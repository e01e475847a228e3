"""Consent to e-mail: jobs that subscribe and unsubscribe, done at once here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from activations.sandbox.klaviyo.jsonapi import Refusal, get, iso, read_data
from activations.sandbox.klaviyo.lists import join, require_lists
from activations.sandbox.klaviyo.profiles import check_number, find_or_create
from activations.sandbox.state import State

MAX_SUBSCRIBE, MAX_UNSUBSCRIBE = 1_000, 100


class Subscriptions:
    """`/api/profile-subscription-bulk-…-jobs`."""

    def __init__(self, state: State) -> None:
        self.state = state

    async def subscribe(self, request: Request) -> Response:
        data = await read_data(request, "profile-subscription-bulk-create-job")
        profiles = get(data, "attributes", "profiles", "data")
        _check_subscription(data, profiles)
        list_id = get(data, "relationships", "list", "data", "id")
        with self.state.transaction() as db:
            require_lists(db, [list_id] if list_id else [])
            ids = [find_or_create(db, profile) for profile in profiles]
            source = get(data, "attributes", "custom_source")
            db.executemany(
                "update klaviyo_profiles set consent = 'SUBSCRIBED', consented_at = ?, source = ?"
                " where profile_id = ?",
                [(iso(time.time()), source, profile_id) for profile_id in ids],
            )
            if list_id:
                join(db, list_id, ids)
        return Response(status_code=202)

    async def unsubscribe(self, request: Request) -> Response:
        """The trap of the real one included: whoever is not on the list is unsubscribed from everything too."""
        data = await read_data(request, "profile-subscription-bulk-delete-job")
        profiles = get(data, "attributes", "profiles", "data")
        check_number(profiles, MAX_UNSUBSCRIBE)
        emails = [str(get(profile, "attributes", "email") or "").lower() for profile in profiles]
        with self.state.transaction() as db:
            db.executemany(
                "update klaviyo_profiles set consent = 'UNSUBSCRIBED' where email = ?", [(e,) for e in emails]
            )
        return Response(status_code=202)


def _check_subscription(data: Mapping[str, Any], profiles: Sequence[Any]) -> None:
    check_number(profiles, MAX_SUBSCRIBE)
    is_historical = bool(get(data, "attributes", "historical_import"))
    for profile in profiles:
        marketing = get(profile, "attributes", "subscriptions", "email", "marketing") or {}
        if marketing.get("consent") != "SUBSCRIBED":
            raise Refusal(400, "invalid", "consent must be SUBSCRIBED.")
        if ("consented_at" in marketing) != is_historical:
            raise Refusal(400, "invalid", "consented_at belongs to historical_import, which needs it.")
