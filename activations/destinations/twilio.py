"""Twilio Programmable Messaging: one text message to one person per request.

Twilio has no idempotency key and says itself that a request repeated after a 5xx may send twice. So this kind is not
idempotent: an unclear answer leaves the message in doubt, and nothing here ever sends it again. Nor can Twilio be asked
whether it has the message: what it lists holds no mark of ours, and a number may have had the same text from somebody
else. But it calls an address of ours back, signed, with whatever we wrote into that address.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Generator, Mapping
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import parse_qsl, urlencode

from pydantic import Field, SecretStr, StrictBool, field_validator, model_validator

from activations.config.base import Says
from activations.destinations.base import Destination, DestinationConfig, Exchange, Target, reveal
from activations.destinations.normalise import e164, json_exact
from activations.destinations.outcomes import delivered, is_refusal, json_object, rejected
from activations.errors import FatalDestinationError, UnreadableResponse
from activations.model import (
    Batch,
    Callback,
    Capabilities,
    Change,
    Channel,
    Confirmation,
    Request,
    Response,
    RowResult,
    SyncMode,
    Wait,
)

MAX_BODY_CHARACTERS = 1_600
PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?:\|([^{}|]*))?\}")
OPT_OUT_WORDING = re.compile(r"\b(stop|unsubscribe|opt[ -]?out)\b", re.IGNORECASE)

# https://www.twilio.com/docs/api/errors
REASONS: Mapping[int, str] = {
    21211: "invalid_number",
    21265: "invalid_number",
    21408: "region_not_enabled",
    21602: "empty_text",
    21604: "invalid_number",
    21608: "unverified_number",
    21610: "opted_out",
    21612: "unroutable",
    21614: "not_mobile",
    21617: "text_too_long",
    21635: "landline",
    30003: "unreachable",
    30004: "blocked",
    30005: "unknown_number",
    30006: "landline",
}
# The sender is wrong, so every further message would fail too.
BROKEN_SENDER: Mapping[int, str] = {
    20404: "account_not_found",
    21212: "invalid_sender",
    21603: "sender_missing",
    21606: "sender_cannot_text",
    21659: "sender_not_owned",
    21660: "sender_not_owned",
    21701: "messaging_service_not_found",
    21703: "messaging_service_without_sender",
    21705: "messaging_service_invalid",
}


class TwilioConfig(DestinationConfig):
    """The account's SID and its token. The SID is no secret, but lies beside the token in every secret store."""

    base_url: str = "https://api.twilio.com"
    account_sid: SecretStr
    auth_token: SecretStr
    status_callback: Annotated[
        str | None,
        Field(pattern=r"^https://[A-Za-z0-9.-]+(/[^\s?#]*)?$"),
        Says("must be `https://host/path`, without port, query or fragment"),
    ] = None
    """Where Twilio tells what became of a message: a receiver of yours. Without it, only people settle a doubt."""


class TwilioTarget(Target):
    """Who sends, and what. `{field}` is replaced by a mapped field, `{field|text}` has a text for when it is empty."""

    messaging_service_sid: Annotated[
        str | None,
        Field(pattern=r"^MG[0-9a-fA-F]{32}$"),
        Says("must be the SID of a messaging service: MG and 32 hexadecimal digits"),
    ] = None
    from_number: Annotated[
        str | None,
        Field(pattern=r"^(\+[1-9][0-9]{6,14}|[0-9]{3,8}|[A-Za-z0-9 ]{1,11})$"),
        Says(
            'must be a telephone number in quotes, `"+14155550100"`, a short code or a name of up to 11 characters'
        ),
    ] = None
    body: str = Field(min_length=1, max_length=MAX_BODY_CHARACTERS)
    opt_out_added_by_service: StrictBool = False
    """The messaging service itself appends how to stop; otherwise the text has to say it."""

    @field_validator("body")
    @classmethod
    def _only_placeholders(cls, body: str) -> str:
        rest = PLACEHOLDER.sub("", body)
        if "{" in rest or "}" in rest:
            raise ValueError("braces stand for a field: write {field} or {field|text when empty}")
        return body

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.messaging_service_sid is None) == (self.from_number is None):
            raise ValueError("name the sender: either messaging_service_sid or from_number")
        if not self.opt_out_added_by_service and not OPT_OUT_WORDING.search(PLACEHOLDER.sub("", self.body)):
            raise ValueError(
                "the text must say how to stop, for instance `Reply STOP to opt out`; "
                "set opt_out_added_by_service when the messaging service appends it"
            )
        return self

    @property
    def placeholders(self) -> frozenset[str]:
        return frozenset(match[1] for match in PLACEHOLDER.finditer(self.body))


class TwilioMessaging(Destination[TwilioConfig, TwilioTarget]):
    """Text messages from one account."""

    kind: ClassVar[str] = "twilio"
    Config = TwilioConfig
    TargetConfig = TwilioTarget
    capabilities: ClassVar[Capabilities] = Capabilities(
        channels=frozenset({Channel.SMS}),
        modes=frozenset({SyncMode.APPEND}),
        identifiers=frozenset({"phone"}),
        max_batch_rows=1,
        confirms=True,
        # Twilio documents no figure: it caps concurrency (429, code 20429) and queues what a sender cannot carry.
        requests_per_second=None,
    )

    @classmethod
    def check_mapping(
        cls, identifiers: frozenset[str], fields: frozenset[str], target: TwilioTarget
    ) -> str | None:
        missing = sorted(target.placeholders - fields)
        if missing:
            return (
                f"the text names {{{missing[0]}}}: map `{missing[0]}` under fields or take it out of the text"
            )
        return None

    def exchange(self, batch: Batch) -> Exchange:
        results: list[RowResult] = []
        for change in batch.changes:
            results += [(yield from self._message(change, batch.run_id))]
        return results

    def confirmation(self, callback: Callback) -> Confirmation | None:
        """Whatever state Twilio reports of a message, it has taken it."""
        query = callback.url.partition("?")[2]
        ours, form = dict(parse_qsl(query)), dict(parse_qsl(callback.body, keep_blank_values=True))
        is_about_ours = {"message", "run"} <= ours.keys() and form.get("MessageSid")
        if not (is_about_ours and self._is_signed(callback, query, form)):
            return None
        return Confirmation(pseudonym=ours["message"], run_id=ours["run"], provider_id=form["MessageSid"])

    def _is_signed(self, callback: Callback, query: str, form: Mapping[str, str]) -> bool:
        """Over our own address, not the receiver's idea of it: behind a proxy that often is another one."""
        expected = signature(reveal(self.config.auth_token), f"{self.config.status_callback}?{query}", form)
        found = callback.headers.get("x-twilio-signature", "")
        return hmac.compare_digest(expected.encode(), found.encode(errors="replace"))

    def _message(self, change: Change, run_id: str) -> Generator[Request | Wait, Response, RowResult]:
        number = e164(change.identifiers.get("phone", ""))
        text, problem = render(self.target.body, change.fields)
        if not number or problem:
            return rejected(change, problem or "invalid_number")
        response = yield self._request(number, text, self._callback(change, run_id))
        if response.is_success:
            return _accepted(change, response)
        return _declined(change, response)

    def _callback(self, change: Change, run_id: str) -> dict[str, str]:
        if not self.config.status_callback:
            return {}
        ours = urlencode({"message": change.pseudonym, "run": run_id})
        return {"StatusCallback": f"{self.config.status_callback}?{ours}"}

    def _request(self, number: str, text: str, callback: Mapping[str, str]) -> Request:
        sid = reveal(self.config.account_sid)
        sender = (
            {"MessagingServiceSid": self.target.messaging_service_sid}
            if self.target.messaging_service_sid
            else {"From": self.target.from_number or ""}
        )
        login = base64.b64encode(f"{sid}:{reveal(self.config.auth_token)}".encode()).decode("ascii")
        return Request(
            method="POST",
            url=f"{self.config.base_url}/2010-04-01/Accounts/{sid}/Messages.json",
            headers={"authorization": f"Basic {login}", "accept": "application/json"},
            form={"To": number, **sender, "Body": text, **callback},
        )


def signature(token: str, url: str, form: Mapping[str, str]) -> str:
    """https://www.twilio.com/docs/usage/security#validating-requests"""
    text = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(
        hmac.new(token.encode(), text.encode(errors="replace"), hashlib.sha1).digest()
    ).decode("ascii")


def render(body: str, fields: Mapping[str, Any]) -> tuple[str, str | None]:
    """The text for one person, or the reason why there is none. Values come from forms: they stay on one line."""
    missing = False

    def fill(match: re.Match[str]) -> str:
        nonlocal missing
        value = _one_line(fields.get(match[1])) or match[2]
        missing = missing or value is None
        return value or ""

    text = PLACEHOLDER.sub(fill, body)
    if missing:
        return "", "missing_field"
    return (text, None) if len(text) <= MAX_BODY_CHARACTERS else ("", "text_too_long")


def _one_line(value: Any) -> str:
    if value is None:
        return ""
    text = str(json_exact(value))
    visible = (" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join("".join(visible).split())


def _accepted(change: Change, response: Response) -> RowResult:
    """201 with a message id. A message that failed at once says so in its status."""
    message = json_object(response)
    sid, code = message.get("sid"), message.get("error_code")
    if not isinstance(sid, str) or not sid:
        raise UnreadableResponse("the message was answered without an id")
    if message.get("status") in ("failed", "undelivered", "canceled"):
        return rejected(change, _reason(code))
    return delivered(change, sid)


def _declined(change: Change, response: Response) -> RowResult:
    """A 4xx with a code: Twilio took nothing. Anything else leaves the message in doubt."""
    if not is_refusal(response):
        raise UnreadableResponse(f"HTTP {response.status} does not say whether the message was taken")
    code = json_object(response).get("code")
    if isinstance(code, int) and code in BROKEN_SENDER:
        raise FatalDestinationError(
            BROKEN_SENDER[code],
            fix=f"Correct the account or the sender in Twilio (error {code}); no message was taken",
        )
    return rejected(change, _reason(code) if code else f"http_{response.status}")


def _reason(code: object) -> str:
    if not isinstance(code, int):
        return "not_sent"
    return REASONS.get(code, f"twilio_{code}")
