"""Raw tables and the ledger: where lineage begins."""

from __future__ import annotations

import os

import dagster as dg

from dagster_project.raw.load import RAW_TABLES, RawTable, Scale, load_raw
from dagster_project.resources import DUCKDB, Activations, Warehouse

SCALE = "ACTIVATIONS_DEMO_SCALE"
LEDGER = dg.AssetKey(["activation", "ledger"])


def demo_scale() -> Scale:
    """How much of the demo data is loaded: a small slice unless the environment says `full`."""
    wanted = os.environ.get(SCALE, Scale.SLICE.value)
    try:
        return Scale(wanted)
    except ValueError:
        known = ", ".join(scale.value for scale in Scale)
        raise dg.DagsterInvalidDefinitionError(f"{SCALE}={wanted}: unknown scale. Known: {known}") from None


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
        scale = demo_scale()
        with warehouse.connect() as connection:
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
