"""Twilio's stand-in: takes text messages, one a request, and keeps who said STOP.

Two endings stand for what cannot be told from a number: …0199 has opted out, …0198 is a landline.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import sqlite3
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from activations.sandbox.credentials import credentials_for
from activations.sandbox.masking import mask_phone
from activations.sandbox.refusals import Refused, guarded
from activations.sandbox.state import Place, State

MAX_BODY_CHARACTERS = 1_600
OPTED_OUT_ENDING, LANDLINE_ENDING = "0199", "0198"
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")


class Refusal(Refused):
    """A request that is answered with a Twilio error."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(_error(status, code, message))


class TwilioStandIn:
    """One account with any sender."""

    name = "twilio"
    kind = "twilio"

    def __init__(self, state: State) -> None:
        self.state = state

    def register(self, place: Place) -> None:
        """A text has no place: every message names its sender."""

    def routes(self) -> list[Route]:
        messages = "/2010-04-01/Accounts/{account_sid}/Messages"
        return [
            Route(messages + ".json", guarded(self.send, self._admit), methods=["POST"]),
            Route(messages + ".json", guarded(self.list_messages, self._admit), methods=["GET"]),
            Route(messages + "/{sid}.json", guarded(self.message, self._admit), methods=["GET"]),
        ]

    def error(self, status: int) -> Response:
        return _error(
            status, {429: 20429, 500: 20500}[status], "Too Many Requests" if status == 429 else "Error"
        )

    def _admit(self, request: Request) -> None:
        known = credentials_for("twilio")
        login = base64.b64encode(f"{known['account_sid']}:{known['auth_token']}".encode()).decode("ascii")
        if request.headers.get("authorization") != f"Basic {login}":
            raise Refusal(401, 20003, "Authenticate")
        if request.path_params["account_sid"] != known["account_sid"]:
            raise Refusal(404, 20404, "The requested resource was not found")

    async def send(self, request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            raise Refusal(400, 20001, "The body must be a form")
        form = dict(parse_qsl((await request.body()).decode("utf-8"), keep_blank_values=True))
        self._check(form)
        if getattr(request.state, "fault", None) == "partial":
            raise Refusal(400, 21610, "Attempt to send to unsubscribed recipient")
        sid = "SM" + secrets.token_hex(16)
        with self.state.transaction() as db:
            db.execute(
                "insert into twilio_messages values (?, ?, ?, ?, ?, ?, ?)",
                (
                    sid,
                    time.time(),
                    form["To"],
                    form.get("From"),
                    form.get("MessagingServiceSid"),
                    form["Body"],
                    "accepted" if form.get("MessagingServiceSid") else "queued",
                ),
            )
            if form.get("StatusCallback"):
                db.execute(
                    "insert into twilio_callbacks (url, signature, body) values (?, ?, ?)",
                    _callback(form, sid),
                )
        row = self.state.only("select * from twilio_messages where sid = ?", sid)
        return JSONResponse(_resource(row), status_code=201)

    def _check(self, form: dict[str, str]) -> None:
        number = form.get("To", "")
        if not _PHONE.fullmatch(number):
            raise Refusal(400, 21211, "Invalid 'To' Phone Number")
        if not form.get("From") and not form.get("MessagingServiceSid"):
            raise Refusal(400, 21603, "A 'From' phone number is required")
        if not form.get("Body"):
            raise Refusal(400, 21602, "Message body is required")
        if len(form["Body"]) > MAX_BODY_CHARACTERS:
            raise Refusal(400, 21617, "The concatenated message body exceeds the 1600 character limit")
        if number.endswith(LANDLINE_ENDING):
            raise Refusal(400, 21635, "'To' number cannot be a landline")
        if number.endswith(OPTED_OUT_ENDING) or self._has_opted_out(number):
            raise Refusal(400, 21610, "Attempt to send to unsubscribed recipient")

    def _has_opted_out(self, number: str) -> bool:
        return self.state.one("select 1 from twilio_opt_outs where phone = ?", number) is not None

    def stop(self, number: str) -> None:
        """The person answers STOP."""
        with self.state.transaction() as db:
            db.execute("insert or ignore into twilio_opt_outs values (?)", (number,))

    async def list_messages(self, request: Request) -> Response:
        size = min(int(request.query_params.get("PageSize", "50")), 1_000)
        to = request.query_params.get("To")
        where, values = ("where recipient = ?", (to,)) if to else ("", ())
        sql = f"select * from twilio_messages {where} order by sent_at desc limit ?"
        messages = [_resource(row) for row in self.state.rows(sql, *values, size)]
        path = request.url.path
        paging = {"first_page_uri": path, "next_page_uri": None, "previous_page_uri": None, "uri": path}
        return JSONResponse(
            {**paging, "page": 0, "page_size": size, "start": 0, "end": len(messages), "messages": messages}
        )

    async def message(self, request: Request) -> Response:
        row = self.state.one("select * from twilio_messages where sid = ?", request.path_params["sid"])
        if row is None:
            raise Refusal(404, 20404, "The requested resource was not found")
        return JSONResponse(_resource(row))

    def callbacks(self) -> list[dict[str, Any]]:
        """What the receivers of status callbacks would have been sent; the sandbox calls nobody."""
        rows = self.state.rows("select url, signature, body from twilio_callbacks order by seq")
        return [
            {"url": row["url"], "headers": {"X-Twilio-Signature": row["signature"]}, "body": row["body"]}
            for row in rows
        ]

    def messages(self) -> list[tuple[str, str]]:
        """Number and text of every message, oldest first."""
        rows = self.state.rows("select recipient, body from twilio_messages order by sent_at, sid")
        return [(row["recipient"], row["body"]) for row in rows]

    def summary(self) -> dict[str, Any]:
        return {
            "messages": self.state.count("select count(*) from twilio_messages"),
            "recipients": self.state.count("select count(distinct recipient) from twilio_messages"),
        }


def _callback(form: dict[str, str], sid: str) -> tuple[str, str, str]:
    """URL, signature and body of the call that says the message was sent. Signed are the URL and every field, in
    order of its name, one after the other. Numbers are masked: anybody on this machine may read it."""
    account = credentials_for("twilio")
    fields = {
        "AccountSid": account["account_sid"],
        "ApiVersion": "2010-04-01",
        "From": form.get("From", ""),
        "MessageSid": sid,
        "MessageStatus": "sent",
        "SmsSid": sid,
        "SmsStatus": "sent",
        "To": mask_phone(form["To"]),
    }
    signed = form["StatusCallback"] + "".join(name + value for name, value in sorted(fields.items()))
    digest = hmac.new(account["auth_token"].encode(), signed.encode(), hashlib.sha1).digest()
    return form["StatusCallback"], base64.b64encode(digest).decode("ascii"), urlencode(fields)


def _resource(row: sqlite3.Row) -> dict[str, Any]:
    account = credentials_for("twilio")["account_sid"]
    sent = formatdate(row["sent_at"], localtime=False)
    uri = f"/2010-04-01/Accounts/{account}/Messages/{row['sid']}.json"
    return {
        "sid": row["sid"],
        "account_sid": account,
        "messaging_service_sid": row["messaging_service"],
        "to": row["recipient"],
        "from": row["sender"],
        "body": row["body"],
        "status": row["status"],
        "direction": "outbound-api",
        "num_segments": str(1 + len(row["body"]) // 153),
        "num_media": "0",
        "error_code": None,
        "error_message": None,
        "price": None,
        "price_unit": None,
        "api_version": "2010-04-01",
        "date_created": sent,
        "date_updated": sent,
        "date_sent": None,
        "uri": uri,
        "subresource_uris": {"media": uri.replace(".json", "/Media.json")},
    }


def _error(status: int, code: int, message: str) -> Response:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return JSONResponse(
        {"code": code, "message": message, "more_info": more, "status": status}, status_code=status
    )
