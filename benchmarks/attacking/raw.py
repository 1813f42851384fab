"""TLS and HTTP/2 by hand (RFC 8446, RFC 9113), for what no honest library would send."""

from __future__ import annotations

import re
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc

from fedsparse.security import Credentials, channel_credentials
from fedsparse.v1 import link_pb2, link_pb2_grpc

SERVICE = "/fedsparse.v1.Link/"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
SECONDS = 8.0
ASK = link_pb2.DescribeRequest(protocol=3)
dialled: list[int] = []
"""Ports that :func:`tcp` dialled from since the list was last cleared; the hub's log names them."""


def tcp(port: int) -> socket.socket:
    """Return a connection that gives up by itself."""
    connection = socket.create_connection(("127.0.0.1", port), SECONDS)
    dialled.append(connection.getsockname()[1])
    return connection


def tls(
    port: int,
    credentials: Credentials | None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    protocols: Sequence[str] = ("h2",),
) -> ssl.SSLSocket:
    """Return a connection after the handshake, as far as this side can tell; the hub is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if credentials is not None:
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder) / "pair.pem"
            pair.touch(mode=0o600)
            pair.write_bytes(credentials.key + credentials.certificate)
            context.load_cert_chain(pair)
    plain = tcp(port)
    try:
        return context.wrap_socket(plain, server_hostname="127.0.0.1")
    except BaseException:
        plain.close()
        raise


def failure(error: OSError) -> str:
    """Return what a refused handshake looks like from outside."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return f"TCP: {type(error).__name__}"


def knock(port: int, credentials: Credentials | None) -> str:
    """Do the handshake, and where that succeeds one call; return what became of it."""
    try:
        with tls(port, credentials) as channel:
            if not channel.recv(1):
                return "TLS: closed without a word"
    except OSError as error:
        return failure(error)
    assert credentials is not None
    return describe(port, credentials)


def channel(port: int, credentials: Credentials | None, **options: object) -> grpc.Channel:
    """Return gRPC's own connection, one of its own."""
    told = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    address = f"127.0.0.1:{port}"
    if credentials is None:
        return grpc.insecure_channel(address, told)
    return grpc.secure_channel(address, channel_credentials(credentials), told, **options)  # type: ignore[arg-type]


def status(error: grpc.RpcError) -> str:
    """Return how a call ended, on one line."""
    return f"{error.code().name}: {error.details()}".replace("\n", " ")


def describe(port: int, credentials: Credentials | None) -> str:
    """Return how one Describe ends."""
    with channel(port, credentials) as dialled:
        try:
            link_pb2_grpc.LinkStub(dialled).Describe(ASK, timeout=SECONDS)
        except grpc.RpcError as error:
            return status(error)
    return "OK"


def push(stub: link_pb2_grpc.LinkStub, update: link_pb2.Update) -> str:
    """Return how one Push ends."""
    try:
        receipt = stub.Push(update, timeout=SECONDS)
    except grpc.RpcError as error:
        return status(error)
    return f"OK: receipt {receipt.body.sequence}"


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Return one HTTP/2 frame."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def literal(name: str, value: bytes) -> bytes:
    """Return one header field, not indexed (RFC 7541, 6.2.2); both parts may be long."""
    return b"\x00" + _text(name.encode()) + _text(value)


def _text(data: bytes) -> bytes:
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, size = len(data) - 127, bytearray([127])
    while rest > 127:
        size.append(rest & 127 | 128)
        rest >>= 7
    size.append(rest)
    return bytes(size) + data


def request_headers(method: str, more: bytes = b"") -> bytes:
    """Return the header block of a gRPC call."""
    block = b"\x83\x87\x04" + _text(method.encode()) + b"\x01" + _text(b"localhost")
    return block + literal("content-type", b"application/grpc") + literal("te", b"trailers") + more


def message(data: bytes, *, compressed: bool = False) -> bytes:
    """Return a gRPC message with its prefix."""
    return bytes([compressed]) + len(data).to_bytes(4, "big") + data


def opened(stream: int, method: str, data: bytes | None, more: bytes = b"", *, compressed: bool = False) -> bytes:
    """Return the frames of one call; without data it stays half open."""
    head = frame(HEADERS, END_HEADERS, stream, request_headers(method, more))
    if data is None:
        return head
    body = message(data, compressed=compressed)
    parts = [body[i : i + 16384] for i in range(0, len(body), 16384)]
    last = len(parts) - 1
    return head + b"".join(frame(DATA, END_STREAM * (i == last), stream, part) for i, part in enumerate(parts))


def greeted(port: int, credentials: Credentials) -> ssl.SSLSocket:
    """Return a connection on which both sides have begun HTTP/2."""
    connection = tls(port, credentials)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return connection


def heard(connection: socket.socket, seconds: float = SECONDS, until: bytes = b"") -> str:
    """Return what comes back, in words: errors of the connection and of streams, and ends of calls.

    Args:
        until: bytes after which nothing more is waited for.
    """
    data, ended = _received(connection, seconds, until)
    words = list(dict.fromkeys(_words(data)))
    return "; ".join([*words, ended] if ended else words) or "nothing"


def _received(connection: socket.socket, seconds: float, until: bytes) -> tuple[bytes, str]:
    data, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            more = connection.recv(65536)
        except TimeoutError:
            break
        except OSError as error:
            return data, failure(error)
        if not more:
            return data, "closed"
        data += more
        if until and until in data:
            break
    return data, ""


def _words(data: bytes) -> Iterator[str]:
    for kind, _, _, body in _frames(data):
        if kind == GOAWAY:
            yield f"GOAWAY {int.from_bytes(body[4:8], 'big')} {body[8:].decode(errors='replace')}".strip()
        elif kind == RST:
            yield f"RST_STREAM {int.from_bytes(body, 'big')}"
        elif kind == HEADERS and (found := re.search(rb"grpc-status.(\d+)", body, re.DOTALL)):
            said = re.search(rb"grpc-message.([ -~]+)", body, re.DOTALL)
            yield f"grpc-status {int(found[1])}" + (f": {said[1].decode()}" if said else "")


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    while len(data) >= 9:
        size = int.from_bytes(data[:3], "big")
        yield data[3], data[4], int.from_bytes(data[5:9], "big") & 0x7FFFFFFF, data[9 : 9 + size]
        data = data[9 + size :]


def sent(connection: socket.socket, data: bytes, times: int = 1) -> str:
    """Send; return why it could not all be sent, or nothing."""
    try:
        for _ in range(times):
            connection.sendall(data)
    except OSError as error:
        return failure(error)
    return ""
