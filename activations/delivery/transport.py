"""The only place that sends a request to a destination.

It never follows a redirect (the body would go along, to whoever the answer names), keeps no cookies, reads no proxies
or passwords from the environment, always verifies certificates, tries nothing twice, and bounds the whole call in time
and bytes. Which connections may be opened at all: connections.py.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import requests
from requests.exceptions import InvalidHeader, InvalidProxyURL, InvalidSchema, InvalidURL, MissingSchema
from urllib3.exceptions import HTTPError, ReadTimeoutError

from activations.delivery.connections import REQUEST_TIME, CheckedAdapter, Gate, NotSent, tls_context
from activations.errors import DeliveryError
from activations.model import Request, Response

__all__ = ["NoAnswer", "NotSent", "RequestsTransport", "Transport"]

MAX_RESPONSE_BYTES = 32 * 1024 * 1024
"""Of an answer, decompressed: what a small compressed one may grow to."""
SMALLEST_COMPRESSED = 1024
"""Bytes of a body below which compressing costs more than it saves."""


class NoAnswer(DeliveryError):
    """The request left, and no whole answer came back: nobody knows whether it was accepted."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"no answer came back ({reason})")


class Transport(Protocol):
    def send(self, request: Request, *, seconds: float) -> Response:
        """The whole answer within `seconds`, else NotSent or NoAnswer. Called by several threads at once."""


_HEADERS = {"Accept": "application/json", "User-Agent": "activations", "Accept-Encoding": "gzip"}


class RequestsTransport:
    """Transport over an adapter of `requests`, connections kept alive. `proxy` takes every request; with `compress`
    bodies are sent as gzip.

    There is no session: redirects, cookies and what the environment says of proxies and passwords are its work, and it
    would cost more than the rest of the call.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        pool: int = 8,
        proxy: str | None = None,
        ca_bundle: Path | None = None,
        compress: bool = False,
    ) -> None:
        self._compress = compress
        self._proxies = {"https": proxy, "http": proxy} if proxy else {}
        self._adapter = CheckedAdapter(gate, tls_context(ca_bundle), pool=pool)

    def close(self) -> None:
        self._adapter.close()

    def send(self, request: Request, *, seconds: float) -> Response:
        REQUEST_TIME.ends = time.monotonic() + seconds
        try:
            with self._adapter.send(
                self._prepared(request), stream=True, timeout=seconds, proxies=self._proxies
            ) as answer:
                return _read(answer)
        # UnicodeError: headers and names of hosts are encoded before their first byte leaves, and what comes back is
        # read as Latin-1, in which every byte is a letter.
        except (InvalidURL, InvalidSchema, MissingSchema, InvalidHeader, InvalidProxyURL, UnicodeError):
            raise NotSent("invalid_request") from None
        except (requests.exceptions.Timeout, ReadTimeoutError, TimeoutError):
            raise NoAnswer("answer_too_slow") from None
        except (requests.exceptions.RequestException, HTTPError, OSError):
            raise NoAnswer("connection_lost") from None

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        body, headers = _body(request), _headers(request)
        if self._compress and isinstance(body, bytes) and len(body) >= SMALLEST_COMPRESSED:
            body, headers["Content-Encoding"] = gzip.compress(body, 1, mtime=0), "gzip"
        prepared = requests.PreparedRequest()
        prepared.prepare_method(request.method)
        prepared.url = _address(request.url, tuple(request.params.items()))
        prepared.prepare_headers(headers)
        prepared.prepare_body(body, None)
        return prepared


@lru_cache(maxsize=64)
def _address(url: str, params: tuple[tuple[str, str], ...]) -> str | None:
    """As it is written on the wire. A run calls the same few, and working one out costs as much as the rest."""
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, params)
    return prepared.url


def _read(answer: requests.Response) -> Response:
    chunks, size = [], 0
    # One socket read at a time, and never more than that much after decompressing.
    while chunk := answer.raw.read1(65536, decode_content=True):
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise NoAnswer("answer_too_large")
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
    default: Mapping[str, str] = {"Content-Type": "application/json"} if request.json_body is not None else {}
    return {**_HEADERS, **default, **request.headers}
