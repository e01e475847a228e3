"""Row results in one word each, so that a destination reads as what the vendor said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from activations.errors import BatchRefused, UnreadableResponse
from activations.model import Batch, Change, Outcome, Response, RowResult

_CODE = re.compile(r"(?!.*[0-9]{5})[a-z][a-z0-9_]{0,39}")
_MAY_COME_FROM_A_PROXY = (408, 425)
"""Said by whoever stands in front: the provider behind it may have the request all the same."""


def delivered(change: Change, destination_key: str | None = None, reason: str | None = None) -> RowResult:
    return RowResult(
        key=change.key, outcome=Outcome.DELIVERED, reason=reason, destination_key=destination_key
    )


def rejected(change: Change, reason: str) -> RowResult:
    return RowResult(key=change.key, outcome=Outcome.REJECTED, reason=reason)


def retryable(change: Change, reason: str) -> RowResult:
    return RowResult(key=change.key, outcome=Outcome.RETRYABLE, reason=reason)


def unknown(change: Change, reason: str, destination_key: str | None = None) -> RowResult:
    return RowResult(key=change.key, outcome=Outcome.UNKNOWN, reason=reason, destination_key=destination_key)


def refused(batch: Batch, reason: str) -> list[RowResult]:
    """The provider refused all rows and named none: one row is rejected, several have to be split."""
    if len(batch.changes) == 1:
        return [rejected(batch.changes[0], reason)]
    raise BatchRefused(reason)


def is_refusal(response: Response) -> bool:
    """Whether the provider said no. A 4xx that proves nothing is none."""
    return 400 <= response.status < 500 and response.status not in _MAY_COME_FROM_A_PROXY


def safe_code(value: object, fallback: str) -> str:
    """A provider's code as one of ours. Anything but a short word is dropped: it may repeat what was sent."""
    code = value.strip().lower() if isinstance(value, str) else ""
    return code if _CODE.fullmatch(code) else fallback


def json_object(response: Response) -> Mapping[str, Any]:
    """The body as an object; every API here answers with one."""
    body = response.json()
    if not isinstance(body, dict):
        raise UnreadableResponse(f"HTTP {response.status} with a body that is no JSON object")
    return body


def object_at(body: object, *names: str) -> Mapping[str, Any]:
    """The object that lies there; an empty one when there is none, or something else."""
    for name in names:
        body = body.get(name) if isinstance(body, dict) else None
    return body if isinstance(body, dict) else {}
