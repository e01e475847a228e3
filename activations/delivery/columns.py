"""What is worked out for many rows of a plan at once, so that a batch that goes well never becomes one Python object
per row: its text on the wire, its weight, its part of the batch's key, and whether its consent needs a closer look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import polars as pl

from activations.config import OnNull, Sync
from activations.delivery.consent import IS_SPECIAL, is_special
from activations.digests import SEPARATOR
from activations.model import Columns
from activations.planning.planfile import FIELD, IDENTIFIER, Lines, PlanSlice, Totals, Window

CONTENT, WEIGHT, WRITTEN = "content", "weight", "w."

_ENVELOPE_BYTES = 512
"""What a request has around its rows."""
_ROW_BYTES = 256
"""What a destination may add to the values of a row, and the names."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """Makes rows that were read at once ready to be sent."""

    sync: Sync
    write: Callable[[Columns], pl.DataFrame | None]

    def __call__(self, frame: pl.DataFrame) -> Window:
        identifiers, fields = _named(frame, IDENTIFIER), _named(frame, FIELD)
        written = self._written(frame, identifiers, fields)
        special = is_special(frame["verdict"], frame["row_key"], identifiers).alias(IS_SPECIAL)
        weights = (
            _estimate(frame["row_key"], identifiers, fields) if written is None else _bytes([written["text"]])
        )
        texts = {} if written is None else {WRITTEN + column.name: Lines(column) for column in written}
        return Window(
            frame=frame.with_columns(special),
            texts={CONTENT: Lines(_content(frame)), **texts},
            totals={WEIGHT: Totals(weights), IS_SPECIAL: Totals(special)},
        )

    def _written(
        self, frame: pl.DataFrame, identifiers: pl.DataFrame, fields: pl.DataFrame
    ) -> pl.DataFrame | None:
        """A sealed identifier is opened for the one request that needs it, so such rows are written one by one."""
        has_sealed = frame["sealed"].null_count() < frame.height
        return None if has_sealed else self.write(self._columns(frame, identifiers, fields))

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
    return rows.total(WEIGHT) + _ENVELOPE_BYTES


def _named(frame: pl.DataFrame, prefix: str) -> pl.DataFrame:
    return pl.DataFrame({c.name.removeprefix(prefix): c for c in frame if c.name.startswith(prefix)})


def _content(frame: pl.DataFrame) -> pl.Series:
    """What makes two rows different to the destination, each part with a separator behind it."""
    parts = ["row_key", "identity", "verdict", pl.col("payload_hash").fill_null(""), pl.lit("")]
    return frame.select(pl.concat_str(parts, separator=SEPARATOR)).to_series()


def _estimate(row_keys: pl.Series, identifiers: pl.DataFrame, fields: pl.DataFrame) -> pl.Series:
    """About how many bytes a row is on the wire; generous, since names and envelopes differ by destination."""
    values = [*identifiers, *fields]
    names = sum(len(value.name) + 8 for value in values)
    return _bytes([row_keys, *values]) + _ROW_BYTES + names


def _bytes(values: Iterable[pl.Series]) -> pl.Series:
    lengths = [pl.lit(value).cast(pl.String).str.len_bytes().cast(pl.UInt64) for value in values]
    return pl.select(pl.sum_horizontal(lengths)).to_series()
