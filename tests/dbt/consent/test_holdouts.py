"""Once drawn, never drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
from dbt.cli.main import dbtRunner

from tests.dbt.consent.conftest import PROJECT


def test_assignments_outlive_a_full_refresh_and_newcomers_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIVATIONS_VAR", str(tmp_path))
    _profiles(tmp_path, 1000, "2017-09-01")
    _build(tmp_path)
    first = _assignments(tmp_path)
    share = sum(held for holdout, _, held, _ in first if holdout == "global_5pct") / 1000
    assert 0.03 < share < 0.07

    # Somebody tampers with the shares' effect: every old row is turned round, and must stay so.
    _query(tmp_path, "update eligibility.dim_holdouts set is_held_out = not is_held_out returning 1")
    _profiles(tmp_path, 1100, "2018-01-01")
    _build(tmp_path, "--full-refresh")

    second = _assignments(tmp_path)
    assert {(h, p, not held, at) for h, p, held, at in first} <= second
    assert len(second) == len(first) * 1.1


def test_two_holdouts_are_drawn_independently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVATIONS_VAR", str(tmp_path))
    _profiles(tmp_path, 4000, "2017-09-01")
    _build(tmp_path)
    both = """select count(*) from eligibility.dim_holdouts as a join eligibility.dim_holdouts as b using (person_id)
        where a.holdout = 'global_5pct' and b.holdout = 'loyal_email_20pct' and a.is_held_out and b.is_held_out"""
    # 5 % of 20 % of 4,000 are 40; the same draw twice would be 200.
    assert 20 < _query(tmp_path, both)[0][0] < 65


def _build(folder: Path, *arguments: str) -> None:
    flags = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    flags += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    select = ["--select", "holdout_definitions", "dim_holdouts"]
    built = dbtRunner().invoke(["--quiet", "run", *flags, *select, *arguments])
    assert built.success, built.exception


def _profiles(folder: Path, people: int, as_of: str) -> None:
    _query(
        folder,
        f"""create schema if not exists profiles; create schema if not exists staging;
        create or replace table profiles.dim_profiles as select 'p' || range as person_id from range({people});
        create or replace table staging.run_clock as select timestamp '{as_of}' as as_of""",
    )


def _assignments(folder: Path) -> set[tuple[Any, ...]]:
    return set(
        _query(folder, "select holdout, person_id, is_held_out, assigned_at from eligibility.dim_holdouts")
    )


def _query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        return connection.execute(sql).fetchall()
