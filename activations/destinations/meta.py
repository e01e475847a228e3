"""Meta custom audiences: hashed identifiers added to and removed from one audience.

Members are known by EXTERN_ID, our pseudonym, so a removal needs no personal data. The audience matches the changes
within 24 hours; what the call answers are counts, never rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr

from activations.config.base import Says
from activations.destinations.base import Destination, DestinationConfig, Exchange, Target, reveal
from activations.destinations.normalise import META, sha256
from activations.destinations.outcomes import (
    delivered,
    is_refusal,
    json_object,
    refused,
    rejected,
    retryable,
    unknown,
)
from activations.errors import FatalDestinationError, UnreadableResponse
from activations.model import (
    Batch,
    Capabilities,
    Change,
    Channel,
    Request,
    Response,
    RowResult,
    SyncMode,
)

THROTTLED = frozenset({4, 17, 32, 613, *range(80_000, 80_015)})
"""Quota codes. Meta may send them with HTTP 400, so the engine does not see a 429."""
MAX_CALLS = 64
"""To find the invalid rows of one batch: two bad ones among 10,000 take about 50."""
UNCLEAR = frozenset({1, 2})
"""An unknown error, or a service that is away: the call may have been applied."""

# https://developers.facebook.com/documentation/ads-commerce/marketing-api/error-reference
NEEDS_A_PERSON: Mapping[tuple[object, object], tuple[str, str]] = {
    (100, 33): ("audience_not_found", "Correct target.audience_id, or give the system user access to it"),
    (100, 1713230): ("audience_flagged", "Resolve the restriction in Audience Manager"),
    (200, 1870034): ("terms_not_accepted", "Accept the Custom Audience terms of the ad account"),
    (200, 1870047): (
        "audience_too_small",
        "Meta keeps people in an audience that gets too small: pause its ads or delete the audience",
    ),
    (10, None): ("no_permission", "Give the app ads_management and access to the ad account"),
    (102, None): ("token_refused", "Renew the access token"),
    (190, None): ("token_refused", "Renew the access token"),
    (200, None): ("no_permission", "Give the system user access to the ad account"),
    (294, None): ("no_permission", "Give the app ads_management and access to the Marketing API"),
    (368, None): ("blocked_for_policy", "Resolve the block that Meta shows in Business Support"),
}


class MetaConfig(DestinationConfig):
    """The token of a system user with `ads_management` on the ad account that owns the audiences."""

    base_url: str = "https://graph.facebook.com"
    api_version: Annotated[
        str, Field(pattern=r"^v[0-9]{1,3}\.[0-9]{1,2}$"), Says("must be a version like `v25.0`")
    ] = "v25.0"
    access_token: SecretStr


class MetaTarget(Target):
    """A customer-file custom audience that exists already."""

    place: ClassVar[frozenset[str]] = frozenset({"audience_id"})

    audience_id: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9_]{1,40}$"),
        Says('must be the id of a custom audience, in quotes: `"120210000000000001"`'),
    ]


class MetaCustomAudience(Destination[MetaConfig, MetaTarget]):
    """Members of one customer-file audience."""

    kind: ClassVar[str] = "meta_custom_audience"
    Config = MetaConfig
    TargetConfig = MetaTarget
    capabilities: ClassVar[Capabilities] = Capabilities(
        channels=frozenset({Channel.ADS}),
        modes=frozenset({SyncMode.UPSERT, SyncMode.MIRROR}),
        identifiers=frozenset(META),
        max_batch_rows=10_000,
        # The quota is per business and use case and depends on spending; Meta publishes no fixed figure.
        requests_per_second=None,
    )

    @classmethod
    def check_mapping(
        cls, identifiers: frozenset[str], fields: frozenset[str], target: MetaTarget
    ) -> str | None:
        if fields:
            return f"a custom audience has no fields: take `{min(fields)}` out of fields"
        if not identifiers & {"email", "phone"}:
            return "Meta matches people by e-mail or telephone: map `email` or `phone` under identifiers"
        return None

    def new_session_id(self) -> int:
        """Fresh for every call: a session that received its last batch takes no more, not even a repetition."""
        return secrets.randbits(52)

    def exchange(self, batch: Batch) -> Exchange:
        if batch.is_removal:
            rows = {change.key: [_extern_id(change)] for change in batch.changes}
            return (yield from self._send(batch, "DELETE", ["EXTERN_ID"], rows))
        columns = [name for name in META if any(change.identifiers.get(name) for change in batch.changes)]
        hashed = {change.key: _hashed(change, columns) for change in batch.changes}
        # A row without anything to match would count as invalid and fail its neighbours.
        rows = {c.key: [_extern_id(c), *hashed[c.key]] for c in batch.changes if any(hashed[c.key])}
        return (yield from self._send(batch, "POST", ["EXTERN_ID", *(n.upper() for n in columns)], rows))

    def _send(
        self, batch: Batch, method: str, schema: Sequence[str], rows: Mapping[str, Sequence[str]]
    ) -> Exchange:
        """All rows in one call. When it counts invalid ones, halves of it until they are found.

        The search happens here and not by refusing the batch: the valid rows were taken by the first call, and a
        refusal would claim that nothing was. Sending them again changes nothing.
        """
        results = [rejected(c, "no_match_key") for c in batch.changes if c.key not in rows]
        queue = [[c for c in batch.changes if c.key in rows]] if rows else []
        for call in range(MAX_CALLS):
            if not queue:
                return results
            some = queue.pop()
            response = yield self._request(method, schema, [rows[c.key] for c in some])
            if not response.is_success and call == 0:
                return results + _refusal(replace(batch, changes=some), response)
            if not response.is_success:
                results += [unknown(c, "not_isolated") for c in some]
            elif not _has_invalid(response, len(some)):
                results += [delivered(c, _extern_id(c)) for c in some]
            elif len(some) == 1:
                results.append(rejected(some[0], "invalid_entry"))
            else:
                queue += [some[: len(some) // 2], some[len(some) // 2 :]]
        return results + [unknown(c, "not_isolated") for some in queue for c in some]

    def _request(self, method: str, schema: Sequence[str], data: Sequence[Sequence[str]]) -> Request:
        session = {
            "session_id": self.new_session_id(),
            "batch_seq": 1,
            "last_batch_flag": True,
            "estimated_num_total": len(data),
        }
        return Request(
            method=method,
            url=f"{self.config.base_url}/{self.config.api_version}/{self.target.audience_id}/users",
            # The token goes into the header: in the query it would end up in every log on the way.
            headers={"authorization": f"Bearer {reveal(self.config.access_token)}"},
            json_body={"payload": {"schema": list(schema), "data": [*data]}, "session": session},
        )


def _has_invalid(response: Response, sent: int) -> bool:
    """Whether Meta could not use some row. It may show samples: ours, hashed, and not all of them."""
    body = json_object(response)
    received, invalid = body.get("num_received"), body.get("num_invalid_entries")
    if received != sent or not isinstance(invalid, int):
        raise UnreadableResponse("the answer does not say that every row was received")
    return invalid > 0


def _refusal(batch: Batch, response: Response) -> list[RowResult]:
    """A call that took nothing: later, by hand, or not like this."""
    error = json_object(response).get("error") or {}
    if not isinstance(error, dict):
        raise UnreadableResponse(f"HTTP {response.status} with an error that is none of Meta's")
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    if code in THROTTLED:
        return [retryable(change, "throttled") for change in batch.changes]
    if code in UNCLEAR or error.get("is_transient") or not is_refusal(response):
        raise UnreadableResponse(f"HTTP {response.status} with an error that may pass")
    found = NEEDS_A_PERSON.get((code, subcode)) or NEEDS_A_PERSON.get((code, None))
    if found:
        raise FatalDestinationError(found[0], fix=found[1])
    return refused(batch, f"http_{response.status}" if code is None else f"meta_{code}")


def _number(code: object) -> int | None:
    return code if isinstance(code, int) else None


def _extern_id(change: Change) -> str:
    """The name by which the audience knows this person; sent as it is, Meta does not want it hashed."""
    return change.destination_key or change.pseudonym


def _hashed(change: Change, columns: Sequence[str]) -> list[str]:
    """All columns of the schema in its order, "" where unknown: a shorter row shifts every value."""
    return [sha256(META[name](change.identifiers.get(name) or "")) for name in columns]
