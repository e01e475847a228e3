"""The other side of every measurement: counts rows exactly, answers after a fixed latency, costs little itself.

One process, one thread, one small HTTP parser: on two cores a server that takes its time is measured along with the
client. Rows are counted in the raw body. That is exact: inside a JSON string every quotation mark is escaped, so the
quoted names that are looked for can only be names.

    POST /webhook   the engine's signed webhook; answered row by row
    POST /rows      a peer's JSON with a `person_id` a row; answered with an empty object
    GET  /counts    what came in since the last call, as JSON, and starts again
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

OPERATIONS = ("added", "changed", "removed")
_KEY = re.compile(rb'"key":"([^"]+)"')
_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
_OK = b'","status":"ok"},{"key":"'


@dataclass(slots=True)
class Tally:
    """What came in. `keys` holds a 64-bit hash of every key, so that a row that came twice is noticed."""

    requests: int = 0
    body_bytes: int = 0
    operations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OPERATIONS, 0))
    peer_rows: int = 0
    keys: array[int] = field(default_factory=lambda: array("q"))
    open_requests: int = 0
    most_open: int = 0

    def summary(self) -> dict[str, int]:
        distinct = pc.count_distinct(pa.array(self.keys, pa.int64())).as_py()
        return {
            "requests": self.requests,
            "body_bytes": self.body_bytes,
            **self.operations,
            "rows": len(self.keys) + self.peer_rows,
            "distinct_keys": distinct,
            "most_open": self.most_open,
        }


class Server:
    """Holds the tally and answers one request at a time, each after the latency."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.tally = Tally()

    def answer(self, path: bytes, body: bytes) -> tuple[bytes, float]:
        """The response's body, and how long it is held back."""
        if path == b"/counts":
            finished, self.tally = self.tally, Tally()
            return json.dumps(finished.summary()).encode(), 0.0
        self.tally.requests += 1
        self.tally.body_bytes += len(body)
        if path == b"/webhook":
            return self._take_changes(body), self.latency
        self.tally.peer_rows += body.count(b'"person_id":')
        return b"{}", self.latency

    def _take_changes(self, body: bytes) -> bytes:
        for operation in OPERATIONS:
            self.tally.operations[operation] += body.count(b'"operation":"%s"' % operation.encode())
        keys = _KEY.findall(body)
        self.tally.keys.extend(map(hash, keys))
        return b'{"results":[{"key":"' + _OK.join(keys) + b'","status":"ok"}]}'


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and Content-Length, one request at a time: all that the clients here use."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parts: list[bytes] = []
        self._missing: int | None = None
        self._path = b""
        self._send: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        self._send = lambda data: None if stream.is_closing() else stream.write(data)

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            data = b"".join([*self._parts, data])
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._parts = [data]
                return
            self._begin(head)
            self._parts, data = [], rest
        self._parts.append(data)
        self._missing = (self._missing or 0) - len(data)
        if self._missing <= 0:
            self._finish()

    def _begin(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        self._missing = int(length.group(1)) if length else 0
        self._path = head.split(b" ", 2)[1]

    def _finish(self) -> None:
        """The latency counts from here: the time the answer takes to build lies inside it."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        body, self._parts, self._missing = b"".join(self._parts), [], None
        tally = self._server.tally
        tally.open_requests += 1
        tally.most_open = max(tally.most_open, tally.open_requests)
        answer, latency = self._server.answer(self._path, body)
        loop.call_at(due + latency, self._respond, tally, answer)

    def _respond(self, tally: Tally, answer: bytes) -> None:
        tally.open_requests -= 1
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._send(head % len(answer) + answer)


async def serve(latency: float) -> None:
    """Listen on a free port of the loopback interface, print it, and run until the process is ended."""
    counting = Server(latency)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(counting), "127.0.0.1", 0, backlog=256)
    port = listener.sockets[0].getsockname()[1]
    print(port, flush=True)  # noqa: T201 - the caller reads the port from here
    await listener.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds (default: 0.02)")
    asyncio.run(serve(parser.parse_args().latency))


if __name__ == "__main__":
    main()
