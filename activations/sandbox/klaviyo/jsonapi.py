"""JSON:API as Klaviyo speaks it: reading requests, documents, pages, and errors."""

from __future__ import annotations

import base64
import json
import sqlite3
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from activations.sandbox.refusals import Refused
from activations.sandbox.state import State

MEDIA_TYPE = "application/vnd.api+json"


class Refusal(Refused):
    """A request that is answered with a JSON:API error."""

    def __init__(self, status: int, code: str, detail: str, pointer: str = "/data") -> None:
        super().__init__(errors(status, code, "Invalid input.", detail, pointer))


async def read_body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise Refusal(400, "parse_error", "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "invalid", "The body must be an object.")
    return body


async def read_data(request: Request, kind: str) -> dict[str, Any]:
    data = (await read_body(request)).get("data")
    if not isinstance(data, dict) or data.get("type") != kind:
        raise Refusal(400, "invalid", f"data.type must be {kind}.", "/data/type")
    return data


def get(value: Any, *path: str) -> Any:
    """What lies at the end of the path; None when something on the way is missing."""
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _json(body: Any, status: int = 200) -> Response:
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE)


def document(resource: dict[str, Any], request: Request, status: int = 200) -> Response:
    return _json({"data": resource, "links": {"self": str(request.url)}}, status)


def page(
    state: State,
    request: Request,
    sql: str,
    *values: Any,
    resource: Callable[[Request, sqlite3.Row], dict[str, Any]],
) -> Response:
    """One page of what the statement finds; its last two values are limit and offset."""
    size = int(request.query_params.get("page[size]", "20"))
    if not 1 <= size <= 100:
        raise Refusal(400, "invalid", "page[size] is between 1 and 100.", "/query/page[size]")
    offset = _offset(request.query_params.get("page[cursor]"))
    rows = state.rows(sql, *values, size + 1, offset)
    links = {"self": str(request.url), "prev": None, "next": None}
    if len(rows) > size:
        links["next"] = str(request.url.include_query_params(**{"page[cursor]": _cursor(offset + size)}))
    data = [resource(request, row) for row in rows[:size]]
    return _json({"data": data, "links": {k: v for k, v in links.items() if v}})


def _cursor(offset: int) -> str:
    return base64.urlsafe_b64encode(f"offset:{offset}".encode()).decode("ascii")


def _offset(cursor: str | None) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor).decode().removeprefix("offset:")) if cursor else 0
    except ValueError:
        raise Refusal(400, "invalid", "The cursor is not one of ours.", "/query/page[cursor]") from None


def errors(status: int, code: str, title: str, detail: str, pointer: str | None) -> Response:
    error = {"id": str(uuid.uuid4()), "status": status, "code": code, "title": title, "detail": detail}
    return _json({"errors": [error | {"source": {"pointer": pointer or "/data"}}]}, status)


def root_of(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
