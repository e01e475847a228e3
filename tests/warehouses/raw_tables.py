"""The raw tables of the demonstration in Postgres: made by DuckDB, carried over as Arrow."""

from __future__ import annotations

import duckdb
import psycopg
from psycopg import sql

from activations.warehouses.postgres import copy_into, create_table
from dagster_project.raw.load import RAW_TABLES, Scale, load_all


def load_into_postgres(dsn: str, scale: Scale) -> None:
    with duckdb.connect() as source, psycopg.connect(dsn) as target:
        load_all(source, scale)
        target.execute("create schema raw")
        for table in RAW_TABLES:
            data = source.sql(f"select * from raw.{table}").to_arrow_table()
            name = sql.Identifier("raw", table)
            create_table(target, name, data.schema)
            copy_into(target, name, data)
