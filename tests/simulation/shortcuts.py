"""What costs time and proves nothing: the same SQL text composed again, the same catalogue read again.

Statements depend on the project and on whether anybody is suppressed, and every schedule has the same project (only
sizes differ, which no statement mentions); so each is composed and printed once per OS process. An ablation composes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib import resources
from typing import Any
from unittest.mock import patch

from activations.manifest import Relation
from activations.planning.comparison import Comparison
from activations.planning.gate import Rules
from activations.planning.inputs import Inputs
from activations.planning.rows import Rows
from activations.planning.sieve import Sieve
from activations.planning.statements import Statements
from activations.warehouses import duckdb
from activations.warehouses.duckdb import DuckDBSession

_COMPOSERS = (Statements, Comparison, Inputs, Rules, Rows, Sieve)

_expressions: dict[Any, Any] = {}
_texts: dict[int, str | None] = {}
"""Of each of these, by its identity, once it was printed."""
_columns: dict[Relation, Mapping[str, str]] = {}


def forget() -> None:
    """Before and after an ablation."""
    _expressions.clear()
    _texts.clear()


@lru_cache(maxsize=1)
def ledger_tables() -> str:
    return resources.files("activations").joinpath("ledger.sql").read_text(encoding="utf-8")


def _remembering(name: str, method: Callable[..., Any], *, is_static: bool) -> Callable[..., Any]:
    def expression(*arguments: Any, **options: Any) -> Any:
        key = (name, *_key(arguments, is_static), *sorted(options.items()))
        if key not in _expressions:
            _expressions[key] = made = method(*arguments, **options)
            _texts[id(made)] = None
        return _expressions[key]

    return expression


def _key(arguments: tuple[Any, ...], is_static: bool) -> tuple[str, ...]:
    if is_static:
        return tuple(map(str, arguments))
    owner, *given = arguments
    statements = getattr(owner, "statements", owner)
    return (statements.sync.name, str(getattr(statements, "has_suppressions", None)), *map(str, given))


def _printed(real: Callable[[Any], str]) -> Callable[[Any], str]:
    def text(statement: Any) -> str:
        found = _texts.get(id(statement))
        if found is None:
            found = real(statement)
            if id(statement) in _texts:
                _texts[id(statement)] = found
        return found

    return text


def _columns_of(real: Callable[..., Mapping[str, str]]) -> Callable[..., Mapping[str, str]]:
    def columns(session: DuckDBSession, relation: Relation) -> Mapping[str, str]:
        if not _columns.get(relation):
            _columns[relation] = real(session, relation)
        return _columns[relation]

    return columns


def _composed(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods that make SQL, as attributes of their class."""
    for name, attribute in vars(owner).items():
        method = getattr(attribute, "__func__", attribute)
        returned = str(getattr(method, "__annotations__", {}).get("return"))
        if not name.startswith("_") and (returned == "str" or returned.startswith("exp.")):
            yield name, attribute


@contextmanager
def taken() -> Iterator[None]:
    with ExitStack() as stack:
        for owner in _COMPOSERS:
            for name, attribute in [*_composed(owner)]:
                is_static = isinstance(attribute, staticmethod)
                method = attribute.__func__ if is_static else attribute
                remembered: Any = _remembering(f"{owner.__name__}.{name}", method, is_static=is_static)
                stack.enter_context(
                    patch.object(owner, name, staticmethod(remembered) if is_static else remembered)
                )
        stack.enter_context(patch.object(duckdb, "_sql", _printed(duckdb._sql)))
        stack.enter_context(patch.object(DuckDBSession, "columns", _columns_of(DuckDBSession.columns)))
        yield
