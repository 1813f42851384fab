"""The hub as a real process, and everybody who must not get in, over real TLS on loopback."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fedsparse_client.gateway.link import Link

from fedsparse.errors import HandshakeError, HubUnreachableError, LinkError
from fedsparse.security import Authority, Credentials, Role, channel_credentials, probe, server_credentials
from fedsparse.v1 import link_pb2, link_pb2_grpc
from tests.unit.federation_samples import (
    HOUR,
    Fixed,
    HubProcess,
    Pki,
    dated,
    grpc_call,
    hub_process,
    nobody_revoked,
    tls_socket,
)

ASK = link_pb2.DescribeRequest(protocol=3)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub") / "hub", pki) as process:
        yield process


def call(port: int, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """Ask the hub what it trains; return how the call ended."""
    address = f"127.0.0.1:{port}"
    dial = grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials)
    with dial as channel:
        try:
            link_pb2_grpc.LinkStub(channel).Describe(ASK, timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_a_plant_of_the_federation_gets_in(hub: HubProcess, pki: Pki) -> None:
    kiso = pki.credentials(Role.PLANT, "kiso")
    probe("127.0.0.1", hub.port, kiso)
    with Link(f"127.0.0.1:{hub.port}", Fixed(kiso), 1 << 20, nobody_revoked()) as link:
        assert link.describe().name == "test"


def foreign(pki: Pki, other: Pki) -> Credentials:
    return replace(other.credentials(Role.PLANT, "kiso"), authority=pki.ca.read_bytes())


def self_signed(pki: Pki, _: Pki) -> Credentials:
    kiso = pki.credentials(Role.PLANT, "kiso")
    key = load_pem_private_key(kiso.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = x509.load_pem_x509_certificate(kiso.certificate)
    itself = Authority(pki.folder, leaf, key, leaf)
    return replace(kiso, certificate=dated(itself, kiso.certificate, -HOUR, HOUR))


def expired(pki: Pki, _: Pki) -> Credentials:
    return pki.dated(pki.credentials(Role.PLANT, "kiso"), -2 * HOUR, -HOUR)


def not_yet_valid(pki: Pki, _: Pki) -> Credentials:
    return pki.dated(pki.credentials(Role.PLANT, "kiso"), HOUR, 2 * HOUR)


def a_hubs(pki: Pki, _: Pki) -> Credentials:
    return pki.credentials(Role.HUB, "hub", "127.0.0.1")


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (foreign, "unable to get local issuer certificate"),
        (self_signed, "unable to get local issuer certificate"),
        (expired, "certificate has expired"),
        (not_yet_valid, "certificate is not yet valid"),
        (a_hubs, "unsupported certificate purpose"),
    ],
)
def test_a_client_certificate_that_is_not_right_is_refused_and_both_ends_say_so(
    hub: HubProcess, pki: Pki, other: Pki, make: Callable[[Pki, Pki], Credentials], check: str
) -> None:
    credentials = make(pki, other)
    before = len(hub.log.read_text())
    with pytest.raises(LinkError) as caught:
        probe("127.0.0.1", hub.port, credentials)
    assert isinstance(caught.value, HandshakeError)
    assert f"our certificate {credentials.identity.uri}" in caught.value.what
    hub.tells(f"refused ipv4:127.0.0.1:\\d+: client certificate not accepted: {check}", before)
    assert call(hub.port, channel_credentials(credentials)) is grpc.StatusCode.UNAVAILABLE


def test_a_client_without_a_certificate_is_refused_and_the_hub_says_so(hub: HubProcess, pki: Pki) -> None:
    before = len(hub.log.read_text())
    assert call(hub.port, grpc.ssl_channel_credentials(pki.ca.read_bytes())) is grpc.StatusCode.UNAVAILABLE
    hub.tells(r"refused ipv4:127.0.0.1:\d+: no client certificate", before)


def test_plaintext_grpc_is_refused_and_the_hub_says_so(hub: HubProcess) -> None:
    before = len(hub.log.read_text())
    assert call(hub.port, None) is grpc.StatusCode.UNAVAILABLE
    hub.tells(r"refused ipv4:127.0.0.1:\d+: not TLS", before)


def test_plain_http_is_refused_and_the_hub_says_so(hub: HubProcess) -> None:
    before = len(hub.log.read_text())
    with socket.create_connection(("127.0.0.1", hub.port), 10) as plain:
        plain.sendall(b"POST /fedsparse.v1.Link/Describe HTTP/1.1\r\nHost: hub\r\n\r\n")
        assert plain.recv(100) == b""
    hub.tells(r"refused ipv4:127.0.0.1:\d+: plain HTTP, not TLS", before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_1_is_refused_at_the_handshake_and_the_hub_says_so(
    hub: HubProcess, pki: Pki, tmp_path: Path
) -> None:
    before = len(hub.log.read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", hub.port), 10) as plain, pytest.raises(OSError):
        context.wrap_socket(plain).recv(1)
    hub.tells(r"refused ipv4:127.0.0.1:\d+: TLS version too old", before)


def test_tls_1_2_is_refused_at_the_handshake_and_the_hub_says_so(
    hub: HubProcess, pki: Pki, tmp_path: Path
) -> None:
    before = len(hub.log.read_text())
    with pytest.raises(OSError):
        tls_socket(hub.port, pki.credentials(Role.PLANT, "kiso"), tmp_path, ssl.TLSVersion.TLSv1_2)
    hub.tells(r"refused ipv4:127.0.0.1:\d+: TLS version too old", before)


def test_a_client_that_offers_no_http_2_is_refused_and_the_hub_says_so(
    hub: HubProcess, pki: Pki, tmp_path: Path
) -> None:
    before = len(hub.log.read_text())
    kiso = pki.credentials(Role.PLANT, "kiso")
    with tls_socket(hub.port, kiso, tmp_path, protocols=()) as channel:
        port = channel.getsockname()[1]
        assert channel.recv(1) == b""
    hub.tells(f"refused ipv4:127.0.0.1:{port}: the client does not offer HTTP/2", before)


def test_what_is_not_http_2_after_a_good_handshake_is_refused_and_the_hub_says_so(
    hub: HubProcess, pki: Pki, tmp_path: Path
) -> None:
    before = len(hub.log.read_text())
    kiso = pki.credentials(Role.PLANT, "kiso")
    with tls_socket(hub.port, kiso, tmp_path) as channel:
        good = channel.getsockname()[1]
        grpc_call(channel, "/fedsparse.v1.Link/Describe", ASK.SerializeToString())
    with tls_socket(hub.port, kiso, tmp_path) as channel:
        port = channel.getsockname()[1]
        channel.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while channel.recv(1000):
            pass
    hub.tells(f"ipv4:127.0.0.1:{port} made no call within 5 s of its TLS handshake", before)
    assert str(good) not in hub.log.read_text()[before:]


def test_the_same_call_by_hand_over_tls_1_3_is_answered(hub: HubProcess, pki: Pki, tmp_path: Path) -> None:
    """Otherwise the test above would pass for any malformed call."""
    kiso = pki.credentials(Role.PLANT, "kiso")
    with tls_socket(hub.port, kiso, tmp_path) as channel:
        reply = grpc_call(channel, "/fedsparse.v1.Link/Describe", ASK.SerializeToString())
    assert b"conv.weight" in reply


def test_a_plant_that_is_not_on_the_list_is_refused_by_name_on_both_ends(hub: HubProcess, pki: Pki) -> None:
    before = len(hub.log.read_text())
    said = "urn:fedsparse:plant:stranger is not on this hub's list of plants"
    stranger = Fixed(pki.credentials(Role.PLANT, "stranger"))
    with (
        Link(f"127.0.0.1:{hub.port}", stranger, 1 << 20, nobody_revoked()) as link,
        pytest.raises(LinkError, match=f"permission denied: {said}"),
    ):
        link.describe()
    hub.tells(said, before)


def test_a_plant_that_trusts_another_ca_refuses_the_hub_and_both_ends_say_so(
    hub: HubProcess, pki: Pki, other: Pki
) -> None:
    before = len(hub.log.read_text())
    credentials = replace(pki.credentials(Role.PLANT, "kiso"), authority=other.ca.read_bytes())
    with pytest.raises(LinkError, match=r"its certificate is not accepted here: unable to get .*ca\.pem"):
        probe("127.0.0.1", hub.port, credentials)
    hub.tells(r"refused ipv4:127.0.0.1:\d+: the client does not accept this hub's certificate", before)
    assert call(hub.port, channel_credentials(credentials)) is grpc.StatusCode.UNAVAILABLE


@contextmanager
def served(credentials: Credentials) -> Iterator[int]:
    """Serve the link with ``credentials``, whatever they are; anybody who gets through is answered."""

    class Anything(link_pb2_grpc.LinkServicer):
        def Describe(  # noqa: N802
            self, request: link_pb2.DescribeRequest, context: grpc.ServicerContext
        ) -> link_pb2.Federation:
            return link_pb2.Federation(protocol=3)

    server = grpc.server(ThreadPoolExecutor(2))
    link_pb2_grpc.add_LinkServicer_to_server(Anything(), server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(Fixed(credentials)))
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


def impostor(pki: Pki) -> Credentials:
    return pki.credentials(Role.PLANT, "ise", "127.0.0.1")


def elsewhere(pki: Pki) -> Credentials:
    return pki.credentials(Role.HUB, "hub", "hub.example", "10.0.0.1")


def nameless(pki: Pki) -> Credentials:
    return pki.credentials(Role.HUB, "hub")


def lapsed(pki: Pki) -> Credentials:
    return pki.dated(pki.credentials(Role.HUB, "hub", "127.0.0.1"), -2 * HOUR, -HOUR)


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (impostor, "unsuitable certificate purpose"),
        (elsewhere, "certificate is not valid for '127.0.0.1'"),
        (nameless, "certificate is not valid for '127.0.0.1'"),
        (lapsed, "certificate has expired"),
    ],
)
def test_a_plant_refuses_what_is_not_the_hub_it_dials_and_says_why(
    pki: Pki, make: Callable[[Pki], Credentials], check: str
) -> None:
    kiso = pki.credentials(Role.PLANT, "kiso")
    with served(make(pki)) as port:
        with pytest.raises(LinkError) as caught:
            probe("127.0.0.1", port, kiso)
        assert re.search(f"its certificate is not accepted here: .*{check}", caught.value.what)
        assert call(port, channel_credentials(kiso)) is grpc.StatusCode.UNAVAILABLE


def test_the_impostors_server_would_have_answered_a_hubs_certificate(pki: Pki) -> None:
    """Otherwise the tests above would pass for a server that never answers."""
    kiso = pki.credentials(Role.PLANT, "kiso")
    with served(pki.credentials(Role.HUB, "hub", "127.0.0.1")) as port:
        probe("127.0.0.1", port, kiso)
        assert call(port, channel_credentials(kiso)) is grpc.StatusCode.OK


def test_where_nothing_listens_the_hub_is_out_of_reach_and_not_refusing(pki: Pki) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(HubUnreachableError, match=r"does not answer: .*refused"):
            probe("127.0.0.1", taken.getsockname()[1], pki.credentials(Role.PLANT, "kiso"))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "255.255.255.255"])
def test_a_host_without_address_or_route_is_out_of_reach_and_not_refusing(pki: Pki, host: str) -> None:
    """A plant that boots before its network does must go on dialling."""
    with pytest.raises(HubUnreachableError, match=f"the hub at {host}:443 does not answer"):
        probe(host, 443, pki.credentials(Role.PLANT, "kiso"))


def test_a_server_that_speaks_no_tls_is_not_said_to_refuse_our_certificate(pki: Pki) -> None:
    def greet(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"220 mail.example ESMTP\r\n")
            connection.recv(10_000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        with pytest.raises(LinkError, match=r"does not speak TLS 1\.3: wrong version number"):
            probe("127.0.0.1", listener.getsockname()[1], pki.credentials(Role.PLANT, "kiso"))
        thread.join()


def test_the_private_key_does_not_stay_in_a_temporary_file(
    hub: HubProcess, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    probe("127.0.0.1", hub.port, pki.credentials(Role.PLANT, "kiso"))
    assert list(tmp_path.iterdir()) == []


# Through a proxy


class Tunnel(socketserver.StreamRequestHandler):
    """An HTTP proxy that knows CONNECT alone."""

    asked: ClassVar[list[str]] = []

    def handle(self) -> None:
        line = self.rfile.readline().decode()
        while self.rfile.readline().strip():
            pass
        method, target, _ = line.split()
        self.asked.append(f"{method} {target}")
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port))) as hub:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(hub, self.connection))
            back.start()
            _copy(self.connection, hub)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def test_a_plant_reaches_the_hub_through_a_proxy_that_it_names_and_through_no_other(
    hub: HubProcess, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tunnel, "asked", [])
    kiso, address = Fixed(pki.credentials(Role.PLANT, "kiso")), f"127.0.0.1:{hub.port}"
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        named = f"127.0.0.1:{proxy.server_address[1]}"
        with Link(address, kiso, 1 << 20, nobody_revoked(), named) as link:
            link.check()
            assert link.describe().name == "test"
        assert Tunnel.asked == [f"CONNECT {address}"] * 2
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://{named}")
        with Link(address, kiso, 1 << 20, nobody_revoked()) as link:
            link.check()
            assert link.describe().name == "test"
        assert len(Tunnel.asked) == 2  # what the environment says is not heeded
        proxy.shutdown()


def test_a_proxy_that_refuses_leaves_the_hub_out_of_reach(pki: Pki) -> None:
    class Refuses(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuses) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        named = f"127.0.0.1:{proxy.server_address[1]}"
        kiso = Fixed(pki.credentials(Role.PLANT, "kiso"))
        with (
            Link("127.0.0.1:9", kiso, 1 << 20, nobody_revoked(), named) as link,
            pytest.raises(HubUnreachableError, match="403 Forbidden"),
        ):
            link.check()
        proxy.shutdown()
