"""Columns as JSON, many rows at once and exactly as `json_exact` would have them one by one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime

import polars as pl

from activations.destinations.normalise import json_exact

_MOST_DECIMALS = 6
"""Python writes smaller decimals with an exponent."""
_MOMENT = "%Y-%m-%dT%H:%M:%S"


def objects(frame: pl.DataFrame, *, kept: Collection[str] = ()) -> pl.Series:
    """Every row as a JSON object. A null is left out, unless its column is kept. Without a column there is one empty
    object, for all rows."""
    if not frame.width:
        return pl.Series(["{}"])
    ready = pl.DataFrame({column.name: _ready(column) for column in frame})
    optional = [column.name for column in ready if column.name not in kept and column.null_count()]
    always = [name for name in ready.columns if name not in optional]
    if not optional:
        return ready.select(_object(always)).to_series()
    parts = [_members(always)] if always else []
    parts += [pl.when(pl.col(name).is_not_null()).then(_members([name])) for name in optional]
    members = pl.concat_str(parts, separator=",", ignore_nulls=True)
    return ready.select(pl.concat_str(pl.lit("{"), members, pl.lit("}"))).to_series()


def _object(names: Sequence[str]) -> pl.Expr:
    return pl.struct(names).struct.json_encode()


def _members(names: Sequence[str]) -> pl.Expr:
    return _object(names).str.strip_prefix("{").str.strip_suffix("}")


def _ready(column: pl.Series) -> pl.Series:
    """The column in a type that the JSON encoder writes as we mean it; types that need care go one by one."""
    dtype = column.dtype
    if dtype in (pl.String, pl.Boolean) or dtype.is_integer():
        return column
    if isinstance(dtype, pl.Decimal) and dtype.scale <= _MOST_DECIMALS:
        return column.cast(pl.String)
    if dtype == pl.Date and _python_has_them(column, date):
        return column.cast(pl.String)
    if dtype == pl.Datetime("us") and _python_has_them(column, datetime):
        return _moments(column)
    return pl.Series(column.name, [json_exact(value) for value in column], strict=True)


def _python_has_them(column: pl.Series, kind: type[date]) -> bool:
    return column.is_between(kind.min, kind.max).all()


def _moments(column: pl.Series) -> pl.Series:
    """In ISO 8601 as UTC; Python writes a fraction only where there is one."""
    whole = column.dt.to_string(f"{_MOMENT}+00:00")
    has_fraction = column.dt.timestamp("us") % 1_000_000 != 0
    if not has_fraction.any():
        return whole
    fine = column.dt.to_string(f"{_MOMENT}%.6f+00:00")
    return pl.select(pl.when(has_fraction).then(fine).otherwise(whole)).to_series()
