"""What the engine asks of a warehouse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow as pa
from sqlglot.expressions import Expr

from activations.manifest import Relation


class Session(Protocol):
    """An open connection. Statements are sqlglot expressions; text only where it comes from this package's own files."""

    def run(self, statement: Expr | str, parameters: Sequence[Any] = ()) -> None: ...

    def rows(self, query: Expr | str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...

    def stream(self, query: Expr, batch_rows: int) -> pa.RecordBatchReader:
        """Rows in the query's order, read as they are needed. No other statement may run until it is read."""

    def load(self, name: str, table: pa.Table) -> None:
        """Make `table` readable under `name` (temporary, this session only); replaces one of that name."""

    def offer(self, name: str, read: Callable[[], pa.RecordBatchReader]) -> AbstractContextManager[None]:
        """As `load`, for what is too large to be held twice: `read` is called whenever somebody reads. Until the
        context ends."""

    def keep(self, name: str, query: Expr) -> None:
        """Materialise a query as a temporary table of this session; replaces one of that name."""

    def hold(self, *relations: Relation) -> None:
        """From here on this session sees these relations as they are at one moment, whoever rebuilds them meanwhile.
        At most once per session, before anything is read that has to agree."""

    def columns(self, relation: Relation) -> Mapping[str, str]:
        """Column → type of a relation; empty when there is none."""

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside happens, or nothing."""


class Warehouse(Protocol):
    """Where audiences and ledger live."""

    dialect: str
    """sqlglot's name of its SQL."""
    hashing: str
    """Changes with anything that might change what `row_hash` and `mark` give."""
    random_text: str
    """What a column of keys or hashes is declared with, after its type."""

    def read(self) -> AbstractContextManager[Session]:
        """A session that writes nothing but temporary tables."""

    def write(self) -> AbstractContextManager[Session]: ...

    def sha256(self, text: Expr) -> Expr:
        """Lower-case hexadecimal SHA-256 of the text's UTF-8 bytes."""

    def md5(self, text: Expr) -> Expr:
        """Lower-case hexadecimal MD5 of the text's UTF-8 bytes."""

    def row_hash(self, salt: str, values: Sequence[Expr]) -> Expr | None:
        """A 63-bit hash of the values as they are, nulls and order included; None where that is not far cheaper than
        MD5. Only of one `hashing`: never to be compared with one that another version made."""

    def text_hash(self, seed: int, texts: Sequence[Expr]) -> Expr:
        """A number of 64 bits for these texts, nulls and order included, and for each seed another one. Cheap, and never
        to be compared with one that another version made."""

    def mark(self, value: Expr) -> Expr:
        """A small integer that differs for most values that differ."""

    def parsed(self, text: Expr, data_type: str) -> Expr | None:
        """The text as a value of that type, null where it is none; None where that would be an error."""
