"""What only a file has: layouts of older versions, a disk that is full, modes, the kernel's lock."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from activations.errors import ActivationsError
from activations.journal import Journal
from activations.journal.sqlite import SQLiteStore
from activations.journal.store import VERSION
from activations.model import Outcome
from tests.engine.world import FakeClock
from tests.journal.conftest import BY, RUN, SYNC, Journals, claimed, outcome, recorded, save_run

OLD = Path(__file__).parent / "layout_1.sql"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def opened(file: Path) -> Journal:
    return Journal(SQLiteStore(file), audit_key=b"k", key_check="c", now=FakeClock().now)


def layout(file: Path) -> set[tuple[str, str, str, int, str | None]]:
    """Table, column, type, not null, default."""
    with closing(sqlite3.connect(file)) as db:
        return set(
            db.execute(
                "select m.name, c.name, c.type, c.[notnull] or c.pk, c.dflt_value from sqlite_master as m, pragma_table_info(m.name) as c"
            )
        )


def indexes(file: Path) -> set[tuple[str]]:
    with closing(sqlite3.connect(file)) as db:
        return set(db.execute("select sql from sqlite_master where type = 'index' and sql is not null"))


@pytest.fixture
def old(file: Path) -> Path:
    """Of a sync of messages whose engine died after a batch with one refused and one message in doubt."""
    with closing(sqlite3.connect(file)) as db:
        db.executescript(OLD.read_text())
    return file


def test_a_journal_of_layout_1_goes_on(old: Path) -> None:
    with closing(opened(old)) as journal:
        assert journal.verify_audit() == 2
        assert journal.suppressed_digests("email") == {"d1"}
        [unmerged] = journal.unmerged(SYNC)
        assert (unmerged.outcome_seq, unmerged.owner) == (7, "unknown")
        with journal.lease(SYNC, "host:1") as lease:
            assert lease.epoch == 4
            doors = dict(enumerate(["sent", "refused", "doubt", "flight"]))
            closed = claimed(journal, lease, run_id="run-0", count=4, messages=doors).refused
            assert [found for found, _ in closed.values()] == [
                Outcome.DELIVERED,
                Outcome.REJECTED,
                Outcome.UNKNOWN,
                Outcome.UNKNOWN,
            ]
            save_run(journal, lease)
            recorded(journal, lease, outcome(0, Outcome.DELIVERED))
            assert journal.unmerged(SYNC)[-1].outcome_seq == 8
            assert journal.retry_rejected(lease, **BY) == 1
            assert [row.row_key for row in journal.open_rows(SYNC)] == ["p2"]
            with pytest.raises(ActivationsError, match="did not note to which row"):
                journal.mark_delivered(lease, "doubt", **BY)
        assert journal.verify_audit() == 3


def test_an_older_layout_becomes_what_a_new_journal_has(old: Path, tmp_path: Path) -> None:
    opened(old).close()
    opened(tmp_path / "new.sqlite3").close()
    added = {("run", "owner", "TEXT", 1, "'unknown'")}  # a column that is added needs a default
    assert {c for c in layout(old) if c not in added} == {
        c for c in layout(tmp_path / "new.sqlite3") if c[:2] != ("run", "owner")
    }
    assert indexes(old) == indexes(tmp_path / "new.sqlite3")


def test_a_step_that_fails_leaves_the_old_layout(old: Path) -> None:
    with closing(sqlite3.connect(old)) as db:
        db.execute("create table counter (stray integer)")
    before = layout(old)
    with pytest.raises(ActivationsError, match="cannot be used"):
        opened(old)
    assert layout(old) == before


def test_a_damaged_file_is_not_to_be_deleted_and_a_backup_has_its_price(file: Path) -> None:
    file.write_bytes(b"no database" * 1_000)
    with pytest.raises(
        ActivationsError, match=r"Do not delete it.*sent since that was made would be sent again"
    ):
        opened(file)


def test_what_the_machine_forbids_is_no_damage(file: Path) -> None:
    with closing(opened(file)) as journal:
        journal._store.run("pragma query_only = on")
        with (
            pytest.raises(ActivationsError, match="it can only be read. Let the user") as refused,
            journal.lease(SYNC, "host:1"),
        ):
            pass
    assert "backup" not in str(refused.value)


def test_a_journal_of_a_newer_version_is_not_guessed_at(file: Path) -> None:
    opened(file).close()
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"pragma user_version = {VERSION + 1}")
    with pytest.raises(ActivationsError, match="another version"):
        opened(file)


def test_only_its_owner_may_read_it(file: Path) -> None:
    with closing(opened(file)) as journal, journal.lease(SYNC, "host:1"):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.glob("*")}
    assert {name: mode & 0o077 for name, mode in modes.items() if name != "locks"} == dict.fromkeys(
        ("journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm"), 0
    )
    assert modes["locks"] == 0o700


def test_a_full_disk_keeps_what_was_acknowledged_and_nothing_else(on_sqlite: Journals) -> None:
    journal = on_sqlite.open()
    with journal.lease(SYNC, "host:1") as lease:
        save_run(journal, lease)
        journal._store.run("pragma max_page_count = 60")
        acknowledged: list[int] = []

        def claim_until_it_fails() -> None:
            while len(acknowledged) < 10_000:
                claim = claimed(journal, lease, messages={0: f"{len(acknowledged):0>2000}"})
                acknowledged.append(claim.batch_id)

        with pytest.raises(ActivationsError, match=r"cannot be used now: its disk is full\. Free it"):
            claim_until_it_fails()
        assert [b.batch_id for b in on_sqlite.open().in_flight(SYNC)] == acknowledged != []
        journal._store.run("pragma max_page_count = 10000")
        claimed(journal, lease)
        assert len(journal.in_flight(SYNC)) == len(acknowledged) + 1
    assert journal.run_ids(SYNC) == {RUN}
