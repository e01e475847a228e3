"""Klaviyo: profiles on a list, by asynchronous import jobs (API revision 2026-07-15).

One batch of additions and changes is: import job → poll until complete → read its errors → list its profiles (their
ids are what a later removal needs) → subscribe those who are new. Removal takes profile ids off the list.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice
from math import ceil
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr, StrictBool

from activations.destinations.base import Destination, DestinationConfig, Exchange, Target, reveal
from activations.destinations.normalise import e164, json_number
from activations.destinations.outcomes import (
    delivered,
    is_refusal,
    json_object,
    object_at,
    refused,
    rejected,
    safe_code,
    unknown,
)
from activations.errors import BatchRefused, FatalDestinationError, UnreadableResponse
from activations.model import (
    Batch,
    Capabilities,
    Change,
    Channel,
    Operation,
    Request,
    Response,
    RowResult,
    SyncMode,
    Wait,
)

REVISION = "2026-07-15"
IDENTIFIERS = ("email", "phone_number", "external_id")
ATTRIBUTES = frozenset({"first_name", "last_name", "organization", "locale", "title", "image"})
LOCATION = frozenset(
    f"location.{part}"
    for part in ("address1", "address2", "city", "country", "region", "zip", "timezone", "ip")
)
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, JOB_LIMIT_SECONDS = 0.5, 15.0, 600.0
PAGE_SIZE = 100
MAX_SUBSCRIPTION_CALLS = 40
"""To find the people of one batch whom Klaviyo refuses to subscribe: one among 1,000 takes about 20."""
LOOKUP_SIZE = 50
"""E-mail addresses per lookup: they travel in the query string, and servers cut long addresses off."""

Step = Generator[Request | Wait, Response, Any]


class KlaviyoConfig(DestinationConfig):
    """A private API key with the scopes lists:read, lists:write, profiles:read, profiles:write, subscriptions:write."""

    base_url: str = "https://a.klaviyo.com"
    api_key: SecretStr


class KlaviyoTarget(Target):
    """The list, and whether people who are added are also subscribed to e-mail marketing."""

    place: ClassVar[frozenset[str]] = frozenset({"list_id"})

    list_id: str
    subscribe: StrictBool = True
    custom_source: str | None = None
    """Where the consent comes from, as Klaviyo shows it on the profile."""


class Klaviyo(Destination[KlaviyoConfig, KlaviyoTarget]):
    """Profiles on one list of one account."""

    kind: ClassVar[str] = "klaviyo"
    Config = KlaviyoConfig
    TargetConfig = KlaviyoTarget
    capabilities: ClassVar[Capabilities] = Capabilities(
        channels=frozenset({Channel.EMAIL}),
        modes=frozenset({SyncMode.UPSERT, SyncMode.MIRROR}),
        identifiers=frozenset(IDENTIFIERS),
        # A profile whose e-mail changes is another profile; a new telephone is the same one.
        key_identifiers=frozenset({"email"}),
        shares_fields=True,
        # An import takes 10,000, but a removal and a subscription 1,000: one size that fits all three.
        max_batch_rows=1_000,
        max_batch_bytes=4_500_000,
        # An import whose answer was lost may still stand in the vendor's queue.
        settle_seconds=1_800.0,
        # 150 a minute per endpoint is the tightest steady limit of the ones used here.
        requests_per_second=2.5,
    )

    @classmethod
    def check_mapping(
        cls, identifiers: frozenset[str], fields: frozenset[str], target: KlaviyoTarget
    ) -> str | None:
        if "email" not in identifiers:
            return "klaviyo recognises and subscribes people by e-mail: map `email` under identifiers"
        misplaced = sorted(fields & frozenset(IDENTIFIERS))
        if misplaced:
            return f"`{misplaced[0]}` identifies a profile: map it under identifiers, not fields"
        place = sorted(f for f in fields if f.startswith("location.") and f not in LOCATION)
        if place:
            return f"klaviyo has no field `{place[0]}`; it has {', '.join(sorted(LOCATION))}"
        return None

    @classmethod
    def requests_for(cls, rows: int, *, removals: bool) -> int:
        """A removal is one; an import is a job, at least one look at it, its profiles by the page, and a subscription."""
        return 1 if removals else 3 + ceil(rows / PAGE_SIZE)

    def exchange(self, batch: Batch) -> Exchange:
        return (yield from self._remove(batch) if batch.is_removal else self._import(batch))

    # ------------------------------------------------------------------ add and change

    def _import(self, batch: Batch) -> Exchange:
        response = yield self._post("profile-bulk-import-jobs", self._import_job(batch.changes))
        if not response.is_success:
            return self._refused(batch, response)
        job_id = _job_id(response)
        failed = yield from self._finish(job_id)
        reasons = (yield from self._import_errors(job_id, batch.changes)) if failed else {}
        profiles = yield from self._job_profiles(job_id)
        uncleared = yield from self._clear_attributes(batch.changes, profiles)
        added = [
            _email(change)
            for change in batch.changes
            if change.operation is Operation.ADDED and change.key not in uncleared
        ]
        news = yield from self._subscribe([profiles[email] for email in added if email in profiles])
        return [
            uncleared.get(change.key) or _import_result(change, reasons, profiles, news)
            for change in batch.changes
        ]

    def _import_job(self, changes: Sequence[Change]) -> dict[str, Any]:
        return {
            "data": {
                "type": "profile-bulk-import-job",
                "attributes": {"profiles": {"data": [_profile(change) for change in changes]}},
                "relationships": {"lists": {"data": [{"type": "list", "id": self.target.list_id}]}},
            }
        }

    def _finish(self, job_id: str) -> Generator[Request | Wait, Response, bool]:
        """Poll until the job is complete; whether any row failed. A job that does not end leaves all rows in doubt."""
        waited, pause = 0.0, FIRST_WAIT_SECONDS
        while waited < JOB_LIMIT_SECONDS:
            yield Wait(seconds=pause)
            waited, pause = waited + pause, min(pause * 2, LONGEST_WAIT_SECONDS)
            attributes = _job_attributes((yield self._get(f"profile-bulk-import-jobs/{job_id}")))
            if attributes.get("status") == "complete":
                return bool(attributes.get("failed_count"))
            if attributes.get("status") == "cancelled":
                raise UnreadableResponse("the import job was cancelled, so what it applied is unknown")
        raise UnreadableResponse(f"the import job did not end within {JOB_LIMIT_SECONDS:.0f} seconds")

    def _import_errors(self, job_id: str, changes: Sequence[Change]) -> Step:
        """Row → reason. An error that cannot be tied to a row stays unused: its row is then in doubt, not lost."""
        rows = {_email(change): change.key for change in changes}
        reasons: dict[str, str] = {}
        path = f"profile-bulk-import-jobs/{job_id}/import-errors"
        for error in (yield from self._pages(path, {})):
            key = _failed_row(error, changes, rows)
            if key is not None:
                reasons[key] = safe_code(error.get("code"), "invalid_profile")
        return reasons

    def _job_profiles(self, job_id: str) -> Step:
        """E-mail → profile, with what Klaviyo knows of its subscription."""
        params = {"additional-fields[profile]": "subscriptions", "fields[profile]": "email,subscriptions"}
        data = yield from self._pages(f"profile-bulk-import-jobs/{job_id}/profiles", params, whole=True)
        return {_email_of(profile): profile for profile in data}

    def _clear_attributes(self, changes: Sequence[Change], profiles: Mapping[str, Any]) -> Step:
        """Empty standard attributes one profile at a time: an import job ignores null instead of clearing. Row → its
        result where that failed, since one profile's trouble is none of its neighbours'."""
        uncleared: dict[str, RowResult] = {}
        for change in changes:
            cleared = _cleared(change)
            profile = profiles.get(_email(change))
            if cleared and profile:
                body = {"data": {"type": "profile", "id": profile["id"], "attributes": cleared}}
                response = yield self._request("PATCH", f"profiles/{profile['id']}", body)
                if not response.is_success:
                    uncleared[change.key] = _uncleared(change, profile["id"], response)
        return uncleared

    def _subscribe(self, profiles: Sequence[Mapping[str, Any]]) -> Step:
        """Record consent for those who are new, and return what is worth knowing: profile id → reason.

        The engine hands over only people whose consent it holds. But subscribing deletes an earlier unsubscription,
        complaint or suppression, and a no that was said at Klaviyo may not have reached the warehouse yet: it stays.
        """
        if not self.target.subscribe:
            return {}
        news = {p["id"]: "unsubscribed_at_destination" for p in profiles if _consent(p) == "no"}
        queue = [some] if (some := [p for p in profiles if not _consent(p)]) else []
        for _ in range(MAX_SUBSCRIPTION_CALLS):
            if not queue:
                return news
            some = queue.pop()
            response = yield self._post("profile-subscription-bulk-create-jobs", self._subscription_job(some))
            if not response.is_success and len(some) > 1:
                queue += [some[: len(some) // 2], some[len(some) // 2 :]]
            elif not response.is_success:
                news[some[0]["id"]] = "not_subscribed"
        return news | {profile["id"]: "not_subscribed" for some in queue for profile in some}

    def _subscription_job(self, profiles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """No `consented_at`: Klaviyo refuses it unless `historical_import` skips the list's double opt-in."""
        attributes: dict[str, Any] = {"profiles": {"data": [_subscription(p) for p in profiles]}}
        if self.target.custom_source:
            attributes["custom_source"] = self.target.custom_source
        return {
            "data": {
                "type": "profile-subscription-bulk-create-job",
                "attributes": attributes,
                "relationships": {"list": {"data": {"type": "list", "id": self.target.list_id}}},
            }
        }

    # ------------------------------------------------------------------ remove

    def _remove(self, batch: Batch) -> Exchange:
        """Take people off the list; their consent stays as it is.

        Not the unsubscribe endpoint, on purpose: leaving this audience is no withdrawal of consent, and a profile
        that is not on the list would be unsubscribed from everything.
        """
        ids = yield from self._profile_ids(batch.changes)
        if not ids:
            return [delivered(change) for change in batch.changes]
        members = [{"type": "profile", "id": profile_id} for profile_id in dict.fromkeys(ids.values())]
        path = f"lists/{self.target.list_id}/relationships/profiles"
        response = yield self._request("DELETE", path, {"data": members})
        if response.status == 404:
            return (yield from self._remove_missing(batch))
        if not response.is_success:
            return self._refused(batch, response)
        return [delivered(change, ids.get(change.key)) for change in batch.changes]

    def _profile_ids(self, changes: Sequence[Change]) -> Step:
        """Row → profile id. Whoever is not found has no profile, so there is nothing to remove."""
        ids = {change.key: change.destination_key for change in changes if change.destination_key}
        rows = {_email(change): change.key for change in changes if change.key not in ids}
        rows.pop("", None)
        for some in _chunks(rows, LOOKUP_SIZE):
            quoted = ",".join('"' + email.replace("\\", "\\\\").replace('"', '\\"') + '"' for email in some)
            params = {"filter": f"any(email,[{quoted}])", "fields[profile]": "email"}
            for profile in (yield from self._pages("profiles", params, whole=True)):
                email = _email_of(profile)
                if email in rows:
                    ids[rows[email]] = str(profile["id"])
        return ids

    def _remove_missing(self, batch: Batch) -> Exchange:
        """404 means that the list or a profile is gone. A profile that no longer exists is on no list."""
        response = yield self._get(f"lists/{self.target.list_id}")
        if response.status == 404:
            raise self._no_list()
        if not response.is_success:
            raise UnreadableResponse(f"HTTP {response.status} when looking for the list")
        if len(batch.changes) > 1:
            raise BatchRefused("profile_not_found")
        return [delivered(change, change.destination_key) for change in batch.changes]

    # ------------------------------------------------------------------ requests and refusals

    def _pages(self, path: str, params: Mapping[str, str], *, whole: bool = False) -> Step:
        """All items of a collection. Only the cursor of `next` is used: a full address may point anywhere."""
        items: list[Mapping[str, Any]] = []
        cursor: str | None = None
        while True:
            page = {**params, "page[size]": str(PAGE_SIZE), **({"page[cursor]": cursor} if cursor else {})}
            response = yield self._get(path, page)
            if not response.is_success:
                raise UnreadableResponse(f"HTTP {response.status} when reading {path.rsplit('/', 1)[-1]}")
            body = json_object(response)
            data = body.get("data")
            # Whoever is not in a lookup counts as gone, so a page that is none must not pass for an empty one.
            if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
                raise UnreadableResponse(f"HTTP {response.status} with a page that is no list of objects")
            items += data if whole else [object_at(item, "attributes") for item in data]
            following = _cursor(object_at(body, "links").get("next"))
            if not following or following == cursor:
                return items
            cursor = following

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> Request:
        return Request(
            method="GET",
            url=f"{self.config.base_url}/api/{path}",
            headers=self._headers(),
            params=params or {},
        )

    def _post(self, path: str, body: Mapping[str, Any]) -> Request:
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: Mapping[str, Any]) -> Request:
        headers = {**self._headers(), "content-type": "application/vnd.api+json"}
        return Request(
            method=method, url=f"{self.config.base_url}/api/{path}", headers=headers, json_body=body
        )

    def _headers(self) -> dict[str, str]:
        return {
            "authorization": f"Klaviyo-API-Key {reveal(self.config.api_key)}",
            "revision": REVISION,
            "accept": "application/vnd.api+json",
        }

    def _refused(self, batch: Batch, response: Response) -> list[RowResult]:
        if response.status == 404:
            raise self._no_list()
        if not is_refusal(response):
            raise UnreadableResponse(f"HTTP {response.status} does not say what Klaviyo took")
        return refused(batch, _error_code(response))

    def _no_list(self) -> FatalDestinationError:
        return FatalDestinationError(
            "list_not_found",
            fix=f"Create the list in Klaviyo or correct target.list_id (found {self.target.list_id!r})",
        )


# ---------------------------------------------------------------------- bodies


def _profile(change: Change) -> dict[str, Any]:
    """One profile of an import. An absent field keeps its value; a null custom property is unset."""
    attributes: dict[str, Any] = dict(_identifiers(change))
    location, properties, unset = {}, {}, []
    for name, value in change.fields.items():
        if name in ATTRIBUTES | LOCATION and value is None:
            continue
        if name in ATTRIBUTES:
            attributes[name] = str(json_number(value))
        elif name in LOCATION:
            location[name.removeprefix("location.")] = str(json_number(value))
        elif value is None:
            unset.append(name)
        else:
            properties[name] = json_number(value)
    attributes |= {k: v for k, v in (("location", location), ("properties", properties)) if v}
    meta = {"meta": {"patch_properties": {"unset": unset}}} if unset else {}
    return {"type": "profile", "attributes": attributes, **meta}


def _identifiers(change: Change) -> Iterator[tuple[str, str]]:
    for name, value in change.identifiers.items():
        normal = e164(value) if name == "phone_number" else value.strip()
        if normal:
            yield name, normal


def _cleared(change: Change) -> dict[str, Any]:
    """Standard attributes and places that the warehouse says are empty now."""
    empty = [name for name, value in change.fields.items() if value is None]
    location = {n.removeprefix("location."): None for n in empty if n in LOCATION}
    return {n: None for n in empty if n in ATTRIBUTES} | ({"location": location} if location else {})


def _subscription(profile: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "profile",
        "id": profile["id"],
        "attributes": {
            "email": profile["attributes"]["email"],
            "subscriptions": {"email": {"marketing": {"consent": "SUBSCRIBED"}}},
        },
    }


# ---------------------------------------------------------------------- answers


def _job_id(response: Response) -> str:
    job_id = object_at(json_object(response), "data").get("id")
    if not isinstance(job_id, str) or not re.fullmatch(r"[A-Za-z0-9_=.-]+", job_id):
        raise UnreadableResponse("the import job was accepted without a usable id")
    return job_id


def _job_attributes(response: Response) -> Mapping[str, Any]:
    attributes = object_at(json_object(response), "data", "attributes")
    if not response.is_success or not attributes:
        raise UnreadableResponse(f"HTTP {response.status} without the state of the import job")
    return attributes


def _import_result(
    change: Change, reasons: Mapping[str, str], profiles: Mapping[str, Any], news: Mapping[str, str]
) -> RowResult:
    """Whoever was imported is on the list: delivered, also when the subscription was not wanted (with a reason)."""
    if change.key in reasons:
        return rejected(change, reasons[change.key])
    profile = profiles.get(_email(change))
    if profile is None:
        return unknown(change, "not_in_job_result")
    return delivered(change, str(profile["id"]), news.get(profile["id"]))


def _uncleared(change: Change, profile_id: str, response: Response) -> RowResult:
    """The import took them all the same, but an addition that is rejected counts as never held, so nobody would take
    them off the list again. A row that has no name yet is therefore in doubt and gets one; asserted again, it is rejected."""
    if is_refusal(response) and change.destination_key:
        return rejected(change, _error_code(response))
    return unknown(change, "not_cleared", str(profile_id))


def _failed_row(error: Mapping[str, Any], changes: Sequence[Change], rows: Mapping[str, str]) -> str | None:
    """The row of an import error: by the e-mail it repeats, else by the position its pointer names."""
    payload = object_at(error, "original_payload")
    attributes = object_at(payload, "attributes") or payload
    email = str(attributes.get("email") or "").strip().lower()
    if email in rows:
        return rows[email]
    match = re.search(r"/profiles/data/(\d+)", str(object_at(error, "source").get("pointer") or ""))
    position = int(match[1]) if match else len(changes)
    return changes[position].key if position < len(changes) else None


def _consent(profile: Mapping[str, Any]) -> str:
    """ "yes", "no" or "" (never asked) for e-mail marketing, as Klaviyo has it.

    Strict on purpose: what cannot be read must not pass for never asked, or a no would be overwritten.
    """
    subscriptions = (profile.get("attributes") or {}).get("subscriptions") or {}
    marketing = (subscriptions.get("email") or {}).get("marketing") or {}
    suppressions = {s.get("reason") for s in marketing.get("suppression") or []}
    if marketing.get("consent") == "UNSUBSCRIBED" or suppressions - {"HARD_BOUNCE", "INVALID_EMAIL"}:
        return "no"
    return "yes" if marketing.get("consent") == "SUBSCRIBED" else ""


def _error_code(response: Response) -> str:
    fallback = f"http_{response.status}"
    try:
        errors = json_object(response).get("errors")
    except UnreadableResponse:
        return fallback
    first = errors[0] if isinstance(errors, list) and errors else None
    return safe_code(object_at(first).get("code"), fallback)


def _email(change: Change) -> str:
    return change.identifiers.get("email", "").strip().lower()


def _email_of(profile: Mapping[str, Any]) -> str:
    return str(object_at(profile, "attributes").get("email", "")).strip().lower()


def _cursor(link: object) -> str | None:
    return parse_qs(urlsplit(link).query).get("page[cursor]", [None])[0] if isinstance(link, str) else None


def _chunks(values: Mapping[str, str], size: int) -> Iterator[list[str]]:
    remaining = iter(values)
    while some := list(islice(remaining, size)):
        yield some
