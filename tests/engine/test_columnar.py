"""Many rows at a time is the same as one by one, only faster."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unicodedata import normalize

import duckdb
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from activations.config import FieldMapping, OnNull
from activations.delivery.columns import Preparation, weight
from activations.delivery.consent import Refusals
from activations.delivery.rows import Rows
from activations.delivery.sealing import Sealer
from activations.destinations import webhook
from activations.destinations.webhook import SignedWebhook, WebhookConfig, WebhookTarget
from activations.digests import Digester, forms_of_identity
from activations.errors import BatchRefused
from activations.model import AllDelivered, Batch, Outcome, Request, Response, SyncMode
from activations.planning import PlanFile, PlanRow, PlanSlice, planfile
from activations.planning.planfile import Lines, Totals, Window
from tests.engine.world import World

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
HOOK = SignedWebhook(
    WebhookConfig(url="https://hooks.example.com/a", signing_secret=SECRET),  # type: ignore[arg-type]
    WebhookTarget(),
)
DUCKDB = duckdb.connect()
DIGESTS = {
    use: Digester.for_use(b"k" * 32, use) for use in ("pseudonyms", "messages", "suppressions", "batches")
}


def a_sync(fields: Mapping[str, OnNull] | None = None, *, mode: SyncMode = SyncMode.MIRROR) -> Any:
    mappings = {name: FieldMapping(column="any", on_null=rule) for name, rule in (fields or {}).items()}
    return SimpleNamespace(name="people", mode=mode, fields=mappings, capabilities=HOOK.capabilities)


def rows_of(sync: Any) -> Rows:
    return Rows(sync=sync, place="here", sealer=Sealer(b"k" * 32, "people"), **DIGESTS)


def prepared(sync: Any, frame: pl.DataFrame) -> PlanSlice:
    return PlanSlice.whole(Preparation(sync, HOOK.write)(frame.with_row_index("position", offset=7)))


def a_plan(
    rows: int, *, verdict: str = "added", sealed: bytes | None = None, **columns: pl.Series
) -> pl.DataFrame:
    """A plan's columns; `columns` by their names in the file."""
    plain = {
        "row_key": [f"p{n}" for n in range(rows)],
        "identity": [f"{n:032x}" for n in range(rows)],
        "pseudonym": [DIGESTS["pseudonyms"](f"{n:032x}") for n in range(rows)],
        "verdict": [verdict] * rows,
        "payload_hash": [f"{n + 1:032x}" for n in range(rows)],
        "destination_key": pl.Series([None] * rows, dtype=pl.String),
        "sealed": pl.Series([sealed] * rows, dtype=pl.Binary),
    }
    return pl.DataFrame(plain | columns)


def sent(batch: Batch) -> dict[str, Any]:
    request = next(HOOK.exchange(batch))
    assert isinstance(request, Request)
    return dict(json.loads(request.body or b"", parse_float=Decimal))


def one_by_one(batch: Batch) -> Batch:
    return replace(batch, written=None)


# -- what is sent ------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
awkward = st.sampled_from(['"', "\\", "\x00\x1f\x7f", "null", '","x":null', "\u2028é😀", "{}", "\n\t"])
VALUES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (pl.String, texts | awkward),
    "small": (pl.Int8, st.integers(-128, 127)),
    "integer": (pl.Int64, st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (pl.UInt64, st.integers(0, 2**64 - 1)),
    "flag": (pl.Boolean, st.booleans()),
    "money": (pl.Decimal(12, 2), st.decimals(-(10**9), 10**9, places=2)),
    "huge": (pl.Decimal(38, 0), st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
    "tiny": (pl.Decimal(20, 9), st.decimals(-1, 1, places=9)),
    "day": (pl.Date, st.dates()),
    "moment": (pl.Datetime("us"), st.datetimes()),
    "fine": (pl.Datetime("ns"), st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1))),
    "coarse": (pl.Datetime("ms"), st.datetimes().map(lambda d: d.replace(microsecond=7000))),
    "zoned": (pl.Datetime("us", "Europe/Berlin"), st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1))),
    "nothing": (pl.Null, st.none()),
}


@st.composite
def plans(draw: st.DrawFn) -> tuple[Any, pl.DataFrame]:
    """Fields of every type under every name, some of them null, of rows that the destination may have named."""
    size = draw(st.integers(1, 6))

    def column(dtype: Any, values: st.SearchStrategy[Any]) -> pl.Series:
        found = draw(st.lists(values | st.none(), min_size=size, max_size=size))
        if dtype == pl.Datetime("us", "Europe/Berlin"):
            return pl.Series(found, dtype=pl.Datetime("us")).dt.replace_time_zone("UTC").cast(dtype)
        return pl.Series(found, dtype=dtype)

    fields = draw(
        st.dictionaries(
            texts | awkward, st.tuples(st.sampled_from(list(VALUES)), st.sampled_from(OnNull)), max_size=5
        )
    )
    columns = {f"f.{name}": column(*VALUES[kind]) for name, (kind, _) in fields.items()}
    columns |= {f"i.{name}": column(pl.String, texts) for name in ("email", "phone")}
    columns["destination_key"] = column(pl.String, texts)
    operation = draw(st.sampled_from(["added", "changed"]))
    return a_sync({name: rule for name, (_, rule) in fields.items()}), a_plan(
        size, verdict=operation, **columns
    )


@given(plans())
def test_a_batch_written_in_columns_says_what_its_rows_say(plan: tuple[Any, pl.DataFrame]) -> None:
    sync, frame = plan
    batch = rows_of(sync).batch("run1", prepared(sync, frame))
    assert batch.written is not None
    assert sent(batch) == sent(one_by_one(batch))


def test_every_type_is_written_as_it_is_one_by_one() -> None:
    columns = {
        "f.money": pl.Series([Decimal("12.50"), Decimal("-0.10"), None], dtype=pl.Decimal(12, 2)),
        "f.tiny": pl.Series([Decimal("0.000000001"), Decimal("0"), None], dtype=pl.Decimal(20, 9)),
        "f.day": pl.Series([date(2017, 9, 1), date(1, 1, 1), None]),
        "f.moment": pl.Series([datetime(2017, 9, 1, 10), datetime(2017, 9, 1, 10, 0, 0, 120_000), None]),
        "f.flag": pl.Series([True, False, None]),
        "i.email": pl.Series(["a@example.com", None, "c@example.com"]),
    }
    rules = dict.fromkeys(("money", "tiny", "day", "moment", "flag"), OnNull.OMIT) | {"money": OnNull.CLEAR}
    sync = a_sync(rules)
    changes = sent(rows_of(sync).batch("run1", prepared(sync, a_plan(3, **columns))))["changes"]
    assert [change["fields"] for change in changes] == [
        {"money": "12.50", "tiny": "1E-9", "day": "2017-09-01", "moment": "2017-09-01T10:00:00+00:00", "flag": True},
        {"money": "-0.10", "tiny": "0E-9", "day": "0001-01-01", "moment": "2017-09-01T10:00:00.120000+00:00", "flag": False},
        {"money": None},
    ]  # fmt: skip
    assert [change["identifiers"] for change in changes] == [
        {"email": "a@example.com"},
        {},
        {"email": "c@example.com"},
    ]


def test_a_removal_has_neither_fields_nor_identifiers() -> None:
    sync = a_sync({"score": OnNull.CLEAR})
    frame = a_plan(
        2, verdict="removed", **{"f.score": pl.Series([None, 3]), "i.email": pl.Series(["a", None])}
    )
    batch = rows_of(sync).batch("run1", prepared(sync, frame))
    assert batch.written is not None
    assert [(c["identifiers"], c["fields"]) for c in sent(batch)["changes"]] == [({}, {})] * 2


def test_a_sealed_identifier_is_written_row_by_row() -> None:
    sync = a_sync()
    sealed = rows_of(sync).sealer.seal({"email": "a@example.com"})
    batch = rows_of(sync).batch("run1", prepared(sync, a_plan(1, verdict="removed", sealed=sealed)))
    assert batch.written is None
    assert sent(batch)["changes"][0]["identifiers"] == {"email": "a@example.com"}


@pytest.mark.parametrize("mode", SyncMode)
def test_the_key_of_a_batch_is_that_of_its_rows(mode: SyncMode) -> None:
    sync = a_sync(mode=mode)
    frame = a_plan(3, payload_hash=pl.Series(["x", None, "y"]))
    rows = prepared(sync, frame)
    parts = [p for r in rows.rows for p in (r.row_key, r.identity, r.operation.value, r.payload_hash or "")]
    occasion = [] if mode is SyncMode.APPEND else ["run1"]
    expected = DIGESTS["batches"](*occasion, *parts)
    assert rows_of(sync).batch("run1", rows).idempotency_key == expected


def test_the_weight_of_a_batch_is_at_least_its_body() -> None:
    columns = {
        "i.email": pl.Series(["a@example.com", "é" * 30, None]),
        "f.score": pl.Series([1, None, 3]),
        "f.note": pl.Series(['"quoted"', "", None]),
    }
    sync = a_sync({"score": OnNull.OMIT, "note": OnNull.CLEAR})
    frame = a_plan(3, **columns).with_row_index("position")
    for write in (HOOK.write, lambda _: None):
        rows = PlanSlice.whole(Preparation(sync, write)(frame))
        body = next(HOOK.exchange(rows_of(sync).batch("run1", rows))).body
        assert len(body) <= weight(rows) <= len(body) + 2000


# -- what is answered --------------------------------------------------------------------------------------------


def a_batch_of(size: int) -> Batch:
    sync = a_sync()
    return rows_of(sync).batch("run1", prepared(sync, a_plan(size)))


def answer(batch: Batch, *items: Any, separators: tuple[str, str] | None = None) -> Sequence[Any]:
    flow = HOOK.exchange(batch)
    next(flow)
    with pytest.raises(StopIteration) as finished:
        flow.send(Response(status=200, body=json.dumps({"results": items}, separators=separators).encode()))
    return finished.value.value  # type: ignore[no-any-return]


def ok(change: Any) -> dict[str, str]:
    return {"key": change.pseudonym, "status": "ok"}


@pytest.mark.parametrize("separators", [None, (",", ":")], ids=["spaced", "compact"])
def test_a_yes_to_every_row_makes_no_row(separators: tuple[str, str] | None) -> None:
    batch = a_batch_of(3)
    results = answer(batch, *map(ok, a_batch_of(3).changes), separators=separators)
    assert isinstance(results, AllDelivered)
    assert "_made" not in vars(batch.changes)
    assert [(r.key, r.outcome) for r in results] == [(str(n), Outcome.DELIVERED) for n in (7, 8, 9)]


def test_a_compact_yes_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = a_batch_of(3)
    items = [*map(ok, batch.changes)]
    monkeypatch.setattr(webhook, "json_object", lambda _: {"accepted": False})
    assert isinstance(answer(batch, *items, separators=(",", ":")), AllDelivered)
    with pytest.raises(BatchRefused):
        answer(batch, *items)


def test_anything_less_is_read_row_by_row() -> None:
    batch = a_batch_of(2)
    first, second = map(ok, batch.changes)
    unsure = {
        "one is missing": [first],
        "one is no": [first, second | {"status": "rejected"}],
        "one has no status": [first, {"key": second["key"]}],
        "one is somebody else's": [first, second | {"key": "x"}],
        "one came twice": [first, second, second],
        "one is no object": [first, None],
        "another order": [second, first],
    }
    for separators in (None, (",", ":")):
        found = {what: answer(batch, *items, separators=separators) for what, items in unsure.items()}
        assert not [what for what, results in found.items() if isinstance(results, AllDelivered)]
        assert {r.outcome for r in found["another order"]} == {Outcome.DELIVERED}
        assert [r.outcome for r in found["one is no"]] == [Outcome.DELIVERED, Outcome.REJECTED]


def test_a_batch_that_goes_well_never_becomes_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_rows(_record: object) -> object:
        raise AssertionError("somebody looked at a single row")

    monkeypatch.setattr(planfile, "_row", no_rows)
    run = world.add("a", "b", "c").run()
    assert (run.delivered, world.other.emails) == (3, {"a@example.com", "b@example.com", "c@example.com"})


@pytest.mark.parametrize("mode", ["mirror", "append"])
def test_a_row_has_one_name_whoever_works_it_out(make_world: Callable[..., World], mode: str) -> None:
    world = make_world(mode=mode)
    engine = world.engine()
    world.add("a", "b").run()
    names = engine.rows(engine.project.sync("people")).pseudonyms
    held = world.query("select identity, primary_key from activation.sync_snapshot")
    parts = [(identity, key) if mode == "append" else (identity,) for identity, key in held]
    assert {key for _, key, _ in world.other.received} == {names(*some) for some in parts}


def test_two_receivers_cannot_join_their_people_by_our_names(world: World) -> None:
    engine = world.engine()
    people = engine.project.sync("people")
    names = [engine.rows(replace(people, name=name)).pseudonyms("one identity") for name in ("people", "vip")]
    assert len({*names, engine.digester("suppression")("one identity")}) == 3


# -- who said no -------------------------------------------------------------------------------------------------

names = st.text(st.sampled_from("abIİiK ſﬁＡ.@9"), min_size=1, max_size=4)


def suppressed_in_sql(rows: PlanSlice, digests: frozenset[str]) -> list[int]:
    """What planning does: the key as it stands, identifiers trimmed and in lower case, by a warehouse's functions."""
    return [r.position for r in rows.rows if {DIGESTS["suppressions"](f) for f in forms_in_sql(r)} & digests]


def forms_in_sql(row: PlanRow) -> set[str]:
    forms = {row.row_key}
    for value in filter(None, row.identifiers.values()):
        forms |= set(DUCKDB.execute("select trim($1), lower(trim($1))", [value]).fetchone() or ())
    return forms


VARIATIONS: Sequence[Callable[[str], str]] = (
    str,
    str.lower,
    str.upper,
    str.casefold,
    partial(normalize, "NFKC"),
)
"""What a form field may have made of a name."""


@given(
    people=st.lists(st.tuples(names, names | st.none()), min_size=1, max_size=4),
    known=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(VARIATIONS)), max_size=2),
    new=st.lists(names, max_size=1),
)
@example(people=[("B", None)], known=[(0, False, str.lower)], new=[])
@example(people=[("b", "Ｂ@a")], known=[(0, True, partial(normalize, "NFKC"))], new=[])
@example(people=[("b", "ß")], known=[(0, True, str.casefold)], new=[])
def test_asking_only_where_planning_could_not_refuses_exactly_whom_asking_everybody_refuses(
    people: list[tuple[str, str | None]], known: list[Any], new: list[str]
) -> None:
    said_no = [vary(people[n % len(people)][by_address] or "") for n, by_address, vary in known]
    planned, fresh = (
        frozenset(DIGESTS["suppressions"](form) for name in some for form in forms_of_identity(name))
        for some in (said_no, new)
    )
    person, email = zip(*people, strict=True)
    columns = {"row_key": pl.Series(person), "i.email": pl.Series(email, dtype=pl.String)}
    everybody = prepared(a_sync(), a_plan(len(people), **columns))
    batch = everybody.without(suppressed_in_sql(everybody, planned))
    rows = rows_of(a_sync())
    asked = Refusals(rows.refused, planned).among(batch, planned | fresh)
    assert asked == rows.refused(batch.rows, planned | fresh)


def test_plain_rows_are_not_compared_again_with_what_planning_knew() -> None:
    sync = a_sync()
    frame = a_plan(3, **{"i.email": pl.Series(["a@example.com", "ÄB@example.com", None])})
    looked_at: list[int] = []

    def compare(rows: Sequence[Any], _digests: frozenset[str]) -> list[int]:
        looked_at.extend(row.position for row in rows)
        return []

    batch, old = prepared(sync, frame), frozenset({"old"})
    refusals = Refusals(compare, old)
    refusals.among(batch, frozenset({"old"}))
    assert looked_at == [8]
    refusals.among(batch, frozenset({"old", "new"}))
    assert looked_at == [8, 7, 8, 9]


def test_removals_are_never_asked() -> None:
    sync = a_sync()
    frame = a_plan(2, verdict="removed", row_key=pl.Series(["Ä", "b"]))
    everyone = frozenset(DIGESTS["suppressions"](form) for form in ("Ä", "ä", "b"))
    assert Refusals(rows_of(sync).refused, frozenset()).among(prepared(sync, frame), everyone) == []


# -- what is read ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planfile, "WINDOW_ROWS", 7)


@pytest.fixture
def file(tmp_path: Path, small_windows: None) -> PlanFile:
    a_plan(40).write_parquet(tmp_path / "plan.parquet")
    return PlanFile(tmp_path / "plan.parquet")


def with_names_and_lengths(frame: pl.DataFrame) -> Window:
    keys = frame["row_key"]
    return Window(
        frame=frame, texts={"names": Lines(keys + ",")}, totals={"bytes": Totals(keys.str.len_bytes())}
    )


def test_slices_are_the_same_in_any_order_and_by_many_threads(file: PlanFile) -> None:
    reader = file.open(with_names_and_lengths)
    spans = [(first, count) for count in (1, 3, 7, 16) for first in range(40 - count + 1)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda span: reader.slice(*span), spans[::-1] + spans))
    for (first, count), some in zip(spans[::-1] + spans, found, strict=True):
        assert [*some.positions] == [row.position for row in some.rows] == list(range(first, first + count))
        says_the_same(some, [f"p{n}" for n in range(first, first + count)])


@given(st.integers(0, 30), st.integers(1, 10), st.frozensets(st.integers(0, 40)))
def test_what_is_left_of_a_slice_says_what_its_rows_say(first: int, count: int, gone: frozenset[int]) -> None:
    with TemporaryDirectory() as folder:
        a_plan(40).write_parquet(Path(folder) / "plan.parquet")
        some = (
            PlanFile(Path(folder) / "plan.parquet")
            .open(with_names_and_lengths)
            .slice(first, count)
            .without(gone)
        )
    left = [n for n in range(first, first + count) if n not in gone]
    assert [*some.positions] == left
    says_the_same(some, [f"p{n}" for n in left])


def says_the_same(some: PlanSlice, keys: list[str]) -> None:
    assert [row.row_key for row in some.rows] == keys
    assert str(some.text("names"), "utf-8") == "".join(f"{key}," for key in keys)
    assert (len(some), some.total("bytes")) == (len(keys), len("".join(keys)))


def test_a_plan_that_is_sent_in_order_is_read_once(file: PlanFile) -> None:
    read: list[int] = []

    def note(frame: pl.DataFrame) -> Window:
        read.append(frame.height)
        return Window(frame=frame)

    reader = file.open(note)
    for first in range(0, 40, 2):
        reader.slice(first, min(2, 40 - first))
    assert read == [7, 7, 7, 7, 7, 5]


def test_of_long_rows_fewer_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planfile, "WINDOW_BYTES", 10_000)
    long = pl.Series(["".join(map(chr, range(n, n + 2000))) for n in range(100, 140)])
    a_plan(40, **{"f.text": long}).write_parquet(tmp_path / "plan.parquet", compression="uncompressed")
    read: list[int] = []

    def note(frame: pl.DataFrame) -> Window:
        read.append(frame.height)
        return Window(frame=frame)

    PlanFile(tmp_path / "plan.parquet").open(note).slice(0, 1)
    assert read
    assert read[0] <= 5


def test_windows_are_read_before_anybody_needs_them(file: PlanFile) -> None:
    """The one after the next, since somebody else is reading the next one: two are worked out at a time."""
    read: list[int] = []

    def note(frame: pl.DataFrame) -> Window:
        read.extend(frame["position"].head(1))
        return Window(frame=frame)

    reader = file.open(note)
    found = []
    for first in range(0, 14, 2):
        reader.slice(first, 2)
        found.append(read.copy())
    ahead, both = [0, 14], [0, 14, 7, 21]
    assert found == [ahead, ahead, ahead, both, both, both, both]
