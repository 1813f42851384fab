"""Attacks on the hub's transport: connections, streams and frames that no honest library sends."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.attacking import raw
from benchmarks.attacking.attack import DIALLED, QUIET, Attack
from benchmarks.attacking.federation import Federation
from benchmarks.attacking.messages import SPACE
from fedsparse.v1 import link_pb2

_GROUP = "TCP, TLS and HTTP/2"
_DESCRIBE = raw.SERVICE + "Describe"
_ATTEND = raw.SERVICE + "Attend"
_STREAMS, _CONNECTIONS = 1000, 200
_HANDSHAKE_SECONDS = 25.0  # the hub gives a handshake twenty
_MANY_SETTINGS = raw.frame(raw.SETTINGS, 0, 0, struct.pack(">HI", 3, 100))
_IGNORED = "nothing is refused: gRPC takes it without effect"
_NOTHING_REFUSED = "nothing is refused: the connection is as good as any other"


def _silent(federation: Federation) -> str:
    """Open a TCP connection, say nothing, and wait until the hub hangs up."""
    with raw.tcp(federation.port) as connection:
        return raw.heard(connection, _HANDSHAKE_SECONDS)


def _half_open(federation: Federation) -> str:
    """Open a hundred TCP connections that say nothing, and have an honest plant ask meanwhile."""
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(raw.tcp(federation.port))
        return _meanwhile(federation)


def _half_hello(federation: Federation) -> str:
    """Begin a hundred handshakes with half a ClientHello."""
    with ExitStack() as stack:
        for _ in range(100):
            connection = stack.enter_context(raw.tcp(federation.port))
            connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(40))
        return _meanwhile(federation)


def _meanwhile(federation: Federation) -> str:
    answer = federation.honest[1].ask("describe")
    return f"meanwhile an honest plant is {'served' if not answer['trouble'] else answer['trouble']}"


def _byte_by_byte(federation: Federation) -> str:
    """Send the begin of HTTP/2 a byte at a time on twenty connections."""
    with ExitStack() as stack:
        credentials = federation.credentials("mallory")
        dialled = [stack.enter_context(raw.tls(federation.port, credentials)) for _ in range(20)]
        for place in range(20):
            for connection in dialled:
                connection.sendall(raw.PREFACE[place : place + 1])
            time.sleep(0.05)
        return _meanwhile(federation)


def _with_frames(data: bytes, times: int = 1, seconds: float = 3.0) -> Callable[[Federation], str]:
    def run(federation: Federation) -> str:
        with raw.greeted(federation.port, federation.credentials("mallory")) as connection:
            broken = raw.sent(connection, data, times)
            return f"{raw.heard(connection, seconds)} {broken}".strip()

    return run


def _without_effect(data: bytes, times: int = 1) -> Callable[[Federation], str]:
    def run(federation: Federation) -> str:
        with raw.greeted(federation.port, federation.credentials("mallory")) as connection:
            raw.sent(connection, data, times)
            return _meanwhile(federation)

    return run


def _preface(data: bytes) -> Callable[[Federation], str]:
    def run(federation: Federation) -> str:
        with raw.tls(federation.port, federation.credentials("mallory")) as connection:
            connection.sendall(data)
            return raw.heard(connection, 5.0)

    return run


def _header_bomb(federation: Federation) -> str:
    """Put 4,000 bytes into the dynamic table once, and refer to them 4,000 times in one block (RFC 7541)."""
    entry = b"\x40" + raw._text(b"x-bomb") + raw._text(b"a" * 4000)
    block = raw.request_headers(_DESCRIBE) + entry + b"\xbe" * 4000
    with raw.greeted(federation.port, federation.credentials("mallory")) as connection:
        raw.sent(connection, raw.frame(raw.HEADERS, raw.END_HEADERS | raw.END_STREAM, 1, block))
        return raw.heard(connection, 5.0, until=b"grpc-status")


def _large_header(federation: Federation) -> str:
    block = raw.request_headers(_DESCRIBE, raw.literal("x-large", b"a" * 1_000_000))
    ask = raw.frame(raw.DATA, raw.END_STREAM, 1, raw.message(raw.ASK.SerializeToString()))
    first, rest = block[:16000], block[16000:]
    frames = raw.frame(raw.HEADERS, 0, 1, first)
    while rest:
        part, rest = rest[:16000], rest[16000:]
        frames += raw.frame(raw.CONTINUATION, raw.END_HEADERS * (not rest), 1, part)
    with raw.greeted(federation.port, federation.credentials("mallory")) as connection:
        raw.sent(connection, frames + ask)
        return raw.heard(connection, 5.0, until=b"grpc-status")


def _rapid_reset(federation: Federation) -> str:
    """Open and reset a thousand streams (CVE-2023-44487), then ask honestly on the same connection."""
    ask = raw.ASK.SerializeToString()
    frames = b"".join(
        raw.opened(stream, _DESCRIBE, ask) + raw.frame(raw.RST, 0, stream, struct.pack(">I", 8))
        for stream in range(1, 2 * _STREAMS, 2)
    )
    with raw.greeted(federation.port, federation.credentials("greedy")) as connection:
        broken = raw.sent(connection, frames)
        return f"{raw.heard(connection, 3.0)} {broken}".strip()


def _many_streams(federation: Federation) -> str:
    request = link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint).SerializeToString()
    frames = b"".join(raw.opened(stream, _ATTEND, request) for stream in range(1, 2 * _STREAMS, 2))
    with raw.greeted(federation.port, federation.credentials("greedy")) as connection:
        raw.sent(connection, frames)
        return raw.heard(connection, 3.0)


def _many_connections(federation: Federation) -> str:
    request = link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint).SerializeToString()
    credentials = federation.credentials("greedy")
    told: dict[str, int] = {}
    with ExitStack() as stack:
        dialled = []
        for _ in range(_CONNECTIONS):
            connection = stack.enter_context(raw.greeted(federation.port, credentials))
            connection.sendall(raw.opened(1, _ATTEND, request))
            dialled.append(connection)
        federation.wait(lambda: "greedy" in federation.present(), "the greedy plant")
        for connection in dialled:
            said = raw.heard(connection, 0.02, until=b"grpc-status")
            told[said] = told.get(said, 0) + 1
        return f"{_meanwhile(federation)}; {told}"


def _slow_reader(federation: Federation) -> str:
    """Ask for everything and allow the hub to send nothing: a window of zero (RFC 9113, 6.9)."""
    settings = raw.frame(raw.SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    with raw.tls(federation.port, federation.credentials("mallory")) as connection:
        connection.sendall(raw.PREFACE + settings)
        for stream in range(1, 16, 2):
            connection.sendall(raw.opened(stream, _DESCRIBE, raw.ASK.SerializeToString()))
        time.sleep(0.5)
        return _meanwhile(federation)


def _torn(federation: Federation) -> str:
    """Do a hundred handshakes and cut each connection with a TCP reset."""
    credentials = federation.credentials("mallory")
    for _ in range(100):
        connection = raw.tls(federation.port, credentials)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    return _meanwhile(federation)


def _overlong_record(federation: Federation) -> str:
    """Send a TLS record that claims more than TLS allows, in the middle of a connection."""
    connection = raw.tls(federation.port, federation.credentials("mallory"))
    plain = socket.socket(fileno=os.dup(connection.fileno()))
    with connection, plain:
        plain.settimeout(raw.SECONDS)
        plain.sendall(b"\x17\x03\x03\xff\xff" + bytes(1000))
        return raw.heard(plain, 3.0)


def attacks() -> list[Attack]:
    """Return them in the order in which they are run."""
    return [*_connections(), *_broken_frames(), *_frame_floods(), *_streams()]


def _served(does: str, run: Callable[[Federation], str], log: str | None = None, why: str = "") -> Attack:
    served = "an honest plant is served meanwhile"
    return Attack(_GROUP, does, served, "meanwhile an honest plant is served", log, run, why_no_log=why)


def _connections() -> list[Attack]:
    open_ = "nothing is refused before the handshake's time is up"
    return [
        Attack(_GROUP, "a TCP connection that says nothing for as long as it lasts",
               f"closed within {_HANDSHAKE_SECONDS:.0f} s", "closed|TCP: ",
               f"{DIALLED}no TLS handshake before", _silent, limit=_HANDSHAKE_SECONDS + 5),
        _served("100 TCP connections that say nothing", _half_open, why=open_),
        _served("100 TLS handshakes that stop within the ClientHello", _half_hello, why=open_),
        _served("100 good handshakes, each cut by a TCP reset", _torn, why=_NOTHING_REFUSED),
        _served("20 connections that send HTTP/2's begin a byte at a time", _byte_by_byte, why=_NOTHING_REFUSED),
        _served("a window update that overflows, and data on a stream that was never opened",
                _without_effect(raw.frame(raw.WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)) * 2
                                + raw.frame(raw.DATA, 0, 99, b"x")), why=_IGNORED),
        _served("20,000 settings", _without_effect(_MANY_SETTINGS * 100, 200), why=_IGNORED),
        _served("a window of zero bytes on eight streams: never read", _slow_reader, why=_NOTHING_REFUSED),
        Attack(_GROUP, "200 connections of one plant, a stream on each", "all but three streams end UNAVAILABLE; "
               "an honest plant is served meanwhile", "plant is served.*grpc-status 14: greedy has 3 open",
               "refused ipv4:.*greedy has 3 open streams already", _many_connections, limit=40.0),
    ]  # fmt: skip


def _closes(does: str, answer: str, run: Callable[[Federation], str], log: str = QUIET) -> Attack:
    return Attack(_GROUP, does, "the connection ends", f"{answer}|closed|TCP: ", log, run)


def _broken_frames() -> list[Attack]:
    return [
        _closes("another protocol's first words after the handshake", "GOAWAY",
                _preface(b"GET / HTTP/1.1\r\n\r\n")),
        _closes("a TLS record of 65,535 bytes within a connection", "TLS", _overlong_record,
                "Decryption error"),
        _closes("a frame that claims 16 MB", "GOAWAY", _with_frames(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")),
        _closes("a header block that refers to nothing (HPACK)", "GOAWAY|RST_STREAM",
                _with_frames(raw.frame(raw.HEADERS, raw.END_HEADERS, 1, b"\xff\xff\xff\x7f"))),
        _closes("headers within another stream's headers", "GOAWAY",
                _with_frames(raw.frame(raw.HEADERS, 0, 1, raw.request_headers(_DESCRIBE))
                             + raw.frame(raw.DATA, 0, 3, b"x")), DIALLED),
    ]  # fmt: skip


def _frame_floods() -> list[Attack]:
    return [
        _closes("20,000 pings", "GOAWAY 11", _with_frames(raw.frame(raw.PING, 0, 0, b"flooding") * 100, 200)),
        Attack(_GROUP, "4,000 references to one header of 4,000 bytes (HPACK bomb)", "RESOURCE_EXHAUSTED, or the "
               "connection ends", "grpc-status 8|GOAWAY|RST_STREAM|closed", DIALLED,
               _header_bomb),
        Attack(_GROUP, "a header of 1,000,000 bytes in continuations", "RESOURCE_EXHAUSTED, or the connection "
               "ends", "grpc-status 8|GOAWAY|RST_STREAM|closed", DIALLED, _large_header),
    ]  # fmt: skip


def _streams() -> list[Attack]:
    return [
        Attack(_GROUP, "1,000 streams opened and reset at once (rapid reset)", "streams are reset with "
               "ENHANCE_YOUR_CALM, or the connection ends", "RST_STREAM 11|GOAWAY|closed", DIALLED,
               _rapid_reset),
        Attack(_GROUP, "1,000 streams on one connection", "all but the first few are reset (REFUSED_STREAM or "
               "ENHANCE_YOUR_CALM)", "RST_STREAM (7|11)", "greedy has 3 open streams already", _many_streams),
    ]  # fmt: skip
