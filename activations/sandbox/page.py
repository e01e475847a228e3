"""What the other side holds, as a page: counts, masked samples, messages, requests, the fault dial."""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from activations.sandbox.faults import DESCRIPTIONS
from activations.sandbox.masking import mask_digest, mask_email, mask_phone

if TYPE_CHECKING:
    from activations.sandbox.server import Sandbox

HERE = Path(__file__).parent
SAMPLES, MESSAGES, REQUESTS, LOOKED_AT = 4, 3, 14, 400
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def page_routes(sandbox: Sandbox) -> list[BaseRoute]:
    # Autoescape for every template: names and texts come from other people's forms.
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )

    async def page(request: Request) -> Response:
        html = templates.get_template("page.html").render(_view(sandbox))
        return HTMLResponse(html, headers=HEADERS)

    async def style(request: Request) -> Response:
        return FileResponse(HERE / "static" / "style.css", headers={"x-content-type-options": "nosniff"})

    async def icon(request: Request) -> Response:
        return FileResponse(HERE / "static" / "icon.svg", media_type="image/svg+xml")

    return [Route("/", page), Route("/_style.css", style), Route("/_icon.svg", icon)]


def _view(sandbox: Sandbox) -> dict[str, Any]:
    summary = sandbox.summary()
    return {
        "lists": _lists(sandbox, summary["klaviyo"]),
        "profiles": summary["klaviyo"]["profiles"],
        "twilio": summary["twilio"],
        "messages": _messages(sandbox),
        "audiences": _audiences(sandbox, summary["meta"]),
        "syncs": _webhook_syncs(sandbox, summary["webhook"]),
        "deliveries": summary["webhook"]["deliveries"],
        "requests": _requests(sandbox),
        "request_count": sum(n for statuses in summary["requests"].values() for n in statuses.values()),
        "faults": summary["faults"],
        "fault_kinds": DESCRIPTIONS,
        "vendors": sorted(sandbox.vendors),
        "now": datetime.now(UTC).strftime("%H:%M:%S UTC"),
    }


def _lists(sandbox: Sandbox, summary: dict[str, Any]) -> list[dict[str, Any]]:
    sql = (
        "select email from klaviyo_members join klaviyo_profiles using (profile_id)"
        " where list_id = ? order by profile_id limit ?"
    )
    return [
        {
            "id": list_id,
            **facts,
            "samples": [mask_email(row["email"] or "") for row in sandbox.state.rows(sql, list_id, SAMPLES)],
        }
        for list_id, facts in summary["lists"].items()
    ]


def _messages(sandbox: Sandbox) -> list[dict[str, Any]]:
    rows = sandbox.state.rows("select * from twilio_messages order by sent_at desc limit ?", MESSAGES)
    return [
        {
            "to": mask_phone(r["recipient"]),
            "body": r["body"],
            "status": r["status"],
            "at": _clock(r["sent_at"]),
        }
        for r in rows
    ]


def _audiences(sandbox: Sandbox, summary: dict[str, Any]) -> list[dict[str, Any]]:
    sql = "select * from meta_members where audience_id = ? order by extern_id limit ?"
    return [
        {
            "id": audience_id,
            **facts,
            "samples": [_hashed(r) for r in sandbox.state.rows(sql, audience_id, SAMPLES)],
        }
        for audience_id, facts in summary["audiences"].items()
    ]


def _hashed(row: Any) -> dict[str, Any]:
    keys = json.loads(row["match_keys"])
    digests = [f"{column.lower()} {mask_digest(digest)}" for column, digest in keys.items()]
    return {"id": mask_digest(row["extern_id"]), "digests": digests[:2], "more": max(0, len(digests) - 2)}


def _webhook_syncs(sandbox: Sandbox, summary: dict[str, Any]) -> list[dict[str, Any]]:
    sql = "select * from webhook_records where sync = ? order by key limit ?"
    return [
        {"name": name, **facts, "samples": [_record(r) for r in sandbox.state.rows(sql, name, SAMPLES)]}
        for name, facts in summary["syncs"].items()
    ]


def _record(row: Any) -> dict[str, Any]:
    email = json.loads(row["identifiers"]).get("email")
    return {
        "key": mask_digest(row["key"]),
        "email": mask_email(email or ""),
        "fields": sorted(json.loads(row["fields"])),
    }


def _requests(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The newest requests; the same one in a row counts up instead of filling the page."""
    rows = sandbox.state.rows("select * from requests order by request_id desc limit ?", LOOKED_AT)
    groups = groupby(
        map(_request, rows), key=lambda r: (r["vendor"], r["method"], r["path"], r["status"], r["fault"])
    )
    return [_together(list(group)) for _, group in islice(groups, REQUESTS)]


def _request(row: sqlite3.Row) -> dict[str, Any]:
    """Long ids shortened, so that one look-up of a job equals the next."""
    path = re.sub(r"(?=[^/]*[0-9])[A-Za-z0-9_=-]{22,}", lambda match: match[0][:6] + "…", row["path"])
    return {**dict(row), "path": path}


def _together(group: list[dict[str, Any]]) -> dict[str, Any]:
    slowest = max(request["milliseconds"] for request in group)
    shown = f"{slowest:.0f}" if slowest >= 1 else "<1"
    return {**group[0], "at": _clock(group[0]["at"]), "times": len(group), "milliseconds": shown}


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S")
