"""What is worked out for many rows of a plan at once, so that a batch that goes well never becomes one Python object
per row: its text on the wire, its weight, its part of the batch's key, and whether its consent needs a closer look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import polars as pl

from activations.config import OnNull, Sync
from activations.delivery.consent import IS_PLAIN, is_plain
from activations.digests import SEPARATOR
from activations.model import Columns
from activations.planning.planfile import FIELD, IDENTIFIER, PlanSlice

CONTENT, WEIGHT, WRITTEN = "content", "weight", "written"

_ENVELOPE_BYTES = 512
"""What a request has around its rows."""
_ROW_BYTES = 256
"""What a destination may add to the values of a row, and the names."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """Adds these columns to a window of the plan."""

    sync: Sync
    write: Callable[[Columns], pl.DataFrame | None]

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        identifiers, fields = _named(frame, IDENTIFIER), _named(frame, FIELD)
        written = self.write(self._columns(frame, identifiers, fields))
        added = [
            _content(frame),
            is_plain(frame["row_key"], identifiers).alias(IS_PLAIN),
            (
                _estimate(frame["row_key"], identifiers, fields)
                if written is None
                else _bytes([written["text"]])
            ).alias(WEIGHT),
        ]
        return frame.with_columns(added if written is None else [*added, written.to_struct(WRITTEN)])

    def _columns(self, frame: pl.DataFrame, identifiers: pl.DataFrame, fields: pl.DataFrame) -> Columns:
        return Columns(
            operations=frame["verdict"],
            destination_keys=frame["destination_key"],
            pseudonyms=frame["pseudonym"],
            identifiers=identifiers,
            fields=fields,
            cleared=frozenset(name for name, m in self.sync.fields.items() if m.on_null is OnNull.CLEAR),
        )


def weight(rows: PlanSlice) -> int:
    """About how many bytes the rows are as one request, and seldom less than that."""
    return int(rows.frame.get_column(WEIGHT).sum()) + _ENVELOPE_BYTES


def _named(frame: pl.DataFrame, prefix: str) -> pl.DataFrame:
    names = [name for name in frame.columns if name.startswith(prefix)]
    return frame.select(names).rename({name: name.removeprefix(prefix) for name in names})


def _content(frame: pl.DataFrame) -> pl.Series:
    """What makes two rows different to the destination."""
    parts = ["row_key", "identity", "verdict", pl.col("payload_hash").fill_null("")]
    return frame.select(pl.concat_str(parts, separator=SEPARATOR).alias(CONTENT)).to_series()


def _estimate(row_keys: pl.Series, identifiers: pl.DataFrame, fields: pl.DataFrame) -> pl.Series:
    """About how many bytes a row is on the wire; generous, since names and envelopes differ by destination."""
    values = [*identifiers, *fields]
    names = sum(len(value.name) + 8 for value in values)
    return _bytes([row_keys, *values]) + _ROW_BYTES + names


def _bytes(values: Iterable[pl.Series]) -> pl.Series:
    lengths = [value.cast(pl.String).str.len_bytes().fill_null(0).cast(pl.UInt64) for value in values]
    return pl.select(pl.sum_horizontal(lengths)).to_series()
