"""What only a file has: layouts of other versions, a disk that is full, modes, the kernel's lock."""

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
from tests.engine.world import FakeClock
from tests.journal.conftest import RUN, SYNC, Journals, claimed, save_run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def opened(file: Path) -> Journal:
    return Journal(SQLiteStore(file), audit_key=b"k", key_check="c", now=FakeClock().now)


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


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_journal_of_another_version_is_not_guessed_at(file: Path, version: int) -> None:
    opened(file).close()
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"pragma user_version = {version}")
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
