"""The code location. Loading it reads YAML and dbt's manifest, and opens neither warehouse nor network."""

from __future__ import annotations

import dagster as dg

from dagster_project.defs import dbt
from dagster_project.defs.alerts import ALERTS
from dagster_project.defs.checks import suite_check
from dagster_project.defs.jobs import JOBS
from dagster_project.defs.schedules import SCHEDULES
from dagster_project.defs.sensors import raw_data_sensor, source_tables
from dagster_project.defs.sources import SOURCES
from dagster_project.defs.suites import audience_suites, profiles_suite
from dagster_project.defs.syncs import sync_asset, sync_key
from dagster_project.resources import Activations, Warehouse, project


def build() -> dg.Definitions:
    """Everything that Dagster knows, from what the project's files say."""
    here = project()
    models = dbt.dbt_project(here)
    manifest = dbt.read_manifest(models)
    translator = dbt.LayerTranslator([sync_key(name) for name in here.syncs])
    gates = [
        dbt.model_key(manifest, name) for name in (here.settings.dbt.eligibility, here.settings.dbt.holdouts)
    ]
    syncs = [sync_asset(sync, here, gates) for sync in here.syncs.values()]
    return dg.Definitions(
        assets=[*SOURCES, *dbt.models_as_assets(models, manifest, translator), *syncs],
        asset_checks=[suite_check(suite) for suite in (profiles_suite(), *audience_suites(manifest))],
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=[raw_data_sensor(source_tables(manifest)), *ALERTS],
        executor=dg.in_process_executor,
        resources={
            "warehouse": Warehouse(path=str(here.warehouse_path)),
            "activations": Activations(root=str(here.root)),
            "dbt": dbt.dbt_cli(models),
        },
    )


defs = build()
