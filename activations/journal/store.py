"""What the journal asks of a database, and the layout of its tables.

The journal's SQL is written once. `?` stands for a parameter; everything else in it means the same to SQLite and to
Postgres. Where the two differ is here and in the module of each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from string import Template
from typing import Any, Protocol

VERSION = 3
"""Of the tables' layout, and of the digests in them. Raise it when either changes."""

PARAMETERS = 1000
"""In one statement, from lists. SQLite takes 32,766 in all, Postgres 65,535."""


class Store(Protocol):
    """One connection. Its methods may be called by several threads; a transaction belongs to one of them."""

    shared: str
    """Ends a select whose rows nobody may change until the transaction is over, though others may read them so too."""

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside becomes durable at its end, or nothing of it."""

    def run(self, statement: str, *parameters: Any) -> int:
        """How many rows it touched."""

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]: ...

    def many(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Once for each."""

    def held(self, sync: str, owner: str) -> AbstractContextManager[int]:
        """The sync's lease while the block runs, and its new epoch. SyncBusy when somebody else has it."""

    def renew(self, sync: str, epoch: int) -> bool:
        """Whether the epoch is still the sync's latest; inside a transaction it then stays so until the end."""

    def close(self) -> None: ...


def statements(script: str, words: Mapping[str, str]) -> Iterator[str]:
    """Of a file in this folder, one after the other. `words` are what the dialects call differently."""
    text = resources.files(__package__).joinpath(script).read_text(encoding="utf-8")
    statement = ""
    for line in Template(text).substitute(words).splitlines():
        statement += f"{line}\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
