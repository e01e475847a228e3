"""Who is called by an identifier, and by which others: dbt's identity graph, as far as somebody asks.

Warehouses and Python do not agree on which letters beyond ASCII are one and the same, so names with such letters are
compared by Python, and all others by the warehouse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import polars as pl
import pyarrow as pa
import sqlglot.expressions as exp

from activations.digests import forms_of_identity
from activations.manifest import Relation
from activations.warehouses import Session

_ASKED_FOR = "asked_for"


@dataclass(frozen=True)
class Graph:
    """Some people and everything they are called."""

    names: Mapping[str, frozenset[str]]
    """Person id → identifiers, in lower case as the warehouse writes it, and the id."""

    @cached_property
    def _people(self) -> Mapping[str, set[str]]:
        """Form of a name → whose it is."""
        found: dict[str, set[str]] = {}
        for person, names in self.names.items():
            for form in chain.from_iterable(map(forms_of_identity, names)):
                found.setdefault(form, set()).add(person)
        return found

    def people(self, identifier: str) -> list[str]:
        """The ids of those who are called so, by any form of it."""
        forms = forms_of_identity(identifier)
        return sorted(set().union(*(self._people.get(form, ()) for form in forms)))

    def forms(self, identifier: str) -> list[str]:
        """Of the identifier and of every other name of those who are called so."""
        names = {identifier, *chain.from_iterable(self.names[person] for person in self.people(identifier))}
        return sorted({form for name in names for form in forms_of_identity(name)})


def read_graph(session: Session, relation: Relation, person_key: str, identifiers: Sequence[str]) -> Graph:
    """Of everybody who is called by one of these identifiers or ids."""
    person = exp.cast(exp.column(person_key), "text")
    name = exp.func("lower", exp.column("identifier"))
    graph = exp.table_(relation.name, db=relation.schema, quoted=True)
    everybody = exp.select(exp.alias_(person, "person"), exp.alias_(name, "name")).distinct().from_(graph)
    asked = {form for identifier in identifiers for form in forms_of_identity(identifier)}
    session.load(_ASKED_FOR, _texts(asked))
    near = session.rows(everybody.copy().where(exp.or_(_may_be_asked_for(person), _may_be_asked_for(name))))
    people = {who for who, called in near if not asked.isdisjoint(_forms(who, called))}
    session.load(_ASKED_FOR, _texts(people))
    names: dict[str, set[str]] = {who: {who} for who in people}
    for who, called in session.rows(everybody.where(_is_asked_for(person))):
        names[who] |= {called} if called else set()
    return Graph({who: frozenset(its) for who, its in names.items()})


def _may_be_asked_for(name: exp.Expr) -> exp.Expr:
    beyond_ascii = exp.RegexpLike(this=name.copy(), expression=exp.Literal.string("[^\x01-\x7f]"))
    return exp.or_(_is_asked_for(exp.func("lower", name.copy())), beyond_ascii)


def _is_asked_for(name: exp.Expr) -> exp.Expr:
    return exp.In(this=name.copy(), query=exp.select("form").from_(_ASKED_FOR).subquery())


def _forms(*names: str | None) -> set[str]:
    return {form for name in names if name for form in forms_of_identity(name)}


def _texts(forms: Iterable[str]) -> pa.Table:
    return pl.DataFrame({"form": sorted(forms)}, schema={"form": pl.String}).to_arrow()
