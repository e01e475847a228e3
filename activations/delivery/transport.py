"""The only place that opens a connection to a destination.

It never follows a redirect (the body would go along, to whoever the answer names), never reads proxies or passwords
from the environment, always verifies certificates, and bounds the whole call in time and bytes: the time-out of
`requests` counts per socket read, so a slow server could hold a call for ever.
"""

from __future__ import annotations

import json
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NameResolutionError, NewConnectionError

from activations.clock import Clock
from activations.errors import DeliveryError, FatalDestinationError
from activations.model import Request, Response

MAX_RESPONSE_BYTES = 32 * 1024 * 1024
CONNECT_SECONDS = 5.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class NotSent(DeliveryError):
    """Not one byte of the request reached the destination."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"nothing was sent ({reason})")


class NoAnswer(DeliveryError):
    """The request left, and no whole answer came back: nobody knows whether it was accepted."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"no answer came back ({reason})")


class Transport(Protocol):
    def send(self, request: Request, *, seconds: float) -> Response:
        """The whole answer within `seconds`, else NotSent or NoAnswer. Called by several threads at once."""


class RequestsTransport:
    """Transport over `requests`, one session, connections kept alive."""

    def __init__(self, clock: Clock, *, allow_plain_loopback: bool, pool: int = 8) -> None:
        self._clock, self._allow_plain_loopback = clock, allow_plain_loopback
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_connections=pool, pool_maxsize=pool, max_retries=0)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def close(self) -> None:
        self._session.close()

    def send(self, request: Request, *, seconds: float) -> Response:
        self._check_address(request.url)
        deadline = self._clock.monotonic() + seconds
        try:
            answer = self._session.request(
                request.method,
                request.url,
                params=dict(request.params) or None,
                data=_body(request),
                headers=_headers(request),
                timeout=(CONNECT_SECONDS, seconds),
                allow_redirects=False,
                stream=True,
            )
            with answer:
                return self._read(answer, deadline)
        except requests.exceptions.SSLError:
            raise FatalDestinationError(
                "the destination's certificate is not valid",
                fix="Check base_url and the host's certificate store",
            ) from None
        except requests.exceptions.ConnectionError as error:
            raise _connection_failure(error) from None
        except requests.exceptions.RequestException as error:
            raise NoAnswer(type(error).__name__) from None

    def _check_address(self, url: str) -> None:
        parts = urlsplit(url)
        plain_ok = self._allow_plain_loopback and parts.hostname in _LOOPBACK
        if parts.scheme != "https" and not plain_ok:
            raise FatalDestinationError(
                "the destination's address is not https",
                fix="Correct it in destinations.yml; plain http is for the sandbox only",
            )

    def _read(self, answer: requests.Response, deadline: float) -> Response:
        chunks, size = [], 0
        # One socket read at a time: `iter_content` would wait for a full chunk and never look at the clock meanwhile.
        while chunk := answer.raw.read1(65536, decode_content=True):
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                raise NoAnswer("answer_too_large")
            if self._clock.monotonic() > deadline:
                raise NoAnswer("answer_too_slow")
            chunks.append(chunk)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status_code, headers=headers, body=b"".join(chunks))


def _body(request: Request) -> Any:
    if request.json_body is not None:
        return json.dumps(
            request.json_body, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    return dict(request.form) if request.form is not None else request.body


def _headers(request: Request) -> dict[str, str]:
    default = {"Content-Type": "application/json"} if request.json_body is not None else {}
    return {"Accept": "application/json", "User-Agent": "activations", **default, **request.headers}


def _connection_failure(error: requests.exceptions.ConnectionError) -> DeliveryError:
    """A failure to connect proves that nothing left; any other broken connection proves nothing."""
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    if isinstance(reason, NameResolutionError):
        return NotSent("unknown_host")
    if isinstance(reason, NewConnectionError | ConnectTimeoutError):
        return NotSent("cannot_connect")
    return NoAnswer("connection_lost")
