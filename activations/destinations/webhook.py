"""A signed webhook: changes as JSON to an address of your own, signed as Standard Webhooks describes.

The contract for receivers is in docs/destinations.md. In short: check the signature, treat `webhook-id` as the key of
the batch, and answer row by row with `{"results": [{"key", "status": "ok|rejected|retry", "reason"}]}` or for all
rows at once with `{"accepted": true}`. An answer that says neither leaves the rows in doubt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

import polars as pl
from pydantic import Field, SecretStr

from activations.config.base import Says
from activations.destinations.base import Destination, DestinationConfig, Exchange, Target, reveal
from activations.destinations.json_columns import objects
from activations.destinations.normalise import json_exact
from activations.destinations.outcomes import (
    delivered,
    is_refusal,
    json_object,
    refused,
    rejected,
    retryable,
    safe_code,
    unknown,
)
from activations.errors import ConfigError, FatalDestinationError, UnreadableResponse
from activations.model import (
    AllDelivered,
    Batch,
    Capabilities,
    Change,
    Channel,
    Columns,
    Operation,
    Request,
    Response,
    RowResult,
    SyncMode,
)

_PREFIX = "whsec_"


class WebhookConfig(DestinationConfig):
    """Where to send, and the shared secret (`whsec_` and base64) that signs every body."""

    base_url: str = ""
    """Takes the place of `url` when set: the sandbox."""
    url: Annotated[
        str,
        Field(pattern=r"^https://[^\s/?#@]+[^\s#@]*$"),
        Says("must be `https://host/path`, without user, password or fragment"),
    ]
    signing_secret: SecretStr
    previous_signing_secret: SecretStr | None = None
    """While a secret is rotated both sign, so that receivers can switch whenever they like."""


class WebhookTarget(Target):
    """Nothing to choose: the address is the account's, and every body names its sync."""


class SignedWebhook(Destination[WebhookConfig, WebhookTarget]):
    """One address of your own."""

    kind: ClassVar[str] = "webhook"
    Config = WebhookConfig
    TargetConfig = WebhookTarget
    capabilities: ClassVar[Capabilities] = Capabilities(
        channels=frozenset(Channel),
        modes=frozenset(SyncMode),
        identifiers=frozenset({"email", "phone", "external_id"}),
        max_batch_rows=1_000,
        max_batch_bytes=1_000_000,
        called_by_pseudonym=True,
        accepts_gzip=True,
        keeps_syncs_apart=True,
    )

    def __init__(self, config: WebhookConfig, target: WebhookTarget) -> None:
        super().__init__(config, target)
        given = {
            "signing_secret": config.signing_secret,
            "previous_signing_secret": config.previous_signing_secret,
        }
        self._keys = [_signing_key(reveal(secret), name) for name, secret in given.items() if secret]

    def now(self) -> datetime:
        """Signed with the body; receivers refuse a signature that is older than five minutes."""
        return datetime.now(UTC)

    def exchange(self, batch: Batch) -> Exchange:
        response = yield self._request(batch)
        if response.is_success and _is_yes_to_all(batch, response):
            return AllDelivered(batch)
        if response.is_success:
            return _results(batch, json_object(response))
        return _refusal(batch, response)

    def write(self, columns: Columns) -> pl.DataFrame | None:
        """`text`, the row as it stands in the body; `yes`, a compact answer that takes it."""
        key = objects(_names(columns).to_frame()).str.head(-1).str.tail(-1)
        identifiers, fields = _unless_removed(
            columns, objects(columns.identifiers), objects(columns.fields, kept=columns.cleared)
        )
        return pl.select(
            text=pl.concat_str(
                pl.lit('{"operation":"'),
                columns.operations,
                pl.lit('",'),
                key,
                pl.lit(',"identifiers":'),
                identifiers,
                pl.lit(',"fields":'),
                fields,
                pl.lit("},"),
            ),
            yes=pl.concat_str(pl.lit("{"), key, pl.lit(',"status":"ok"},')),
        )

    def _request(self, batch: Batch) -> Request:
        body = _body(batch)
        message_id, timestamp = batch.idempotency_key, int(self.now().timestamp())
        signatures = [_signature(key, message_id, timestamp, body) for key in self._keys]
        return Request(
            method="POST",
            url=self.config.base_url or self.config.url,
            headers={
                "content-type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": " ".join(signatures),
            },
            body=body,
        )


def _names(columns: Columns) -> pl.Series:
    """What the receiver calls each row."""
    own = columns.destination_keys
    return pl.select(key=pl.when(own != "").then(own).otherwise(columns.pseudonyms)).to_series()


def _unless_removed(columns: Columns, *objects: pl.Series) -> list[pl.Series | pl.Expr]:
    """Of those who are removed nothing is said."""
    is_removed = columns.operations == Operation.REMOVED.value
    if not is_removed.any():
        return [*objects]
    return [pl.when(is_removed).then(pl.lit("{}")).otherwise(some) for some in objects]


def _body(batch: Batch) -> bytes:
    envelope = {
        "sync": batch.sync,
        "run": batch.run_id,
        "batch": batch.number,
        "idempotency_key": batch.idempotency_key,
    }
    if batch.written is not None:
        changes = batch.written["text"]
    else:
        changes = memoryview("".join(f"{_json(_change(change))}," for change in batch.changes).encode())
    return b"".join((_json(envelope)[:-1].encode(), b',"changes":[', changes[:-1], b"]}"))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _change(change: Change) -> dict[str, Any]:
    return {
        "operation": change.operation.value,
        "key": _key(change),
        "identifiers": dict(change.identifiers),
        "fields": {name: json_exact(value) for name, value in change.fields.items()},
    }


def _keys(batch: Batch) -> list[str]:
    if batch.written is None:
        return [_key(change) for change in batch.changes]
    return [answer["key"] for answer in json.loads(_yes_to_all(batch.written))["results"]]


def _key(change: Change) -> str:
    return change.destination_key or change.pseudonym


def _signing_key(secret: str, name: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    # Standard Webhooks asks for 24 to 64 bytes.
    if not 24 <= len(key) <= 64:
        raise ConfigError(
            "is no signing secret",
            key=name,
            fix=f"It is `{_PREFIX}` followed by 24 to 64 random bytes in base64",
        )
    return key


def _signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC of id, time and the raw body: what is signed is what is sent, byte for byte. A body that is
    compressed on its way is signed before: receivers check what Content-Encoding unpacks to."""
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode(), hashlib.sha256)
    signed.update(body)
    return "v1," + base64.b64encode(signed.digest()).decode("ascii")


def _is_yes_to_all(batch: Batch, response: Response) -> bool:
    """Whether the answer is, byte for byte, a compact ok to every row in order: the usual one, and it need not be parsed."""
    return batch.written is not None and response.body == _yes_to_all(batch.written)


def _yes_to_all(written: Mapping[str, memoryview]) -> bytes:
    return b"".join((b'{"results":[', written["yes"][:-1], b"]}"))


def _results(batch: Batch, body: Mapping[str, Any]) -> Sequence[RowResult]:
    """Row by row as answered. A row the receiver does not mention is in doubt: it may have done half of the batch. So is
    one that it mentions twice: whichever is true, the other is not."""
    accepted, listed = body.get("accepted"), body.get("results")
    if isinstance(listed, list):
        if _says_ok_to_each(_keys(batch), listed):
            return AllDelivered(batch)
        answers: dict[str, list[Mapping[str, Any]]] = {}
        for item in listed:
            if isinstance(item, dict):
                answers.setdefault(str(item.get("key")), []).append(item)
        return [_result(change, answers.get(_key(change), ())) for change in batch.changes]
    if accepted is True:
        return AllDelivered(batch)
    if accepted is False:
        return refused(batch, safe_code(body.get("reason"), "not_accepted"))
    raise UnreadableResponse("the receiver answered neither `results` nor `accepted`")


def _says_ok_to_each(keys: Sequence[str], listed: Sequence[Any]) -> bool:
    """Whether the answer names exactly the rows that were sent, in their order, and each of them is taken."""
    try:
        return [item["key"] for item in listed] == keys and all(item["status"] == "ok" for item in listed)
    except (KeyError, TypeError, IndexError):
        return False


def _result(change: Change, answers: Sequence[Mapping[str, Any]]) -> RowResult:
    if len(answers) != 1:
        return unknown(change, "contradictory_results" if answers else "not_in_results")
    [answer] = answers
    match answer.get("status"):
        case "ok":
            return delivered(change)
        case "rejected":
            return rejected(change, safe_code(answer.get("reason"), "rejected"))
        case "retry":
            return retryable(change, safe_code(answer.get("reason"), "retry"))
    return unknown(change, "unknown_status")


def _refusal(batch: Batch, response: Response) -> list[RowResult]:
    if response.status in (404, 410):
        raise FatalDestinationError(
            f"receiver_gone (HTTP {response.status})", fix="Correct the account's url in destinations.yml"
        )
    if not is_refusal(response):
        raise UnreadableResponse(f"HTTP {response.status} does not say what the receiver took")
    return refused(batch, f"http_{response.status}")
