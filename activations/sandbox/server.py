"""The sandbox as one small server on the loopback interface.

activations sandbox                     → http://127.0.0.1:8765, a page of what the other side holds
curl -X POST -d '{"vendor": "klaviyo", "kind": "429", "next_n": 3}' http://127.0.0.1:8765/_faults
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from activations.errors import ActivationsError, ConfigError, MachineError
from activations.sandbox.faults import Fault, FaultDial, FaultKind
from activations.sandbox.klaviyo import KlaviyoStandIn
from activations.sandbox.meta import MetaStandIn
from activations.sandbox.page import page_routes
from activations.sandbox.state import Place, State
from activations.sandbox.twilio import TwilioStandIn
from activations.sandbox.webhook import WebhookStandIn

DEFAULT_PORT = 8765
EXAMPLE = '{"vendor": "klaviyo", "kind": "429", "next_n": 3}'


class StandIn(Protocol):
    """What the server needs of a vendor's stand-in."""

    name: str
    kind: str

    def routes(self) -> list[Route]: ...
    def register(self, place: Place) -> None: ...
    def error(self, status: int) -> Response: ...
    def summary(self) -> dict[str, Any]: ...


class Sandbox:
    """The other side: all stand-ins over one state and one fault dial."""

    def __init__(self, state_dir: Path, *, job_seconds: float = 0.3, seed: int | None = None) -> None:
        self.state = State(state_dir)
        self.dial = FaultDial(seed)
        self.klaviyo = KlaviyoStandIn(self.state, job_seconds)
        self.twilio = TwilioStandIn(self.state)
        self.meta = MetaStandIn(self.state)
        self.webhook = WebhookStandIn(self.state)
        self.stand_ins: tuple[StandIn, ...] = (self.klaviyo, self.twilio, self.meta, self.webhook)

    @property
    def vendors(self) -> frozenset[str]:
        return frozenset(stand_in.name for stand_in in self.stand_ins)

    def register(self, places: Iterable[Place]) -> None:
        by_kind = {stand_in.kind: stand_in for stand_in in self.stand_ins}
        for place in places:
            if place.kind in by_kind:
                by_kind[place.kind].register(place)

    def summary(self) -> dict[str, Any]:
        """Counts per vendor, JSON-ready, without anybody's data."""
        rows = self.state.rows("select vendor, status, count(*) as n from requests group by vendor, status")
        requests: dict[str, dict[str, int]] = {name: {} for name in sorted(self.vendors)}
        for row in rows:
            requests[row["vendor"]][str(row["status"])] = row["n"]
        vendors = {stand_in.name: stand_in.summary() for stand_in in self.stand_ins}
        return {**vendors, "requests": requests, "faults": self.dial.armed()}


class Unreliable:
    """A stand-in behind the fault dial. Its answer is held back until the fault, if any, has had its way."""

    def __init__(self, stand_in: StandIn, sandbox: Sandbox) -> None:
        self.stand_in, self.sandbox = stand_in, sandbox
        self.app: ASGIApp = Router(routes=stand_in.routes())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, path = time.perf_counter(), self._path(scope)
        fault = self.sandbox.dial.draw(self.stand_in.name, scope["method"], path)
        scope["state"]["fault"] = fault.kind.value if fault else None
        messages = await self._answer(fault, scope, receive, send)
        status = next((m["status"] for m in messages if m["type"] == "http.response.start"), 0)
        elapsed = (time.perf_counter() - started) * 1000
        name = fault.kind.value if fault else None
        self.sandbox.state.log(self.stand_in.name, scope["method"], path, status, name, elapsed)
        if fault and fault.kind in (FaultKind.TIMEOUT_AFTER, FaultKind.RESET_AFTER):
            await _drop(scope, fault)
            return
        for message in messages:
            await send(message)

    def _path(self, scope: Scope) -> str:
        path: str = scope["path"]
        return path.removeprefix(scope.get("root_path", "")) or "/"

    async def _answer(self, fault: Fault | None, scope: Scope, receive: Receive, send: Send) -> list[Message]:
        kind = fault.kind if fault else None
        if kind is FaultKind.THROTTLED and fault:
            response = self.stand_in.error(429)
            response.headers["retry-after"] = str(fault.retry_after)
            return await _record(response, scope, receive)
        if kind is FaultKind.ERROR_BEFORE:
            await _drain(receive)
            return await _record(self.stand_in.error(500), scope, receive)
        messages = await _record(self.app, scope, receive)
        if kind is FaultKind.ERROR_AFTER:
            return await _record(self.stand_in.error(500), scope, receive)
        return _cut(messages) if kind is FaultKind.MALFORMED else messages


async def _record(app: ASGIApp, scope: Scope, receive: Receive) -> list[Message]:
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    return messages


async def _drain(receive: Receive) -> None:
    """Read the body even when it is ignored: otherwise the client meets a reset instead of the answer."""
    while (await receive()).get("more_body"):
        continue


def _cut(messages: list[Message]) -> list[Message]:
    """The same answer with half of its body, and a length that fits: complete HTTP, broken JSON."""
    body = b"".join(m.get("body", b"") for m in messages if m["type"] == "http.response.body")
    half = body[: len(body) // 2]
    start = next(m for m in messages if m["type"] == "http.response.start")
    headers = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
    headers.append((b"content-length", str(len(half)).encode()))
    return [{**start, "headers": headers}, {"type": "http.response.body", "body": half}]


async def _drop(scope: Scope, fault: Fault) -> None:
    """Break the connection at once, or after the client has waited in vain."""
    if fault.kind is FaultKind.TIMEOUT_AFTER:
        await asyncio.sleep(fault.seconds)
    transport: asyncio.Transport | None = scope["state"].get("transport")
    if transport is not None:
        # Linger for zero seconds: the client sees a reset, not an orderly end.
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        # One turn of the loop, so that the server notices before it looks for the answer that never came.
        await asyncio.sleep(0)


class _Protocol(H11Protocol):
    """Lets a request reach its own connection, which is the only way to break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this itself, but not for a socket made beforehand; without it every answer takes 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}


def create_app(state_dir: Path, places: Iterable[Place] = (), *, sandbox: Sandbox | None = None) -> Starlette:
    """All stand-ins, the dial, the state and the page."""
    sandbox = sandbox or Sandbox(state_dir)
    sandbox.register(places)
    app = Starlette(
        routes=[*page_routes(sandbox), *_control_routes(sandbox), *_vendor_routes(sandbox)],
        exception_handlers={MachineError: _out_of_order},
        # Against a page elsewhere whose name is pointed at this machine.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )
    app.state.sandbox = sandbox
    return app


async def _out_of_order(_: Request, error: Exception) -> Response:
    """What any server answers whose disk is full, without a traceback in our own terminal."""
    return PlainTextResponse(str(error), status_code=500)


def _vendor_routes(sandbox: Sandbox) -> list[BaseRoute]:
    apps = {stand_in.name: Unreliable(stand_in, sandbox) for stand_in in sandbox.stand_ins}
    exact = Route("/webhook", _RootOf(apps["webhook"], "/webhook"), methods=["POST"])
    return [exact, *(Mount(f"/{name}", app) for name, app in apps.items())]


class _RootOf:
    """`/webhook` without a slash at its end: a mount would answer with a redirect, which no sender follows."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "root_path": self.prefix, "path": self.prefix + "/"}, receive, send)


def _control_routes(sandbox: Sandbox) -> list[BaseRoute]:
    async def state(request: Request) -> Response:
        return JSONResponse(sandbox.summary())

    async def home(request: Request) -> Response:
        return JSONResponse(sandbox.state.home)

    async def faults(request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(sandbox.dial.armed())
        if _is_foreign(request):
            return JSONResponse({"error": "another site cannot turn the dial"}, status_code=403)
        if request.method == "DELETE":
            sandbox.dial.clear()
            return JSONResponse([])
        return await _arm(request, sandbox)

    async def callbacks(request: Request) -> Response:
        lines = (json.dumps(callback) + "\n" for callback in sandbox.twilio.callbacks())
        return PlainTextResponse("".join(lines))

    return [
        Route("/_callbacks", callbacks, methods=["GET"]),
        Route("/_state", state, methods=["GET"]),
        Route("/_home", home, methods=["GET"]),
        Route("/_faults", faults, methods=["GET", "POST", "DELETE"]),
    ]


async def _arm(request: Request, sandbox: Sandbox) -> Response:
    """From JSON (curl, tests), or from the form on the page, which wants to see the page again."""
    values, is_form = _asked_of_the_dial(
        (await request.body()).decode("utf-8", "replace"), request.headers.get("content-type", "")
    )
    if values is None:
        return JSONResponse({"error": f"this is no JSON object. Send one like {EXAMPLE}"}, status_code=400)
    try:
        if values.pop("clear", None):
            sandbox.dial.clear()
        else:
            sandbox.dial.arm(Fault.parse(values, sandbox.vendors))
    except ValueError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    if is_form:
        return RedirectResponse("/#faults", status_code=303)
    return JSONResponse(sandbox.dial.armed(), status_code=201)


def _asked_of_the_dial(body: str, content_type: str) -> tuple[dict[str, Any] | None, bool]:
    """The settings, and whether they came from the form. curl calls its JSON a form too when nobody tells it."""
    if content_type.startswith("application/x-www-form-urlencoded") and body.lstrip()[:1] not in ("{", "["):
        return dict(parse_qsl(body)), True
    try:
        values = json.loads(body)
    except ValueError:
        values = None
    return (values if isinstance(values, dict) else None), False


def _is_foreign(request: Request) -> bool:
    """A browser says where a request comes from; the dial is turned from this page or without a browser."""
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        return True
    return request.headers.get("sec-fetch-site") in ("cross-site", "same-site")


def register_targets(state_dir: Path, places: Iterable[Place]) -> None:
    """Make the lists and audiences that the syncs name exist, also while a sandbox is running."""
    sandbox = Sandbox(state_dir)
    sandbox.register(places)
    sandbox.state.close()


def serve(
    state_dir: Path,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    places: Iterable[Place] = (),
    *,
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer until interrupted. Only on the loopback interface: there are no users, so nobody else may come.
    `announce` gets the address once it is ours."""
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise ConfigError(
            f"the sandbox answers on this machine only (found {host})", key="host", fix="Use 127.0.0.1"
        )
    app = create_app(state_dir, places)
    with _listener(host, port) as listener:
        announce(f"http://{host}:{port}")
        uvicorn.Server(_config(app, host, port)).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        why = os.strerror(error.errno or 0)  # without the address that `socket` adds
        raise ActivationsError(
            f"the sandbox cannot have port {port} of this machine ({why}). Stop what holds it, or choose another with --port"
        ) from None


def _config(app: Starlette, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox in a thread of this process. Leave the `with` block, or call `stop`, to end it."""

    url: str
    sandbox: Sandbox
    _server: uvicorn.Server
    _thread: threading.Thread

    def arm(self, kind: str, **settings: Any) -> None:
        """Arm a fault as `POST /_faults` does."""
        self.sandbox.dial.arm(Fault.parse({"kind": kind, **settings}, self.sandbox.vendors))

    def register(self, places: Iterable[Place]) -> None:
        self.sandbox.register(places)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        self.sandbox.state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_in_background(
    state_dir: Path, port: int = 0, places: Iterable[Place] = (), *, job_seconds: float = 0.3
) -> RunningSandbox:
    """Start beside the caller; port 0 takes any free one."""
    sandbox = Sandbox(state_dir, job_seconds=job_seconds)
    listener = socket.create_server(("127.0.0.1", port))
    actual = listener.getsockname()[1]
    server = uvicorn.Server(_config(create_app(state_dir, places, sandbox=sandbox), "127.0.0.1", actual))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    return RunningSandbox(f"http://127.0.0.1:{actual}", sandbox, server, thread)
