"""Raw tables and the ledger: where lineage begins."""

from __future__ import annotations

import os

import dagster as dg
import duckdb

from activations.errors import ConfigError
from dagster_project.raw.load import RAW_TABLES, RawTable, Scale, held_scale, load_raw
from dagster_project.resources import DUCKDB, Activations, Warehouse

SCALE = "ACTIVATIONS_DEMO_SCALE"
LEDGER = dg.AssetKey(["activation", "ledger"])


def demo_scale(connection: duckdb.DuckDBPyConnection) -> Scale:
    """How much of the demo data to load: what the environment says, else what the warehouse holds, else all of it.

    A run that loads less than the one before it would take most people out of every audience.
    """
    wanted = os.environ.get(SCALE)
    if wanted is None:
        return held_scale(connection) or Scale.FULL
    try:
        return Scale(wanted)
    except ValueError:
        known = " or ".join(scale.value for scale in Scale)
        raise ConfigError(
            f"unknown scale {wanted}", key=SCALE, fix=f"Set it to {known}, or unset it"
        ) from None


def raw_asset(name: str, table: RawTable) -> dg.AssetsDefinition:
    """One raw table of the demo. Replace the data by your own and these assets go; the dbt sources stay."""

    @dg.asset(
        key=["raw", name],
        deps=[["raw", upstream] for upstream in table.depends_on],
        group_name="raw",
        kinds={DUCKDB, "python" if table.is_generated else "parquet"},
        description=table.description,
        tags={"generated": str(table.is_generated).lower()},
        pool=DUCKDB,
    )
    def load(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with warehouse.connect() as connection:
            scale = demo_scale(connection)
            rows = load_raw(connection, name, scale)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows,
                "scale": scale.value,
                "is_generated": table.is_generated,
            }
        )

    return load


@dg.asset(
    key=LEDGER,
    group_name="activation",
    kinds={DUCKDB},
    description=(
        "The engine's tables in schema `activation`: runs, changelog, snapshot of what destinations acknowledged, "
        "rejected records. Made when missing, never emptied; frequency caps and monitoring read them."
    ),
    pool=DUCKDB,
)
def ledger(activations: Activations) -> None:
    activations.engine().prepare()


SOURCES = [ledger, *(raw_asset(name, table) for name, table in RAW_TABLES.items())]
