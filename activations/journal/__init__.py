"""What was attempted: intents before every request, one outcome per row, and whatever is not settled."""

from activations.journal.journal import Journal
from activations.journal.opening import open_journal
from activations.journal.records import (
    Acknowledged,
    Batch,
    Claim,
    Lease,
    MessageInDoubt,
    OpenRow,
    OpenState,
    RowInDoubt,
    RowOutcome,
    Span,
)

__all__ = [
    "Acknowledged",
    "Batch",
    "Claim",
    "Journal",
    "Lease",
    "MessageInDoubt",
    "OpenRow",
    "OpenState",
    "RowInDoubt",
    "RowOutcome",
    "Span",
    "open_journal",
]
