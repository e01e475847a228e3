"""Small pieces of SQL that several statements are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import sqlglot.expressions as exp

from activations.manifest import Relation


def table(relation: Relation, alias: str) -> exp.Expr:
    named = exp.table_(relation.name, db=relation.schema, quoted=True)
    return exp.alias_(named, alias, table=True)


def text(column: str, alias: str) -> exp.Expr:
    return exp.cast(exp.column(column, alias), "text")


def literal(value: str) -> exp.Literal:
    return exp.Literal.string(value)


def interleave(parts: Sequence[exp.Expr], separator: exp.Expr) -> list[exp.Expr]:
    return [piece for part in parts for piece in (separator.copy(), part)][1:]


def pipe(parts: Iterable[exp.Expr]) -> exp.Expr:
    """One text; null as soon as one part is null."""
    result, *rest = parts
    for part in rest:
        result = exp.DPipe(this=result, expression=part, safe=True)
    return result


_MOMENTS = {
    "date": ("date", ""),
    "timestamp": ("timestamp", " 00:00:00"),
    "timestamp without time zone": ("timestamp", " 00:00:00"),
    **dict.fromkeys(("timestamp_s", "timestamp_ms", "timestamp_ns"), ("timestamp", " 00:00:00")),
    "timestamp with time zone": ("timestamptz", " 00:00:00+00"),
}


def in_calendar(value: exp.Expr, data_type: str) -> exp.Expr | None:
    """Whether a date or a moment lies in the years 1 to 9999, the only ones ISO 8601 and Python have: warehouses also
    know `infinity` and other millennia. None where the type has no such values."""
    plain = re.sub(r"\([0-9]+\)", "", data_type.lower())
    if plain not in _MOMENTS:
        return None
    kind, midnight = _MOMENTS[plain]
    first, end = (exp.cast(literal(f"{day}{midnight}"), kind) for day in ("0001-01-01", "10000-01-01"))
    # DuckDB has precisions of their own, of which nanoseconds do not reach these years.
    moment = exp.cast(value, kind) if plain.startswith("timestamp_") else value
    return exp.and_(exp.GTE(this=moment.copy(), expression=first), exp.LT(this=moment.copy(), expression=end))


MOST_ARGUMENTS = 90
"""Postgres takes a hundred."""


def canonical(first: exp.Expr, values: Sequence[exp.Expr]) -> exp.Expr:
    """One text of all these: a null is `~`, a value is `length:value`, so that no two lists of values read alike."""
    parts = [first]
    for value in values:
        length = exp.cast(exp.func("length", value), "text")
        parts += [exp.func("coalesce", pipe([length, literal(":")]), literal("~")), value.copy()]
    # `concat` leaves nulls out and copies each part once, where a chain of `||` copies all that stands before it.
    return pipe(
        exp.Anonymous(this="concat", expressions=parts[n : n + MOST_ARGUMENTS])
        for n in range(0, len(parts), MOST_ARGUMENTS)
    )
