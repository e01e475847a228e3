"""dlt's way of sending a table to an HTTP API: a custom destination. Runs in dlt's own environment.

Set up to be as fast as it gets: Arrow from DuckDB, Parquet between its stages, enough files for every worker, one
session a thread.
"""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from typing import Any

import dlt  # type: ignore[import-not-found]  # in its own environment only
import duckdb
import requests

LOCAL = threading.local()
"""One session a thread."""


def session() -> requests.Session:
    found: requests.Session | None = getattr(LOCAL, "session", None)
    if found is None:
        found = LOCAL.session = requests.Session()
        found.trust_env = False
    return found


def send(url: str, rows: list[dict[str, Any]]) -> None:
    body = json.dumps({"rows": rows}, separators=(",", ":"), default=str).encode()
    session().post(url, data=body, headers={"Content-Type": "application/json"}).raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("warehouse")
    parser.add_argument("url")
    parser.add_argument("folder")
    parser.add_argument("--rows-a-request", type=int, required=True)
    given = parser.parse_args()

    @dlt.destination(batch_size=given.rows_a_request, loader_file_format="parquet", name="http_api")
    def http_api(items: Any, table: Any) -> None:
        send(given.url, items.to_pylist())

    @dlt.resource(name="people")
    def people() -> Iterator[Any]:
        with duckdb.connect(given.warehouse, read_only=True) as db:
            yield from db.sql("select * from audiences.aud_people").to_arrow_reader(given.rows_a_request * 10)

    pipeline = dlt.pipeline("bench", destination=http_api, pipelines_dir=given.folder)
    pipeline.run(people()).raise_on_failed_jobs()


if __name__ == "__main__":
    main()
