"""What only a file does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlglot import select

from activations import ledger
from activations.warehouses import DuckDBWarehouse
from activations.warehouses.duckdb import (
    MOST_MEMORY,
    READING_MEMORY,
    WRITING_MEMORY,
    WRITING_THREADS,
    DuckDBSession,
)


def _bytes(setting: str) -> float:
    number, unit = setting.split()
    return float(number) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]


def _memory_of(session: DuckDBSession) -> tuple[int, float]:
    [(threads, memory)] = session.rows("select current_setting('threads'), current_setting('memory_limit')")
    return int(threads), _bytes(memory)


def test_memory_is_limited_unless_the_project_says_otherwise(tmp_path: Path) -> None:
    for given, expected in ((None, WRITING_THREADS * WRITING_MEMORY), ("300MB", 300_000_000)):
        with DuckDBWarehouse(tmp_path / "w.duckdb", memory_limit=given).write() as session:
            assert _memory_of(session) == (WRITING_THREADS, pytest.approx(expected, rel=0.01))


def test_every_thread_that_reads_has_memory_to_work_with(tmp_path: Path) -> None:
    """On a machine of many cores a first sync of a hundred columns would end with "out of memory"."""
    warehouse = DuckDBWarehouse(tmp_path / "w.duckdb")
    with warehouse.write():
        pass
    with warehouse.read() as session:
        threads, memory = _memory_of(session)
    assert memory == pytest.approx(min(threads * READING_MEMORY, MOST_MEMORY), rel=0.01)


def test_what_does_not_fit_is_spilled_where_only_its_owner_looks_and_then_gone(tmp_path: Path) -> None:
    with DuckDBWarehouse(tmp_path / "w.duckdb", memory_limit="20MB").write() as session:
        session.keep("large", select("range as n", "md5(range::varchar) as text").from_("range(2000000)"))
        folders = [path for path in tmp_path.iterdir() if path.is_dir()]
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700]
        assert any(folders[0].iterdir()), "it did spill"
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_hashes_of_the_ledger_are_stored_as_they_are(tmp_path: Path) -> None:
    """Trying to compress them takes a quarter of a large merge's time."""
    warehouse = DuckDBWarehouse(tmp_path / "w.duckdb")
    ledger.prepare(warehouse)
    with warehouse.write() as session:
        session.run(
            "insert into activation.sync_snapshot (sync, primary_key, identity, payload_hash, acked_run_id, acked_at) "
            "select 's', range::varchar, md5(range::varchar), md5(range::varchar), 'r', now()::timestamp from range(200000)"
        )
        session.run("checkpoint")
        found = session.rows(
            "select column_name, list(distinct compression) from pragma_storage_info('activation.sync_snapshot') "
            "where segment_type = 'VARCHAR' group by column_name"
        )
    stored = dict(found)
    assert stored["identity"] == stored["payload_hash"] == ["Uncompressed"]
    assert stored["acked_run_id"] != ["Uncompressed"]


def test_planning_and_merging_import_no_pandas() -> None:
    """Half a second and 50 MB: pyarrow imports it as soon as it is handed Python's own objects."""
    code = (
        "import sys; from tests.engine.world import World; from pathlib import Path; import tempfile\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    world = World(Path(folder)).add('a', 'b'); world.run(); world.set('a', score=2).drop('b'); world.run()\n"
        "    assert world.run().counts.unchanged == 1\n"
        "sys.exit('pandas' in sys.modules)"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith(("ACTIVATIONS_", "DBT_"))}
    assert subprocess.run([sys.executable, "-c", code], env=own, check=False).returncode == 0
