"""What costs time and proves nothing: the same SQL text composed again, the same catalogue read again.

Statements depend on the project alone, and every schedule has the same project (only sizes differ, which no statement
mentions); so their text is composed once per OS process. An ablation composes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib import resources
from typing import Any
from unittest.mock import patch

import sqlglot.expressions as exp

from activations.manifest import Relation
from activations.planning.statements import Statements
from activations.warehouses.duckdb import DuckDBSession

_texts: dict[Any, Any] = {}
_columns: dict[Relation, Mapping[str, str]] = {}


def forget() -> None:
    """Before and after an ablation."""
    _texts.clear()


@lru_cache(maxsize=1)
def ledger_tables() -> str:
    return resources.files("activations").joinpath("ledger.sql").read_text(encoding="utf-8")


def _remembering(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def text(*arguments: Any, **options: Any) -> Any:
        owner = arguments[0] if arguments and isinstance(arguments[0], Statements) else None
        plain = arguments[1:] if owner else arguments
        key = (name, owner.sync.name if owner else "", tuple(map(str, plain)), tuple(sorted(options.items())))
        if key not in _texts:
            _texts[key] = method(*arguments, **options).sql(dialect="duckdb")
        return _texts[key]

    return text


def _columns_of(real: Callable[..., Mapping[str, str]]) -> Callable[..., Mapping[str, str]]:
    def columns(session: DuckDBSession, relation: Relation) -> Mapping[str, str]:
        if not _columns.get(relation):
            _columns[relation] = real(session, relation)
        return _columns[relation]

    return columns


@contextmanager
def taken() -> Iterator[None]:
    with ExitStack() as stack:
        for name, attribute in vars(Statements).items():
            method = attribute.__func__ if isinstance(attribute, staticmethod) else attribute
            returned = getattr(method, "__annotations__", {}).get("return")
            if returned not in ("exp.Select", exp.Select) or name.startswith("_"):
                continue
            remembered: Any = _remembering(name, method)
            if isinstance(attribute, staticmethod):
                remembered = staticmethod(remembered)
            stack.enter_context(patch.object(Statements, name, remembered))
        stack.enter_context(patch.object(DuckDBSession, "columns", _columns_of(DuckDBSession.columns)))
        yield
