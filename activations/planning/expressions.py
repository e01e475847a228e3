"""Small pieces of SQL that several statements are made of."""

from __future__ import annotations

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


def canonical(value: exp.Expr) -> exp.Expr:
    """A null is `~`, a value is `length:value`, so that no two lists of values read alike."""
    length = exp.cast(exp.func("length", value), "text")
    return exp.func("coalesce", pipe([length, literal(":"), value.copy()]), literal("~"))
