"""The real job on the built slice, against the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from activations.runner import load_project
from dagster_project import local
from dagster_project.defs.checks import evaluate
from dagster_project.defs.suites import audience_suites, profiles_suite
from dagster_project.defs.syncs import sync_key
from dagster_project.resources import ROOT


@pytest.fixture
def definitions(built_project, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.Definitions]:
    """The code location over a copy of the built state folder, with a sandbox that answers."""
    var = built_project.var
    monkeypatch.setenv("ACTIVATIONS_VAR", str(var))
    monkeypatch.setenv("DBT_TARGET_PATH", str(var / "target"))
    from dagster_project.definitions import build  # loads everything: only the worker that needs it pays

    with local.sandbox(load_project(ROOT)) as sandbox:
        monkeypatch.setenv("ACTIVATIONS_SANDBOX_URL", sandbox.url)
        yield build()


def deliver(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, dg.AssetMaterialization]:
    """Run the job `syncs_only`; what each sync materialised."""
    job = definitions.get_repository_def().get_job("syncs_only")
    result = job.execute_in_process(instance=instance)
    return {e.asset_key.path[-1]: e.materialization for e in result.get_asset_materialization_events()}


def test_every_sync_delivers_once_and_shows_nobody(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    """Every address, number and name of the slice is a canary."""
    project = load_project(ROOT)
    first = deliver(definitions, instance)
    assert set(first) == set(project.syncs)
    assert all(shown.metadata["delivered"].value > 0 for shown in first.values())
    told = json.dumps([str(record.event_log_entry) for record in all_records(instance)])
    assert "delivered" in told
    assert not [word for word in people(project.warehouse_path) if word in told]
    second = deliver(definitions, instance)
    assert [shown.metadata["delivered"].value for shown in second.values()] == [0] * len(project.syncs)


def all_records(instance: dg.DagsterInstance) -> list[dg.EventLogRecord]:
    return [
        record
        for run in instance.get_runs()
        for record in instance.get_records_for_run(run.run_id, limit=5000).records
    ]


def people(warehouse: Path) -> set[str]:
    """What must not be seen; names only where both stand together, as single ones are ordinary words."""
    query = """
        select unnest([email, phone, first_name || ' ' || last_name]) as word from profiles.dim_profiles
        union select unnest([email, phone]) from staging.stg_crm__contacts
    """
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        found = {word for (word,) in connection.execute(query).fetchall() if word}
    assert len(found) > 300
    return found


def test_the_built_slice_meets_every_expectation(built_var: Path) -> None:
    manifest = json.loads((built_var / "target" / "manifest.json").read_text())
    suites = [profiles_suite(), *audience_suites(manifest)]
    assert len(suites) == 5
    with duckdb.connect(str(built_var / "warehouse.duckdb"), read_only=True) as connection:
        findings = {suite.model: list(evaluate(suite, connection)) for suite in suites}
    assert not [(model, f) for model, found in findings.items() for f in found if not f.held]
    assert min(map(len, findings.values())) >= 6


def test_a_withdrawn_consent_that_slipped_through_stops_the_sync(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    """Somebody suppressed is made eligible behind dbt's back: the check of the audience sees it before the sync."""
    project = load_project(ROOT)
    name, sync = next(iter(project.syncs.items()))
    with duckdb.connect(str(project.warehouse_path)) as connection:
        connection.execute(
            f"insert into consent.dim_suppressions by name select person_id, 'all' as channel "
            f"from audiences.{sync.audience} join eligibility.fct_eligibility using (person_id) "
            f"where is_eligible and channel = '{sync.channel}' limit 1"
        )
    keys = [dg.AssetKey(["audiences", sync.audience]), sync_key(name)]
    checks = dg.AssetSelection.checks(dg.AssetCheckKey(keys[0], "expectations"))
    job = dg.define_asset_job("guarded", dg.AssetSelection.assets(keys[1]) | checks)
    merged = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job]))
    result = (
        merged.get_repository_def()
        .get_job("guarded")
        .execute_in_process(instance=instance, raise_on_error=False)
    )
    assert not result.success
    assert instance.get_latest_materialization_event(keys[1]) is None
    (found,) = result.get_asset_check_evaluations()
    assert f"broken/nobody suppressed is eligible for {sync.channel}" in found.metadata
