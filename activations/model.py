"""The nouns. Frozen values, no behaviour beyond what follows from their own fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeVar, overload

import polars as pl

from activations.errors import UnreadableResponse

T = TypeVar("T")


class Channel(StrEnum):
    EMAIL = "email"
    SMS = "sms"
    ADS = "ads"


class SyncMode(StrEnum):
    """What a sync promises about the destination.

    UPSERT keeps everybody in the audience up to date and never removes; MIRROR also removes who left or lost
    eligibility; APPEND sends each occurrence once (messages, events) and never again.
    """

    UPSERT = "upsert"
    MIRROR = "mirror"
    APPEND = "append"


class Operation(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class Outcome(StrEnum):
    """What is known about one row after it was sent.

    DELIVERED the destination said yes. REJECTED it said no for good. RETRYABLE it provably did not accept it.
    UNKNOWN nobody can tell: the row is in doubt. SUPPRESSED it was not sent, consent was withdrawn meanwhile.
    """

    DELIVERED = "delivered"
    REJECTED = "rejected"
    RETRYABLE = "retryable"
    UNKNOWN = "unknown"
    SUPPRESSED = "suppressed"


class RunStatus(StrEnum):
    """PLANNED → [HELD] → RUNNING → one of the rest. INTERRUPTED was stopped and continues with the next run."""

    NEVER_RUN = "never_run"
    PLANNED = "planned"
    HELD = "held"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a kind of destination can do, as data: an impossible sync fails when its YAML is loaded."""

    channels: frozenset[Channel]
    modes: frozenset[SyncMode]
    identifiers: frozenset[str]
    """Names a sync may map under `identifiers:` (the destination's own words: email, phone, external_id …)."""
    key_identifiers: frozenset[str] | None = None
    """The identifiers by which the destination tells one row from another: when one of them changes, the old row is
    removed and a new one added. The others change in place. None: all of them."""
    max_batch_rows: int
    max_batch_bytes: int | None = None
    called_by_pseudonym: bool = False
    """A row's pseudonym is its name there, so nothing else has to be kept to find the row again."""
    keeps_syncs_apart: bool = False
    """What one sync sends there is told from what another sends, so two of them never undo each other's work."""
    shares_fields: bool = False
    """A person's fields are the whole account's, whichever list they were sent with."""
    settle_seconds: float = 900.0
    """Longest time after which the provider may still apply a request whose answer was lost."""
    confirms: bool = False
    """The provider calls a receiver back, signed and with our own key of the message, when it took one."""
    accepts_gzip: bool = False
    """Bodies may come compressed, if the account says `compress: gzip`."""
    requests_per_second: float | None = None
    """The account's budget as the vendor documents it; `rate_limit:` in destinations.yml overrides it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row of a batch. `identifiers` and `fields` use the destination's names; values are plain, not hashed."""

    key: str
    """The engine's handle of the row: unique in the batch, meaningless outside; every result repeats it."""
    operation: Operation
    identifiers: Mapping[str, str]
    """Empty for REMOVED rows, since the person may have left the warehouse: use `destination_key`. Only a row in
    doubt that has no destination key yet carries its identifiers, so that the destination can look it up."""
    fields: Mapping[str, Any]
    """Field → value, only of types str, int, Decimal, bool, date, datetime or None. Empty for REMOVED rows."""
    destination_key: str | None = None
    """What the destination calls this row: the value its row result gave when it acknowledged the row."""
    pseudonym: str = ""
    """A keyed hash of (sync, identifiers), stable for ever and safe to give away: external ids, message keys."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Rows of a plan as columns of equal length: what `Change` says one by one."""

    operations: pl.Series
    destination_keys: pl.Series
    pseudonyms: pl.Series
    identifiers: pl.DataFrame
    """Null: not given."""
    fields: pl.DataFrame
    cleared: frozenset[str]
    """Fields whose null clears the destination's value. Any other null is left out."""


class Later(Sequence[T]):
    """A sequence that is made when somebody looks into it. Its length is known before."""

    def __init__(self, length: int, make: Callable[[], Sequence[T]]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._made[index]

    @cached_property
    def _made(self) -> Sequence[T]:
        return self._make()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows that travel together. All are removals, or none is."""

    sync: str
    run_id: str
    number: int
    changes: Sequence[Change]
    idempotency_key: str
    """Same rows on the same occasion, same key. The occasion of state is the run; a message has one for ever."""
    written: Mapping[str, memoryview] | None = field(default=None, repr=False, compare=False)
    """What the destination's `write` made of exactly these rows, each column as one piece in UTF-8; None: they are to
    be written one by one."""

    @property
    def is_removal(self) -> bool:
        return bool(self.changes) and self.changes[0].operation is Operation.REMOVED


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """The destination's word about one row. `reason` is our own short code, never text of the provider."""

    key: str
    outcome: Outcome
    reason: str | None = None
    destination_key: str | None = None


class AllDelivered(Later[RowResult]):
    """Every row of a batch was taken, beyond doubt, and there is nothing else to say about any of them."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(len(batch.changes), lambda: [_delivered(change) for change in batch.changes])


def _delivered(change: Change) -> RowResult:
    return RowResult(key=change.key, outcome=Outcome.DELIVERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Exactly one of `json_body`, `form`, `body`, or none. `headers` may carry credentials,
    so a request never appears in a log or an error."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    json_body: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer that arrived whole. The body is not shown: it may repeat what was sent."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The parsed body; a body that is no JSON, or too deep to be read, raises UnreadableResponse, never a guess."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise UnreadableResponse(f"HTTP {self.status} with a body that is not JSON") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Yielded by `exchange` between two polls of an asynchronous job."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A request in which a provider tells what became of a message, as its receiver wrote it down. Not shown: it may
    hold anybody's data."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The provider's word that it took a message of ours."""

    pseudonym: str
    run_id: str
    """A message that two people have sent again keeps its pseudonym; the run tells the attempts apart."""
    provider_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The arithmetic of one run.

    audience_size = ineligible + held_out + invalid + in_scope, and in_scope = added + changed + unchanged + waiting;
    removed rows are outside the audience or lost eligibility.
    """

    audience_size: int = 0
    ineligible: int = 0
    held_out: int = 0
    invalid: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    waiting: int = 0
    """Eligible rows that this run leaves alone: deferred messages, unchanged rejects, unresolved messages in doubt."""
    ineligible_by_reason: Mapping[str, int] = field(default_factory=dict)
    invalid_by_reason: Mapping[str, int] = field(default_factory=dict)
    waiting_by_reason: Mapping[str, int] = field(default_factory=dict)

    @property
    def planned(self) -> int:
        return self.added + self.changed + self.removed

    @property
    def adds_up(self) -> bool:
        in_scope = self.added + self.changed + self.unchanged + self.waiting
        return self.audience_size == self.ineligible + self.held_out + self.invalid + in_scope


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardCheck:
    """One guard and what it found. `problem` is a sentence with the numbers and the guard's name, or None."""

    name: str
    figure: int
    limit: float
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A difference, frozen: which rows, against which state. Holds counts, never people.

    `plan_id` is a hash of the four facts below it: two plans of one id do the same.
    """

    plan_id: str
    sync: str
    destination: str
    mapping: str
    """Signature of what is sent for a person, and where to."""
    ledger_position: str
    content_hash: str
    """Of every row but removals that nothing may hold back."""
    counts: Counts
    rows: int
    removals: int
    """The first so many rows are removals."""
    guards: Sequence[GuardCheck]
    held_reason: str | None
    created_at: datetime
    expires_at: datetime
    requests: int = 0
    """About how many API calls a run makes."""
    seconds: float | None = None
    """About how long it sends; None when there is neither a rate nor a run to go by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRun:
    """One run of one sync, as `status`, Dagster and the warehouse show it."""

    run_id: str
    sync: str
    audience: str
    destination: str
    channel: Channel
    purpose: str
    mode: SyncMode
    run_status: RunStatus
    plan_id: str
    counts: Counts
    delivered: int = 0
    rejected: int = 0
    retryable: int = 0
    in_doubt: int = 0
    suppressed: int = 0
    requests: int = 0
    held_reason: str | None = None
    error: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by stage: plan, deliver, merge."""
    place: str = ""
    """Where the sync pointed to; for the journal alone."""

    @property
    def left_nobody(self) -> bool:
        """Whether it found nobody to be there, and nobody was: whoever has an invalid row may be there all the same."""
        c = self.counts
        there = c.unchanged + c.added + c.changed + c.waiting + c.invalid
        return self.run_status is RunStatus.SUCCEEDED and not there

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> SyncRun:
        """The run that `summary()` described."""
        counts = {name: summary[name] for name in Counts.__dataclass_fields__}
        plain = {
            name: summary[name] for name in cls.__dataclass_fields__ if name in summary and name != "counts"
        }
        typed = {
            "channel": Channel(summary["channel"]),
            "mode": SyncMode(summary["mode"]),
            "run_status": RunStatus(summary["run_status"]),
            "started_at": _moment(summary["started_at"]),
            "finished_at": _moment(summary["finished_at"]),
        }
        return cls(**(plain | typed), counts=Counts(**counts))

    def summary(self) -> dict[str, Any]:
        """JSON-ready: the object that `status --json` lists. Times are ISO 8601 in UTC."""
        c = self.counts
        return {
            "sync": self.sync,
            "audience": self.audience,
            "destination": self.destination,
            "channel": self.channel.value,
            "audience_size": c.audience_size,
            "ineligible": c.ineligible,
            "held_out": c.held_out,
            "invalid": c.invalid,
            "added": c.added,
            "changed": c.changed,
            "removed": c.removed,
            "unchanged": c.unchanged,
            "waiting": c.waiting,
            "delivered": self.delivered,
            "rejected": self.rejected,
            "retryable": self.retryable,
            "in_doubt": self.in_doubt,
            "suppressed": self.suppressed,
            "requests": self.requests,
            "run_status": self.run_status.value,
            "held_reason": self.held_reason,
            "error": self.error,
            "ineligible_by_reason": dict(c.ineligible_by_reason),
            "invalid_by_reason": dict(c.invalid_by_reason),
            "waiting_by_reason": dict(c.waiting_by_reason),
            "purpose": self.purpose,
            "mode": self.mode.value,
            "run_id": self.run_id,
            "plan_id": self.plan_id,
            "started_at": self.started_at.isoformat() if self.started_at else None,
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "seconds": dict(self.seconds),
        }


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
