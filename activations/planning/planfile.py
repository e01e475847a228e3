"""The frozen plan: one Parquet file, ordered, readable by its owner only, gone when the run is settled.

Position *n* is the same row for as long as the file lives, so a batch is a range of positions and survives a crash.
The file is the only place outside the warehouse that holds what will be sent; no copy of it is ever made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
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


class Lines:
    """A text for every row, one after the other in memory: those of a batch are one piece of it."""

    def __init__(self, texts: pl.Series) -> None:
        _, ends, text = texts.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
        self._ends, self._text = memoryview(ends).cast("q"), memoryview(text or b"")

    def between(self, low: int, high: int) -> memoryview:
        return self._text[self._ends[low] : self._ends[high]]


class Totals:
    """A number for every row, added up from the first row on: the sum for a batch is a difference."""

    def __init__(self, numbers: pl.Series) -> None:
        self._sums: list[int] = [0, *numbers.cum_sum().to_list()]

    def between(self, low: int, high: int) -> int:
        return self._sums[high] - self._sums[low]


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Rows that were read at once, and what was worked out for all of them together. Each call into a library of columns
    gives Python's lock away, so whatever every batch needs is no column any more."""

    frame: pl.DataFrame
    """`position`, the columns of the file, and any others."""
    texts: Mapping[str, Lines] = field(default_factory=dict)
    totals: Mapping[str, Totals] = field(default_factory=dict)

    @cached_property
    def first(self) -> int:
        """The position of the first row."""
        return int(self.frame["position"][0])


Prepare = Callable[[pl.DataFrame], Window]


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a window that follow each other."""

    window: Window
    low: int
    high: int

    @property
    def positions(self) -> range:
        return range(self.window.first + self.low, self.window.first + self.high)

    def without(self, positions: Collection[int]) -> list[_Part]:
        """What is left, in as many parts as it takes."""
        gone = [n - self.window.first for n in self.positions if n in positions]
        pieces = zip([self.low, *(n + 1 for n in gone)], [*gone, self.high], strict=True)
        return [_Part(self.window, low, high) for low, high in pieces]


@dataclass(frozen=True, eq=False)
class PlanSlice:
    """Some rows of a plan, as text and numbers that were worked out before; as columns or rows only for whoever asks."""

    parts: Sequence[_Part]

    @classmethod
    def whole(cls, window: Window) -> PlanSlice:
        return cls([_Part(window, 0, window.frame.height)])

    def __len__(self) -> int:
        return sum(part.high - part.low for part in self.parts)

    @property
    def positions(self) -> Iterator[int]:
        return chain.from_iterable(part.positions for part in self.parts)

    @property
    def texts(self) -> list[str]:
        """Names of the texts that every row has."""
        return [
            name for name in self.parts[0].window.texts if all(name in p.window.texts for p in self.parts)
        ]

    def text(self, name: str) -> memoryview:
        """Of all rows, one after the other; a copy only where windows meet."""
        pieces = [part.window.texts[name].between(part.low, part.high) for part in self.parts]
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def total(self, name: str) -> int:
        return sum(part.window.totals[name].between(part.low, part.high) for part in self.parts)

    @cached_property
    def frame(self) -> pl.DataFrame:
        return pl.concat([part.window.frame[part.low : part.high] for part in self.parts], rechunk=False)

    @cached_property
    def rows(self) -> Sequence[PlanRow]:
        return _rows(self.frame)

    def rows_where(self, condition: pl.Expr) -> Sequence[PlanRow]:
        return _rows(self.frame.filter(condition))

    def without(self, positions: Collection[int]) -> PlanSlice:
        return (
            PlanSlice([left for part in self.parts for left in part.without(positions)])
            if positions
            else self
        )

    def acknowledged(self) -> list[tuple[str, str, str | None]]:
        """Row key, identity and payload hash of every row."""
        return self.frame.select("row_key", "identity", "payload_hash").rows()


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan on disk."""

    path: Path

    def open(self, prepare: Prepare = lambda frame: Window(frame=frame)) -> PlanReader:
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
        self._windows: dict[int, _Once] = {}
        self._mutex = threading.Lock()

    def slice(self, first: int, count: int) -> PlanSlice:
        """The rows at positions `first` … `first + count - 1`."""
        end = first + count
        numbers = range(first // self._size, (end - 1) // self._size + 1)
        parts = [self._part(number, first, end) for number in numbers]
        self._read_ahead(first, end)
        return PlanSlice(parts)

    def _read_ahead(self, first: int, end: int) -> None:
        """Whoever has the first rows of a window reads the one after the next, which somebody else is reading: so two
        are worked out at a time, and the others seldom wait for one."""
        number = (end - 1) // self._size
        if first <= number * self._size and (number + 2) * self._size < self._rows:
            self._window(number + 2)

    def _part(self, number: int, first: int, end: int) -> _Part:
        start = number * self._size
        return _Part(self._window(number), max(first - start, 0), min(end - start, self._size))

    def _window(self, number: int) -> Window:
        with self._mutex:
            window = self._windows.setdefault(number, _Once())
            while len(self._windows) > self._KEPT:
                del self._windows[min(self._windows.keys() - {number})]
        return window.get(lambda: self._read(number))

    def _read(self, number: int) -> Window:
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


class _Once:
    """A window, read by whoever comes first; the others wait for it and for nothing else."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._window: Window | None = None

    def get(self, read: Callable[[], Window]) -> Window:
        with self._mutex:
            if self._window is None:
                self._window = read()
            return self._window


def _rows(frame: pl.DataFrame) -> list[PlanRow]:
    return [_row(record) for record in frame.iter_rows(named=True)]


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
