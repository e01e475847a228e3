"""One module per warehouse. Everything that differs between warehouses in Python is behind `Warehouse`.

`activations.warehouses.postgres` needs the extra `postgres` and is imported only where it is used.
"""

from activations.warehouses.base import Session, Warehouse
from activations.warehouses.duckdb import DuckDBWarehouse

__all__ = ["DuckDBWarehouse", "Session", "Warehouse"]
