"""A receiver of signed webhooks, as docs/destinations.md asks for: verifies, deduplicates, answers row by row."""

from __future__ import annotations

import gzip
import json
import re
import sqlite3
import time
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from activations.sandbox.credentials import credentials_for
from activations.sandbox.state import Place, State

_EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;.]+(\.[^@\s,;.]+)+")


class WebhookStandIn:
    """One address that keeps a record per sync and key."""

    name = "webhook"
    kind = "webhook"

    def __init__(self, state: State) -> None:
        self.state = state

    def register(self, place: Place) -> None:
        """Every body names its sync; nothing has to exist before."""

    def routes(self) -> list[Route]:
        return [Route("/", self.receive, methods=["POST"])]

    def error(self, status: int) -> Response:
        return JSONResponse({"error": "busy" if status == 429 else "failed"}, status_code=status)

    async def receive(self, request: Request) -> Response:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            verifier = Webhook(credentials_for("webhook")["signing_secret"])
            document = verifier.verify(body, dict(request.headers))
        except (WebhookVerificationError, ValueError):
            return JSONResponse({"error": "the signature does not verify"}, status_code=401)
        if not isinstance(document, dict) or not isinstance(document.get("changes"), list):
            return JSONResponse({"error": "changes are missing"}, status_code=422)
        is_partial = getattr(request.state, "fault", None) == "partial"
        answer = self._once(request.headers["webhook-id"], document, is_partial=is_partial)
        return JSONResponse(answer)

    def _once(self, message_id: str, document: dict[str, Any], *, is_partial: bool) -> dict[str, Any]:
        """A repeated `webhook-id` gets the first answer again and changes nothing, except for rows to retry."""
        with self.state.transaction() as db:
            known = db.execute(
                "select answer from webhook_deliveries where message_id = ?", (message_id,)
            ).fetchone()
            if known and '"retry"' not in known["answer"]:
                answer: dict[str, Any] = json.loads(known["answer"])
                return answer
            results = [
                self._apply(db, document["sync"], change, _verdict(change, position, is_partial))
                for position, change in enumerate(document["changes"])
            ]
            answer = {"results": [result for result in results if result]}
            db.execute(
                "insert or replace into webhook_deliveries values (?, ?, ?, ?, ?)",
                (message_id, time.time(), document["sync"], len(results), json.dumps(answer)),
            )
        return answer

    def _apply(
        self, db: sqlite3.Connection, sync: str, change: dict[str, Any], verdict: dict[str, str] | None
    ) -> dict[str, str] | None:
        if verdict is None or verdict["status"] != "ok":
            return verdict
        if change["operation"] == "removed":
            db.execute("delete from webhook_records where sync = ? and key = ?", (sync, change["key"]))
        else:
            db.execute(
                "insert into webhook_records values (?, ?, ?, ?, ?, 1) on conflict do update set"
                " identifiers = excluded.identifiers, fields = excluded.fields,"
                " received_at = excluded.received_at, deliveries = deliveries + 1",
                (
                    sync,
                    change["key"],
                    json.dumps(change["identifiers"]),
                    json.dumps(change["fields"]),
                    time.time(),
                ),
            )
        return verdict

    def records(self, sync: str) -> dict[str, dict[str, Any]]:
        """Key → identifiers, fields and how often it was delivered."""
        rows = self.state.rows("select * from webhook_records where sync = ?", sync)
        return {
            row["key"]: {
                "identifiers": json.loads(row["identifiers"]),
                "fields": json.loads(row["fields"]),
                "deliveries": row["deliveries"],
            }
            for row in rows
        }

    def summary(self) -> dict[str, Any]:
        rows = self.state.rows(
            "select sync, count(*) as records from webhook_records group by sync order by sync"
        )
        return {
            "syncs": {row["sync"]: {"records": row["records"]} for row in rows},
            "deliveries": self.state.count("select count(*) from webhook_deliveries"),
        }


def _verdict(change: dict[str, Any], position: int, is_partial: bool) -> dict[str, str] | None:
    """What the receiver says about a row. Under the fault `partial`: refused, put off, not mentioned, fine."""
    key, email = str(change.get("key")), (change.get("identifiers") or {}).get("email")
    if email is not None and not _EMAIL.fullmatch(email):
        return {"key": key, "status": "rejected", "reason": "invalid_email"}
    if is_partial and position % 4 == 0:
        return {"key": key, "status": "rejected", "reason": "not_wanted"}
    if is_partial and position % 4 == 1:
        return {"key": key, "status": "retry", "reason": "locked"}
    if is_partial and position % 4 == 2:
        return None
    return {"key": key, "status": "ok"}
