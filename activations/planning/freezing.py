"""Writing the plan file: once, as the rows come, synced and renamed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from activations.model import Operation
from activations.planning.planfile import WINDOW_ROWS, PlanFile

CONTENT = ("content_0", "content_1")
"""Columns with two different hashes of what an approval binds to, whole numbers of 64 bits."""
_HASHES = ("identity", "payload_hash", "pseudonym")
_NOT_WRITTEN = ["is_planned", "is_urgent", *CONTENT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What is known about a plan file once it is written."""

    file: PlanFile
    rows: int
    urgent: int
    """The first `urgent` rows are removals that nothing may hold back."""
    removals: int
    """The first `removals` rows are removals."""
    verdicts: Counter[str]
    """How often each verdict came, also of rows that are not planned."""
    content_hash: str
    """Over key, identity, operation and payload hash of every row that is not urgent: what an approval binds to. The sums
    of two cheap hashes are enough, since identity and payload hash are keyed: nobody without the key finds rows whose
    sums are equal, and by chance one changed row in 2**64 passes for what it was. Another version of the warehouse
    may give another hash; an approval is asked for anew then, as it is after a day in any case."""


def freeze(readers: Iterable[pa.RecordBatchReader], path: Path) -> Frozen:
    """Write the planned rows once, as they come, to a draft that is synced and renamed. All readers have one schema."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".draft")
    try:
        return _write(readers, draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _write(readers: Iterable[pa.RecordBatchReader], draft: Path, path: Path) -> Frozen:
    tally = _Tally()
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as stream:
        writer: pq.ParquetWriter | None = None
        try:
            for group in _row_groups(tally.counted(_batches(readers))):
                writer = writer or _writer(stream, group.schema)
                writer.write_table(group)
                del group  # or it is held while the next one is collected
        finally:
            if writer:
                writer.close()
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)
    return Frozen(
        file=PlanFile(path),
        rows=tally.rows,
        urgent=tally.urgent,
        removals=tally.verdicts[Operation.REMOVED],
        verdicts=tally.verdicts,
        content_hash=tally.content_hash,
    )


def _writer(stream: object, schema: pa.Schema) -> pq.ParquetWriter:
    """For a file that is read once and soon. Half of it is hashes, whose compression costs more than it saves."""
    compression = {name: "lz4" for name in schema.names if name not in _HASHES}
    return pq.ParquetWriter(
        stream, schema, compression=compression, use_dictionary=False, write_statistics=False
    )


def _batches(readers: Iterable[pa.RecordBatchReader]) -> Iterator[pa.RecordBatch]:
    """At least one, so that an empty plan has its columns."""
    for reader in readers:
        yield from reader
        empty = [pa.nulls(0, column.type) for column in reader.schema]
        yield pa.RecordBatch.from_arrays(empty, schema=reader.schema)


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of exactly WINDOW_ROWS, the last one of what is left: whoever reads a window reads one group."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        while rows >= WINDOW_ROWS:
            rows -= WINDOW_ROWS
            yield _first_group(waiting)
    if waiting or not rows:
        yield pa.Table.from_batches(waiting)


def _first_group(waiting: list[pa.RecordBatch]) -> pa.Table:
    """Taken away from what waits, so that nothing holds it once it is written."""
    table = pa.Table.from_batches(waiting)
    waiting[:] = table.slice(WINDOW_ROWS).to_batches()
    return table.slice(0, WINDOW_ROWS)


@dataclass(slots=True)
class _Tally:
    """Counts the rows that pass, and lets those through that are planned."""

    rows: int = 0
    urgent: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    _content: Counter[str] = field(default_factory=Counter)

    def counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for found in pc.value_counts(batch.column("verdict")).to_pylist():
                self.verdicts[found["values"]] += found["counts"]
            yield self._planned(batch)

    def _planned(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        flags = batch.column("is_planned")
        planned = batch if pc.all(flags).as_py() else batch.filter(flags)
        self.rows += planned.num_rows
        urgent = planned.column("is_urgent")
        self.urgent += pc.sum(urgent).as_py() or 0
        held_back = pc.invert(urgent)
        # Sums, since nobody promises in which order rows come. Arrow's overflow is modulo 2**64.
        for name in CONTENT:
            self._content[name] += pc.sum(planned.column(name).filter(held_back)).as_py() or 0
        return planned.drop_columns(_NOT_WRITTEN)

    @property
    def content_hash(self) -> str:
        sums = [self._content[name] % 2**64 for name in CONTENT]
        return hashlib.sha256(f"{self.rows - self.urgent} {sums}".encode()).hexdigest()
