"""What the engine relies on in any warehouse, said once and run on each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import sqlglot.expressions as exp
from sqlglot import select

from activations import ledger
from activations.digests import Digester
from activations.errors import RelationMissing
from activations.manifest import Relation
from activations.planning.expressions import canonical
from activations.planning.freezing import CONTENT, freeze
from activations.warehouses import DuckDBWarehouse, Session, Warehouse
from activations.warehouses.postgres import PostgresWarehouse
from tests.warehouses.stores import NewStore, PostgresStore, Store

TEXTS = [
    "",
    " ",
    "plain",
    "quote \" and ' and ,",
    "line\nbreak\r\n",
    "\\.",
    "\\N",
    "é",
    "𝒳",
    "\u202eb",
    "tab\t",
]


@pytest.fixture
def store(new_store: NewStore, tmp_path: Path) -> Store:
    return new_store(tmp_path)


@pytest.fixture
def warehouse(store: Store, tmp_path: Path) -> Warehouse:
    if isinstance(store, PostgresStore):
        return PostgresWarehouse(store.dsn, wait_seconds=1)
    return DuckDBWarehouse(tmp_path / "warehouse.duckdb", wait_seconds=1)


@pytest.fixture
def session(warehouse: Warehouse) -> Iterator[Session]:
    with warehouse.write() as opened:
        yield opened


def values(session: Session, expression: exp.Expr) -> list[object]:
    return [row[0] for row in session.rows(select(expression).from_("given").order_by("position"))]


def give_texts(session: Session) -> None:
    session.load("given", pa.table({"position": range(len(TEXTS)), "text": TEXTS}))


def test_digests_are_those_of_python(session: Session, warehouse: Warehouse) -> None:
    give_texts(session)
    text, digester = exp.column("text"), Digester.for_use(b"key", "test")
    assert values(session, warehouse.sha256(text)) == [hashlib.sha256(t.encode()).hexdigest() for t in TEXTS]
    assert values(session, warehouse.md5(text)) == [hashlib.md5(t.encode()).hexdigest() for t in TEXTS]
    assert values(session, digester.sql(text, warehouse.sha256)) == [digester(t) for t in TEXTS]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([*TEXTS, None], pa.string()),
        pa.array([*TEXTS, None], pa.large_string()),
        pa.array([*TEXTS, None], pa.string_view()),
        pa.array([b"", b"\x00\xff", None], pa.binary()),
        pa.array([True, False, None]),
        pa.array([-(2**63), 2**63 - 1, None], pa.int64()),
        pa.array([Decimal("-0.01"), Decimal("12345678.90"), None], pa.decimal128(12, 2)),
        pa.array([datetime(1970, 1, 1), datetime(2026, 1, 5, 12, 0, 0, 123456), None], pa.timestamp("us")),
        pa.array([date(1900, 2, 28), date(2026, 12, 31), None], pa.date32()),
        pa.array([None, None], pa.null()),
        pa.array([], pa.string()),
    ],
    ids=lambda column: f"{column.type}-{len(column)}",
)
def test_what_is_loaded_is_what_is_read(session: Session, column: pa.Array) -> None:
    session.load("given", pa.table({"position": range(len(column)), "value": column}))
    assert values(session, exp.column("value")) == column.to_pylist()


def test_polars_frames_load_and_a_second_load_replaces_the_first(session: Session) -> None:
    session.load("given", pa.table({"position": [1], "value": ["old"]}))
    session.load("given", pl.DataFrame({"position": [1, 2], "value": ["new", None]}).to_arrow())
    assert values(session, exp.column("value")) == ["new", None]


def test_a_stream_keeps_order_types_and_bounds(session: Session) -> None:
    session.load("given", pa.table({"n": range(2500)}))
    columns = [
        "n",
        "cast(n as decimal(12, 2)) as amount",
        "cast('2026-01-05 12:00:00' as timestamp) as at",
        "n > 3 as is_large",
    ]
    reader = session.stream(select(*columns).from_("given").order_by("n desc"), 1000)
    batches = list(reader)
    assert max(batch.num_rows for batch in batches) <= 2048, "DuckDB rounds up to its vectors"
    table = pa.Table.from_batches(batches)
    assert table.column("n").to_pylist() == list(range(2499, -1, -1))
    assert table.schema.field("amount").type == pa.decimal128(12, 2)
    assert table.schema.field("at").type == pa.timestamp("us")
    assert table.schema.field("is_large").type == pa.bool_()


def test_a_transaction_is_all_or_nothing(session: Session) -> None:
    session.run("create table kept (n integer)")

    def write_and_stop() -> None:
        with session.transaction():
            session.run("insert into kept values (?)", [1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    with session.transaction():
        session.run("insert into kept values (?)", [2])
    assert session.rows("select n from kept") == [(2,)]


def test_parameters_are_values_whatever_they_hold(session: Session) -> None:
    session.run("create table kept (a varchar, b varchar)")
    session.run("insert into kept values (?, ?)", ["100 % '; drop table kept; --", None])
    assert session.rows("select a, b from kept where a like '100 %' and a <> ?", ["x"]) == [
        ("100 % '; drop table kept; --", None)
    ]


def test_columns_of_what_is_there_and_of_what_is_not(session: Session) -> None:
    session.run("create schema audiences")
    session.run('create table audiences.aud_x (person_id varchar, "revenue" decimal(12, 2))')
    session.run("create view audiences.aud_y as select person_id from audiences.aud_x")
    assert list(session.columns(Relation(schema="audiences", name="aud_x"))) == ["person_id", "revenue"]
    assert list(session.columns(Relation(schema="audiences", name="aud_y"))) == ["person_id"]
    assert session.columns(Relation(schema="audiences", name="aud_z")) == {}
    assert session.columns(Relation(schema="nowhere", name="aud_x")) == {}


def test_a_missing_relation_says_what_to_run(warehouse: Warehouse) -> None:
    with pytest.raises(RelationMissing, match="dbt build"), warehouse.write() as session:
        session.rows("select * from audiences.aud_nobody")


def test_preparing_twice_changes_nothing(warehouse: Warehouse, store: Store) -> None:
    ledger.prepare(warehouse)
    store.execute("insert into activation.merge_mark values ('s', 'j', 7)")
    ledger.prepare(warehouse)
    assert store.query("select seq from activation.merge_mark") == [(7,)]


def test_what_is_offered_is_read_by_every_statement(session: Session) -> None:
    given = pa.table(
        {"n": [1, 2, 3], "marks": pa.array([[1, 2], None, []], pa.list_(pa.int32())), "text": ["a", None, ""]}
    )
    with session.offer("offered", given.to_reader):
        for _ in range(2):
            assert session.rows("select n, marks, text from offered order by n") == [
                (1, [1, 2], "a"),
                (2, None, None),
                (3, [], ""),
            ]


def test_a_mark_tells_values_apart_and_nulls_too(session: Session, warehouse: Warehouse) -> None:
    give_texts(session)
    marks = values(session, warehouse.mark(exp.column("text")))
    assert len(set(marks)) == len(TEXTS)
    assert all(isinstance(mark, int) and 0 <= mark < 2**16 for mark in marks)
    [(of_null,)] = session.rows(select(warehouse.mark(exp.cast(exp.null(), "text"))))
    assert of_null not in marks


@pytest.mark.parametrize("count", [1, 44, 45, 100])
def test_fingerprints_are_made_of_one_text_however_many_values(session: Session, count: int) -> None:
    given = [("", None, "é|~", "12:")[n % 4] for n in range(count)]
    session.load(
        "given", pa.table({f"c{n}": pa.array([value], pa.string()) for n, value in enumerate(given)})
    )
    text = canonical(exp.Literal.string("first"), [exp.column(f"c{n}") for n in range(count)])
    expected = "first" + "".join("~" if value is None else f"{len(value)}:{value}" for value in given)
    assert session.rows(select(text).from_("given")) == [(expected,)]


def test_a_hash_of_texts_tells_order_nulls_and_seeds_apart(session: Session, warehouse: Warehouse) -> None:
    lists: list[tuple[str | None, str | None]] = [
        ("a", "b"), ("b", "a"), ("a,b", ""), ("a", ",b"), ("", None), (None, ""), (None, None), ("", ""),
    ]  # fmt: skip
    left, right = zip(*lists, strict=True)
    session.load("given", pa.table({"position": range(len(lists)), "left": left, "right": right}))
    texts = [exp.column("left", quoted=True), exp.column("right", quoted=True)]
    first, again, other = (values(session, warehouse.text_hash(seed, texts)) for seed in (0, 0, 1))
    assert first == again
    assert len({*first, *other}) == 2 * len(lists)


PLANNED = [
    ("1", "a", "added", "x"),
    ("2", "b", "added", "y"),
    ("3", "c", "changed", "z"),
    ("4", "d", "removed", None),
]


def content_hash(
    session: Session, warehouse: Warehouse, path: Path, rows: Sequence[Sequence[str | None]], urgent: int = 0
) -> str:
    """Of a plan with these rows, the first of them urgent."""
    names = ("row_key", "identity", "verdict", "payload_hash")
    columns = {
        name: pa.array(column, pa.string())
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    flags = {
        "position": range(len(rows)),
        "is_planned": [True] * len(rows),
        "is_urgent": [n < urgent for n in range(len(rows))],
    }
    session.load("rows_to_freeze", pa.table({**flags, **columns}))
    hashes = [
        exp.alias_(warehouse.text_hash(seed, [exp.column(name) for name in names]), content)
        for seed, content in enumerate(CONTENT)
    ]
    query = select("is_planned", "is_urgent", *names, *hashes).from_("rows_to_freeze").order_by("position")
    return freeze([session.stream(query, 2)], path / "plan.parquet").content_hash


def test_an_approval_binds_to_the_rows_in_whatever_order_they_come(
    session: Session, warehouse: Warehouse, tmp_path: Path
) -> None:
    approved = content_hash(session, warehouse, tmp_path, PLANNED)
    assert content_hash(session, warehouse, tmp_path, PLANNED[::-1]) == approved
    withdrawn = [("9", "e", "removed", None), *PLANNED]
    assert content_hash(session, warehouse, tmp_path, withdrawn, urgent=1) == approved


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([("1", "b", "added", "x"), ("2", "a", "added", "y"), *PLANNED[2:]], id="identities-swapped"),
        pytest.param([("1", "a", "added", "y"), ("2", "b", "added", "x"), *PLANNED[2:]], id="payloads-swapped"),
        pytest.param([*PLANNED, PLANNED[0]], id="a-row-twice"),
        pytest.param([*PLANNED[1:], PLANNED[1]], id="a-row-instead-of-another"),
        pytest.param(PLANNED[1:], id="a-row-less"),
        pytest.param([*PLANNED[:3], ("4", "d", "changed", None)], id="another-operation"),
        pytest.param([*PLANNED[:3], ("4", "d", "removed", "")], id="a-payload-that-is-empty"),
    ],
)  # fmt: skip
def test_an_approval_binds_to_no_other_rows(
    session: Session, warehouse: Warehouse, tmp_path: Path, rows: Sequence[Sequence[str | None]]
) -> None:
    approved = content_hash(session, warehouse, tmp_path, PLANNED)
    assert content_hash(session, warehouse, tmp_path, rows) != approved
