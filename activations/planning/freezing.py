"""Writing the plan file: once, as the rows come, synced and renamed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from activations.model import Operation
from activations.planning.planfile import WINDOW_ROWS, PlanFile

_NOT_WRITTEN = ["is_planned", "is_urgent", "content"]


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
    """Over key, identity, operation and payload hash of every row that is not urgent: what an approval binds to."""


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
    """For a file that is read once and soon."""
    return pq.ParquetWriter(stream, schema, compression="lz4", use_dictionary=False, write_statistics=False)


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
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, WINDOW_ROWS)
            waiting, rows = table.slice(WINDOW_ROWS).to_batches(), rows - WINDOW_ROWS
    if waiting or not rows:
        yield pa.Table.from_batches(waiting)


@dataclass(slots=True)
class _Tally:
    """Counts the rows that pass, and lets those through that are planned."""

    rows: int = 0
    urgent: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    _content: np.ndarray = field(default_factory=lambda: np.zeros(4, np.uint64))

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
        self._add(planned.column("content").filter(pc.invert(urgent)))
        return planned.drop_columns(_NOT_WRITTEN)

    def _add(self, hashes: pa.Array) -> None:
        """A sum, since nobody promises in which order rows come; 32 characters a hash, as four numbers of 64 bits."""
        _, offsets, data = hashes.cast(pa.large_string()).buffers()
        if len(hashes):
            start = int(np.frombuffer(offsets, np.int64)[hashes.offset])
            numbers = np.frombuffer(data, np.uint64, count=4 * len(hashes), offset=start)
            self._content += numbers.reshape(-1, 4).sum(axis=0, dtype=np.uint64)

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(f"{self.rows - self.urgent}".encode() + self._content.tobytes()).hexdigest()
