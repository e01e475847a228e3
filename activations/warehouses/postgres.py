"""Postgres: a server with many readers and writers.

A plan reads several relations in several statements, so a session that plans pins one snapshot (`hold`). Writers of the
ledger come one after the other, behind an advisory lock: a merge reads its mark and moves it in one transaction.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
import sqlglot.expressions as exp
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from activations.dsn import DSN_FIX, check_dsn
from activations.errors import RelationMissing, WarehouseError, WarehouseLocked
from activations.manifest import Relation

COPY_ROWS = 50_000
LARGEST_PRECISION = 38
LONGEST_NAME = 63
"""Postgres cuts longer names off with no more than a notice."""

_ARROW_TYPES = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "bytea": pa.binary(),
    "int4[]": pa.list_(pa.int32()),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
}

_POSTGRES_TYPES: Sequence[tuple[Callable[[pa.DataType], bool], LiteralString]] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_integer, "bigint"),
    (pa.types.is_floating, "double precision"),
    (pa.types.is_decimal, "numeric"),
    (pa.types.is_date, "date"),
    (pa.types.is_binary, "bytea"),
    (pa.types.is_large_binary, "bytea"),
    (pa.types.is_list, "integer[]"),
)


class PostgresWarehouse:
    """A Postgres database, in UTF-8. `wait_seconds` bounds the wait for the server and for anybody's lock."""

    dialect = "postgres"
    hashing = "postgres hashtext"
    random_text = ""

    def __init__(self, dsn: str, *, wait_seconds: float = 60) -> None:
        self._dsn, self._wait = dsn, wait_seconds

    @contextmanager
    def read(self) -> Iterator[PostgresSession]:
        with self._session() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[PostgresSession]:
        with self._session() as session:
            yield session

    def sha256(self, text: exp.Expr) -> exp.Expr:
        return _function("encode", _function("sha256", _bytes(text)), exp.Literal.string("hex"))

    def md5(self, text: exp.Expr) -> exp.Expr:
        return _function("md5", _bytes(text))

    def row_hash(self, salt: str, values: Sequence[exp.Expr]) -> exp.Expr | None:
        """None: its hash of a row costs about what its MD5 does."""

    def text_hash(self, seed: int, texts: Sequence[exp.Expr]) -> exp.Expr:
        row = exp.cast(
            _function("row", *texts), "text"
        )  # quotes what would read like two texts, and tells null from ''
        return _function("hashtextextended", row, exp.Literal.number(seed))

    def mark(self, value: exp.Expr) -> exp.Expr:
        hashed = _function("hashtext", exp.cast(value, "text"))
        low = exp.BitwiseAnd(this=hashed, expression=exp.Literal.number(0xFFFF))
        return exp.func("coalesce", low, exp.Literal.number(-1))

    def parsed(self, text: exp.Expr, data_type: str) -> exp.Expr | None:
        return text if data_type in ("text", "character varying") else None

    @contextmanager
    def _session(self) -> Iterator[PostgresSession]:
        with _own_errors(self._wait), closing(self._connect()) as connection:
            yield PostgresSession(connection)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        try:
            check_dsn(self._dsn)
            connection = psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=max(2, int(self._wait)),
                application_name="activations",
            )
        except psycopg.OperationalError as error:
            raise WarehouseError(
                f"Postgres cannot be reached ({_last_line(error)}). Check the `dsn` in project.yml and that the server runs"
            ) from None
        except psycopg.ProgrammingError:  # its text repeats the DSN
            raise WarehouseError(
                f"the `dsn` in project.yml leads to something that is no connection string. {DSN_FIX}"
            ) from None
        self._configure(connection)
        return connection

    def _configure(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        """What a cast to text yields must not depend on the role's settings: fingerprints are made of it."""
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            connection.close()
            raise WarehouseError(
                f"the database is encoded in {encoding}. Use one that was created with encoding UTF8"
            )
        settings = {
            "TimeZone": "UTC",
            "DateStyle": "ISO, YMD",
            "extra_float_digits": "1",
            "bytea_output": "hex",
            "lock_timeout": f"{max(1, int(self._wait * 1000))}ms",
            "cursor_tuple_fraction": "1",  # a plan is read to its end
        }
        for name, value in settings.items():
            connection.execute("select set_config(%s, %s, false)", [name, value])


class PostgresSession:
    """An open connection. Outside of `hold` and `transaction` every statement stands for itself; whatever is open
    when the session ends is rolled back."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def run(self, statement: exp.Expr | str, parameters: Sequence[Any] = ()) -> None:
        self._execute(statement, parameters)

    def rows(self, query: exp.Expr | str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._execute(query, parameters).fetchall()

    def stream(self, query: exp.Expr, batch_rows: int) -> pa.RecordBatchReader:
        _refuse_long_names(query)
        is_idle = self._connection.info.transaction_status is TransactionStatus.IDLE
        cursor = self._connection.cursor("stream", withhold=is_idle)
        cursor.execute(_sql(query).encode(), binary=True)
        schema = pa.schema([_field(column) for column in cursor.description or ()])
        return pa.RecordBatchReader.from_batches(schema, _batches(cursor, schema, batch_rows))

    def load(self, name: str, table: pa.Table) -> None:
        self._drop(name)
        target = sql.Identifier(name)
        create_table(self._connection, target, table.schema, temporary=True)
        copy_into(self._connection, target, table)
        self._analyze(name)

    @contextmanager
    def offer(self, name: str, read: Callable[[], pa.RecordBatchReader]) -> Iterator[None]:
        """Once, into a temporary table: the data has to travel to the server in any case."""
        with read() as reader:
            self._drop(name)
            target = sql.Identifier(name)
            create_table(self._connection, target, reader.schema, temporary=True)
            for batch in reader:
                copy_into(self._connection, target, pa.Table.from_batches([batch]))
        self._analyze(name)
        yield
        self._drop(name)

    def keep(self, name: str, query: exp.Expr) -> None:
        _refuse_long_names(query)
        self._drop(name)
        self._execute(f"create temporary table {_quoted(name)} as {_sql(query)}")
        self._analyze(name)

    def hold(self, *relations: Relation) -> None:
        """Locks before the snapshot: a snapshot older than the table that dbt has just put in place sees it empty."""
        lockable = [relation for relation in relations if self._is_lockable(relation)]
        self._execute("begin isolation level repeatable read")
        for relation in lockable:
            self._execute(f"lock table {_qualified(relation)} in access share mode")

    def columns(self, relation: Relation) -> Mapping[str, str]:
        # The information schema knows no materialised views.
        query = (
            "select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute as a "
            "where a.attrelid = to_regclass(?) and a.attnum > 0 and not a.attisdropped order by a.attnum"
        )
        return dict(self.rows(query, [_qualified(relation)]))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            self._execute("select pg_advisory_xact_lock(hashtextextended('activation', 0))")
            yield

    def _execute(
        self, statement: exp.Expr | str, parameters: Sequence[Any] = ()
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        text = _sql(statement)
        if not parameters:
            return self._connection.execute(text.encode())
        return self._connection.execute(text.replace("%", "%%").replace("?", "%s").encode(), parameters)

    def _is_lockable(self, relation: Relation) -> bool:
        """Tables, partitioned tables and views; `lock table` takes nothing else."""
        query = "select 1 from pg_class where oid = to_regclass(?) and relkind in ('r', 'p', 'v')"
        return bool(self.rows(query, [_qualified(relation)]))

    def _drop(self, name: str) -> None:
        self._execute(f"drop table if exists pg_temp.{_quoted(name)}")

    def _analyze(self, name: str) -> None:
        """Nobody else does it for temporary tables, and without it the joins of a large plan go wrong."""
        self._execute(f"analyze pg_temp.{_quoted(name)}")


def create_table(
    connection: psycopg.Connection[Any], name: sql.Identifier, schema: pa.Schema, *, temporary: bool = False
) -> None:
    """A table that takes Arrow data of this schema."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_postgres_type(field.type)))
        for field in schema
    )
    kind = sql.SQL("temporary table" if temporary else "table")
    connection.execute(sql.SQL("create {} {} ({})").format(kind, name, columns))


def copy_into(connection: psycopg.Connection[Any], name: sql.Identifier, table: pa.Table) -> None:
    """Arrow data into a table, by COPY."""
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("copy {} from stdin (format csv)").format(name)) as copy,
    ):
        for batch in _as_text(table).to_batches(max_chunksize=COPY_ROWS):
            copy.write(_csv(batch))


def _batches(
    cursor: psycopg.ServerCursor[tuple[Any, ...]], schema: pa.Schema, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    with cursor:
        while rows := cursor.fetchmany(batch_rows):
            columns = zip(*rows, strict=True)
            yield pa.record_batch(
                [_array(values, field) for values, field in zip(columns, schema, strict=True)], schema=schema
            )


def _array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except pa.ArrowException:
        raise WarehouseError(
            f"the column `{field.name}` holds a value that is no {field.type} (NaN, infinity). Repair it in the audience model"
        ) from None


def _field(column: psycopg.Column) -> pa.Field:
    if column.type_display.startswith("numeric"):
        return pa.field(column.name, _decimal(column))
    known = _ARROW_TYPES.get(column.type_display.partition("(")[0])
    if known is None:
        raise WarehouseError(
            f"the column `{column.name}` is {column.type_display}, which cannot be sent. Cast it in the audience model"
        )
    return pa.field(column.name, known)


def _decimal(column: psycopg.Column) -> pa.DataType:
    if column.precision is None or not 0 < column.precision <= LARGEST_PRECISION:
        raise WarehouseError(
            f"the column `{column.name}` is {column.type_display}, whose digits are not bounded. Cast it to numeric(p, s) with p up to {LARGEST_PRECISION} in the audience model"
        )
    return pa.decimal128(column.precision, column.scale or 0)


def _postgres_type(data_type: pa.DataType) -> LiteralString:
    if pa.types.is_timestamp(data_type):
        return "timestamptz" if data_type.tz else "timestamp"
    return next((name for holds, name in _POSTGRES_TYPES if holds(data_type)), "text")


def _is_binary(data_type: pa.DataType) -> bool:
    return _postgres_type(data_type) == "bytea"


def _as_text(table: pa.Table) -> pa.Table:
    """What the CSV writer does not know, as text: bytes in hexadecimal, and every other way to hold a string."""
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if _is_binary(field.type):
            values = [None if value is None else f"\\x{value.hex()}" for value in column.to_pylist()]
            table = table.set_column(index, field.name, pa.array(values, pa.string()))
        elif pa.types.is_list(field.type):
            arrays = [None if value is None else _array_text(value) for value in column.to_pylist()]
            table = table.set_column(index, field.name, pa.array(arrays, pa.string()))
        elif _postgres_type(field.type) == "text":
            table = table.set_column(index, field.name, column.cast(pa.string()))
    return table


def _array_text(values: Sequence[int | None]) -> str:
    return "{" + ",".join("null" if value is None else str(value) for value in values) + "}"


def _csv(batch: pa.RecordBatch) -> bytes:
    """Every text is quoted and no null is, which is how COPY tells '' from null."""
    sink = io.BytesIO()
    pa_csv.write_csv(batch, sink, pa_csv.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getvalue()


def _function(name: str, *arguments: exp.Expr) -> exp.Expr:
    """By its name: sqlglot would take some for functions of its own and write them differently."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def _bytes(text: exp.Expr) -> exp.Expr:
    return _function("convert_to", text, exp.Literal.string("UTF8"))


def _sql(statement: exp.Expr | str) -> str:
    return statement if isinstance(statement, str) else statement.sql(dialect="postgres")


def _quoted(name: str) -> str:
    return exp.to_identifier(name, quoted=True).sql("postgres")


def _qualified(relation: Relation) -> str:
    return f"{_quoted(relation.schema)}.{_quoted(relation.name)}"


def _refuse_long_names(query: exp.Expr) -> None:
    for alias in query.find_all(exp.Alias):
        if len(alias.alias.encode()) > LONGEST_NAME:
            raise WarehouseError(
                f"Postgres cannot name a column `{alias.alias}`: it keeps {LONGEST_NAME} bytes. Give the field or identifier a shorter name in the sync"
            )


@contextmanager
def _own_errors(wait: float) -> Iterator[None]:
    """The server's texts may quote values. Only those that hold nothing but names are repeated."""
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName) as error:
        raise RelationMissing(
            f"{error.diag.message_primary}. Run `dbt build` and `activations init` first"
        ) from None
    except errors.InsufficientPrivilege as error:
        raise WarehouseError(
            f"{error.diag.message_primary}. Grant it as docs/operating.md says under Postgres"
        ) from None
    except errors.LockNotAvailable:
        raise WarehouseLocked(
            f"another session locks what is needed and did not let go within {wait:.0f} s. Wait for it (dbt?), or end it, and try again"
        ) from None
    except psycopg.Error as error:
        code = f", {error.sqlstate}" if error.sqlstate else ""
        raise WarehouseError(
            f"the warehouse failed ({type(error).__name__}{code}). Its log says more; then run again"
        ) from None


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip().rstrip(".")
