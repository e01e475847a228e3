"""Three cuts through the same assets. All run in one process: a process per step would import the world each time."""

from __future__ import annotations

import dagster as dg

RAW = dg.AssetSelection.groups("raw")
SYNCS = dg.AssetSelection.groups("syncs")

pipeline = dg.define_asset_job(
    "pipeline",
    selection=dg.AssetSelection.all(),
    description="Everything: raw data, dbt, checks, syncs, monitoring.",
)
refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.all() - RAW,
    description="Everything but loading: for raw tables that something else writes or that were edited in place.",
)
syncs_only = dg.define_asset_job(
    "syncs_only", selection=SYNCS, description="Only deliver the difference from the audiences as they are."
)

JOBS = [pipeline, refresh, syncs_only]
