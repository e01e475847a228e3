"""What no engine could do without, measured: reading the audience once, and the bare requests.

python -m benchmarks.floors scan WAREHOUSE          seconds to read every column of the audience once
python -m benchmarks.floors network PORT …          seconds for bare requests of the same size, nothing else
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import duckdb

from benchmarks.world import AUDIENCE

REPEATS = 3


def scan(warehouse: str) -> dict[str, float]:
    """Every value of every column is read and looked at; the file is in the page cache after the first time."""
    with duckdb.connect(warehouse, read_only=True) as db:
        columns = [name for name, *_ in db.execute(f"describe audiences.{AUDIENCE}").fetchall()]
        looked_at = ", ".join(f"bit_xor(hash({name}))" for name in columns)
        query = f"select {looked_at} from audiences.{AUDIENCE}"
        seconds = [_timed(db, query) for _ in range(REPEATS + 1)]
    return {"cold_seconds": seconds[0], "seconds": median(seconds[1:])}


def _timed(db: duckdb.DuckDBPyConnection, query: str) -> float:
    started = time.perf_counter()
    db.execute(query).fetchall()
    return time.perf_counter() - started


def network(port: int, *, requests: int, body_bytes: int, in_flight: int) -> dict[str, float]:
    """`http.client` in threads, a ready-made body, connections kept alive."""
    body = b'{"rows":"' + b"x" * max(body_bytes - 11, 0) + b'"}'

    def send(count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(count):
            connection.request("POST", "/rows", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
        connection.close()

    shares = [requests // in_flight + (worker < requests % in_flight) for worker in range(in_flight)]
    started = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as workers:
        list(workers.map(send, shares))
    return {"seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    floors = parser.add_subparsers(dest="floor", required=True)
    floors.add_parser("scan").add_argument("warehouse")
    bare = floors.add_parser("network")
    for name in ("port", "requests", "body_bytes", "in_flight"):
        bare.add_argument(name, type=int)
    given = vars(parser.parse_args())
    floor = given.pop("floor")
    found = scan(**given) if floor == "scan" else network(**given)
    print(json.dumps(found))  # noqa: T201 - the bench reads this


if __name__ == "__main__":
    main()
