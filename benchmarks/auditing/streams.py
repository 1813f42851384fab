"""What the bytes of captured frames are for: headers, TLS, and what TLS carries; nothing is decrypted."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_IPV4, _IPV6, _ARP, _TCP, _ICMPV6 = 0x0800, 0x86DD, 0x0806, 6, 58
_ETHERNET_BYTES = 14
_RECORD_HEAD, _RECORD_EXTRA = 5, 17  # of a TLS 1.3 record: its header; content type and tag (RFC 8446, 5.2)
_APPLICATION_DATA = 23
_FIN_OR_SYN = 3


@dataclass
class _Stream:
    """One direction of one TCP connection."""

    segments: dict[int, bytes] = field(default_factory=dict)
    start: int | None = None


@dataclass(frozen=True)
class Explained:
    """Captured bytes by what they are for.

    Attributes:
        classes: bytes by class; together they are all that was captured.
        plaintext: bytes that TLS carried for the application.
        peers: "address port" of everybody that was sent a TCP segment, with how many.
        connections: TCP connections that were opened.
        others: protocols other than TCP and the neighbours' greetings, with how many frames.
    """

    classes: Counter[str]
    plaintext: int
    peers: Counter[str]
    connections: int
    others: Counter[str]


def explain(frames: Iterable[bytes]) -> Explained:
    """Account for every byte of the frames that one machine has sent."""
    classes: Counter[str] = Counter()
    peers: Counter[str] = Counter()
    others: Counter[str] = Counter()
    streams: dict[tuple[str, int], _Stream] = {}
    for frame in frames:
        kind = int.from_bytes(frame[12:14], "big")
        if kind == _ARP or (kind == _IPV6 and frame[20] == _ICMPV6):
            classes["neighbour discovery"] += len(frame)
            continue
        if kind not in (_IPV4, _IPV6) or _protocol(kind, frame) != _TCP:
            others[f"ethertype {kind:#06x}"] += 1
            classes["anything else"] += len(frame)
            continue
        peer, port, number, flags, payload = _segment(kind, frame)
        peers[peer] += 1
        classes["Ethernet, IP and TCP headers"] += len(frame) - len(payload)
        stream = streams.setdefault((peer, port), _Stream())
        if flags & _FIN_OR_SYN == 2:
            stream.start = (number + 1) % (1 << 32)
        if payload:
            if number in stream.segments and len(stream.segments[number]) >= len(payload):
                classes["TCP: sent again"] += len(payload)
            else:
                stream.segments[number] = payload
    plaintext = 0
    for stream in streams.values():
        for what, size, inside in _records(stream):
            classes[what] += size
            plaintext += inside
    return Explained(classes, plaintext, peers, sum(one.start is not None for one in streams.values()), others)


def _protocol(kind: int, frame: bytes) -> int:
    return frame[_ETHERNET_BYTES + 9] if kind == _IPV4 else frame[_ETHERNET_BYTES + 6]


def _segment(kind: int, frame: bytes) -> tuple[str, int, int, int, bytes]:
    """Return a TCP segment's addressee, own port, sequence number, flags and payload."""
    packet = frame[_ETHERNET_BYTES:]
    if kind == _IPV4:
        address, head = packet[16:20], 4 * (packet[0] & 15)
        packet = packet[: int.from_bytes(packet[2:4], "big") or len(packet)]
    else:
        address, head = packet[24:40], 40
    segment = packet[head:]
    port, peer_port = (int.from_bytes(segment[at : at + 2], "big") for at in (0, 2))
    number = int.from_bytes(segment[4:8], "big")
    payload = segment[4 * (segment[12] >> 4) :]
    return f"{ipaddress.ip_address(address)} {peer_port}", port, number, segment[13], payload


def _records(stream: _Stream) -> Iterator[tuple[str, int, int]]:
    """Yield class, bytes, and plaintext bytes of a connection's TLS records.

    The client's certificate and signature come encrypted, in the first record of application data (RFC 8446, 2).
    """
    data = _joined(stream)
    at, handshaken = 0, False
    while at + _RECORD_HEAD <= len(data):
        size = _RECORD_HEAD + int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _APPLICATION_DATA or not handshaken:
            handshaken = handshaken or data[at] == _APPLICATION_DATA
            yield "TLS: handshake", size, 0
        else:
            overhead = _RECORD_HEAD + _RECORD_EXTRA
            yield "TLS: records", overhead, 0
            yield "inside TLS", size - overhead, size - overhead
        at += size
    if at != len(data):
        yield "anything else", len(data) - at, 0


def _joined(stream: _Stream) -> bytes:
    if not stream.segments:
        return b""
    start = min(stream.segments) if stream.start is None else stream.start
    ordered = sorted(((number - start) % (1 << 32), part) for number, part in stream.segments.items())
    data = bytearray()
    for offset, part in ordered:
        if offset + len(part) > len(data):
            data[offset:] = part
    return bytes(data)
