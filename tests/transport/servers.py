"""Servers on the loopback interface that misbehave on purpose, byte by byte."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Server:
    """`received`: what every connection said, one entry a request."""

    port: int
    received: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


Serve = Callable[[socket.socket, Server], None]


@contextmanager
def running(serve: Serve, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Every connection gets a thread with `serve`; the listener closes at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener.getsockname()[1])

    def accept() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=attend, args=(peer,), daemon=True).start()

    def attend(peer: socket.socket) -> None:
        with suppress(OSError), tls.wrap_socket(peer, server_side=True) if tls else peer as connection:
            serve(connection, server)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_request(connection: socket.socket, server: Server) -> bytes:
    """One request, head and body; empty when the other side hung up."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (more := connection.recv(65536)):
            return b""
        head += more
    head, _, body = head.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0].partition(b":")[2]):
        body += connection.recv(65536)
    server.received.append(head + b"\r\n\r\n" + body)
    return server.received[-1]


def answer(*parts: bytes, pause: Callable[[], object] = lambda: None, repeat: int = 1) -> Serve:
    """Answer each request with the parts, pausing between them."""

    def serve(connection: socket.socket, server: Server) -> None:
        while read_request(connection, server):
            for part in parts * repeat:
                connection.sendall(part)
                pause()
            if parts[-1] == b"":
                return

    return serve


@dataclass(frozen=True)
class Authority:
    """A certificate authority of our own, and one certificate it gave out."""

    ca: Path
    server: ssl.SSLContext


def authority(folder: Path, host: str) -> Authority:
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]),
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    ca, both = folder / f"{host}.ca.pem", folder / f"{host}.server.pem"
    ca.write_bytes(pem)
    both.write_bytes(secret + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return Authority(ca, context)
