"""The journal: the truth about attempts.

Safety needs three things from it: an intent is durable before the request leaves; every write of a lease's holder fails
once the epoch is old; an outcome is kept until the warehouse has it.
"""

from __future__ import annotations

from activations.journal.batches import Batches
from activations.journal.runs import Runs


class Journal(Runs, Batches):
    """One journal on one store: SQLite beside the engine, or Postgres for several hosts."""
