"""The transport against real sockets: whoever answers, and however, the call ends in time and leads nowhere else."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from activations.config import Egress
from activations.delivery import connections
from activations.delivery.connections import Gate, NotSent, Resolved
from activations.delivery.transport import MAX_RESPONSE_BYTES, NoAnswer, RequestsTransport
from activations.errors import ConfigError, FatalDestinationError
from activations.model import Request, Response
from tests.transport.servers import OK, Authority, Server, answer, authority, read_request, running

HOST = "hooks.example.test"
LOOPBACK = Egress(allow_private=(ip_network("127.0.0.0/8"),))
BODY = b'{"email":"canary@example.com"}'


def at_loopback(_host: str, port: int) -> Sequence[Resolved]:
    return [(socket.AF_INET, ("127.0.0.1", port))]


def sandbox_gate() -> Gate:
    return Gate(egress=Egress(), is_sandbox=True)


def live_gate(egress: Egress = LOOPBACK, **parts: Any) -> Gate:
    return Gate(egress=egress, **{"resolve": at_loopback, **parts})


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"), HOST)


@pytest.fixture
def send() -> Iterator[Callable[..., Response]]:
    """`send(url)` through a transport of its own, which is closed at the end."""
    opened: list[RequestsTransport] = []

    def send(url: str, gate: Gate | None = None, *, seconds: float = 5.0, **options: Any) -> Response:
        opened.append(RequestsTransport(gate or sandbox_gate(), **options))
        request = Request(method="POST", url=url, headers={"x-api-key": "secret"}, body=BODY)
        return opened[-1].send(request, seconds=seconds)

    yield send
    for transport in opened:
        transport.close()


# -- redirects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_leads_nowhere(send: Callable[..., Response], status: int) -> None:
    with running(answer(OK)) as other:
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n"
        with running(answer(head.encode())) as first:
            assert send(first.url).status == status
        assert (len(first.received), other.received) == (1, [])


def test_the_body_of_a_redirect_is_bounded_like_any_other(send: Callable[..., Response]) -> None:
    head = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 99999999\r\n\r\n"
    with (
        running(answer(head, *[b"x" * 1_000_000] * 40)) as server,
        pytest.raises(NoAnswer, match="too_large"),
    ):
        send(server.url)


# -- time and size -----------------------------------------------------------------------------------------------

DRIPS = {
    "status line": (b"", b"H"),
    "header": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-T: 1\r\n"),
}


@pytest.mark.parametrize("part", DRIPS)
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_an_answer_that_drips_ends_at_the_deadline(
    send: Callable[..., Response], certified: Authority, part: str, is_tls: bool
) -> None:
    first, drop = DRIPS[part]

    def drip(connection: socket.socket, server: Server) -> None:
        read_request(connection, server)
        connection.sendall(first)
        while True:
            connection.sendall(drop)
            time.sleep(0.02)

    with running(drip, tls=certified.server if is_tls else None) as server:
        url = f"https://{HOST}:{server.port}/" if is_tls else server.url
        gate = live_gate() if is_tls else sandbox_gate()
        started = time.monotonic()
        with pytest.raises(NoAnswer, match="answer_too_slow"):
            send(url, gate, seconds=0.3, ca_bundle=certified.ca)
    assert time.monotonic() - started < 0.6


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_a_receiver_that_reads_slowly_ends_at_the_deadline(certified: Authority, is_tls: bool) -> None:
    def sip(connection: socket.socket, _server: Server) -> None:
        while connection.recv(65536):
            time.sleep(0.02)

    transport = RequestsTransport(live_gate() if is_tls else sandbox_gate(), ca_bundle=certified.ca)
    with running(sip, tls=certified.server if is_tls else None) as server:
        url = f"https://{HOST}:{server.port}/" if is_tls else server.url
        started = time.monotonic()
        with pytest.raises(NoAnswer):
            transport.send(Request(method="POST", url=url, body=b"x" * 30_000_000), seconds=0.3)
    assert time.monotonic() - started < 0.6
    transport.close()


def test_a_slow_upload_has_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left for connecting must not stay on the socket."""
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.1)
    body = b"x" * 16_000_000

    def hesitate(connection: socket.socket, _server: Server) -> None:
        time.sleep(0.3)
        missing = len(body)
        while missing > 0:
            missing -= len(connection.recv(1_000_000))
        connection.sendall(OK)

    transport = RequestsTransport(sandbox_gate())
    with running(hesitate) as server:
        assert transport.send(Request(method="POST", url=server.url, body=body), seconds=5).status == 200
    transport.close()


def test_all_stages_share_one_deadline(send: Callable[..., Response]) -> None:
    """A proxy that takes its time, then a handshake that never ends."""

    def late(connection: socket.socket, server: Server) -> None:
        read_request(connection, server)
        time.sleep(0.3)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        time.sleep(2)

    with running(late) as between:
        started = time.monotonic()
        with pytest.raises(NotSent, match="cannot_connect"):
            send(f"https://{HOST}/", live_gate(), seconds=0.5, proxy=f"http://127.0.0.1:{between.port}")
    assert time.monotonic() - started < 0.7


def test_a_handshake_that_never_ends_sent_nothing(send: Callable[..., Response]) -> None:
    started = time.monotonic()
    with (
        running(lambda connection, _: time.sleep(1)) as server,
        pytest.raises(NotSent, match="cannot_connect"),
    ):
        send(f"https://{HOST}:{server.port}/", live_gate(), seconds=0.3)
    assert time.monotonic() - started < 0.6


def test_a_truncated_answer_is_no_answer(send: Callable[..., Response]) -> None:
    cut = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"")
    with running(cut) as server, pytest.raises(NoAnswer, match="connection_lost"):
        send(server.url)


@pytest.mark.parametrize("garbage", [b"SSH-2.0-x\r\n", b"\x00" * 100, b"HTTP/1.1 abc\r\n\r\n"])
def test_something_else_than_http_is_no_answer(send: Callable[..., Response], garbage: bytes) -> None:
    with running(answer(garbage, b"")) as server, pytest.raises(NoAnswer):
        send(server.url)


def test_an_answer_that_never_stops_growing_is_cut_off(send: Callable[..., Response]) -> None:
    endless = answer(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1_000_000] * 40, b"")
    with running(endless) as server, pytest.raises(NoAnswer, match="answer_too_large"):
        send(server.url)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_compressed_bomb_is_cut_off_before_it_fills_the_memory(
    send: Callable[..., Response], layers: int
) -> None:
    bomb = b"\x00" * (MAX_RESPONSE_BYTES * 8)
    for _ in range(layers):
        bomb = gzip.compress(bomb, 6)
    encoding = b", ".join([b"gzip"] * layers)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + encoding
    whole = head + b"\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    with running(answer(whole)) as server:
        tracemalloc.start()
        with pytest.raises(NoAnswer, match="answer_too_large"):
            send(server.url)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < MAX_RESPONSE_BYTES * 1.5


# -- certificates ------------------------------------------------------------------------------------------------


def test_a_certificate_of_nobody_we_trust_is_refused(
    send: Callable[..., Response], certified: Authority
) -> None:
    with running(answer(OK), tls=certified.server) as server:
        with pytest.raises(FatalDestinationError, match="certificate is not valid"):
            send(f"https://{HOST}:{server.port}/", live_gate())
        assert server.received == []


def test_a_certificate_for_another_name_is_refused(
    send: Callable[..., Response], certified: Authority
) -> None:
    with running(answer(OK), tls=certified.server) as server:
        with pytest.raises(FatalDestinationError, match="certificate is not valid"):
            send(f"https://other.example.test:{server.port}/", live_gate(), ca_bundle=certified.ca)
        assert server.received == []


def test_a_bundle_of_ones_own_is_trusted_and_the_name_travels_along(
    send: Callable[..., Response], certified: Authority
) -> None:
    names: list[object] = []
    certified.server.sni_callback = lambda _socket, name, _context: names.append(name)
    with running(answer(OK), tls=certified.server) as server:
        assert send(f"https://{HOST}:{server.port}/", live_gate(), ca_bundle=certified.ca).body == b"{}"
    certified.server.sni_callback = None
    assert names == [HOST]
    assert f"Host: {HOST}:{server.port}".encode() in server.received[0]


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"ca\.pem: egress\.ca_bundle: cannot be read"):
        RequestsTransport(live_gate(), ca_bundle=tmp_path / "ca.pem")


# -- where it may go ---------------------------------------------------------------------------------------------


def test_the_address_that_was_checked_is_the_address_that_is_dialled(
    send: Callable[..., Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is checked and private when it is asked again."""
    asked: list[str] = []
    dialled: list[object] = []

    def rebinding(host: str, port: int) -> Sequence[Resolved]:
        asked.append(host)
        return [(socket.AF_INET, ("93.184.215.14" if len(asked) == 1 else "127.0.0.1", port))]

    def dial(_self: object, _family: int, address: object) -> socket.socket:
        dialled.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(connections._Checked, "_dial", dial)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the name was asked for again"))
    with pytest.raises(NotSent, match="cannot_connect"):
        send(f"https://{HOST}/", Gate(egress=Egress(), resolve=rebinding))
    assert (asked, dialled) == ([HOST], [("93.184.215.14", 443)])


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.215.14", "10.0.0.5"], ["::ffff:10.0.0.5"]])
def test_a_name_that_leads_inside_is_refused_whatever_else_it_leads_to(
    send: Callable[..., Response], addresses: list[str]
) -> None:
    def inside(_host: str, port: int) -> Sequence[Resolved]:
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, (a, port)) for a in addresses]

    with pytest.raises(FatalDestinationError, match=f"{HOST} leads to .* a (private|loopback) address"):
        send(f"https://{HOST}/", Gate(egress=Egress(), resolve=inside))


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::1]", "0"]
)
def test_however_it_is_written_the_own_machine_is_refused(send: Callable[..., Response], host: str) -> None:
    """With the system's resolver, which reads all of these."""
    with running(answer(OK)) as server:
        with pytest.raises(FatalDestinationError, match="a (loopback|unspecified) address"):
            send(f"https://{host}:{server.port}/", Gate(egress=Egress()))
        assert server.received == []


def test_two_parsers_may_disagree_but_not_about_where_it_goes(send: Callable[..., Response]) -> None:
    """urllib sees one host in this address, browsers another: whichever is dialled, it is the one that was checked."""
    egress = Egress(hosts=("good.example.com",))
    with pytest.raises((FatalDestinationError, NotSent)):
        send("https://evil.example.com\\@good.example.com/", Gate(egress=egress, resolve=lambda *_: []))


def test_plain_http_is_for_the_sandbox_on_this_machine(send: Callable[..., Response]) -> None:
    with running(answer(OK)) as server:
        assert send(server.url).status == 200
        for gate in (live_gate(), Gate(egress=Egress(), is_sandbox=True, resolve=_public)):
            with pytest.raises(FatalDestinationError, match="not https"):
                send(server.url, gate)
    assert len(server.received) == 1


def _public(_host: str, port: int) -> Sequence[Resolved]:
    return [(socket.AF_INET, ("93.184.215.14", port))]


def test_only_listed_hosts_and_the_vendor_are_called(
    send: Callable[..., Response], certified: Authority
) -> None:
    listed = LOOPBACK.model_copy(update={"hosts": ("*.example.com",)})
    with running(answer(OK), tls=certified.server) as server:
        url = f"https://{HOST}:{server.port}/"
        with pytest.raises(FatalDestinationError, match=f"the host {HOST} is not allowed"):
            send(url, live_gate(listed), ca_bundle=certified.ca)
        assert send(url, live_gate(listed, own_host=HOST), ca_bundle=certified.ca).status == 200


def test_an_unknown_host_and_a_closed_port_sent_nothing(send: Callable[..., Response]) -> None:
    def unknown(_host: str, _port: int) -> Sequence[Resolved]:
        raise socket.gaierror

    with pytest.raises(NotSent, match="unknown_host"):
        send(f"https://{HOST}/", live_gate(resolve=unknown))
    with running(answer(OK)) as server:
        pass
    with pytest.raises(NotSent, match="cannot_connect"):
        send(f"https://{HOST}:{server.port}/", live_gate())


# -- proxy and environment ---------------------------------------------------------------------------------------


def proxy(connection: socket.socket, server: Server) -> None:
    """Sees CONNECT, and passes what follows on to the port that it names."""
    head = read_request(connection, server)
    if not head.startswith(b"CONNECT "):
        return
    port = int(head.split(b" ")[1].rpartition(b":")[2])
    with socket.create_connection(("127.0.0.1", port)) as onward:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        connection.setblocking(False)
        onward.setblocking(False)
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            for source, sink in ((connection, onward), (onward, connection)):
                try:
                    data = source.recv(65536)
                except (BlockingIOError, ssl.SSLWantReadError):
                    time.sleep(0.001)
                    continue
                if not data:
                    return
                server.received.append(data)
                sink.sendall(data)


def test_a_proxy_sees_connect_and_no_word_of_the_request(
    send: Callable[..., Response], certified: Authority
) -> None:
    with running(answer(OK), tls=certified.server) as server, running(proxy) as between:
        url = f"https://{HOST}:{server.port}/"
        # The name is never resolved on this side, and the rules about addresses are the proxy's.
        gate = live_gate(Egress())
        assert send(url, gate, ca_bundle=certified.ca, proxy=f"http://127.0.0.1:{between.port}").status == 200
    assert between.received[0].startswith(f"CONNECT {HOST}:{server.port} HTTP/".encode())
    assert len(server.received) == 1
    said = b"".join(between.received)
    assert b"canary" not in said
    assert b"secret" not in said


@pytest.fixture(scope="module")
def behind_tls(tmp_path_factory: pytest.TempPathFactory, certified: Authority) -> Authority:
    """The proxy's own certificate; its bundle trusts the receiver's too."""
    own = authority(tmp_path_factory.mktemp("proxy"), "proxy.example.test")
    own.ca.write_bytes(own.ca.read_bytes() + certified.ca.read_bytes())
    return own


def test_a_proxy_may_speak_tls_itself(
    send: Callable[..., Response], certified: Authority, behind_tls: Authority
) -> None:
    with (
        running(answer(OK), tls=certified.server) as server,
        running(proxy, tls=behind_tls.server) as between,
    ):
        through = {"proxy": f"https://proxy.example.test:{between.port}", "ca_bundle": behind_tls.ca}
        assert send(f"https://{HOST}:{server.port}/", live_gate(), **through).status == 200
        with pytest.raises(FatalDestinationError, match="certificate is not valid"):
            send(f"https://{HOST}:{server.port}/", live_gate(), **(through | {"ca_bundle": certified.ca}))
    assert len(server.received) == 1


def test_a_proxy_that_drips_ends_at_the_deadline(
    send: Callable[..., Response], certified: Authority, behind_tls: Authority
) -> None:
    def drip(connection: socket.socket, server: Server) -> None:
        read_request(connection, server)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        time.sleep(0.05)
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of TLS follows, slowly
        while True:
            connection.sendall(b"\x00")
            time.sleep(0.02)

    with running(drip, tls=behind_tls.server) as between:
        started = time.monotonic()
        with pytest.raises(NotSent, match="cannot_connect"):
            send(
                f"https://{HOST}/",
                live_gate(),
                seconds=0.3,
                proxy=f"https://proxy.example.test:{between.port}",
                ca_bundle=behind_tls.ca,
            )
    assert 0.25 < time.monotonic() - started < 0.6


def test_the_list_of_hosts_holds_behind_a_proxy_too(send: Callable[..., Response]) -> None:
    with running(proxy) as between:
        with pytest.raises(FatalDestinationError, match=f"the host {HOST} is not allowed"):
            send(
                f"https://{HOST}/",
                live_gate(Egress(hosts=("example.com",))),
                proxy=f"http://127.0.0.1:{between.port}",
            )
        assert between.received == []


def test_a_proxy_that_refuses_is_a_clear_error(send: Callable[..., Response]) -> None:
    refuses = answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"")
    with (
        running(refuses) as between,
        pytest.raises(
            FatalDestinationError, match=rf"proxy does not let us through to {HOST}\. Check egress"
        ),
    ):
        send(f"https://{HOST}/", live_gate(), proxy=f"http://127.0.0.1:{between.port}")


def test_no_proxy_and_no_password_comes_from_the_environment(
    send: Callable[..., Response], certified: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text(f"machine {HOST} login somebody password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none"))
    with running(answer(OK), tls=certified.server) as server, running(proxy) as between:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{between.port}")
        assert send(f"https://{HOST}:{server.port}/", live_gate(), ca_bundle=certified.ca).status == 200
    assert between.received == []
    assert b"authorization" not in server.received[0].lower()


# -- what is sent ------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_and_no_cookie_comes_back() -> None:
    taken: list[socket.socket] = []
    sets = b"HTTP/1.1 200 OK\r\nSet-Cookie: id=1; Path=/\r\nContent-Length: 2\r\n\r\n{}"

    def serve(connection: socket.socket, server: Server) -> None:
        taken.append(connection)
        answer(sets)(connection, server)

    transport = RequestsTransport(sandbox_gate())
    with running(serve) as server:
        for _ in range(3):
            transport.send(Request(method="POST", url=server.url, body=b"{}"), seconds=5)
    assert (len(taken), len(server.received)) == (1, 3)
    assert b"cookie" not in b"".join(server.received).lower()
    transport.close()


def test_bodies_are_compressed_only_when_asked_and_when_it_pays() -> None:
    body = BODY * 1000
    with running(answer(OK)) as server:
        for compress, content in ((True, body), (True, BODY), (False, body)):
            transport = RequestsTransport(sandbox_gate(), compress=compress)
            transport.send(Request(method="POST", url=server.url, body=content), seconds=5)
            transport.close()
    (head, _, packed), (small_head, _, small), (plain_head, _, plain) = (
        request.partition(b"\r\n\r\n") for request in server.received
    )
    assert b"Content-Encoding: gzip" in head
    assert len(packed) < len(body) / 10
    assert gzip.decompress(packed) == body
    assert (small, plain) == (BODY, body)
    assert b"Content-Encoding" not in small_head + plain_head


@pytest.mark.parametrize("headers", [{"x-y": "a\r\nX-Z: b"}, {"x\r\ny": "a"}])
def test_a_header_cannot_smuggle_another(headers: dict[str, str]) -> None:
    transport = RequestsTransport(sandbox_gate())
    with running(answer(OK)) as server:
        with pytest.raises(NotSent, match="invalid_request"):
            transport.send(Request(method="POST", url=server.url, headers=headers, body=b""), seconds=5)
        assert server.received == []
    transport.close()


@pytest.mark.parametrize("key", ["secret…", "“secret”", "secret\udcff"])
def test_a_header_that_cannot_be_written_sends_nothing_and_spoils_no_other_request(key: str) -> None:
    transport = RequestsTransport(sandbox_gate())
    with running(answer(OK)) as server:
        for headers in ({"x-api-key": "good"}, {"x-api-key": key}, {"x-api-key": "good"}):
            request = Request(method="POST", url=server.url, headers=headers, body=BODY)
            if headers["x-api-key"] == "good":
                assert transport.send(request, seconds=5).status == 200
                continue
            with pytest.raises(NotSent, match="invalid_request") as caught:
                transport.send(request, seconds=5)
            assert "secret" not in str(caught.value)
    assert [said.partition(b"\r\n\r\n")[2] for said in server.received] == [BODY, BODY]
    transport.close()


def test_a_password_of_the_proxy_that_cannot_be_written_sends_nothing(send: Callable[..., Response]) -> None:
    with running(proxy) as between:
        with pytest.raises(NotSent, match="invalid_request"):
            send(f"https://{HOST}/", live_gate(), proxy=f"http://us:secret…@127.0.0.1:{between.port}")
        assert between.received == []


@pytest.mark.parametrize("host", ["hooks..example.com", f"{'h' * 64}.example.com"])
def test_a_host_that_no_name_server_knows_how_to_ask_for_is_not_asked_for(
    send: Callable[..., Response], host: str
) -> None:
    with pytest.raises(NotSent, match="invalid_request"):
        send(f"https://{host}/", Gate(egress=Egress()))
