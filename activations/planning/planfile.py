"""The frozen plan: one Parquet file, ordered, readable by its owner only, gone when the run is settled.

Position *n* is the same row for as long as the file lives, so a batch is a range of positions and survives a crash.
The file is the only place outside the warehouse that holds what will be sent; no copy of it is ever made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import pyarrow.parquet as pq

from activations.errors import Fenced
from activations.model import Operation

IDENTIFIER, FIELD = "i.", "f."
_SENT_COLUMNS = cs.by_name(
    "row_key", "identity", "verdict", "payload_hash", "destination_key", "sealed", "pseudonym"
) | cs.starts_with(IDENTIFIER, FIELD)
WINDOW_ROWS = 20_000
"""Rows that are read at once: one row group of the file."""
WINDOW_BYTES = 8_000_000
"""Of the file, compressed: of long rows fewer are read at once."""

Prepare = Callable[[pl.DataFrame], pl.DataFrame]


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


@dataclass(frozen=True, eq=False)
class PlanSlice:
    """Some rows of a plan as columns; as rows only for whoever asks."""

    frame: pl.DataFrame
    """The file's columns, `position`, and whatever the reader's `prepare` added."""

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def rows(self) -> Sequence[PlanRow]:
        return [_row(record) for record in self.frame.iter_rows(named=True)]

    def where(self, condition: pl.Expr) -> PlanSlice:
        return PlanSlice(self.frame.filter(condition))

    def without(self, positions: Collection[int]) -> PlanSlice:
        return self.where(~pl.col("position").is_in(list(positions))) if positions else self

    def acknowledged(self) -> list[tuple[str, str, str | None]]:
        """Row key, identity and payload hash of every row."""
        return self.frame.select("row_key", "identity", "payload_hash").rows()


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan on disk."""

    path: Path

    def open(self, prepare: Prepare = lambda frame: frame) -> PlanReader:
        return PlanReader(self.path, prepare)

    def slice(self, first: int, count: int) -> Sequence[PlanRow]:
        """The rows at positions `first` … `first + count - 1`."""
        return self.open().slice(first, count).rows


class PlanReader:
    """A plan that is being sent, by several threads at once: read window by window, and what can be worked out for many
    rows at a time (`prepare`) is worked out once per window."""

    _KEPT = 4

    def __init__(self, path: Path, prepare: Prepare) -> None:
        self._path, self._prepare = path, prepare
        self._rows, self._size = _rows_and_window(path)
        self._windows: dict[int, _Window] = {}
        self._mutex = threading.Lock()

    def slice(self, first: int, count: int) -> PlanSlice:
        """The rows at positions `first` … `first + count - 1`."""
        end = first + count
        numbers = range(first // self._size, (end - 1) // self._size + 1)
        frame = pl.concat([self._part(number, first, end) for number in numbers], rechunk=False)
        self._read_ahead(first, end)
        return PlanSlice(frame)

    def _read_ahead(self, first: int, end: int) -> None:
        """Whoever has the first rows of a window reads the one after the next, which somebody else is reading: so two
        are worked out at a time, and the others seldom wait for one."""
        number = (end - 1) // self._size
        if first <= number * self._size and (number + 2) * self._size < self._rows:
            self._window(number + 2)

    def _part(self, number: int, first: int, end: int) -> pl.DataFrame:
        start = number * self._size
        low = max(first - start, 0)
        return self._window(number).slice(low, min(end - start, self._size) - low)

    def _window(self, number: int) -> pl.DataFrame:
        with self._mutex:
            window = self._windows.setdefault(number, _Window())
            while len(self._windows) > self._KEPT:
                del self._windows[min(self._windows.keys() - {number})]
        return window.frame(lambda: self._read(number))

    def _read(self, number: int) -> pl.DataFrame:
        first = number * self._size
        plan = pl.scan_parquet(self._path).select(_SENT_COLUMNS)
        with _still_there(self._path):
            frame = plan.slice(first, self._size).collect()
        return self._prepare(frame.with_row_index("position", offset=first))


def _rows_and_window(path: Path) -> tuple[int, int]:
    """Of the plan, and how many of its rows are read at once: fewer when they are long."""
    with _still_there(path):
        rows = pq.read_metadata(path).num_rows
        return rows, max(1, min(WINDOW_ROWS, rows * WINDOW_BYTES // path.stat().st_size))


@contextmanager
def _still_there(path: Path) -> Iterator[None]:
    """Whoever stalls long enough on one of several hosts wakes up without a sync, and without a plan."""
    try:
        yield
    except FileNotFoundError:
        raise Fenced(
            f"the plan {path.name} is gone, as when a newer engine took over its sync. Nothing more is sent from here"
        ) from None


class _Window:
    """Read by whoever comes first; the others wait for it and for nothing else."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._frame: pl.DataFrame | None = None

    def frame(self, read: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        with self._mutex:
            if self._frame is None:
                self._frame = read()
            return self._frame


def _row(record: dict[str, Any]) -> PlanRow:
    return PlanRow(
        position=record["position"],
        row_key=record["row_key"],
        identity=record["identity"],
        operation=Operation(record["verdict"]),
        payload_hash=record["payload_hash"],
        destination_key=record["destination_key"],
        sealed=record["sealed"],
        identifiers={k.removeprefix(IDENTIFIER): v for k, v in record.items() if k.startswith(IDENTIFIER)},
        fields={k.removeprefix(FIELD): v for k, v in record.items() if k.startswith(FIELD)},
    )
