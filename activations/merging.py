"""Outcomes for the ledger: what the journal says of spans, joined by the warehouse to what the plan file says of rows.

Rows pass as a stream, window by window, so that merging a large plan needs no more memory than a small one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from activations.errors import PlanRejected
from activations.journal import Batch
from activations.model import Outcome
from activations.planning.planfile import WINDOW_ROWS
from activations.warehouses import Session

_ROWS = "merged_rows"
_COLUMNS = ["row_key", "identity", "verdict", "payload_hash", "destination_key", "sieve", "field_marks"]
_SAID: dict[str, Any] = {
    "position": pl.Int64,
    "seq": pl.Int64,
    "run_id": pl.String,
    "recorded_at": pl.Datetime("us"),
    "outcome": pl.String,
    "reason": pl.String,
}
"""What the journal adds to a row of the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """SQL for what became of every row of some batches, as long as `offered` lasts."""

    has_rejections: bool
    several_plans: bool

    every: str = _ROWS
    """Each attempt."""

    def latest(self, where: str) -> str:
        """Only the last of a row's attempts that `where` speaks of; one plan has each row once."""
        chosen = f"select * from {_ROWS} where {where}"
        if not self.several_plans:
            return f"({chosen})"
        ranked = f"select *, row_number() over (partition by row_key, identity order by seq desc) as newest from ({chosen}) as chosen"
        return f"(select * from ({ranked}) as ranked where newest = 1)"


@contextmanager
def offered(session: Session, batches: Sequence[Batch], plans: Path) -> Iterator[Outcomes]:
    """Make the outcomes of these batches readable for statements."""
    files = {batch.plan_path: _plan_file(plans, batch) for batch in batches}
    said = {name: _Said.by([b for b in batches if b.plan_path == name]) for name in files}
    written = pq.read_schema(next(iter(files.values())))
    schema = pa.schema([*(written.field(name) for name in _COLUMNS), *_SAID_SCHEMA])

    def read() -> pa.RecordBatchReader:
        batches = (batch for name, path in files.items() for batch in _rows(path, said[name], schema))
        return pa.RecordBatchReader.from_batches(schema, batches)

    if sum(batch.span.count for batch in batches) <= WINDOW_ROWS:
        read = read().read_all().to_reader
    with session.offer(_ROWS, read):
        yield Outcomes(
            has_rejections=any(o is Outcome.REJECTED for b in batches for _, o, _ in b.exceptions),
            several_plans=len(files) > 1,
        )


def _plan_file(plans: Path, batch: Batch) -> Path:
    path = plans / batch.plan_path
    if not path.exists():
        raise PlanRejected(
            f"the plan {path.name} is not here, and its outcomes are not in the ledger yet: {batch.owner} made it. If that was another host, share `plan: folder` with it or run the sync there; else restore the file from a backup of the state folder"
        )
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What the journal says about one plan, as frames by position."""

    spans: pl.DataFrame
    exceptions: pl.DataFrame
    keys: pl.DataFrame

    @classmethod
    def by(cls, batches: Sequence[Batch]) -> _Said:
        return cls(spans=_spans(batches), exceptions=_exceptions(batches), keys=_keys(batches))

    def about(self, start: int, end: int) -> pl.DataFrame:
        """One line for each of these positions that lies in a span."""
        near = self.spans.filter((pl.col("first") < end) & (pl.col("end") > start))
        positions = pl.int_ranges(pl.col("first").clip(start), pl.col("end").clip(upper_bound=end))
        found = near.select(positions.alias("position"), "seq", "run_id", "recorded_at").explode("position")
        for remarks in (self.exceptions, self.keys):
            here = remarks.filter(pl.col("position").is_between(start, end, closed="left"))
            found = _with(found, here)
        return found.with_columns(pl.col("outcome").fill_null(Outcome.DELIVERED.value))


def _with(found: pl.DataFrame, remarks: pl.DataFrame) -> pl.DataFrame:
    """The remarks beside their positions; most batches have none."""
    if remarks.height:
        return found.join(remarks, on="position", how="left", maintain_order="left")
    none = (pl.lit(None, dtype).alias(name) for name, dtype in remarks.schema.items() if name != "position")
    return found.with_columns(none)


def _spans(batches: Sequence[Batch]) -> pl.DataFrame:
    rows = [
        (b.span.first, b.span.first + b.span.count, b.outcome_seq, b.run_id, b.recorded_at) for b in batches
    ]
    schema: dict[str, Any] = {
        "first": pl.Int64,
        "end": pl.Int64,
        **{name: _SAID[name] for name in ("seq", "run_id", "recorded_at")},
    }
    return pl.DataFrame(rows, schema, orient="row").sort("first")


def _exceptions(batches: Sequence[Batch]) -> pl.DataFrame:
    rows = [(position, outcome.value, reason) for b in batches for position, outcome, reason in b.exceptions]
    return pl.DataFrame(rows, {name: _SAID[name] for name in ("position", "outcome", "reason")}, orient="row")


def _keys(batches: Sequence[Batch]) -> pl.DataFrame:
    """What the destination called the rows in its answers."""
    rows = [
        (batch.span.first + offset, key)
        for batch in batches
        for offset, key in enumerate(batch.destination_keys or ())
        if key is not None
    ]
    return pl.DataFrame(rows, {"position": pl.Int64, "new_key": pl.String}, orient="row")


_SAID_SCHEMA = pl.DataFrame(schema=_SAID).to_arrow().schema


def _rows(path: Path, said: _Said, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows that lie in a span, window by window."""
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            about = said.about(start, end)
            if about.height:
                table = file.read_row_group(group, columns=_COLUMNS, use_threads=False)
                yield from _joined(table, start, about, schema)
            start = end


def _joined(table: pa.Table, start: int, about: pl.DataFrame, schema: pa.Schema) -> list[pa.RecordBatch]:
    if about.height < table.num_rows:
        table = table.take((about["position"] - start).to_arrow())
    if about["new_key"].null_count() < about.height:
        kept = pl.Series(table.column("destination_key"))
        keys = about.select(pl.coalesce("new_key", kept)).to_series()
        table = table.set_column(
            table.schema.get_field_index("destination_key"), "destination_key", keys.to_arrow()
        )
    for name in _SAID:
        table = table.append_column(name, about[name].to_arrow())
    batches: list[pa.RecordBatch] = table.cast(schema).to_batches()
    return batches
