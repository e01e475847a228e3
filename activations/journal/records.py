"""The values that go into the journal and come out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from activations.model import Operation, Outcome, SyncMode

Acknowledged = tuple[str, str, str | None]
"""Row key, identity and payload hash of a row that the destination took."""


class OpenState(StrEnum):
    """A row that is not settled.

    IN_DOUBT: sent, no answer; asserted again by the next run. SETTLING: asserted again and acknowledged, but the
    lost request may still be applied until `settle_until`, so it is asserted once more after that. REJECTED: the
    destination refused this very value; tried again when the value changes or somebody asks for it.
    """

    IN_DOUBT = "in_doubt"
    SETTLING = "settling"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work on one sync. Every write of its holder carries the epoch and fails once it is old."""

    sync: str
    epoch: int
    owner: str = ""
    """Host and process."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """Positions `first` … `first + count - 1` of a plan."""

    first: int
    count: int

    def halves(self) -> tuple[Span, Span]:
        middle = self.count // 2
        return Span(first=self.first, count=middle), Span(
            first=self.first + middle, count=self.count - middle
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An intent that is committed: these rows may be sent until `send_by`.

    `refused` are positions that may not be sent after all, each with the outcome it gets: a consent withdrawn since
    the plan was made, or a message that was sent, refused or lost before.
    """

    batch_id: int
    span: Span
    send_by: datetime
    refused: Mapping[int, tuple[Outcome, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOutcome:
    """What became of one planned row."""

    position: int
    row_key: str
    identity: str
    operation: Operation
    outcome: Outcome
    reason: str | None = None
    payload_hash: str | None = None
    destination_key: str | None = None
    sealed: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRow:
    """An unsettled row, as planning reads it."""

    row_key: str
    identity: str
    state: OpenState
    payload_hash: str | None
    destination_key: str | None
    sealed: bytes | None
    maybe: bool
    """The destination may hold it although the ledger does not say so."""
    settle_until: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageInDoubt:
    """A message nobody knows the fate of, as a person sees it. `handle` is how they name it."""

    handle: str
    claimed_at: datetime
    reason: str | None
    provider_id: str | None
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowInDoubt:
    """A message nobody knows the fate of, as the engine names it."""

    message_key: str
    run_id: str
    row_key: str
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch whose outcome is recorded but not yet in the ledger, or that was in flight when its engine died."""

    batch_id: int
    outcome_seq: int | None
    run_id: str
    owner: str
    """Host and process of the engine that sent it."""
    place: str
    """Where its sync pointed to, which need not be where it points to now."""
    mode: SyncMode
    """In which it was sent; meanwhile somebody may have changed that too."""
    plan_path: str
    span: Span
    recorded_at: datetime | None
    exceptions: Sequence[tuple[int, Outcome, str | None]]
    """Position, outcome, reason of every row that was not delivered."""
    destination_keys: Sequence[str | None] | None
    """In the order of the span; None when the destination gave none."""

    @property
    def outcomes_when_lost(self) -> list[Outcome]:
        """One for each row, if its engine died: nobody knows, except of rows that were refused at the claim."""
        refused = [outcome for _, outcome, _ in self.exceptions]
        return refused + [Outcome.UNKNOWN] * (self.span.count - len(refused))

    @property
    def may_be_held(self) -> bool:
        """Whether the destination took any row of it, or may have."""
        taken = self.span.count > len(self.exceptions)
        return taken or any(o in (Outcome.DELIVERED, Outcome.UNKNOWN) for _, o, _ in self.exceptions)
