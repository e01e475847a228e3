"""Hashes that the snapshot does not have yet although the rows are what the destination holds: after an upgrade of the
warehouse or of this engine, and for rows whose raw values changed without changing what is sent.

They travel in a file beside the plan, from the plan that works them out to the merge that may write. Losing the file
costs time, never truth.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq

from activations.planning.comparison import Comparison
from activations.planning.statements import Statements
from activations.warehouses import Session

STREAM_ROWS = 20_000


def sieve_file(plan: Path) -> Path:
    return plan.with_suffix(".sieve")


def refresh(session: Session, statements: Statements, plan: Path) -> None:
    """Write what the next merge should add to the snapshot, if anything."""
    reader = session.stream(Comparison(statements.sync).resifted(), STREAM_ROWS)
    batches = (batch for batch in reader if batch.num_rows)
    first = next(batches, None)
    if first is None:
        return
    path = sieve_file(plan)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    with pq.ParquetWriter(path, reader.schema, compression="lz4") as writer:
        for batch in chain((first,), batches):
            writer.write_batch(batch)
