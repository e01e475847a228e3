"""Connections that were looked at before they were opened, and that end when their time is up.

Everything is decided at the connection, not at the URL: the host that is checked is the host that is connected to, and
the address that was checked is the address that is dialled, so neither a second parser nor a second answer of a name
server can lead elsewhere. Whatever fails in `connect` has provably sent nothing of the request.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from activations.config import Egress
from activations.config.egress import private_fix
from activations.errors import ConfigError, DeliveryError, FatalDestinationError

CONNECT_SECONDS = 5.0
_UNNOTICED = 0.05
"""Seconds by which a request may outlive its time."""

Resolved = tuple[int, Any]
"""The family of an address, and the address as a socket takes it."""
Resolve = Callable[[str, int], Sequence[Resolved]]


class NotSent(DeliveryError):
    """Not one byte of the request reached the destination."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"nothing was sent ({reason})")


def resolve(host: str, port: int) -> Sequence[Resolved]:
    """All addresses of a host. How long a name server may take is the system's setting, nobody can interrupt it."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


# -- time ----------------------------------------------------------------------------------------------------------


class _Time(threading.local):
    """When the request of this thread has to be over. A request never changes its thread."""

    ends = float("inf")

    def left(self) -> float:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time of this request is up")
        return left


REQUEST_TIME = _Time()


class _Timed(socket.socket):
    """Every wait ends with the request. The time-outs of `requests` count per wait, so a server that sends a byte now
    and then could hold a request for ever."""

    def settimeout(self, value: float | None) -> None:
        """A call of the system, which several threads at once wait for: not for a difference that nobody notices."""
        now = self.gettimeout()
        if not (value and now) or abs(value - now) > _UNNOTICED:
            super().settimeout(value)

    def _wind(self, most: float = float("inf")) -> None:
        self.settimeout(min(REQUEST_TIME.left(), most))

    def connect(self, address: Any) -> None:
        self._wind(CONNECT_SECONDS)
        super().connect(address)

    def sendall(self, *arguments: Any) -> None:
        self._wind()
        super().sendall(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        self._wind()
        return super().recv_into(*arguments)


class _TimedTLS(_Timed, ssl.SSLSocket):
    def do_handshake(self, *arguments: Any) -> None:
        self._wind(CONNECT_SECONDS)
        super().do_handshake(*arguments)


def tls_context(ca_bundle: Path | None = None) -> ssl.SSLContext:
    """Verifies the certificate and the name, always; `ca_bundle` is trusted beside the public authorities."""
    context = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
    if ca_bundle is not None:
        try:
            context.load_verify_locations(cafile=ca_bundle)
        except OSError as error:
            raise ConfigError(
                f"cannot be read as certificates ({type(error).__name__})",
                file=ca_bundle,
                key="egress.ca_bundle",
                fix="It must be a PEM file",
            ) from None
    context.sslsocket_class = _TimedTLS
    return context


# -- gate ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Which connections may be opened."""

    egress: Egress
    own_host: str | None = None
    """The vendor's, which needs no permission."""
    is_sandbox: bool = False
    """Plain http and the loopback interface are allowed, together."""
    resolve: Resolve = resolve

    def admit(self, host: str) -> None:
        """Raises unless this host may be called."""
        if not (self.is_sandbox or host == self.own_host or self.egress.permits(host)):
            raise FatalDestinationError(
                f"the host {host} is not allowed", fix="Add it to egress.hosts in project.yml"
            )

    def addresses(self, host: str, port: int, *, is_plain: bool) -> Sequence[Resolved]:
        """Where the host is. One address that may not be called is enough to refuse them all."""
        self.admit(host)
        found = self.resolve(host, port)
        for _, address in found:
            self._check(host, address[0], is_plain=is_plain)
        return found

    def _check(self, host: str, text: str, *, is_plain: bool) -> None:
        address = ip_address(text.partition("%")[0])
        if self.is_sandbox and address.is_loopback:
            return
        if is_plain:
            raise FatalDestinationError(
                f"the address of {host} is not https",
                fix="Correct it in destinations.yml; plain http is for the sandbox on this machine only",
            )
        if refusal := self.egress.refusal(address):
            raise FatalDestinationError(
                f"{host} leads to {address}, a {refusal} address", fix=private_fix(refusal)
            )


class _Checked(HTTPConnection):
    """Opens what the gate lets through, at exactly the address that was checked."""

    is_plain = True

    def __init__(self, gate: Gate, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gate = gate

    def connect(self) -> None:
        try:
            super().connect()
        except ssl.SSLCertVerificationError:
            raise FatalDestinationError(
                "the destination's certificate is not valid",
                fix="Check base_url; a private authority belongs into egress.ca_bundle in project.yml",
            ) from None
        except socket.gaierror:
            raise NotSent("unknown_host") from None
        except (OSError, HTTPError):
            raise NotSent("cannot_connect") from None

    def _new_conn(self) -> socket.socket:
        failure: OSError = socket.gaierror()
        for family, address in self._addresses():
            try:
                return self._dial(family, address)
            except OSError as error:
                failure = error
        raise failure

    def _addresses(self) -> Sequence[Resolved]:
        if self.proxy is None:
            return self._gate.addresses(self.host, self.port, is_plain=self.is_plain)
        self._gate.admit(self._tunnel_host or "")
        return self._gate.resolve(self.host, self.port)  # the proxy's own: it was named in the configuration

    def _dial(self, family: int, address: Any) -> socket.socket:
        connection = _Timed(family, socket.SOCK_STREAM)
        try:
            for option in self.socket_options or ():
                connection.setsockopt(*option)
            connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection

    def _tunnel(self) -> None:
        host = self._tunnel_host  # forgotten when the tunnel fails
        try:
            super()._tunnel()
        except TimeoutError:
            raise
        except OSError:
            raise FatalDestinationError(
                f"the proxy does not let us through to {host}",
                fix="Check egress.proxy in project.yml and what the proxy allows",
            ) from None


class _CheckedTLS(_Checked, HTTPSConnection):
    is_plain = False


class CheckedAdapter(HTTPAdapter):
    """Connections of one run: kept alive, checked by the gate, verified by our own context, never tried twice."""

    def __init__(self, gate: Gate, context: ssl.SSLContext, *, pool: int) -> None:
        self._gate, self._context = gate, context
        super().__init__(pool_maxsize=pool, max_retries=0)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """The context verifies. Certificates are not loaded again for every connection, and nothing switches it off."""

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, True)
        return host, {"ssl_context": self._context} if host["scheme"] == "https" else {}

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        pool.ConnectionCls = partial(_CheckedTLS if pool.scheme == "https" else _Checked, self._gate)
        return pool

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, proxy_ssl_context=self._context, **options)
