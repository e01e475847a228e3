"""What was attempted: intents before every request, one outcome per row, and whatever is not settled."""

from activations.journal.records import Batch, Claim, Lease, OpenRow, OpenState, RowOutcome, Span
from activations.journal.sqlite import Journal

__all__ = ["Batch", "Claim", "Journal", "Lease", "OpenRow", "OpenState", "RowOutcome", "Span"]
