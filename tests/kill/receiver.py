"""The other side on loopback: it keeps its own truth, answers badly on purpose, and says when a request is inside it."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.simulation.provider import MESSAGES
from tests.simulation.world import is_bad

HANG_SECONDS = 1.5
Change = Mapping[str, Any]
Moment = Callable[[str], None]


class Receiver:
    """`held`: key → row of the mirror; `deliveries`: (person, occurrence) → how often that message came."""

    def __init__(self, random_source: random.Random) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.deliveries: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.fault_rate = 0.35
        self.on_moment: Moment = lambda _: None
        """Called when a request has arrived, and when it was applied but not answered."""
        self._random = random_source
        self._mutex = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def draw(self) -> Fault | None:
        with self._mutex:
            self.requests += 1
            if self._random.random() >= self.fault_rate:
                return None
            fault = self._random.choice(FAULTS)
            self.faults[fault.__name__.strip("_")] += 1
            return fault

    def some(self, count: int) -> set[int]:
        with self._mutex:
            return set(self._random.sample(range(count), k=self._random.randint(1, count)))

    def accept(self, sync: str, changes: Sequence[Change], later: set[int] | None = None) -> dict[str, Any]:
        """Apply the good rows but those in `later`; the answer's body."""
        results = []
        with self._mutex:
            for number, change in enumerate(changes):
                status = "rejected" if is_bad(change) else "retry" if number in (later or ()) else "ok"
                results.append({"key": change["key"], "status": status, "reason": "bad_row"})
                if status == "ok":
                    self._apply(sync, change)
        return {"results": results}

    def _apply(self, sync: str, change: Change) -> None:
        if sync == MESSAGES:
            self.deliveries[change["fields"]["person"], change["fields"]["event"]] += 1
        elif change["operation"] == "removed":
            self.held.pop(change["key"], None)
        else:
            self.held[change["key"]] = {"email": change["identifiers"]["email"], **change["fields"]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was killed is what this is about."""


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        expected = int(self.headers["Content-Length"])
        if len(body := self.rfile.read(expected)) < expected:  # its sender was killed
            self.hang_up()
            return
        document = json.loads(body)
        self.sync, self.changes = document["sync"], document["changes"]
        self.receiver.on_moment("arrived")
        fault = self.receiver.draw()
        if fault is None:
            self.answer(200, self.accept())
        else:
            fault(self)

    def accept(self, later: set[int] | None = None) -> bytes:
        body = self.receiver.accept(self.sync, self.changes, later)
        self.receiver.on_moment("applied")
        return json.dumps(body).encode()

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length or len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Nothing."""


Fault = Callable[[_Handler], None]


def _throttled(handler: _Handler) -> None:
    handler.answer(429, b"", Retry_After="1")


def _error_before(handler: _Handler) -> None:
    handler.answer(500, b"")


def _error_after(handler: _Handler) -> None:
    handler.accept()
    handler.answer(500, b"")


def _reset_before(handler: _Handler) -> None:
    handler.reset()


def _reset_after(handler: _Handler) -> None:
    handler.accept()
    handler.reset()


def _hang_then_nothing(handler: _Handler) -> None:
    handler.accept()
    time.sleep(HANG_SECONDS)
    handler.hang_up()


def _truncated(handler: _Handler) -> None:
    body = handler.accept()
    handler.answer(200, body[: len(body) // 2], length=len(body))
    handler.hang_up()


def _malformed(handler: _Handler) -> None:
    handler.accept()
    handler.answer(200, b"<html>gateway</html>")


def _partial(handler: _Handler) -> None:
    handler.answer(200, handler.accept(handler.receiver.some(len(handler.changes))))


FAULTS: tuple[Fault, ...] = (
    _throttled,
    _error_before,
    _error_after,
    _reset_before,
    _reset_after,
    _hang_then_nothing,
    _truncated,
    _malformed,
    _partial,
)


def _handler(receiver: Receiver) -> type[_Handler]:
    return type("Handler", (_Handler,), {"receiver": receiver})
