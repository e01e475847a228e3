"""Writing the plan file: once, as the rows come, synced and renamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from activations.planning.planfile import PlanFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What is known about a plan file once it is written."""

    file: PlanFile
    rows: int
    urgent: int
    """The first `urgent` rows are removals that nothing may hold back."""
    removals: int
    """The first `removals` rows are removals."""
    content_hash: str
    """Over key, identity, operation and payload hash of every row that is not urgent: what an approval binds to."""


def freeze(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> Frozen:
    """Write the rows once, as they come, to a draft that is synced and renamed. Memory: two batches."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".draft")
    try:
        return _write(batches, schema, draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _write(batches: Iterator[pa.RecordBatch], schema: pa.Schema, draft: Path, path: Path) -> Frozen:
    rows = urgent = removals = 0
    content = _ContentHash()
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as stream:
        with pq.ParquetWriter(stream, _without_urgent(schema), compression="zstd") as writer:
            for batch in batches:
                rows += batch.num_rows
                urgent += pc.sum(batch.column("is_urgent")).as_py() or 0
                removals += pc.sum(pc.equal(batch.column("verdict"), "removed")).as_py() or 0
                content.update(batch)
                writer.write_batch(batch.drop_columns(["is_urgent"]))
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)
    return Frozen(
        file=PlanFile(path), rows=rows, urgent=urgent, removals=removals, content_hash=content.hexdigest()
    )


def _without_urgent(schema: pa.Schema) -> pa.Schema:
    return schema.remove(schema.get_field_index("is_urgent"))


class _ContentHash:
    """A hash of columns, not of rows, so that no row becomes a Python object. Lengths are hashed beside the bytes,
    so the same bytes cut differently are different content; how the rows were batched makes no difference."""

    _COLUMNS = ("row_key", "identity", "verdict", "payload_hash")

    def __init__(self) -> None:
        self._hashes = {name: (hashlib.sha256(), hashlib.sha256()) for name in self._COLUMNS}

    def update(self, batch: pa.RecordBatch) -> None:
        calm = batch.filter(pc.invert(batch.column("is_urgent")))
        for name, (lengths, content) in self._hashes.items():
            column = pc.fill_null(calm.column(name), "").cast(pa.large_string())
            _, offsets, data = column.buffers()
            bounds = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
            lengths.update(np.diff(bounds).tobytes())
            content.update(memoryview(data)[bounds[0] : bounds[-1]] if data else b"")

    def hexdigest(self) -> str:
        parts = [hashed.hexdigest() for pair in self._hashes.values() for hashed in pair]
        return hashlib.sha256("".join(parts).encode()).hexdigest()
