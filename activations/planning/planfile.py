"""The frozen plan: one Parquet file, ordered, readable by its owner only, gone when the run is settled.

Position *n* is the same row for as long as the file lives, so a batch is a range of positions and survives a crash.
The file is the only place outside the warehouse that holds what will be sent; no copy of it is ever made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from activations.model import Operation

IDENTIFIER, FIELD = "i.", "f."
_LEDGER_COLUMNS = ("row_key", "identity", "verdict", "payload_hash", "destination_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One row of a plan as it is sent."""

    position: int
    row_key: str
    identity: str
    operation: Operation
    payload_hash: str | None
    destination_key: str | None
    sealed: bytes | None
    identifiers: Mapping[str, str | None]
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan on disk."""

    path: Path

    def slice(self, first: int, count: int) -> list[PlanRow]:
        """The rows at positions `first` … `first + count - 1`."""
        frame = pl.scan_parquet(self.path).slice(first, count).collect()
        return [_row(first + offset, record) for offset, record in enumerate(frame.iter_rows(named=True))]

    def ledger_rows(self) -> pl.DataFrame:
        """Position, keys, operation and hash of every row: what the ledger keeps, without the payload."""
        frame = pl.scan_parquet(self.path).select(_LEDGER_COLUMNS).rename({"verdict": "operation"})
        return frame.with_row_index("position").collect()

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


def _row(position: int, record: dict[str, Any]) -> PlanRow:
    return PlanRow(
        position=position,
        row_key=record["row_key"],
        identity=record["identity"],
        operation=Operation(record["verdict"]),
        payload_hash=record["payload_hash"],
        destination_key=record["destination_key"],
        sealed=record["sealed"],
        identifiers={k.removeprefix(IDENTIFIER): v for k, v in record.items() if k.startswith(IDENTIFIER)},
        fields={k.removeprefix(FIELD): v for k, v in record.items() if k.startswith(FIELD)},
    )
